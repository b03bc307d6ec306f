//! The bit fields of [`IdentifyNamespace`](super::IdentifyNamespace).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Namespace Features, NSFEAT.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nsfeat {
    /// Thin provisioning: NCAP may be less than NSZE.
    pub thin: bool,
    /// NAWUN, NAWUPF and NACWU hold for this namespace, instead of AWUN, AWUPF and ACWU.
    pub atomic: bool,
    /// The Deallocated or Unwritten Logical Block error is supported.
    pub dulbe: bool,
    /// NGUID and EUI64 are never used again for another namespace.
    pub unique_ids: bool,
    /// Optional Performance: which preferences for writing and deallocating are reported. Up to 2.0 this is one bit, and
    /// it says that NPWG, NPWA, NPDG, NPDA and NOWS are valid. NVM command set 1.1 has the second bit, for NPDGL and
    /// NPDAL: see [`Nsfeat::has_optimal_fields`] and its neighbours.
    #[bits(2)]
    pub optperf: u8,
    /// Multiple Atomicity Mode (NVM 1.1): a write that crosses an atomic boundary is atomic on each side of it.
    pub multiple_atomicity: bool,
    /// NPRG, NPRA and NORS of the command set specific namespace data are valid (NVM 1.1).
    pub optrperf: bool,
}

impl Nsfeat {
    /// Whether NPWG, NPWA, NPDA and NOWS of [`IdentifyNamespace`](super::IdentifyNamespace) are valid.
    #[must_use]
    pub const fn has_optimal_fields(self) -> bool {
        self.optperf() != 0
    }

    /// Whether NPDG of [`IdentifyNamespace`](super::IdentifyNamespace) is valid.
    #[must_use]
    pub const fn has_npdg(self) -> bool {
        self.optperf() & 0b01 != 0
    }

    /// Whether NPDGL and NPDAL of [`IdentifyNamespaceNvm`](super::IdentifyNamespaceNvm) are valid. Where they
    /// are not 0, they go before NPDG and NPDA.
    #[must_use]
    pub const fn has_npdgl(self) -> bool {
        self.optperf() & 0b10 != 0
    }
}

/// Formatted LBA Size, FLBAS.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flbas {
    /// Index of the LBA format in use, bits 3:0.
    #[bits(4)]
    pub index_low: u8,
    /// Metadata is transferred at the end of each block's data rather than in a buffer of its own.
    pub metadata_inline: bool,
    /// Index of the LBA format in use, bits 5:4; only where there are more than 16 formats.
    #[bits(2)]
    pub index_high: u8,
    __: bool,
}

/// Metadata Capabilities, MC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mc {
    /// Metadata at the end of each block's data.
    pub inline: bool,
    /// Metadata in a buffer of its own.
    pub separate: bool,
    #[bits(6)]
    __: u8,
}

/// End-to-end Data Protection Capabilities, DPC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dpc {
    /// Type 1 protection information.
    pub type1: bool,
    /// Type 2 protection information.
    pub type2: bool,
    /// Type 3 protection information.
    pub type3: bool,
    /// Protection information in the first bytes of metadata.
    pub first: bool,
    /// Protection information in the last bytes of metadata.
    pub last: bool,
    #[bits(3)]
    __: u8,
}

codes! {
    /// Protection Information Type, of [`Dps`]; three bits.
    pub struct PiType(u8);
    NONE = 0, "No protection information";
    /// The reference tag is the low part of the LBA and checked.
    TYPE1 = 1, "Type 1";
    /// The reference tag is the host's start value, plus one a block.
    TYPE2 = 2, "Type 2";
    /// The reference tag is not checked.
    TYPE3 = 3, "Type 3";
}

/// End-to-end Data Protection Type Settings, DPS.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dps {
    /// Protection Information Type in use.
    #[bits(3)]
    pub pi_type: PiType,
    /// Protection information is in the first bytes of metadata, rather than in the last.
    pub first: bool,
    #[bits(4)]
    __: u8,
}

/// Namespace Multi-path I/O and Namespace Sharing Capabilities, NMIC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nmic {
    /// More than one controller may have the namespace attached.
    pub shared: bool,
    /// Dispersed Namespace (Base 2.1).
    pub dispersed: bool,
    #[bits(6)]
    __: u8,
}

/// Reservation Capabilities, RESCAP.
#[bitfield(u8)]
#[derive(PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Rescap {
    /// Persist Through Power Loss.
    pub persist_through_power_loss: bool,
    /// Write Exclusive.
    pub write_exclusive: bool,
    /// Exclusive Access.
    pub exclusive_access: bool,
    /// Write Exclusive, Registrants Only.
    pub write_exclusive_registrants_only: bool,
    /// Exclusive Access, Registrants Only.
    pub exclusive_access_registrants_only: bool,
    /// Write Exclusive, All Registrants.
    pub write_exclusive_all_registrants: bool,
    /// Exclusive Access, All Registrants.
    pub exclusive_access_all_registrants: bool,
    /// Ignore Existing Key has the meaning that NVMe 1.3 gave it.
    pub ignore_existing_key_1_3: bool,
}

/// Format Progress Indicator, FPI.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fpi {
    /// How much remains to be formatted, in percent.
    #[bits(7)]
    pub remaining: u8,
    /// The indicator is supported.
    pub supported: bool,
}

/// Deallocate Logical Block Features, DLFEAT.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Dlfeat {
    /// What a deallocated block reads as: [`Dlfeat::READ_NOT_REPORTED`], [`Dlfeat::READ_ZEROES`],
    /// [`Dlfeat::READ_ONES`].
    #[bits(3)]
    pub read_behavior: u8,
    /// The Deallocate bit of Write Zeroes is supported.
    pub write_zeroes_deallocate: bool,
    /// The guard of a deallocated block is a CRC of its data, rather than all ones.
    pub guard_is_crc: bool,
    #[bits(3)]
    __: u8,
}

impl Dlfeat {
    /// Not reported.
    pub const READ_NOT_REPORTED: u8 = 0;
    /// All bytes 00h.
    pub const READ_ZEROES: u8 = 1;
    /// All bytes FFh.
    pub const READ_ONES: u8 = 2;
}

/// Namespace Attributes, NSATTR.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nsattr {
    /// The namespace is write protected now, for whatever reason.
    pub write_protected: bool,
    #[bits(7)]
    __: u8,
}
