//! Values on the command line: numbers, sizes, times.

use std::time::Duration;

/// A number, decimal or, after `0x`, hexadecimal.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "not a number from 0 to 2^64 - 1, decimal or (after 0x) hexadecimal".into())
}

/// A number of no more than 32 bits.
pub(crate) fn number32(text: &str) -> Result<u32, String> {
    let narrow = number(text).ok().and_then(|number| u32::try_from(number).ok());
    narrow.ok_or_else(|| "not a number from 0 to 0xffffffff, decimal or (after 0x) hexadecimal".into())
}

/// A number of bytes: `512`, `4k`, `1M`, `2GiB`, ..., in powers of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(format!("unknown unit {unit:?}; there are k, M, G, T and P, for powers of 1024")),
    };
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err("a number is needed, such as 4k or 1G".into()),
        Err(_) => return Err("more than 2^64 bytes".into()),
    };
    match number.checked_mul(1 << shift) {
        Some(0) => Err("0 bytes are too few".into()),
        Some(bytes) => Ok(bytes),
        None => Err("more than 2^64 bytes".into()),
    }
}

/// A time: `5s`, `500ms`, `2m`, `1h`; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "a time such as 5s, 500ms, 2m or 1h is needed, from 1 ms to 30 days";
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(WANTED.into()),
    };
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
    let allowed = millis.filter(|millis| (1..=30 * 24 * 3_600_000).contains(millis));
    allowed.map(Duration::from_millis).ok_or_else(|| WANTED.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("0x1F"), Ok(31));
        assert_eq!(number("18446744073709551615"), Ok(u64::MAX));
        assert!(number("").is_err() && number("-1").is_err() && number("0x").is_err() && number("1k").is_err());
        assert_eq!(number32("0xffffffff"), Ok(u32::MAX));
        assert!(number32("4294967296").is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("4k"), Ok(4096));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("16383P"), Ok(16383 << 50));
        assert!(size("16384P").unwrap_err().contains("2^64"));
        assert!(size("99999999999999999999").unwrap_err().contains("2^64"));
        assert!(size("0").is_err() && size("k").is_err() && size("1x").is_err() && size("1.5G").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("0s").is_err() && duration("5x").is_err() && duration("s").is_err());
        assert!(duration("999999999h").is_err());
    }
}
