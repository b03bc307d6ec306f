//! Dataset Management (NVM Command Set 1.0, "Dataset Management command").

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Dword 10 of Dataset Management.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw10 {
    /// Number of Ranges; 0's based.
    pub nr: u8,
    #[bits(24)]
    __: u32,
}

/// Dword 11 of Dataset Management.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DsmCdw11 {
    /// Attribute: Integral Dataset for Read.
    pub idr: bool,
    /// Attribute: Integral Dataset for Write.
    pub idw: bool,
    /// Attribute: Deallocate.
    pub ad: bool,
    #[bits(29)]
    __: u32,
}

/// Context Attributes of a range.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DsmAttributes {
    /// Access Frequency: 0 none given, 1 typical, 2 rarely, 3 read often, 4 written often, 5 both often.
    #[bits(4)]
    pub access_frequency: u8,
    /// Access Latency: 0 none given, 1 idle, 2 normal, 3 low.
    #[bits(2)]
    pub access_latency: u8,
    #[bits(2)]
    __: u8,
    /// Sequential Read Range.
    pub sequential_read: bool,
    /// Sequential Write Range.
    pub sequential_write: bool,
    /// Write Prepare: the range is going to be written soon.
    pub write_prepare: bool,
    #[bits(13)]
    __: u16,
    /// Command Access Size: the typical size of a read or write, in logical blocks.
    pub access_size: u8,
}

wire! {
    /// A range of Dataset Management (figure "Dataset Management – Range Definition"). A command carries 1 to 256.
    pub struct DsmRange {
        /// Context Attributes.
        pub cattr: DsmAttributes,
        /// Length in logical blocks; *not* 0's based.
        pub nlb: u32,
        /// Starting LBA.
        pub slba: u64,
    }
}
assert_layout!(DsmRange, size = 16, cattr @ 0, nlb @ 4, slba @ 8);

impl DsmRange {
    /// The most ranges a command can carry.
    pub const MAX_PER_COMMAND: usize = 256;

    /// A range without attributes.
    #[must_use]
    pub const fn new(slba: u64, nlb: u32) -> Self {
        Self { cattr: DsmAttributes::new(), nlb, slba }
    }
}
