//! Transfers that need more than a slot: those that wait for one, or for pages of the pool; whose data is named by a
//! list; or goes through the pool.

use std::task::{Context, Poll, ready};

use doorbell_device::Access;

use super::transfer::{Request, Terms};
use crate::error::RequestError;
use crate::memory::{Chain, DmaBuffer, MemoryError, chain_pages, run_pointers};
use crate::queue::{Exchange, Notes, QueuePair, Refused};

/// See the module.
pub(super) struct LongWay<'a> {
    step: Step,
    /// Blocks done, of a transfer that goes in pieces, and blocks of the piece under way.
    done: u32,
    piece: u32,
    terms: Terms,
    exchange: Exchange<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To be submitted straight from the payload, if the device can reach it.
    Direct,
    InFlight,
    /// To be submitted through the pool.
    Bounced,
    InFlightBounced,
}

/// Why a command could not go out as it was to.
enum Unbuilt {
    /// Its namespace was removed while it waited.
    Removed,
    Memory(MemoryError),
    /// The device cannot reach the memory, or it cannot be named to it.
    NeedsBounce,
}

impl From<MemoryError> for Unbuilt {
    fn from(error: MemoryError) -> Self {
        Unbuilt::Memory(error)
    }
}

impl<'a> LongWay<'a> {
    pub(super) fn new(queue: &'a QueuePair, terms: Terms) -> Self {
        Self { step: Step::Direct, done: 0, piece: 0, terms, exchange: Exchange::new(queue) }
    }

    /// How often the command under way was tried again.
    pub(super) fn retries(&self) -> u32 {
        self.terms.retries
    }

    /// The command under way failed, and is to be tried again.
    pub(super) fn go_back(&mut self) {
        let queue = self.exchange.queue();
        queue.count_retry();
        self.terms.retries = self.terms.retries.saturating_add(1);
        self.step = if matches!(self.step, Step::Direct | Step::InFlight) { Step::Direct } else { Step::Bounced };
        self.exchange = Exchange::new(queue);
    }

    /// Gives everything up. What the device still works on stays, `buffer` with it, until it is done.
    pub(super) fn abandon(mut self, buffer: Option<DmaBuffer>) {
        // Through the pool, the device never sees the buffer.
        let buffer = buffer.filter(|_| self.step == Step::InFlight);
        self.exchange.abandon(buffer);
    }

