//! Status codes by name (NVMe Base 2.0, "Status Code Type" and the figures of status code values that follow it).
//!
//! The codes are in tables, one file for each status code type, from which constants, names and meanings are all made,
//! so that they cannot differ. Command-specific codes from 80h on mean different things in different I/O command
//! sets; the names are those of the NVM command set, and of the zoned one (B6h to BFh) where the NVM one has none.

mod command_specific;
mod generic;
mod media;
mod path;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Status code types: the upper part of a [`Status`].
pub mod sct {
    /// Generic Command Status.
    pub const GENERIC: u8 = 0x0;
    /// Command Specific Status.
    pub const COMMAND_SPECIFIC: u8 = 0x1;
    /// Media and Data Integrity Errors.
    pub const MEDIA: u8 = 0x2;
    /// Path Related Status.
    pub const PATH: u8 = 0x3;
    /// Vendor Specific.
    pub const VENDOR_SPECIFIC: u8 = 0x7;
}

/// Status code type and status code: `type << 8 | code`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Status(pub u16);

impl Status {
    /// The status of a type (three bits count) and a code.
    #[inline]
    #[must_use]
    pub const fn new(sct: u8, sc: u8) -> Self {
        Self((sct as u16 & 0x7) << 8 | sc as u16)
    }

    /// Status Code Type; see [`sct`].
    #[inline]
    #[must_use]
    pub const fn sct(self) -> u8 {
        self.0.to_le_bytes()[1] & 0x7
    }

    /// Status Code.
    #[inline]
    #[must_use]
    pub const fn sc(self) -> u8 {
        self.0.to_le_bytes()[0]
    }

    /// Whether this is [`Status::SUCCESS`].
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// The specification's short name, if the code is known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.name)
    }

    /// What it means, in a sentence, if the code is known.
    #[must_use]
    pub fn meaning(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.meaning)
    }

    /// The specification's name of the status code type.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self.sct() {
            sct::GENERIC => "Generic Command Status",
            sct::COMMAND_SPECIFIC => "Command Specific Status",
            sct::MEDIA => "Media and Data Integrity Error",
            sct::PATH => "Path Related Status",
            sct::VENDOR_SPECIFIC => "Vendor Specific",
            _ => "Reserved Status Code Type",
        }
    }

    /// Every status that has a name, by type and code.
    pub fn known() -> impl Iterator<Item = Self> {
        [generic::TABLE, command_specific::TABLE, media::TABLE, path::TABLE].into_iter().flatten().map(|e| e.status)
    }

    fn entry(self) -> Option<&'static Entry> {
        let table = match self.sct() {
            sct::GENERIC => generic::TABLE,
            sct::COMMAND_SPECIFIC => command_specific::TABLE,
            sct::MEDIA => media::TABLE,
            sct::PATH => path::TABLE,
            _ => return None,
        };
        let index = table.binary_search_by_key(&self, |entry| entry.status).ok()?;
        table.get(index)
    }
}

impl core::fmt::Display for Status {
    /// Prints as `LBA Out of Range (0h/80h)`.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({:X}h/{:02X}h)", self.name().unwrap_or(self.type_name()), self.sct(), self.sc())
    }
}

impl core::fmt::Debug for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// A row of a table.
struct Entry {
    status: Status,
    name: &'static str,
    meaning: &'static str,
}

/// One status code type's rows, in the order of their codes: constants, names and meanings.
macro_rules! status_table {
    ($sct:expr; $($konst:ident = $sc:literal, $name:literal, $meaning:literal;)*) => {
        impl crate::Status {
            $(
                #[doc = concat!("*", $name, "*: ", $meaning)]
                pub const $konst: Self = Self::new($sct, $sc);
            )*
        }

        pub(super) const TABLE: &[super::Entry] = &[
            $(super::Entry { status: crate::Status::$konst, name: $name, meaning: $meaning },)*
        ];
    };
}
use status_table;

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::vec::Vec;

    #[test]
    fn tables_are_sorted_and_complete_sentences() {
        let all: Vec<Status> = Status::known().collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]));
        for status in all {
            assert!(!status.name().unwrap().is_empty());
            let meaning = status.meaning().unwrap();
            assert!(meaning.ends_with('.') && meaning.starts_with(char::is_uppercase), "{meaning}");
        }
    }

    #[test]
    fn every_code_prints() {
        assert_eq!(format!("{}", Status::LBA_OUT_OF_RANGE), "LBA Out of Range (0h/80h)");
        assert_eq!(format!("{}", Status::INVALID_QUEUE_SIZE), "Invalid Queue Size (1h/02h)");
        assert_eq!(format!("{}", Status::new(7, 0xee)), "Vendor Specific (7h/EEh)");
        assert_eq!(format!("{}", Status::new(0, 0x7f)), "Generic Command Status (0h/7Fh)");
        for bits in 0..=u16::MAX {
            assert!(!format!("{:?}", Status(bits)).is_empty());
        }
    }

    #[test]
    fn values() {
        assert_eq!(Status::SUCCESS, Status(0));
        assert_eq!(Status::RESERVATION_CONFLICT, Status(0x083));
        assert_eq!(Status::INVALID_PROTECTION_INFORMATION, Status(0x181));
        assert_eq!(Status::UNRECOVERED_READ_ERROR, Status(0x281));
        assert_eq!(Status::ABORTED_BY_HOST, Status(0x371));
    }
}
