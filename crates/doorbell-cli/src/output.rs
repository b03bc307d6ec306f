//! What is printed, and where: results to standard output, complaints to standard error.

use std::io::{self, Write};

use anyhow::{Context, Error, Result};
use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Text for people.
    Normal,
    /// One JSON value.
    Json,
}

/// Writes all of it to standard output.
pub(crate) fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes.as_ref()).and_then(|()| stdout.flush());
    written.context("standard output")
}

/// A JSON value, and a line feed.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    print(format!("{value:#}\n"))
}

/// A line for people, or a JSON value.
pub(crate) fn print_either(format: Format, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> Result<()> {
    match format {
        Format::Normal => print(text() + "\n"),
        Format::Json => print_json(&json()),
    }
}

/// One line about an error to standard error. Nothing where nobody reads what we print: that is no mistake of anyone.
pub(crate) fn complain(error: &Error) {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    if !error.chain().any(closed) {
        // If that fails, there is nobody to tell.
        let _ = writeln!(io::stderr(), "doorbell: {}", one_line(error));
    }
}

/// An error and its causes. Many errors name their cause in their own words; then it is not named again.
fn one_line(error: &Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().replace('\n', " ");
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Bytes as people read them: offset, 16 bytes, and their characters. Of lines that repeat, the first is shown, and
/// `*`.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut last: Option<&[u8]> = None;
    let lines = bytes.chunks(16).enumerate();
    for (index, line) in lines {
        let is_end = (index + 1) * 16 >= bytes.len();
        if last == Some(line) && !is_end {
            if !text.ends_with("*\n") {
                text += "*\n";
            }
            continue;
        }
        last = Some(line);
        let hex: String = line.iter().map(|byte| format!("{byte:02x} ")).collect();
        let printable = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        let characters: String = line.iter().map(printable).collect();
        text += &format!("{:04x}: {hex:<48} \"{characters}\"\n", index * 16);
    }
    text
}

/// Bytes in hexadecimal, without anything in between.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number of bytes as people say it, in powers of 1024.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (count.max(1).ilog2() / 10) as usize;
    let value = count as f64 / (1u64 << (10 * unit)) as f64;
    match value.fract() == 0.0 {
        true => format!("{value} {}", UNITS[unit]),
        false => format!("{value:.2} {}", UNITS[unit]),
    }
}

/// A number with its thousands apart.
pub(crate) fn thousands(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_is_named_already_is_not_named_twice() {
        let inner = io::Error::other("no such thing");
        let error = Error::new(inner).context("opening: no such thing").context("disk.img");
        assert_eq!(one_line(&error), "disk.img: opening: no such thing");
    }

    #[test]
    fn sizes_and_numbers() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1 << 30), "1 GiB");
        assert_eq!(bytes(1536), "1.50 KiB");
        assert_eq!(bytes(u64::MAX), "16 EiB");
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn hex_dumps() {
        assert_eq!(hex_dump(b"ab\0"), format!("0000: {:<48} \"ab.\"\n", "61 62 00 "));
        let dump = hex_dump(&[7; 16 * 5]);
        let offsets: Vec<&str> = dump.lines().map(|line| &line[..line.len().min(4)]).collect();
        assert_eq!(offsets, ["0000", "*", "0040"]);
    }
}