    pub(super) fn poll(
        &mut self,
        request: &mut Request<'_>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        if self.step == Step::Direct {
            match ready!(self.poll_direct(request, context)) {
                Ok(()) => {
                    self.step = Step::InFlight;
                    // Its waker is registered, so a completion from here on wakes it.
                    if !self.exchange.may_be_done() {
                        return Poll::Pending;
                    }
                }
                Err(Refused::Lost(lost)) => return Poll::Ready(Err(lost.into())),
                Err(Refused::Build(Unbuilt::Removed)) => return Poll::Ready(Err(request.inner.removed())),
                Err(Refused::Build(Unbuilt::Memory(error))) => return Poll::Ready(Err(error.into())),
                Err(Refused::Build(Unbuilt::NeedsBounce)) => {
                    // Pages taken for a list are too few for data.
                    self.exchange.return_pages();
                    self.step = Step::Bounced;
                }
            }
        }
        if self.step == Step::InFlight {
            return self.exchange.poll_result(context).map_ok(drop);
        }
        self.poll_pieces(request, context)
    }

    /// Piece by piece through the pool.
    #[inline(never)]
    fn poll_pieces(&mut self, request: &mut Request<'_>, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        loop {
            if self.step == Step::Bounced {
                ready!(self.poll_bounced(request, context))?;
                self.step = Step::InFlightBounced;
                if !self.exchange.may_be_done() {
                    return Poll::Pending;
                }
            }
            ready!(self.exchange.poll_result(context))?;
            self.finish_piece(request)?;
            if self.done == request.block_count {
                return Poll::Ready(Ok(()));
            }
            self.step = Step::Bounced;
        }
    }

    /// Submits it straight from the payload, if the device can reach that.
    fn poll_direct(&mut self, request: &Request<'_>, context: &mut Context<'_>) -> Poll<Result<(), Refused<Unbuilt>>> {
        let core = &*request.inner.core;
        let Some(registration) = request.payload.registration(request.inner.direct_driver) else {
            return Poll::Ready(Err(Refused::Build(Unbuilt::NeedsBounce)));
        };
        let bytes = request.bytes(request.block_count);
        let pool = self.exchange.queue().pool();
        let chain_pages = chain_pages(&core.layout, self.exchange.queue().list_words(), bytes);
        if chain_pages != 0 {
            let chain_bytes = chain_pages.saturating_mul(core.page_size);
            if chain_bytes > pool.capacity() {
                return Poll::Ready(Err(Refused::Build(Unbuilt::NeedsBounce)));
            }
            ready!(self.exchange.poll_pages(chain_bytes, context));
        }
        let notes = Notes { tag: request.tag, registration, limit: self.terms.limit, ..Notes::default() };
        self.exchange.poll_start(context, notes, |list, run| {
            // Under the queue's lock: after a reset, nothing goes to another disk in the old one's place.
            if request.inner.is_removed() {
                return Err(Unbuilt::Removed);
            }
            let chain = run.map(|run| {
                let (memory, offset, _) = pool.memory(run);
                Chain { memory, offset }
            });
            let pointers = request.payload.pointers(
                request.inner.direct_driver,
                &core.layout,
                list,
                chain,
                request.kind.access,
                (0, bytes),
            )?;
            Ok(request.command(0, request.block_count, pointers.ok_or(Unbuilt::NeedsBounce)?))
        })
    }

    /// Submits the next piece through the pool.
    fn poll_bounced(&mut self, request: &Request<'_>, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let core = &*request.inner.core;
        let total = request.bytes(request.block_count);
        let queue = self.exchange.queue();
        let pool = queue.pool();
        // One SGL data block says any run of pages; a PRP list may need pages of the pool itself.
        let list_pages = |bytes| if core.layout.sgl { 0 } else { chain_pages(&core.layout, queue.list_words(), bytes) };
        let capacity =
            pool.capacity().saturating_sub(list_pages(pool.capacity().min(total)).saturating_mul(core.page_size));
        let largest = capacity.checked_div(request.inner.transfer_block_size as usize).unwrap_or_default();
        if largest == 0 || (largest < request.block_count as usize && !request.kind.divisible) {
            let error = RequestError::TooLarge { len: total as u64, max: capacity as u64, unit: "bytes" };
            return Poll::Ready(Err(error));
        }
        // Before anything is sent, the whole of the memory is looked at.
        if self.done == 0 {
            request.payload.check(0, total, request.kind.access)?;
        }
        self.piece = request.block_count.saturating_sub(self.done).min(u32::try_from(largest).unwrap_or(u32::MAX));
        let (done, piece) = (request.bytes(self.done), request.bytes(self.piece));
        let (done_blocks, blocks) = (self.done, self.piece);
        let data = piece.next_multiple_of(core.page_size);
        ready!(
            self.exchange.poll_pages(data.saturating_add(list_pages(piece).saturating_mul(core.page_size)), context)
        );
        let notes = Notes { tag: request.tag, limit: self.terms.limit, bounced: true, ..Notes::default() };
        let started = self.exchange.poll_start(context, notes, |list, run| {
            request.inner.check_present()?;
            let nowhere = MemoryError::NotPresent { gpa: u64::MAX };
            let (memory, offset, _) = pool.memory(run.ok_or(nowhere.clone())?);
            if request.kind.access == Access::Read {
                request.payload.copy_out((done, piece), memory, offset)?;
            }
            let chain = Chain { memory, offset: offset.saturating_add(data) };
            let pointers = run_pointers(memory, offset, core.layout, list, Some(chain), piece);
            Ok::<_, RequestError>(request.command(done_blocks, blocks, pointers.ok_or(nowhere)?))
        });
        match ready!(started) {
            Ok(()) => {}
            Err(Refused::Lost(lost)) => return Poll::Ready(Err(lost.into())),
            Err(Refused::Build(error)) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(()))
    }

    /// A piece came through the pool: copies what was read to where it belongs, and gives the pages back.
    fn finish_piece(&mut self, request: &mut Request<'_>) -> Result<(), RequestError> {
        let part = (request.bytes(self.done), request.bytes(self.piece));
        let exchange = &mut self.exchange;
        if request.kind.access == Access::Write
            && let Some(run) = exchange.run()
        {
            let (memory, offset, _) = exchange.queue().pool().memory(run);
            request.payload.copy_in(part, memory, offset)?;
        }
        self.done = self.done.saturating_add(self.piece);
        self.terms.retries = 0;
        exchange.return_pages();
        Ok(())
    }
}
