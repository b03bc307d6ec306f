//! What a namespace's handle shares with the driver: what it is, how it stands, and what changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use event_listener::Event;
use nvme_spec::Status;

use super::NamespaceView;
use super::info::{Details, Fixed, Pages, Protection, Seen};
use crate::driver::Core;
use crate::error::{NamespaceError, NvmeError, RequestError};

/// The namespace is gone, for good as far as its handle goes.
const REMOVED: u8 = 1;
/// There are commands of another process that new I/O may have to wait for.
const HELD_BACK: u8 = 2;

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) nsid: u32,
    pub(super) fixed: Fixed,
    /// Bytes that a block has in memory: its data, and its metadata if that is carried.
    pub(super) transfer_block_size: u32,
    pub(super) max_transfer_blocks: u32,
    /// The number of the driver by which memory knows whether it can be used directly; no driver's, where all data is
    /// to be bounced.
    pub(super) direct_driver: u64,
    pub(super) block_count: AtomicU64,
    /// [`REMOVED`] and [`HELD_BACK`]; 0 as long as all is well.
    pub(super) standing: AtomicU8,
    pub(super) details: RwLock<Details>,
    /// What Identify showed last.
    pub(super) pages: Mutex<Arc<Pages>>,
    /// Whether metadata is carried.
    pub(super) carry_metadata: bool,
    /// The last command of each queue before this handle: those up to it are no business of this one.
    pub(super) before: BTreeMap<u16, u64>,
    /// Size or presence changed.
    pub(crate) changed: Event,
}

impl Inner {
    pub(super) fn new(core: Arc<Core>, nsid: u32, seen: Seen, carry_metadata: bool) -> Result<Self, NamespaceError> {
        let fixed = seen.fixed;
        let block_size = 1u32 << fixed.block_shift;
        let taken_care_of = fixed.metadata == 0 || fixed.protection != Protection::None;
        let transfer_block_size = match taken_care_of {
            true => block_size,
            false if carry_metadata && fixed.interleaved => block_size.saturating_add(fixed.metadata.into()),
            false => return Err(NamespaceError::Metadata { bytes: fixed.metadata }),
        };
        let max_transfer_blocks = max_transfer_blocks(&core, transfer_block_size)?;
        let direct_driver = if core.options.always_bounce { u64::MAX } else { core.id };
        let before = core.queues().iter().map(|queue| (queue.id(), queue.submitted())).collect();
        Ok(Self {
            core,
            nsid,
            before,
            fixed,
            transfer_block_size,
            max_transfer_blocks,
            direct_driver,
            block_count: AtomicU64::new(seen.block_count),
            standing: AtomicU8::new(0),
            details: RwLock::new(seen.details),
            pages: Mutex::new(seen.pages),
            carry_metadata,
            changed: Event::new(),
        })
    }

    pub(crate) fn details(&self) -> Details {
        *self.details.read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    pub(crate) fn block_count(&self) -> u64 {
        self.block_count.load(Ordering::Acquire)
    }

    /// Whether a queue's command of this number for this NSID was sent by this handle, and not by one before.
    pub(crate) fn has_sent(&self, queue: u16, sequence: u64) -> bool {
        self.before.get(&queue).is_none_or(|last| sequence > *last)
    }

    /// See `direct_driver`.
    pub(crate) fn direct_driver(&self) -> u64 {
        self.direct_driver
    }

    /// Whether I/O may go out without a further look.
    #[inline(always)]
    pub(crate) fn is_well(&self) -> bool {
        self.standing.load(Ordering::Acquire) == 0
    }

    #[inline]
    pub(crate) fn is_removed(&self) -> bool {
        self.standing.load(Ordering::Acquire) & REMOVED != 0
    }

    /// Whether I/O may have to wait for inherited commands.
    #[inline]
    pub(crate) fn is_held_back(&self) -> bool {
        self.standing.load(Ordering::Acquire) & HELD_BACK != 0
    }

    pub(crate) fn set_held_back(&self, held_back: bool) {
        if held_back {
            self.standing.fetch_or(HELD_BACK, Ordering::AcqRel);
        } else {
            self.standing.fetch_and(!HELD_BACK, Ordering::AcqRel);
        }
    }

    /// An error if the namespace was removed: the one that the device gives when there is none.
    pub(crate) fn check_present(&self) -> Result<(), RequestError> {
        if self.is_removed() { Err(self.removed()) } else { Ok(()) }
    }

    /// An error if a command of these blocks (`None`: of all) must not go out, or not yet.
    pub(crate) fn check_standing(&self, blocks: Option<(u64, u64)>) -> Result<(), RequestError> {
        self.check_present()?;
        if self.is_held_back() { self.core.check_inherited(self.nsid, blocks) } else { Ok(()) }
    }

    /// What every command of a removed namespace ends with.
    #[cold]
    pub(crate) fn removed(&self) -> RequestError {
        NvmeError::of(Status::INVALID_NAMESPACE_OR_FORMAT).into()
    }

    /// Whether other hosts may reach it too (NMIC).
    pub(crate) fn is_shared(&self) -> bool {
        self.details.read().unwrap_or_else(PoisonError::into_inner).shared
    }

    /// An error if blocks lie outside the namespace.
    pub(crate) fn check_range(&self, lba: u64, block_count: u64) -> Result<(), RequestError> {
        let capacity = self.block_count();
        match lba.checked_add(block_count) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(RequestError::OutOfRange { lba, block_count, capacity }),
        }
    }

    /// Takes over what Identify shows now. `false` if it is another disk, or none: then the handle is removed.
    pub(crate) fn follow(&self, seen: &Seen) -> bool {
        if self.is_removed() {
            return false;
        }
        if seen.fixed != self.fixed {
            tracing::warn!(nsid = self.nsid, "another namespace has taken this one's place");
            self.remove();
            return false;
        }
        *self.details.write().unwrap_or_else(PoisonError::into_inner) = seen.details;
        *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = seen.pages.clone();
        let old = self.block_count.swap(seen.block_count, Ordering::AcqRel);
        if old != seen.block_count {
            tracing::info!(nsid = self.nsid, old, new = seen.block_count, "namespace resized");
        }
        self.changed.notify(usize::MAX);
        true
    }

    /// Marks the handle removed, for good.
    pub(crate) fn remove(&self) {
        if self.standing.fetch_or(REMOVED, Ordering::AcqRel) & REMOVED == 0 {
            tracing::info!(nsid = self.nsid, "namespace removed");
        }
        self.changed.notify(usize::MAX);
    }

    pub(crate) fn view(&self) -> NamespaceView {
        let details = self.details();
        NamespaceView {
            nsid: self.nsid,
            block_size: 1 << self.fixed.block_shift,
            block_count: self.block_count.load(Ordering::Acquire),
            max_transfer_blocks: self.max_transfer_blocks,
            removed: self.is_removed(),
            read_only: details.read_only,
            shared: details.shared,
            capacity: details.capacity,
            utilization: details.utilization,
            protection: self.fixed.protection,
            id: self.fixed.id,
        }
    }
}

/// MDTS, the driver's option and 2^16 blocks, whichever is least.
fn max_transfer_blocks(core: &Core, block_size: u32) -> Result<u32, NamespaceError> {
    if let Some(bytes) = core.device_max_transfer()
        && bytes < block_size.into()
    {
        return Err(NamespaceError::MdtsInvalid { bytes, block_size });
    }
    let blocks = (core.max_transfer_bytes() as u64).checked_div(block_size.into()).unwrap_or_default();
    // The option alone never makes a namespace unusable.
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX).clamp(1, 1 << 16))
}
