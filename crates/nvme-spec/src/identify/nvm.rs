//! What Identify says that is specific to the NVM command set (CNS 05h and 06h with CSI 00h).

use crate::registers::Version;
use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// I/O Command Set specific Identify Namespace data structure for the NVM command set (NVM Command Set 1.0, figure of
    /// that name), CNS 05h. The fields behind ELBAF came with NVM 1.1 and read as 0, not reported, before.
    pub struct IdentifyNamespaceNvm {
        /// Logical Block Storage Tag Mask.
        pub lbstm: u64,
        /// Protection Information Capabilities.
        pub pic: Pic,
        /// Protection Information Format Attribute (NVM 1.1).
        pub pifa: u8,
        /// Reserved.
        pub reserved10: Opaque<2>,
        /// Extended LBA Formats, one for each of the LBA formats of
        /// [`IdentifyNamespace`](super::IdentifyNamespace).
        pub elbaf: [ExtendedLbaFormat; 64],
        /// Namespace Preferred Deallocate Granularity Large, in logical blocks; *not* 0's based, 0 not reported; valid as
        /// [`Nsfeat::has_npdgl`](super::Nsfeat::has_npdgl) says (NVM 1.1).
        pub npdgl: u32,
        /// Namespace Preferred Read Granularity, in logical blocks; 0 not reported (NVM 1.1).
        pub nprg: u32,
        /// Namespace Preferred Read Alignment, in logical blocks; 0 not reported (NVM 1.1).
        pub npra: u32,
        /// Namespace Optimal Read Size, in logical blocks; 0 not reported (NVM 1.1).
        pub nors: u32,
        /// Namespace Preferred Deallocate Alignment Large, in logical blocks; *not* 0's based, 0 not reported (NVM 1.1).
        pub npdal: u32,
        /// LBA Format Placement Shard Size (NVM 1.1).
        pub lbapss: u32,
        /// Tracked LBA Allocation Granularity (NVM 1.1).
        pub tlbaag: u32,
        /// Reserved.
        pub reserved296: Opaque<3800>,
    }

    /// I/O Command Set specific Identify Controller data structure for the NVM command set (NVM Command Set 1.0, figure of
    /// that name), CNS 06h. A size limit is 2 ^ n pages of CAP.MPSMIN, and 0 is no limit but MDTS where MDTS counts.
    pub struct IdentifyControllerNvm {
        /// Verify Size Limit.
        pub vsl: u8,
        /// Write Zeroes Size Limit.
        pub wzsl: u8,
        /// Write Uncorrectable Size Limit.
        pub wusl: u8,
        /// Dataset Management Ranges Limit: the most ranges of a command; 0 not reported.
        pub dmrl: u8,
        /// Dataset Management Range Size Limit: the most logical blocks of a range; 0 not reported.
        pub dmrsl: u32,
        /// Dataset Management Size Limit: the most logical blocks of all ranges of a command; 0 not reported.
        pub dmsl: u64,
        /// Key Per I/O Capabilities (NVM 1.1).
        pub kpiocap: u8,
        /// Write Zeroes With Deallocate Size Limit (NVM 1.1).
        pub wzdsl: u8,
        /// Admin Optional Command Support (NVM 1.1).
        pub aocs: u16,
        /// Version of the NVM command set specification (NVM 1.1).
        pub ver: Version,
        /// LBA Migration Queue Format (NVM 1.1).
        pub lbamqf: u8,
        /// Reserved.
        pub reserved25: Opaque<4071>,
    }
}
assert_layout!(
    IdentifyNamespaceNvm, size = 4096, lbstm @ 0, pic @ 8, pifa @ 9, elbaf @ 12, npdgl @ 268, nprg @ 272, npra @ 276,
    nors @ 280, npdal @ 284, lbapss @ 288, tlbaag @ 292, reserved296 @ 296,
);
assert_layout!(
    IdentifyControllerNvm, size = 4096, vsl @ 0, wzsl @ 1, wusl @ 2, dmrl @ 3, dmrsl @ 4, dmsl @ 8, kpiocap @ 16,
    wzdsl @ 17, aocs @ 18, ver @ 20, lbamqf @ 24, reserved25 @ 25,
);

/// Protection Information Capabilities, PIC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Pic {
    /// Storage tags with a 16-bit guard are supported.
    pub storage_tag_16b: bool,
    /// With a 16-bit guard, the storage tag mask may have any value.
    pub storage_tag_mask_16b: bool,
    /// Storage Tag Check Read Support: Copy can check storage tags of what it reads (NVM 1.1).
    pub storage_tag_check_read: bool,
    #[bits(5)]
    __: u8,
}

codes! {
    /// Protection Information Format, PIF; two bits.
    pub struct PiFormat(u8);
    /// Protection information is 8 bytes.
    GUARD_16 = 0, "16b Guard";
    /// Protection information is 16 bytes.
    GUARD_32 = 1, "32b Guard";
    /// Protection information is 16 bytes.
    GUARD_64 = 2, "64b Guard";
    /// The format is in [`ExtendedLbaFormat::qpif`] (NVM 1.1).
    QUALIFIED = 3, "Qualified Type";
}

impl PiFormat {
    /// Bytes of protection information a block, where that is known.
    #[must_use]
    pub const fn size(self) -> Option<u16> {
        match self {
            Self::GUARD_16 => Some(8),
            Self::GUARD_32 | Self::GUARD_64 => Some(16),
            _ => None,
        }
    }
}

/// Extended LBA Format, ELBAF.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ExtendedLbaFormat {
    /// Storage Tag Size, in bits.
    #[bits(7)]
    pub sts: u8,
    /// Protection Information Format.
    #[bits(2)]
    pub pif: PiFormat,
    /// Qualified Protection Information Format (NVM 1.1).
    #[bits(4)]
    pub qpif: u8,
    #[bits(19)]
    __: u32,
}
