//! Field types that more than one structure needs: padded text, 128-bit numbers, reserved bytes.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An ASCII string of fixed size, left-justified and padded with spaces (NVMe Base 2.0, "Numerical Descriptions" and
/// the Identify Controller data structure). Some devices pad with NUL instead; both are trimmed.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ascii<const N: usize>(pub [u8; N]);

impl<const N: usize> Ascii<N> {
    /// `text` padded with spaces, cut off where it is too long. Bytes that are not printable ASCII become `?`.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut bytes = [b' '; N];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = if from.is_ascii_graphic() || from == b' ' { from } else { b'?' };
        }
        Self(bytes)
    }

    /// The text without its padding: everything up to the first NUL or byte that is not ASCII, trimmed of spaces on
    /// both sides.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&b| b == 0 || !b.is_ascii()).unwrap_or(N);
        let text = self.0.get(..end).unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default().trim_matches(' ')
    }
}

impl<const N: usize> fmt::Debug for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl<const N: usize> fmt::Display for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

/// A 128-bit little-endian number that needs no alignment (Rust's `u128` wants 16 bytes; the structures give 8).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Le128(pub [u8; 16]);

impl Le128 {
    /// The number.
    #[must_use]
    pub const fn get(self) -> u128 {
        u128::from_le_bytes(self.0)
    }

    /// Wraps a number.
    #[must_use]
    pub const fn new(value: u128) -> Self {
        Self(value.to_le_bytes())
    }

    /// The number, or the largest `u64` if it does not fit.
    #[must_use]
    pub fn saturating_u64(self) -> u64 {
        u64::try_from(self.get()).unwrap_or(u64::MAX)
    }
}

impl From<u128> for Le128 {
    fn from(value: u128) -> Self {
        Self::new(value)
    }
}

impl From<Le128> for u128 {
    fn from(value: Le128) -> Self {
        value.get()
    }
}

impl fmt::Debug for Le128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

impl fmt::Display for Le128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.get(), f)
    }
}

/// Bytes this crate gives no meaning to: reserved by the specification, or the vendor's. Kept as they are.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Opaque<const N: usize>(pub [u8; N]);

impl<const N: usize> Opaque<N> {
    /// All bytes zero.
    pub const ZERO: Self = Self([0; N]);
}

impl<const N: usize> Default for Opaque<N> {
    fn default() -> Self {
        Self::ZERO
    }
}

impl<const N: usize> fmt::Debug for Opaque<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().filter(|&&b| b != 0).count();
        write!(f, "[{N} bytes, {used} not zero]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn text_is_padded_and_trimmed() {
        let text = Ascii::<8>::new("a b");
        assert_eq!(text.0, *b"a b     ");
        assert_eq!(text.as_str(), "a b");
        assert_eq!(Ascii::<4>::new("abcdef").as_str(), "abcd");
        assert_eq!(Ascii(*b"ab\0\0").as_str(), "ab");
        assert_eq!(Ascii(*b"a\xff\0\0").as_str(), "a");
        assert_eq!(Ascii::<4>::new("é").0, *b"??  ");
        assert_eq!(Ascii([0u8; 4]).as_str(), "");
    }

    #[test]
    fn wide_numbers() {
        let n = Le128::new(u128::from(u64::MAX) + 1);
        assert_eq!(n.0[8], 1);
        assert_eq!(n.saturating_u64(), u64::MAX);
        assert_eq!(format!("{n}"), "18446744073709551616");
    }
}
