//! Transfers larger than one command: split, the parts in flight together.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Namespace, Transfer};
use crate::error::RequestError;
use crate::memory::{GuestMemory, PagedRange};

/// How a large transfer is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitPlan {
    /// Parts in flight together; 0 counts as 1.
    pub in_flight: usize,
}

impl Default for SplitPlan {
    /// Eight parts in flight together.
    fn default() -> Self {
        Self { in_flight: 8 }
    }
}

impl SplitPlan {
    /// So many parts in flight together, at least one.
    #[must_use]
    pub fn in_flight(parts: usize) -> Self {
        Self { in_flight: parts.max(1) }
    }
}

/// A large transfer of which a part failed.
///
/// All parts that were in flight were waited for; those not yet sent were not sent.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the part at block {lba} failed: {source}; the first {done_blocks} blocks are done")]
pub struct LargeTransferError {
    /// The first block of the first part that failed.
    pub lba: u64,
    /// Blocks from the start of the transfer of which all parts before are done.
    pub done_blocks: u64,
    /// How it failed.
    pub source: RequestError,
}

impl Namespace {
    /// Reads any number of blocks into guest memory, in parts of
    /// [`max_transfer_block_count`](Self::max_transfer_block_count).
    ///
    /// # Errors
    /// [`LargeTransferError`] says which part failed and how much is done before it.
    pub async fn read_large(
        &self,
        target_cpu: u32,
        lba: u64,
        block_count: u64,
        guest_memory: &GuestMemory,
        range: PagedRange<'_>,
        plan: SplitPlan,
    ) -> Result<(), LargeTransferError> {
        let part = |lba, blocks, range| self.read(target_cpu, lba, blocks, guest_memory, range);
        self.in_parts(lba, block_count, range, plan, part).await
    }

    /// Writes any number of blocks from guest memory, in parts of
    /// [`max_transfer_block_count`](Self::max_transfer_block_count), in no particular order.
    ///
    /// # Errors
    /// [`LargeTransferError`] says which part failed and how much is done before it; parts after it may be done too.
    #[expect(clippy::too_many_arguments, reason = "those of a write, and the plan")]
    pub async fn write_large(
        &self,
        target_cpu: u32,
        lba: u64,
        block_count: u64,
        fua: bool,
        guest_memory: &GuestMemory,
        range: PagedRange<'_>,
        plan: SplitPlan,
    ) -> Result<(), LargeTransferError> {
        let part = |lba, blocks, range| self.write(target_cpu, lba, blocks, fua, guest_memory, range);
        self.in_parts(lba, block_count, range, plan, part).await
    }

    async fn in_parts<'a>(
        &'a self,
        lba: u64,
        block_count: u64,
        range: PagedRange<'a>,
        plan: SplitPlan,
        part: impl Fn(u64, u32, PagedRange<'a>) -> Transfer<'a>,
    ) -> Result<(), LargeTransferError> {
        let whole = |source| LargeTransferError { lba, done_blocks: 0, source };
        let inner = self.inner();
        inner.check_range(lba, block_count).map_err(whole)?;
        let block_size = inner.transfer_block_size as usize;
        let len = range.len();
        let needed = usize::try_from(block_count).ok().and_then(|blocks| blocks.checked_mul(block_size));
        let needed = needed.unwrap_or(usize::MAX);
        if len < needed {
            return Err(whole(RequestError::TooShort { len, needed }));
        }
        let mut parts = Parts { in_flight: Vec::new(), failed: None };
        let mut next = 0;
        loop {
            while parts.in_flight.len() < plan.in_flight.max(1) && next < block_count && parts.failed.is_none() {
                let blocks = block_count.saturating_sub(next).min(inner.max_transfer_blocks.into());
                let bytes = (blocks as usize).saturating_mul(block_size);
                let Some(piece) = range.subrange((next as usize).saturating_mul(block_size), bytes) else { break };
                let transfer = part(lba.saturating_add(next), blocks as u32, piece);
                parts.in_flight.push((next, Box::pin(transfer)));
                next = next.saturating_add(blocks);
            }
            if parts.in_flight.is_empty() {
                break;
            }
            (&mut parts).await;
        }
        match parts.failed {
            None => Ok(()),
            Some((done_blocks, source)) => {
                Err(LargeTransferError { lba: lba.saturating_add(done_blocks), done_blocks, source })
            }
        }
    }
}

/// The parts in flight; ready when one has ended. The failure with the lowest block is kept.
struct Parts<'a> {
    in_flight: Vec<(u64, Pin<Box<Transfer<'a>>>)>,
    failed: Option<(u64, RequestError)>,
}

impl Future for Parts<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let before = this.in_flight.len();
        let failed = &mut this.failed;
        this.in_flight.retain_mut(|(at, transfer)| match transfer.as_mut().poll(context) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                if failed.as_ref().is_none_or(|(lowest, _)| *at < *lowest) {
                    *failed = Some((*at, error));
                }
                false
            }
        });
        if this.in_flight.len() < before { Poll::Ready(()) } else { Poll::Pending }
    }
}
