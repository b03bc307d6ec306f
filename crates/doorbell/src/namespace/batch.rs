//! Many commands under one doorbell, by the caller's wish.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use super::{Namespace, Transfer};
use crate::error::RequestError;
use crate::queue::Hold;

/// What this thread submits to a CPU's queue while this lives goes out under one doorbell: when it is dropped, or as
/// soon as somebody waits for it.
///
/// It is for submitting, not for waiting: poll the futures once, drop it, then wait. Nothing is lost if it goes
/// otherwise. Whoever submits from another thread, polls a future again, finds the queue full or looks for completions
/// rings for all; and a batch that is found open then was closed early. A task whose command is the first behind the
/// doorbell is woken once, to come back and see that it was rung.
///
/// ```no_run
/// # async fn read(namespace: &doorbell::Namespace, memory: &doorbell::GuestMemory) -> Result<(), doorbell::RequestError> {
/// use doorbell::PagedRange;
///
/// let pages = [0, 1, 2, 3];
/// let reads = pages.chunks(1).zip(0..).map(|(page, lba)| {
///     let range = PagedRange::new(0, 4096, page).expect("one page");
///     namespace.read(0, lba, 1, memory, range)
/// });
/// // Does just that: one doorbell, then waits for all.
/// for result in namespace.submit_many(0, reads).await {
///     result?;
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a batch ends when it is dropped"]
pub struct Batch<'a> {
    /// None where there is nothing to hold: another thread holds it, or the CPU has no queue yet.
    _hold: Option<Hold<'a>>,
}

impl Namespace {
    /// Opens a batch of this thread on a CPU's queue. Without effect until the CPU has a queue, and while another
    /// thread has a batch open on it: then every command rings.
    pub fn batch(&self, target_cpu: u32) -> Batch<'_> {
        let queue = self.inner().core.issuers.get(target_cpu).ok().flatten();
        Batch { _hold: queue.and_then(|queue| queue.hold()) }
    }

    /// Submits transfers that go out on one CPU's queue under one doorbell, and waits for all of them. The results are
    /// in the order of the transfers.
    pub async fn submit_many<'a>(
        &self,
        target_cpu: u32,
        transfers: impl IntoIterator<Item = Transfer<'a>>,
    ) -> Vec<Result<(), RequestError>> {
        let mut transfers: Vec<_> = transfers.into_iter().map(|transfer| (transfer, None)).collect();
        poll_fn(|context| {
            let _batch = self.batch(target_cpu);
            for (transfer, result) in &mut transfers {
                if let Poll::Ready(ended) = Pin::new(transfer).poll(context) {
                    *result = Some(ended);
                }
            }
            Poll::Ready(())
        })
        .await;
        let mut results = Vec::with_capacity(transfers.len());
        for (transfer, result) in transfers {
            results.push(match result {
                Some(result) => result,
                None => transfer.await,
            });
        }
        results
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}
