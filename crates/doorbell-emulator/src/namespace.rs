//! A namespace as it is: its format, its blocks, and what is known of them.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use nvme_spec::Status;
use nvme_spec::identify::{LbaFormat, NamespaceIds, PiType};

use crate::backend::{Backend, BackendError, FileBackend, NullBackend, RamBackend};
use crate::block_metadata::BlockMetadata;
use crate::error::EmulatorError;
use crate::marks::Marks;
use crate::namespace_config::{NamespaceConfig, Storage};
use crate::protection::PI_BYTES;
use crate::reservation::Reservations;
use crate::sync::write;

/// Formats that fit the Identify Namespace data structure.
const MAX_FORMATS: usize = 64;
/// The smallest and largest block, as LBADS.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u8> = 9..=16;

/// One namespace, shared by the controllers that have it attached. A command holds the lock while it is carried out, so
/// that what it sees and does is atomic.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) nsid: u32,
    /// Its storage can take commands, and finish them later.
    pub(crate) has_lanes: bool,
    /// It does so in the present format.
    uses_lanes: AtomicBool,
    pub(crate) state: RwLock<State>,
}

/// What changes.
pub(crate) struct State {
    /// What it was made from; `storage` is [`Storage::Null`] of no size by now.
    pub(crate) config: NamespaceConfig,
    pub(crate) ids: NamespaceIds,
    pub(crate) layout: Layout,
    /// NSZE.
    pub(crate) blocks: u64,
    pub(crate) data: Box<dyn Backend>,
    /// The metadata of all blocks, where the format has any.
    pub(crate) metadata: Option<BlockMetadata>,
    /// Blocks marked by Write Uncorrectable.
    pub(crate) uncorrectable: Marks,
    /// NSATTR: cannot be written to now.
    pub(crate) write_protected: bool,
    pub(crate) reservations: Reservations,
    /// Taken out of the subsystem: a controller that has not noticed yet must not use it any more.
    pub(crate) removed: bool,
    /// Written to since the last flush.
    pub(crate) dirty: AtomicBool,
}

/// How blocks are laid out in storage and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// LBADS.
    pub(crate) shift: u8,
    /// Bytes of metadata a block.
    pub(crate) metadata: u16,
    pub(crate) inline: bool,
    pub(crate) protection: PiType,
}

impl Layout {
    fn new(format: LbaFormat, inline: bool, protection: PiType) -> Self {
        let metadata = format.ms();
        Self { shift: format.lbads(), metadata, inline: inline && metadata > 0, protection }
    }

    #[inline]
    pub(crate) fn block(&self) -> u64 {
        1 << (self.shift & 63)
    }

    #[inline]
    pub(crate) fn bytes(&self, blocks: u64) -> u64 {
        blocks.saturating_mul(self.block())
    }
}

impl Namespace {
    pub(crate) fn new(nsid: u32, mut config: NamespaceConfig, ids: NamespaceIds) -> Result<Self, EmulatorError> {
        let layout = check_format(&config)?;
        let storage = std::mem::replace(&mut config.storage, Storage::Null { size: 0 });
        let data: Box<dyn Backend> = match storage {
            Storage::Ram { size } => Box::new(RamBackend::new(size)),
            Storage::Null { size } => Box::new(NullBackend::new(size)),
            Storage::Zero { size } => Box::new(NullBackend::zeroes(size)),
            Storage::File(path) => {
                let file = match FileBackend::open(&path) {
                    Ok(file) => file,
                    Err(source) => return Err(EmulatorError::File { path, source }),
                };
                let (size, block) = (file.size(), layout.block());
                if size == 0 || !size.is_multiple_of(block) {
                    return Err(EmulatorError::FileSize { path, size, block });
                }
                Box::new(file)
            }
            Storage::Custom(backend) => backend,
        };
        let has_lanes = data.finishes_later();
        if !data.is_plain() && layout.metadata > 0 {
            return Err(EmulatorError::BadFormat("this storage has no place for metadata".into()));
        }
        let uses_lanes = AtomicBool::new(has_lanes && layout.metadata == 0);
        let blocks = count_blocks(data.size(), layout)?;
        let write_protected = config.read_only;
        let state = State {
            ids,
            layout,
            blocks,
            data,
            metadata: metadata(layout, blocks)?,
            uncorrectable: Marks::default(),
            write_protected,
            reservations: Reservations::default(),
            removed: false,
            dirty: false.into(),
            config,
        };
        Ok(Self { nsid, has_lanes, uses_lanes, state: RwLock::new(state) })
    }

    /// Whether commands are handed to its storage, which finishes them later.
    #[inline]
    pub(crate) fn finishes_later(&self) -> bool {
        self.uses_lanes.load(Ordering::Relaxed)
    }

