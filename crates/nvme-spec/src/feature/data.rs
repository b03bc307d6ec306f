//! Features whose value is a data structure.

use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// Host Behavior Support data structure (figure of that name): what the host can handle.
    pub struct HostBehavior {
        /// Advanced Command Retry Enable: 1, the host heeds the Command Retry Delay.
        pub acre: u8,
        /// Extended Telemetry Data Area 4 Supported: 1, the host asks for it.
        pub etdas: u8,
        /// LBA Format Extension Enable: 1, the host handles extended LBA formats, and is shown them.
        pub lbafee: u8,
        /// Host Dispersed Namespace Support: 1, the host handles them (Base 2.1).
        pub hdisns: u8,
        /// Copy Descriptor Formats Enable: a bit for each of 2h to 4h that the host uses (Base 2.1).
        pub cdfe: u16,
        /// Reserved.
        pub reserved6: Opaque<506>,
    }

    /// Timestamp data structure (figure of that name).
    pub struct Timestamp {
        /// Milliseconds since 1970-01-01 UTC, little-endian: [`Timestamp::millis`].
        pub timestamp: [u8; 6],
        /// Attributes; of Get Features only.
        pub attributes: TimestampAttributes,
        /// Reserved.
        pub reserved7: u8,
    }
}
assert_layout!(HostBehavior, size = 512, acre @ 0, etdas @ 1, lbafee @ 2, hdisns @ 3, cdfe @ 4);
assert_layout!(Timestamp, size = 8, attributes @ 6);

/// How good a timestamp is.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TimestampAttributes {
    /// Synch: the controller may have stopped counting at times.
    pub synch: bool,
    /// Timestamp Origin: 0 the controller's start, 1 a Set Features.
    #[bits(3)]
    pub origin: u8,
    #[bits(4)]
    __: u8,
}

impl Timestamp {
    /// A timestamp to set: milliseconds since 1970-01-01 UTC, of which 48 bits fit.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        let [t0, t1, t2, t3, t4, t5, _, _] = millis.to_le_bytes();
        Self { timestamp: [t0, t1, t2, t3, t4, t5], attributes: TimestampAttributes::new(), reserved7: 0 }
    }

    /// Milliseconds since 1970-01-01 UTC, or since the controller's start, as the origin says.
    #[must_use]
    pub const fn millis(&self) -> u64 {
        let [t0, t1, t2, t3, t4, t5] = self.timestamp;
        u64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        assert_eq!(Timestamp::from_millis(0x0102_0304_0506).millis(), 0x0102_0304_0506);
        assert_eq!(Timestamp::from_millis(u64::MAX).millis(), (1 << 48) - 1);
    }
}
