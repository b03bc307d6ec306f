//! The front end: a namespace, usable from any CPU.

mod batch;
mod commands;
mod compare_write;
mod copy;
mod deallocate;
mod info;
mod long_way;
mod reservation;
mod saved;
mod split;
mod table;
mod transfer;

pub use batch::Batch;
pub use deallocate::LbaRange;
pub(crate) use info::Seen;
pub use info::{NamespaceId, Protection};
pub use reservation::{ReservationCapabilities, ReservationReport};
pub use split::{LargeTransferError, SplitPlan};
pub(crate) use table::Table;
pub use transfer::{BufferTransfer, Transfer};
pub(crate) use transfer::{Kind, Request};

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use event_listener::Event;
use nvme_spec::Status;

use self::info::{Details, Fixed, Pages};
use crate::driver::Core;
use crate::error::{NamespaceError, NvmeError, RequestError};

/// The namespace is gone, for good as far as its handle goes.
const REMOVED: u8 = 1;
/// There are commands of another process that new I/O may have to wait for.
const HELD_BACK: u8 = 2;

/// How a namespace is to be used.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct NamespaceOptions {
    /// Carry metadata that lies behind each block's data (extended LBAs): every block then has
    /// [`Namespace::transfer_block_size`] bytes in memory. Without it, a namespace with metadata that the controller
    /// does not take care of is refused.
    pub carry_metadata: bool,
}

impl NamespaceOptions {
    /// Carry metadata that lies behind each block's data.
    #[must_use]
    pub fn carry_metadata(mut self, carry: bool) -> Self {
        self.carry_metadata = carry;
        self
    }
}

/// A namespace: blocks that can be read and written from any CPU.
///
/// All reading methods are cheap: no command, no lock. Every method that issues a command takes the CPU on whose queue
/// pair it goes out. A command is submitted in the first poll of its future; dropping the future is safe at any time,
/// though the command may still take effect.
pub struct Namespace {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) nsid: u32,
    fixed: Fixed,
    /// Bytes that a block has in memory: its data, and its metadata if that is carried.
    transfer_block_size: u32,
    max_transfer_blocks: u32,
    /// The number of the driver by which memory knows whether it can be used directly; no driver's, where all data is
    /// to be bounced.
    direct_driver: u64,
    block_count: AtomicU64,
    /// [`REMOVED`] and [`HELD_BACK`]; 0 as long as all is well.
    standing: AtomicU8,
    details: RwLock<Details>,
    /// What Identify showed last.
    pages: Mutex<Arc<Pages>>,
    /// Whether metadata is carried.
    carry_metadata: bool,
    /// The last command of each queue before this handle: those up to it are no business of this one.
    before: BTreeMap<u16, u64>,
    /// Size or presence changed.
    pub(crate) changed: Event,
}

impl Namespace {
    pub(crate) async fn open(core: &Arc<Core>, nsid: u32, options: NamespaceOptions) -> Result<Self, NamespaceError> {
        core.check_running()?;
        if let Some(inner) = core.namespaces.inherit(nsid, options.carry_metadata) {
            return Ok(Self { inner });
        }
        let Some(reservation) = core.namespaces.reserve(nsid) else {
            return Err(NamespaceError::DuplicateRequest { nsid });
        };
        let seen = core.see_namespace(nsid).await?;
        let inner = Arc::new(Inner::new(core.clone(), nsid, seen, options.carry_metadata)?);
        if reservation.fulfil(inner.clone()) {
            core.rescan(nsid);
        }
        core.hold_back_too(&inner);
        Ok(Self { inner })
    }

    /// Namespace Identifier.
    #[must_use]
    pub fn nsid(&self) -> u32 {
        self.inner.nsid
    }

