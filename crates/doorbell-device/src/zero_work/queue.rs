use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use nvme_spec::{Command, Completion, Status, StatusField};

use crate::{HostMemory, Interrupt, dma_rmb};

const SQE_WORDS: usize = 8;
const CQE_WORDS: usize = 2;

/// A submission queue of a [`ZeroWork`](super::ZeroWork) device, for the one thread that plays the device on it.
///
/// It stays valid when the queue is deleted or the controller reset, and then completes nothing.
#[derive(Debug, Clone)]
pub struct Queue {
    sq: Arc<SubmissionQueue>,
}

impl Queue {
    pub(super) fn new(sq: Arc<SubmissionQueue>) -> Self {
        Self { sq }
    }

    /// Completes, successfully and in order, up to `max` of the commands that the doorbell says are there, as far as
    /// the completion queue has room. Returns how many.
    ///
    /// There is no lock: of all threads, one at a time may call it for queues that share a completion queue. If two
    /// do, commands complete twice.
    #[inline]
    pub fn complete(&self, max: usize) -> usize {
        self.sq.complete(max)
    }

    /// How many commands are submitted and not completed.
    pub fn pending(&self) -> usize {
        self.sq.pending().unwrap_or(0) as usize
    }
}

/// Where a ring lies: `entries` from word `first` of `memory` on.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) memory: HostMemory,
    pub(super) first: usize,
    pub(super) entries: u32,
}

impl Ring {
    #[inline]
    fn words(&self, per_entry: usize) -> &[AtomicU64] {
        let len = self.entries as usize * per_entry;
        self.memory.words().get(self.first..).and_then(|words| words.get(..len)).unwrap_or_default()
    }

    #[inline]
    fn after(&self, index: u32) -> u32 {
        if index + 1 == self.entries { 0 } else { index + 1 }
    }

    /// From one index up to another, going round.
    #[inline]
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + self.entries - from }
    }
}

/// A doorbell as the device reads it.
#[derive(Debug)]
pub(super) struct DoorbellWord {
    pub(super) memory: HostMemory,
    pub(super) dword: usize,
}

impl DoorbellWord {
    #[inline]
    fn load(&self) -> u32 {
        self.memory.dwords().get(self.dword).map_or(0, |word| word.load(Ordering::Acquire))
    }

    pub(super) fn clear(&self) {
        if let Some(word) = self.memory.dwords().get(self.dword) {
            word.store(0, Ordering::Release);
        }
    }
}

// The positions below are atomics so that misuse from two threads is wrong, not undefined; they are never contended,
// so plain loads and stores do.

#[derive(Debug)]
pub(super) struct CompletionQueue {
    pub(super) ring: Ring,
    pub(super) head: DoorbellWord,
    pub(super) interrupt: Option<Interrupt>,
    /// The next entry to write, and above it the phase: `tail << 1 | phase`.
    position: AtomicU32,
}

impl CompletionQueue {
    pub(super) fn new(ring: Ring, head: DoorbellWord, interrupt: Option<Interrupt>) -> Self {
        Self { ring, head, interrupt, position: AtomicU32::new(1) }
    }

    #[inline]
    fn completions(&self) -> &[[AtomicU64; CQE_WORDS]] {
        self.ring.words(CQE_WORDS).as_chunks().0
    }
}

#[derive(Debug)]
pub(super) struct SubmissionQueue {
    pub(super) qid: u16,
    pub(super) ring: Ring,
    pub(super) tail: DoorbellWord,
    pub(super) cq: Arc<CompletionQueue>,
    pub(super) cqid: u16,
    /// The controller's fatal status, for a doorbell that makes no sense.
    pub(super) fatal: Arc<AtomicBool>,
    head: AtomicU32,
    deleted: AtomicBool,
}

impl SubmissionQueue {
    pub(super) fn new(
        (qid, ring, tail): (u16, Ring, DoorbellWord),
        (cqid, cq): (u16, Arc<CompletionQueue>),
        fatal: Arc<AtomicBool>,
    ) -> Self {
        Self { qid, ring, tail, cq, cqid, fatal, head: AtomicU32::new(0), deleted: AtomicBool::new(false) }
    }

