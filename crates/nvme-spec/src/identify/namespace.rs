//! Identify Namespace of the NVM command set (CNS 00h) and its LBA formats.

use super::namespace_features::*;
use crate::scalar::{Le128, Opaque};
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// Identify Namespace data structure (NVM Command Set 1.0, figure of that name), CNS 00h. All zero for an NSID that
    /// is valid and not in use by the controller. Fields of NVM 1.1 read as 0 on older controllers.
    pub struct IdentifyNamespace {
        /// Namespace Size, in logical blocks.
        pub nsze: u64,
        /// Namespace Capacity, in logical blocks: how many can be allocated at a time.
        pub ncap: u64,
        /// Namespace Utilization, in logical blocks.
        pub nuse: u64,
        /// Namespace Features.
        pub nsfeat: Nsfeat,
        /// Number of LBA Formats; 0's based.
        pub nlbaf: u8,
        /// Formatted LBA Size; see [`IdentifyNamespace::lba_format_index`].
        pub flbas: Flbas,
        /// Metadata Capabilities.
        pub mc: Mc,
        /// End-to-end Data Protection Capabilities.
        pub dpc: Dpc,
        /// End-to-end Data Protection Type Settings.
        pub dps: Dps,
        /// Namespace Multi-path I/O and Namespace Sharing Capabilities.
        pub nmic: Nmic,
        /// Reservation Capabilities.
        pub rescap: Rescap,
        /// Format Progress Indicator.
        pub fpi: Fpi,
        /// Deallocate Logical Block Features.
        pub dlfeat: Dlfeat,
        /// Namespace Atomic Write Unit Normal, in logical blocks; 0's based.
        pub nawun: u16,
        /// Namespace Atomic Write Unit Power Fail, in logical blocks; 0's based.
        pub nawupf: u16,
        /// Namespace Atomic Compare & Write Unit, in logical blocks; 0's based.
        pub nacwu: u16,
        /// Namespace Atomic Boundary Size Normal, in logical blocks; 0's based, and 0 is no boundary.
        pub nabsn: u16,
        /// Namespace Atomic Boundary Offset: the LBA of the first boundary.
        pub nabo: u16,
        /// Namespace Atomic Boundary Size Power Fail, in logical blocks; 0's based, and 0 is no boundary.
        pub nabspf: u16,
        /// Namespace Optimal I/O Boundary, in logical blocks; 0 none reported.
        pub noiob: u16,
        /// NVM Capacity, in bytes.
        pub nvmcap: Le128,
        /// Namespace Preferred Write Granularity, in logical blocks; 0's based; valid as NSFEAT says.
        pub npwg: u16,
        /// Namespace Preferred Write Alignment, in logical blocks; 0's based; valid as NSFEAT says.
        pub npwa: u16,
        /// Namespace Preferred Deallocate Granularity, in logical blocks; 0's based; valid as NSFEAT says.
        pub npdg: u16,
        /// Namespace Preferred Deallocate Alignment, in logical blocks; 0's based; valid as NSFEAT says.
        pub npda: u16,
        /// Namespace Optimal Write Size, in logical blocks; 0's based; valid as NSFEAT says.
        pub nows: u16,
        /// Maximum Single Source Range Length of Copy, in logical blocks.
        pub mssrl: u16,
        /// Maximum Copy Length, in logical blocks.
        pub mcl: u32,
        /// Maximum Source Range Count of Copy; 0's based.
        pub msrc: u8,
        /// Key Per I/O Status (NVM 1.1).
        pub kpios: u8,
        /// Number of Unique Attribute LBA Formats: how many follow behind the NLBAF + 1 ordinary ones.
        pub nulbaf: u8,
        /// Reserved.
        pub reserved83: u8,
        /// Key Per I/O Data Access Alignment and Granularity (NVM 1.1).
        pub kpiodaag: u32,
        /// Reserved.
        pub reserved88: u32,
        /// ANA Group Identifier; 0 none.
        pub anagrpid: u32,
        /// Reserved.
        pub reserved96: Opaque<3>,
        /// Namespace Attributes.
        pub nsattr: Nsattr,
        /// NVM Set Identifier; 0 none.
        pub nvmsetid: u16,
        /// Endurance Group Identifier; 0 none.
        pub endgid: u16,
        /// Namespace Globally Unique Identifier, big-endian; 0 none.
        pub nguid: [u8; 16],
        /// IEEE Extended Unique Identifier, big-endian; 0 none.
        pub eui64: [u8; 8],
        /// LBA Formats: NLBAF + 1 ordinary ones and NULBAF with unique attributes are valid.
        pub lbaf: [LbaFormat; 64],
        /// Vendor Specific.
        pub vendor: Opaque<3712>,
    }
}

/// LBA Format data structure (figure of that name).
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LbaFormat {
    /// Metadata Size, in bytes a block.
    pub ms: u16,
    /// LBA Data Size: 2 ^ n bytes; 0 is a format that is not available, 1 to 8 are reserved.
    pub lbads: u8,
    /// Relative Performance: 0 best, 1 better, 2 good, 3 degraded.
    #[bits(2)]
    pub rp: u8,
    #[bits(6)]
    __: u8,
}

impl LbaFormat {
    /// Bytes of data in a block; `None` for what is not a size (LBADS below 9 or above 63).
    #[must_use]
    pub const fn data_size(self) -> Option<u64> {
        match self.lbads() {
            9..=63 => Some(1 << self.lbads()),
            _ => None,
        }
    }
}

assert_layout!(
    IdentifyNamespace, size = 4096, nsze @ 0, ncap @ 8, nuse @ 16, nsfeat @ 24, nlbaf @ 25, flbas @ 26, mc @ 27,
    dpc @ 28, dps @ 29, nmic @ 30, rescap @ 31, fpi @ 32, dlfeat @ 33, nawun @ 34, nawupf @ 36, nacwu @ 38, nabsn @ 40,
    nabo @ 42, nabspf @ 44, noiob @ 46, nvmcap @ 48, npwg @ 64, npwa @ 66, npdg @ 68, npda @ 70, nows @ 72, mssrl @ 74,
    mcl @ 76, msrc @ 80, nulbaf @ 82, anagrpid @ 92, nsattr @ 99, nvmsetid @ 100, endgid @ 102, nguid @ 104,
    eui64 @ 120, lbaf @ 128, vendor @ 384,
);

impl IdentifyNamespace {
    /// Index of the LBA format in use. The high two bits count only where NLBAF is 16 or more: before NVMe 2.0 they were
    /// reserved.
    #[must_use]
    pub const fn lba_format_index(&self) -> u8 {
        if self.nlbaf >= 16 { self.flbas.index_low() | self.flbas.index_high() << 4 } else { self.flbas.index_low() }
    }

    /// How many LBA formats the controller says are valid: 1 to 511, of which no more than 64 exist.
    #[must_use]
    pub const fn lba_format_count(&self) -> u16 {
        (self.nlbaf as u16).saturating_add(self.nulbaf as u16).saturating_add(1)
    }

    /// The LBA formats that are valid.
    #[must_use]
    pub fn lba_formats(&self) -> &[LbaFormat] {
        self.lbaf.get(..usize::from(self.lba_format_count())).unwrap_or(&self.lbaf)
    }

    /// The LBA format in use, unless its index is that of no valid format.
    #[must_use]
    pub fn lba_format(&self) -> Option<LbaFormat> {
        self.lba_formats().get(usize::from(self.lba_format_index())).copied()
    }
}
