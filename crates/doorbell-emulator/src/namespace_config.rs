//! What a namespace is made of, as data.

use std::path::PathBuf;

use nvme_spec::identify::{Dlfeat, LbaFormat, NamespaceIds, PiType, Rescap};

use crate::Backend;

/// A namespace to be. Fields are named as in Identify Namespace, and those that NVMe counts from 0 are counted so here.
#[derive(Debug)]
pub struct NamespaceConfig {
    /// Where the blocks are kept.
    pub storage: Storage,
    /// The NSID; the lowest free one if not given.
    pub nsid: Option<u32>,
    /// NGUID, EUI-64 and UUID. If not given, each namespace that is ever added gets all three, different from all others
    /// of the subsystem, and the same in each run.
    pub ids: Option<NamespaceIds>,
    /// LBAF: the formats, 1 to 64. 512 and 4096 bytes without metadata (0 and 1) and with 8 bytes (2 and 3).
    pub formats: Vec<LbaFormat>,
    /// FLBAS: the index of the format in use. 0.
    pub format: usize,
    /// FLBAS: metadata is transferred at the end of each block rather than in a buffer of its own. No.
    pub inline_metadata: bool,
    /// DPS: the type of protection information in use; needs 8 bytes of metadata. None.
    pub protection: PiType,
    /// NSATTR: the namespace cannot be written to. No.
    pub read_only: bool,
    /// NMIC: more than one controller can have the namespace attached. Yes.
    pub shared: bool,
    /// The controllers that have the namespace attached, by identifier; all of them if not given.
    pub controllers: Option<Vec<u16>>,
    /// DLFEAT: what deallocated blocks read as is reported to be zeroes (which is what they do read as). Yes, but for
    /// [`Storage::Null`].
    pub dlfeat: Dlfeat,
    /// RESCAP: reservations that can be made. All, and persistence through power loss.
    pub rescap: Rescap,
    /// NSFEAT.NSABP, NAWUN, NAWUPF, NACWU: atomic units of this namespace. Not reported.
    pub atomic: Option<AtomicUnits>,
    /// NABSN, NABO, NABSPF: atomic boundaries. 0, none.
    pub atomic_boundary: [u16; 3],
    /// NOIOB, in blocks. 0, none.
    pub noiob: u16,
    /// NSFEAT.OPTPERF and NPWG, NPWA, NPDG, NPDA, NOWS. Not reported.
    pub optimal: Option<OptimalSizes>,
    /// MSSRL: most blocks in a source range of Copy. 65535.
    pub mssrl: u16,
    /// MCL: most blocks that a Copy copies. 65536.
    pub mcl: u32,
    /// MSRC: most source ranges of a Copy, less one. 127.
    pub msrc: u8,
}

/// Where a namespace keeps its blocks.
#[non_exhaustive]
pub enum Storage {
    /// In memory, allocated where it is written to.
    Ram {
        /// Bytes of data.
        size: u64,
    },
    /// Nowhere, and no data are moved: reads leave memory as it is, writes are forgotten. To measure all the rest.
    Null {
        /// Bytes of data.
        size: u64,
    },
    /// Nowhere: reads give zeroes, writes are forgotten.
    Zero {
        /// Bytes of data.
        size: u64,
    },
    /// In a file, which has to exist and be a multiple of the block size long.
    File(PathBuf),
    /// In whatever this is.
    Custom(Box<dyn Backend>),
}

/// Atomic units, in blocks less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtomicUnits {
    /// NAWUN.
    pub nawun: u16,
    /// NAWUPF.
    pub nawupf: u16,
    /// NACWU.
    pub nacwu: u16,
}

/// Preferred and optimal sizes, in blocks less one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptimalSizes {
    /// NPWG.
    pub npwg: u16,
    /// NPWA.
    pub npwa: u16,
    /// NPDG.
    pub npdg: u16,
    /// NPDA.
    pub npda: u16,
    /// NOWS.
    pub nows: u16,
    /// NPDGL, in blocks, *not* less one: reported instead of NPDG where it is not 0 (NVM command set 1.1).
    pub npdgl: u32,
}

impl NamespaceConfig {
    /// A namespace in `storage`, everything else as documented.
    pub fn new(storage: Storage) -> Self {
        let dlfeat = match storage {
            Storage::Null { .. } => Dlfeat::new(),
            _ => Dlfeat::new().with_read_behavior(Dlfeat::READ_ZEROES).with_write_zeroes_deallocate(true),
        };
        Self {
            storage,
            nsid: None,
            ids: None,
            formats: vec![lba_format(9, 0), lba_format(12, 0), lba_format(9, 8), lba_format(12, 8)],
            format: 0,
            inline_metadata: false,
            protection: PiType::NONE,
            read_only: false,
            shared: true,
            controllers: None,
            dlfeat,
            rescap: Rescap::from(0xff),
            atomic: None,
            atomic_boundary: [0; 3],
            noiob: 0,
            optimal: None,
            mssrl: u16::MAX,
            mcl: 1 << 16,
            msrc: 127,
        }
    }

    /// A namespace of `size` bytes in memory.
    pub fn ram(size: u64) -> Self {
        Self::new(Storage::Ram { size })
    }

    /// A namespace of `size` bytes that moves no data: reads leave memory as it is.
    pub fn null(size: u64) -> Self {
        Self::new(Storage::Null { size })
    }

    /// A namespace of `size` bytes that reads as zero and forgets what is written to it.
    pub fn zero(size: u64) -> Self {
        Self::new(Storage::Zero { size })
    }

    /// A namespace in a file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(Storage::File(path.into()))
    }

    /// The same in blocks of `bytes` bytes (a power of two) without metadata.
    #[must_use]
    pub fn block_size(self, bytes: u32) -> Self {
        let metadata = self.formats.get(self.format).map_or(0, |format| format.ms());
        self.with_format(bytes, metadata)
    }

    /// The same with 8 bytes of metadata a block, and protection information of a type in them.
    #[must_use]
    pub fn protection(self, kind: PiType) -> Self {
        let bytes = self.formats.get(self.format).map_or(512, |format| 1 << format.lbads().min(31));
        Self { protection: kind, ..self.with_format(bytes, 8) }
    }

    /// The same with an NSID.
    #[must_use]
    pub fn nsid(self, nsid: u32) -> Self {
        Self { nsid: Some(nsid), ..self }
    }

    /// The same in the format of these sizes, added to the list if it is not there.
    #[must_use]
    pub fn with_format(mut self, block: u32, metadata: u16) -> Self {
        let lbads = u8::try_from(block.max(1).ilog2()).unwrap_or(u8::MAX);
        let found = self.formats.iter().position(|format| format.lbads() == lbads && format.ms() == metadata);
        self.format = found.unwrap_or_else(|| {
            self.formats.push(lba_format(lbads, metadata));
            self.formats.len().saturating_sub(1)
        });
        self
    }
}

fn lba_format(lbads: u8, ms: u16) -> LbaFormat {
    LbaFormat::new().with_lbads(lbads).with_ms(ms)
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ram { size } => f.debug_struct("Ram").field("size", size).finish(),
            Self::Null { size } => f.debug_struct("Null").field("size", size).finish(),
            Self::Zero { size } => f.debug_struct("Zero").field("size", size).finish(),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Custom(backend) => f.debug_struct("Custom").field("size", &backend.size()).finish(),
        }
    }
}
