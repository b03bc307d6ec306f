//! The pages a queue pair has besides its slots: bounce buffers, and PRP list pages past a slot's own.
//!
//! What one command needs is taken all at once, as one run of pages, in order of arrival. A run goes back when its
//! command is done, and every command that holds one ends without needing another, so whoever is first in line gets
//! its turn: at the latest when the pool is empty of users.

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use doorbell_device::DmaMemory;

use super::waiting::{Place, Waiting};

/// A run of pages taken from a pool. It must be given back to it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "pages that are not given back are lost to the pool"]
pub(crate) struct Run {
    first: u32,
    /// Never 0, so that an optional run is no larger.
    pages: NonZeroU32,
}

impl Run {
    fn new(first: usize, pages: usize) -> Option<Self> {
        Some(Self { first: first.try_into().ok()?, pages: NonZeroU32::new(pages.try_into().ok()?)? })
    }

    /// Its first page, and how many it has.
    pub(crate) fn pages(&self) -> (u32, u32) {
        (self.first, self.pages.get())
    }

    fn range(&self) -> Range<usize> {
        let first = self.first as usize;
        first..first + self.pages.get() as usize
    }
}

pub(crate) struct Pool {
    memory: DmaMemory,
    page_size: usize,
    pages: usize,
    state: Mutex<State>,
}

struct State {
    used: Box<[bool]>,
    in_use: usize,
    waiting: Waiting<Run>,
    /// The queue takes no more commands: nobody needs to wait for pages any more.
    closed: bool,
}

impl Pool {
    /// A pool of all of `memory`, which begins at a page boundary.
    pub(crate) fn new(memory: DmaMemory, page_size: usize) -> Self {
        let pages = memory.len() / page_size;
        let state = State { used: vec![false; pages].into(), in_use: 0, waiting: Waiting::new(), closed: false };
        Self { memory, page_size, pages, state: Mutex::new(state) }
    }

    /// Bytes that one command can have at most.
    pub(crate) fn capacity(&self) -> usize {
        self.pages * self.page_size
    }

    /// Pages there are, and pages in use.
    pub(crate) fn usage(&self) -> (usize, usize) {
        (self.pages, self.lock().in_use)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes`, rounded up to whole pages, or waits for them. `bytes` must not be more than
    /// [`capacity`](Self::capacity). `place` is the caller's place in line, kept from poll to poll.
    pub(crate) fn poll_take(&self, bytes: usize, place: &mut Option<Place>, context: &mut Context<'_>) -> Poll<Run> {
        let pages = bytes.div_ceil(self.page_size).max(1);
        debug_assert!(pages <= self.pages);
        let mut state = self.lock();
        match place {
            Some(waiting) => {
                let (run, old) = state.waiting.take(waiting, context.waker());
                drop(state);
                drop(old);
                match run {
                    Some(run) => {
                        *place = None;
                        Poll::Ready(run)
                    }
                    None => Poll::Pending,
                }
            }
            None => {
                // Nobody is overtaken, even if less is wanted than the first in line wants.
                if !state.waiting.is_hungry()
                    && let Some(run) = state.find(pages)
                {
                    return Poll::Ready(run);
                }
                *place = Some(state.waiting.join(pages, context.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Wakes who waits, for good: the queue takes no more commands.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let woken = state.waiting.wakers();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Whether waiting is in vain. Whoever looks after joining the line misses nothing.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives a run back and serves who waits.
    pub(crate) fn give_back(&self, run: Run) {
        let mut state = self.lock();
        state.free(&run);
        let woken = state.serve();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Gives up a place in line, and passes on what was granted to it.
    pub(crate) fn leave(&self, place: Place) {
        let mut state = self.lock();
        if let Some(run) = state.waiting.leave(place) {
            state.free(&run);
        }
        let woken = state.serve();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Cuts a run in two, the first of `bytes`, a whole number of pages. Each is given back by itself. A run that is
    /// not longer stays whole.
    pub(crate) fn split(&self, run: Run, bytes: usize) -> (Run, Option<Run>) {
        let Range { start, end } = run.range();
        let middle = start + bytes / self.page_size;
        match (Run::new(start, middle - start), Run::new(middle, end.saturating_sub(middle))) {
            (Some(first), Some(rest)) => (first, Some(rest)),
            _ => (run, None),
        }
    }

    /// All of its memory.
    pub(crate) fn all_memory(&self) -> &DmaMemory {
        &self.memory
    }

    /// Takes just these pages, which a command had when the pool was another process's; `None` if there are none, or
    /// they are taken.
    pub(crate) fn take_again(&self, (first, pages): (u32, u32)) -> Option<Run> {
        let run = Run::new(first as usize, pages as usize)?;
        let mut state = self.lock();
        let used = state.used.get_mut(run.range())?;
        if used.iter().any(|used| *used) {
            return None;
        }
        used.fill(true);
        state.in_use += run.range().len();
        Some(run)
    }

    /// The memory of a run: the pool's, and the offset and length in it.
    pub(crate) fn memory(&self, run: &Run) -> (&DmaMemory, usize, usize) {
        let range = run.range();
        (&self.memory, range.start * self.page_size, range.len() * self.page_size)
    }
}

impl State {
    /// The first run of free pages that is long enough, marked as used.
    fn find(&mut self, pages: usize) -> Option<Run> {
        if self.used.len() - self.in_use < pages {
            return None;
        }
        let mut first = 0;
        let mut found = 0;
        for (i, used) in self.used.iter().enumerate() {
            if *used {
                first = i + 1;
                found = 0;
            } else {
                found += 1;
                if found == pages {
                    break;
                }
            }
        }
        if found < pages {
            return None;
        }
        let run = Run::new(first, pages)?;
        self.used.get_mut(run.range())?.fill(true);
        self.in_use += pages;
        Some(run)
    }

    fn free(&mut self, run: &Run) {
        let Some(pages) = self.used.get_mut(run.range()) else { return };
        debug_assert!(pages.iter().all(|used| *used), "a run is given back once");
        pages.fill(false);
        self.in_use -= run.range().len();
    }

    /// Grants those first in line what there is.
    fn serve(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        while let Some(pages) = self.waiting.first_wants() {
            let Some(run) = self.find(pages) else { break };
            woken.extend(self.waiting.grant_first(run));
        }
        woken
    }
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
