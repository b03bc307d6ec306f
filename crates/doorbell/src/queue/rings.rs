//! The two rings of a queue pair (NVMe Base 2.0, Queue Model): positions, wrap and phase.

use doorbell_device::{dma_rmb, dma_wmb};
use nvme_spec::Completion;

use super::words::Words;
use crate::sync::Ordering;

const COMMAND_WORDS: usize = 8;
const COMPLETION_WORDS: usize = 2;

/// Where the driver is in the submission ring.
pub(crate) struct SubmissionRing {
    entries: u16,
    tail: u16,
    /// As the device last reported it.
    head: u16,
}

impl SubmissionRing {
    pub(crate) fn new(entries: u16) -> Self {
        Self { entries, tail: 0, head: 0 }
    }

    /// Writes a command at the tail and moves on. The caller sees to it that there is room, by having fewer slots
    /// than the ring has entries.
    #[inline]
    pub(crate) fn push(&mut self, ring: &Words, command: &[u64; COMMAND_WORDS]) {
        let entry = ring.array::<COMMAND_WORDS>(usize::from(self.tail) * COMMAND_WORDS);
        for (cell, word) in entry.iter().zip(command) {
            cell.store(*word, Ordering::Relaxed);
        }
        self.tail = if self.tail + 1 == self.entries { 0 } else { self.tail + 1 };
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

    /// Takes the head from a completion; `false` if there is no such entry.
    #[inline]
    pub(crate) fn set_head(&mut self, head: u16) -> bool {
        self.head = head;
        head < self.entries
    }
}

/// Where the driver is in the completion ring.
pub(crate) struct CompletionRing {
    entries: u16,
    head: u16,
    phase: bool,
}

impl CompletionRing {
    pub(crate) fn new(entries: u16) -> Self {
        Self { entries, head: 0, phase: true }
    }

    /// The completion at the head, if the device has posted one.
    #[inline]
    pub(crate) fn peek(&self, ring: &Words) -> Option<Completion> {
        let [first, second] = ring.array::<COMPLETION_WORDS>(usize::from(self.head) * COMPLETION_WORDS);
        // The phase bit's word holds the identifiers and the status too: one load, one moment. What it vouches for
        // besides, the result, is read after.
        let word1 = second.load(Ordering::Acquire);
        if Completion::phase_of_word1(word1) != self.phase {
            return None;
        }
        dma_rmb();
        let word0 = first.load(Ordering::Relaxed);
        Some(Completion::from_words([word0, word1]))
    }

    /// Moves past the completion at the head.
    #[inline]
    pub(crate) fn pop(&mut self) {
        self.head += 1;
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
pub(crate) fn clear(submission: &Words, completion: &Words) {
    for i in 0..submission.len() {
        submission.at(i).store(0, Ordering::Relaxed);
    }
    // A phase bit left from an earlier life would look like a completion.
    for i in 0..completion.len() {
        completion.at(i).store(0, Ordering::Relaxed);
    }
    dma_wmb();
}