    pub(super) fn delete(&self) {
        self.deleted.store(true, Ordering::Relaxed);
    }

    /// How many commands wait; `None` if the doorbell makes no sense or the queue is no more.
    #[inline]
    fn pending(&self) -> Option<u32> {
        let tail = self.tail.load();
        if tail >= self.ring.entries || self.deleted.load(Ordering::Relaxed) {
            self.refuse(tail);
            return None;
        }
        Some(self.ring.distance(self.head.load(Ordering::Relaxed), tail))
    }

    /// How many completions have room, and the position of the first.
    #[inline]
    fn room(&self) -> Option<(u32, u32, bool)> {
        let cq = &*self.cq;
        let head = cq.head.load();
        if head >= cq.ring.entries {
            self.refuse(head);
            return None;
        }
        let position = cq.position.load(Ordering::Relaxed);
        let tail = position >> 1;
        Some((cq.ring.entries - 1 - cq.ring.distance(head, tail), tail, position & 1 == 1))
    }

    #[cold]
    fn refuse(&self, doorbell: u32) {
        if !self.deleted.load(Ordering::Relaxed) {
            tracing::error!(qid = self.qid, cqid = self.cqid, doorbell, "a doorbell past its queue");
            self.fatal.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    fn complete(&self, max: usize) -> usize {
        let Some(pending) = self.pending().filter(|pending| *pending > 0) else { return 0 };
        let Some((room, mut tail, mut phase)) = self.room() else { return 0 };
        let (commands, completions) = (self.commands(), self.cq.completions());
        let sqid = u64::from(self.qid) << 16;
        let mut head = self.head.load(Ordering::Relaxed);
        let count = max.min(pending.min(room) as usize);
        for _ in 0..count {
            let Some(([first, ..], [low, high])) = commands.get(head as usize).zip(completions.get(tail as usize))
            else {
                break;
            };
            let cid = first.load(Ordering::Relaxed) >> 16 & 0xffff;
            head = self.ring.after(head);
            low.store(0, Ordering::Relaxed);
            // `Completion::to_words`, without its detours.
            high.store(u64::from(head) | sqid | cid << 32 | u64::from(phase) << 48, Ordering::Release);
            tail = self.cq.ring.after(tail);
            phase ^= tail == 0;
        }
        self.head.store(head, Ordering::Relaxed);
        self.cq.position.store(tail << 1 | u32::from(phase), Ordering::Relaxed);
        if let (Some(interrupt), 1..) = (&self.cq.interrupt, count) {
            interrupt.raise();
        }
        count
    }

    #[inline]
    fn commands(&self) -> &[[AtomicU64; SQE_WORDS]] {
        self.ring.words(SQE_WORDS).as_chunks().0
    }

    /// Takes a command, for a queue whose commands are carried out.
    pub(super) fn take(&self) -> Option<Command> {
        self.pending().filter(|pending| *pending > 0)?;
        let head = self.head.load(Ordering::Relaxed);
        dma_rmb();
        let words = self.commands().get(head as usize)?.each_ref().map(|word| word.load(Ordering::Relaxed));
        self.head.store(self.ring.after(head), Ordering::Relaxed);
        Some(Command::from_words(words))
    }

    /// Posts the completion of a command that was taken. `false` where the queue is full.
    pub(super) fn post(&self, cid: u16, status: Status, result: u32) -> bool {
        let Some((1.., tail, phase)) = self.room() else { return false };
        let completion = Completion {
            dw0: result,
            dw1: 0,
            sqhd: self.head.load(Ordering::Relaxed) as u16,
            sqid: self.qid,
            cid,
            status: StatusField::new().with_status(status).with_phase(phase),
        };
        let Some([low, high]) = self.cq.completions().get(tail as usize) else { return false };
        let words = completion.to_words();
        low.store(words[0], Ordering::Relaxed);
        high.store(words[1], Ordering::Release);
        let tail = self.cq.ring.after(tail);
        self.cq.position.store(tail << 1 | u32::from(phase ^ (tail == 0)), Ordering::Relaxed);
        if let Some(interrupt) = &self.cq.interrupt {
            interrupt.raise();
        }
        true
    }
}
