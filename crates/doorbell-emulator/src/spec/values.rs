//! The values of keys: numbers, sizes, times, and a few words.

use std::time::Duration;

use nvme_spec::identify::PiType;
use nvme_spec::registers::Version;

use super::SpecError;

/// What a size looks like.
const SIZE: &str = "a number of bytes from 1 to below 8 EiB, with K, M, G, T or P behind it for powers of 1024";

/// A number from `from` to `to`.
pub(super) fn number(key: &str, value: &str, from: u64, to: u64) -> Result<u64, SpecError> {
    let number = value.parse().ok().filter(|number| (from..=to).contains(number));
    number.ok_or_else(|| SpecError::bad(key, value, &format!("a number from {from} to {to}")))
}

/// A number of bytes, such as `64K`, `1GiB` or `512`.
pub(super) fn size(key: &str, value: &str) -> Result<u64, SpecError> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits).unwrap_or((value, ""));
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        "p" | "pb" | "pib" => Some(50),
        _ => None,
    };
    let size = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    let size = size.filter(|size| *size > 0 && i64::try_from(*size).is_ok());
    size.ok_or_else(|| SpecError::bad(key, value, SIZE))
}

/// Bytes of a block.
pub(super) fn block(key: &str, value: &str) -> Result<u32, SpecError> {
    let bytes = size(key, value).ok().filter(|bytes| bytes.is_power_of_two() && (512..=65_536).contains(bytes));
    let bytes = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    bytes.ok_or_else(|| SpecError::bad(key, value, "a power of two from 512 to 65536"))
}

pub(super) fn protection(key: &str, value: &str) -> Result<PiType, SpecError> {
    Ok(match value {
        "off" | "0" => PiType::NONE,
        "on" | "1" => PiType::TYPE1,
        "2" => PiType::TYPE2,
        "3" => PiType::TYPE3,
        _ => return Err(SpecError::bad(key, value, "on, off, 1, 2 or 3")),
    })
}

pub(super) fn switch(key: &str, value: &str) -> Result<bool, SpecError> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(SpecError::bad(key, value, "on or off")),
    }
}

/// Printable ASCII of limited length.
pub(super) fn text(key: &str, value: &str, most: usize) -> Result<String, SpecError> {
    if value.len() > most || !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err(SpecError::bad(key, value, &format!("printable ASCII, up to {most} characters")));
    }
    Ok(value.into())
}

pub(super) fn version(key: &str, value: &str) -> Result<Version, SpecError> {
    Ok(match value {
        "1.0" => Version::V1_0,
        "1.1" => Version::V1_1,
        "1.2" => Version::V1_2,
        "1.3" => Version::V1_3,
        "1.4" => Version::V1_4,
        "2.0" => Version::V2_0,
        _ => return Err(SpecError::bad(key, value, "1.0, 1.1, 1.2, 1.3, 1.4 or 2.0")),
    })
}

/// A time, such as `10us`.
pub(super) fn duration(key: &str, value: &str) -> Result<Duration, SpecError> {
    let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (number, unit) = value.split_at_checked(digits).unwrap_or((value, ""));
    let nanoseconds = match unit {
        "ns" => Some(1),
        "us" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(1_000_000_000u64),
        _ => None,
    };
    let time = number.parse::<u64>().ok().zip(nanoseconds).and_then(|(number, unit)| number.checked_mul(unit));
    let time = time.map(Duration::from_nanos).filter(|time| *time <= Duration::from_secs(3600));
    time.ok_or_else(|| SpecError::bad(key, value, "a time up to an hour in ns, us, ms or s, such as 10us"))
}
