//! The registers of the Controller Memory Buffer.

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Controller Memory Buffer Location ("Offset 38h: CMBLOC").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cmbloc {
    /// Base Indicator Register: the BAR that holds the buffer.
    #[bits(3)]
    pub bir: u8,
    /// CMB Queue Mixed Memory Support.
    pub cqmms: bool,
    /// CMB Queue Physically Discontiguous Support.
    pub cqpds: bool,
    /// CMB Data Pointer Mixed Locations Support.
    pub cdpmls: bool,
    /// CMB Data Pointer and Command Independent Locations Support.
    pub cdpcils: bool,
    /// CMB Data Metadata Mixed Memory Support.
    pub cdmmms: bool,
    /// CMB Queue Dword Alignment.
    pub cqda: bool,
    #[bits(3)]
    __: u8,
    /// Offset of the buffer, in multiples of the size unit of [`Cmbsz::szu`].
    #[bits(20)]
    pub ofst: u32,
}

/// Controller Memory Buffer Size ("Offset 3Ch: CMBSZ").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cmbsz {
    /// Submission Queue Support.
    pub sqs: bool,
    /// Completion Queue Support.
    pub cqs: bool,
    /// PRP SGL List Support.
    pub lists: bool,
    /// Read Data Support.
    pub rds: bool,
    /// Write Data Support.
    pub wds: bool,
    #[bits(3)]
    __: u8,
    /// Size Units: 2 ^ (12 + 4 × SZU) bytes, 0 to 6.
    #[bits(4)]
    pub szu: u8,
    /// Size, in size units.
    #[bits(20)]
    pub sz: u32,
}

/// Controller Memory Buffer Memory Space Control ("Offset 50h: CMBMSC").
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cmbmsc {
    /// Capabilities Registers Enabled.
    pub cre: bool,
    /// Controller Memory Space Enable.
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// Controller Base Address, in units of 4 KiB.
    #[bits(52)]
    pub cba: u64,
}
