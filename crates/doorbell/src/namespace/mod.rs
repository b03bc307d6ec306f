//! The front end: a namespace, usable from any CPU.

mod batch;
mod commands;
mod compare_write;
mod copy;
mod deallocate;
mod info;
mod inner;
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
pub(crate) use inner::Inner;
pub use reservation::{ReservationCapabilities, ReservationReport};
pub use split::{LargeTransferError, SplitPlan};
pub(crate) use table::Table;
pub use transfer::{BufferTransfer, Transfer};
pub(crate) use transfer::{Kind, Request};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::driver::Core;
use crate::error::{NamespaceError, RequestError};

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