    /// Bytes of a block's data. Never changes under a handle.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        1 << self.inner.fixed.block_shift
    }

    /// Bytes that a block has in memory: [`block_size`](Self::block_size), and its metadata where that is carried.
    #[must_use]
    pub fn transfer_block_size(&self) -> u32 {
        self.inner.transfer_block_size
    }

    /// Blocks, as of now (NSZE).
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.inner.block_count.load(Ordering::Acquire)
    }

    /// The most blocks that one read or write may have.
    #[must_use]
    pub fn max_transfer_block_count(&self) -> u32 {
        self.inner.max_transfer_blocks
    }

    /// Whether blocks can be deallocated (ONCS, or DMRSL not 0).
    #[must_use]
    pub fn supports_dataset_management(&self) -> bool {
        self.inner.core.identify.oncs.dataset_management() || self.inner.core.nvm.dmrsl != 0
    }

    /// Blocks that are best deallocated together (NPDG or NPDGL); 1 where unreported.
    #[must_use]
    pub fn preferred_deallocate_granularity(&self) -> u32 {
        self.inner.details().deallocate_granularity
    }

    /// Ranges that the device takes in one deallocate command (DMRL); 256 where it does not say.
    #[must_use]
    pub fn dataset_management_range_limit(&self) -> u32 {
        match self.inner.core.nvm.dmrl {
            0 => 256,
            limit => limit.into(),
        }
    }

    /// Blocks that one range of a deallocate command may have (DMRSL); `None` where there is no limit.
    #[must_use]
    pub fn dataset_management_range_size_limit(&self) -> Option<u32> {
        let limit = self.inner.core.nvm.dmrsl;
        (limit != 0).then_some(limit)
    }

    /// Blocks that all ranges of a deallocate command together may have (DMSL); `None` where there is no limit.
    #[must_use]
    pub fn dataset_management_size_limit(&self) -> Option<u64> {
        let limit = self.inner.core.nvm.dmsl;
        (limit != 0).then_some(limit)
    }

    /// What the namespace can do about reservations; nothing where the controller has none.
    #[must_use]
    pub fn reservation_capabilities(&self) -> ReservationCapabilities {
        match self.inner.core.identify.oncs.reservations() {
            true => ReservationCapabilities::from(self.inner.details().rescap),
            false => ReservationCapabilities::default(),
        }
    }

    /// Identifiers that stay the same wherever the namespace is seen.
    #[must_use]
    pub fn id(&self) -> NamespaceId {
        self.inner.fixed.id
    }

    /// End-to-end protection information, which the controller takes care of.
    #[must_use]
    pub fn protection(&self) -> Protection {
        self.inner.fixed.protection
    }

    /// Whether it is write protected (NSATTR).
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.inner.details().read_only
    }

    /// Whether several controllers may have it attached (NMIC).
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.inner.details().shared
    }

    /// Whether writes may rest in a volatile cache until a flush (VWC).
    #[must_use]
    pub fn has_volatile_write_cache(&self) -> bool {
        self.inner.core.identify.vwc.present()
    }

    /// Whether the volatile write cache is on, which the controller is asked.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn volatile_write_cache_enabled(&self) -> Result<bool, RequestError> {
        self.inner.core.volatile_write_cache_enabled().await
    }

    /// Bytes of a physical block: what is written without reading first (NPWG and atomic units; else a block).
    #[must_use]
    pub fn physical_block_size(&self) -> u32 {
        let details = self.inner.details();
        // A physical block must be written whole even if power fails, so it is no larger than that.
        let preferred = details.optimal_write.unwrap_or(1).min(details.atomic_write_power_fail.max(1));
        let blocks = if preferred.is_power_of_two() { preferred } else { 1 };
        blocks.saturating_mul(self.block_size())
    }

    /// Bytes of a write that suits the device best (NOWS, else NPWG); `None` where unreported.
    #[must_use]
    pub fn optimal_io_size(&self) -> Option<u32> {
        let details = self.inner.details();
        let blocks = details.optimal_write_size.or(details.optimal_write)?;
        Some(blocks.saturating_mul(self.block_size()))
    }

    /// Blocks between boundaries that I/O had better not cross (NOIOB); 0 for none.
    #[must_use]
    pub fn optimal_io_boundary(&self) -> u16 {
        self.inner.details().optimal_boundary
    }

    /// What a read of deallocated blocks gives (DLFEAT): 0 not reported, 1 zeroes, 2 ones.
    #[must_use]
    pub fn deallocated_read_behavior(&self) -> u8 {
        self.inner.details().dlfeat
    }

    /// Blocks that are written atomically (NAWUN or AWUN), and also if power fails (NAWUPF or AWUPF).
    #[must_use]
    pub fn atomic_write_units(&self) -> (u32, u32) {
        let details = self.inner.details();
        (details.atomic_write, details.atomic_write_power_fail)
    }

    /// Blocks between the boundaries that an atomic write may not cross, and the first one's offset (NABSN, NABO);
    /// 0 for none.
    #[must_use]
    pub fn atomic_boundary(&self) -> (u32, u16) {
        self.inner.details().atomic_boundary
    }

    /// Whether the namespace was removed, or replaced by another one. For good, as far as this handle goes.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.inner.is_removed()
    }

    /// Waits until [`block_count`](Self::block_count) is another number than `old`, and returns it.
    ///
    /// # Errors
    /// When the namespace is removed, or the controller takes no more commands.
    pub async fn wait_resize(&self, old: u64) -> Result<u64, RequestError> {
        loop {
            let listener = self.inner.changed.listen();
            self.inner.check_present()?;
            self.inner.core.check_running()?;
            let now = self.block_count();
            if now != old {
                return Ok(now);
            }
            listener.await;
        }
    }

    /// Waits until the namespace is removed, or the controller takes no more commands.
    pub async fn wait_removed(&self) {
        loop {
            let listener = self.inner.changed.listen();
            if self.is_removed() || self.inner.core.check_running().is_err() {
                return;
            }
            listener.await;
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.inner.core.namespaces.release(&self.inner);
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("nsid", &self.nsid())
            .field("block_size", &self.block_size())
            .field("block_count", &self.block_count())
            .finish_non_exhaustive()
    }
}

