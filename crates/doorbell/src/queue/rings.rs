//! The two rings of a queue pair (NVMe Base 2.0, Queue Model): positions, wrap and phase.

use doorbell_device::{dma_rmb, dma_wmb};
use nvme_spec::Completion;

use super::words::Words;
use crate::sync::{AtomicU64, Ordering};

/// The entries of a submission ring.
pub(crate) type Commands = Words<8>;
/// The entries of a completion ring.
pub(crate) type Completions = Words<2>;

/// Where the driver is in the submission ring.
pub(crate) struct SubmissionRing {
    entries: u16,
    tail: u16,
    /// As the device last reported it.
    head: u16,
    /// The SQID and SQHD of a completion that names the first entry, as one number; and how many there are from it on.
    first: u32,
    count: u32,
}

impl SubmissionRing {
    pub(crate) fn new(id: u16, entries: u16) -> Self {
        Self::at(id, entries, 0, 0)
    }

    /// Where another process was.
    pub(crate) fn at(id: u16, entries: u16, tail: u16, head: u16) -> Self {
        Self { entries, tail, head, first: u32::from(id) << 16, count: entries.into() }
    }

    /// Writes a command at the tail and moves on. The caller sees to it that there is room, by having fewer slots
    /// than the ring has entries.
    #[inline(always)]
    pub(crate) fn push(&mut self, ring: &Commands, command: &[u64; 8]) {
        let entry = ring.at(self.tail);
        self.tail = if self.tail + 1 == self.entries { 0 } else { self.tail + 1 };
        for (cell, word) in entry.iter().zip(command) {
            cell.store(*word, Ordering::Relaxed);
        }
    }

    /// What the tail doorbell is to say.
    #[inline]
    pub(crate) fn tail(&self) -> u16 {
        self.tail
    }

    /// The head as the device last reported it.
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Whether the words of a completion name this ring, and one of its entries as the head.
    #[inline(always)]
    pub(crate) fn is_named_by(&self, completion: [u64; 2]) -> bool {
        // SQHD and SQID lie together, so that both are looked at in one comparison.
        (completion[1] as u32).wrapping_sub(self.first) < self.count
    }

    /// Takes the head from a completion that names one of the entries.
    #[inline(always)]
    pub(crate) fn set_head(&mut self, head: u16) {
        self.head = head;
    }
}

/// Where the driver is in the completion ring.
#[derive(Clone, Copy)]
pub(crate) struct CompletionRing {
    entries: u16,
    head: u16,
    phase: bool,
}

impl CompletionRing {
    pub(crate) fn new(entries: u16) -> Self {
        Self::at(entries, 0, true)
    }

    /// Where another process was.
    pub(crate) fn at(entries: u16, head: u16, phase: bool) -> Self {
        Self { entries, head, phase }
    }

    /// Whether the device has posted a completion at the head.
    #[inline(always)]
    pub(crate) fn is_posted(&self, ring: &Completions) -> bool {
        let [_, second] = ring.at(self.head);
        Completion::phase_of_word1(second.load(Ordering::Acquire)) == self.phase
    }

    /// The entries from the head to the ring's end, but no more than `max`.
    #[inline(always)]
    pub(crate) fn ahead<'a>(&self, ring: &'a [[AtomicU64; 2]], max: usize) -> &'a [[AtomicU64; 2]] {
        let head = usize::from(self.head);
        ring.get(head..usize::from(self.entries).min(head + max)).unwrap_or_default()
    }

    /// The words of the completion in an entry [`ahead`](Self::ahead), if the device has posted one.
    #[inline(always)]
    pub(crate) fn posted(&self, [first, second]: &[AtomicU64; 2]) -> Option<[u64; 2]> {
        // The phase bit's word holds the identifiers and the status too: one load, one moment. What it vouches for
        // besides, the result, is read after.
        let word1 = second.load(Ordering::Acquire);
        if Completion::phase_of_word1(word1) != self.phase {
            return None;
        }
        dma_rmb();
        Some([first.load(Ordering::Relaxed), word1])
    }

    /// Moves past so many of the entries [`ahead`](Self::ahead).
    #[inline(always)]
    pub(crate) fn pop(&mut self, count: usize) {
        self.head += count as u16;
        if self.head == self.entries {
            self.head = 0;
            self.phase = !self.phase;
        }
    }

    /// What the head doorbell is to say.
    #[inline]
    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// The phase that a new completion will carry.
    pub(crate) fn phase(&self) -> bool {
        self.phase
    }
}

/// Empties both rings, for a queue that is about to be created (again) on the device.
pub(crate) fn clear(submission: &Commands, completion: &Completions) {
    // A phase bit left from an earlier life would look like a completion.
    for word in submission.all().as_flattened().iter().chain(completion.all().as_flattened()) {
        word.store(0, Ordering::Relaxed);
    }
    dma_wmb();
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