    /// Puts it into another format; see [`State::format`].
    pub(crate) fn format(&self, index: usize, inline: bool, protection: PiType) -> Result<(), EmulatorError> {
        let mut state = write(&self.state);
        state.format(index, inline, protection)?;
        self.uses_lanes.store(self.has_lanes && state.layout.metadata == 0, Ordering::Relaxed);
        Ok(())
    }
}

/// The layout that a configuration asks for.
fn check_format(config: &NamespaceConfig) -> Result<Layout, EmulatorError> {
    let bad = |reason: String| Err(EmulatorError::BadFormat(reason));
    if config.formats.len() > MAX_FORMATS {
        return bad(format!("{} formats are given, {MAX_FORMATS} fit", config.formats.len()));
    }
    let Some(format) = config.formats.get(config.format) else {
        return bad(format!("index {} is used, there are {} formats", config.format, config.formats.len()));
    };
    if !BLOCK_SHIFTS.contains(&format.lbads()) {
        let bytes = 1u128 << format.lbads().min(127);
        return bad(format!("blocks of {bytes} bytes are asked for, 512 to 65536 are possible"));
    }
    if format.ms() != 0 && usize::from(format.ms()) != PI_BYTES {
        return bad(format!("{} bytes of metadata are asked for, 0 or 8 are possible", format.ms()));
    }
    if config.protection != PiType::NONE && usize::from(format.ms()) != PI_BYTES {
        return bad("protection information needs 8 bytes of metadata".into());
    }
    if config.protection.0 > PiType::TYPE3.0 {
        return bad(format!("there is no protection information of type {}", config.protection.0));
    }
    Ok(Layout::new(*format, config.inline_metadata, config.protection))
}

/// How many blocks a size is.
fn count_blocks(size: u64, layout: Layout) -> Result<u64, EmulatorError> {
    let bad = |reason: String| Err(EmulatorError::BadSize { size, reason });
    let block = layout.block();
    if size == 0 {
        return bad("a namespace has at least one block".into());
    }
    if !size.is_multiple_of(block) {
        return bad(format!("it is not a multiple of the block size, {block}"));
    }
    if i64::try_from(size).is_err() {
        return bad("less than 8 EiB are possible".into());
    }
    Ok(size >> layout.shift)
}

fn metadata(layout: Layout, blocks: u64) -> Result<Option<BlockMetadata>, BackendError> {
    (layout.metadata > 0).then(|| BlockMetadata::new(blocks)).transpose()
}

impl State {
    /// Refuses a range of blocks that does not lie in the namespace.
    #[inline]
    pub(crate) fn check_range(&self, slba: u64, blocks: u64) -> Result<(), Status> {
        match slba.checked_add(blocks) {
            Some(end) if end <= self.blocks => Ok(()),
            _ => Err(Status::LBA_OUT_OF_RANGE),
        }
    }

    /// Changes the number of blocks, which is given in bytes.
    pub(crate) fn resize(&mut self, size: u64) -> Result<(), EmulatorError> {
        let blocks = count_blocks(size, self.layout)?;
        self.data.resize(size)?;
        if let Some(metadata) = &mut self.metadata {
            metadata.resize(blocks)?;
        }
        self.uncorrectable.truncate(blocks);
        self.blocks = blocks;
        Ok(())
    }

    /// Loses all data, and takes on a format.
    pub(crate) fn format(&mut self, index: usize, inline: bool, protection: PiType) -> Result<(), EmulatorError> {
        if !self.data.is_plain() {
            return Err(EmulatorError::BadFormat("this storage keeps the format that it has".into()));
        }
        if !self.data.is_idle() {
            return Err(EmulatorError::Busy);
        }
        let before = (self.config.format, self.config.inline_metadata, self.config.protection);
        (self.config.format, self.config.inline_metadata, self.config.protection) = (index, inline, protection);
        let adopted = check_format(&self.config).and_then(|layout| {
            // What does not fill a block at the end is not used.
            let size = self.data.size();
            let size = size & !layout.block().saturating_sub(1);
            Ok((layout, count_blocks(size, layout)?))
        });
        match adopted {
            Ok((layout, blocks)) => {
                self.data.deallocate(0, self.data.size())?;
                self.metadata = metadata(layout, blocks)?;
                self.layout = layout;
                self.blocks = blocks;
                self.uncorrectable = Marks::default();
                Ok(())
            }
            Err(error) => {
                (self.config.format, self.config.inline_metadata, self.config.protection) = before;
                Err(error)
            }
        }
    }

    /// Gives blocks back; they read as zero, and their protection information is not checked.
    pub(crate) fn deallocate(&mut self, slba: u64, blocks: u64) -> Result<(), BackendError> {
        self.data.deallocate(self.layout.bytes(slba), self.layout.bytes(blocks))?;
        if let Some(metadata) = &mut self.metadata {
            metadata.deallocate(slba, blocks)?;
        }
        self.uncorrectable.remove(slba, blocks);
        *self.dirty.get_mut() = true;
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("layout", &self.layout).field("blocks", &self.blocks).finish_non_exhaustive()
    }
}