/// MDTS, the driver's option and 2^16 blocks, whichever is least.
fn max_transfer_blocks(core: &Core, block_size: u32) -> Result<u32, NamespaceError> {
    if let Some(bytes) = core.device_max_transfer()
        && bytes < block_size.into()
    {
        return Err(NamespaceError::MdtsInvalid { bytes, block_size });
    }
    let blocks = core.max_transfer_bytes() as u64 / u64::from(block_size);
    // The option alone never makes a namespace unusable.
    Ok(u32::try_from(blocks).unwrap_or(u32::MAX).clamp(1, 1 << 16))
}

impl Inner {
    fn new(core: Arc<Core>, nsid: u32, seen: Seen, carry_metadata: bool) -> Result<Self, NamespaceError> {
        let fixed = seen.fixed;
        let block_size = 1u32 << fixed.block_shift;
        let taken_care_of = fixed.metadata == 0 || fixed.protection != Protection::None;
        let transfer_block_size = match taken_care_of {
            true => block_size,
            false if carry_metadata && fixed.interleaved => block_size + u32::from(fixed.metadata),
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
        *self.details.read().unwrap_or_else(|e| e.into_inner())
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
    #[inline(always)]
    pub(crate) fn check_standing(&self, blocks: Option<(u64, u64)>) -> Result<(), RequestError> {
        if self.is_well() { Ok(()) } else { self.check_closely(blocks) }
    }

    #[cold]
    #[inline(never)]
    fn check_closely(&self, blocks: Option<(u64, u64)>) -> Result<(), RequestError> {
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
        self.details.read().unwrap_or_else(std::sync::PoisonError::into_inner).shared
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
        *self.details.write().unwrap_or_else(|e| e.into_inner()) = seen.details;
        *self.pages.lock().unwrap_or_else(|e| e.into_inner()) = seen.pages.clone();
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

/// A namespace as it is at a moment.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct NamespaceView {
    /// Namespace Identifier.
    pub nsid: u32,
    /// Bytes of a block.
    pub block_size: u32,
    /// Blocks.
    pub block_count: u64,
    /// The most blocks of one transfer.
    pub max_transfer_blocks: u32,
    /// Whether it was removed.
    pub removed: bool,
    /// Whether it is write protected.
    pub read_only: bool,
    /// Whether several controllers may have it.
    pub shared: bool,
    /// Blocks that can be allocated (NCAP).
    pub capacity: u64,
    /// Blocks that are allocated (NUSE).
    pub utilization: u64,
    /// End-to-end protection information.
    pub protection: Protection,
    /// Its identifiers.
    pub id: NamespaceId,
}

impl fmt::Display for NamespaceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = if self.removed { ", removed" } else { "" };
        let read_only = if self.read_only { ", read-only" } else { "" };
        writeln!(
            f,
            "namespace {}: {} blocks of {} B, at most {} a transfer{read_only}{removed}",
            self.nsid, self.block_count, self.block_size, self.max_transfer_blocks
        )
    }
}
