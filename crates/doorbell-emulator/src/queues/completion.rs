use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use doorbell_device::Access;
use doorbell_device::inprocess::{DmaFault, DmaView, Host};
use nvme_spec::Completion;

use super::doorbell::{DoorbellSlot, InvalidDoorbell, Shadow, ShadowBuffers, clear, register};
use super::window::Window;
use super::{distance, next};
use crate::saved::{StateError, bad, narrow, state};

/// Bytes of a completion queue entry.
const CQE: u64 = 16;

/// A completion queue.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    pub(crate) vector: u16,
    pub(crate) interrupts: bool,
    /// How many submission queues use it.
    pub(crate) users: u32,
    base: u64,
    size: u32,
    pub(super) head: u32,
    tail: u32,
    /// Where the tail was at the last interrupt.
    announced: u32,
    phase: bool,
    doorbell: usize,
    pub(super) shadow: Option<Shadow>,
    reported: Option<u32>,
    window: Window,
    /// Completions that found the queue full.
    pub(crate) backlog: VecDeque<Completion>,
}

impl CompletionQueue {
    pub(crate) fn new(host: &Host<'_>, base: u64, size: u32, vector: Option<u16>, slot: DoorbellSlot) -> Self {
        clear(host.doorbells, slot.dword());
        Self {
            vector: vector.unwrap_or_default(),
            interrupts: vector.is_some(),
            users: 0,
            base,
            size,
            head: 0,
            tail: 0,
            announced: 0,
            phase: true,
            doorbell: slot.dword(),
            shadow: None,
            reported: None,
            window: Window::default(),
            backlog: VecDeque::new(),
        }
    }

    /// Looks at the doorbell.
    #[inline]
    pub(crate) fn refresh(&mut self, host: &Host<'_>) -> Result<Result<(), InvalidDoorbell>, DmaFault> {
        let value = match &mut self.shadow {
            None => register(host.doorbells, self.doorbell),
            Some(shadow) => {
                let mut value = shadow.read(host.dma)?;
                // Nothing depends on the head unless the queue is full.
                if next(self.tail, self.size) == value && shadow.arm(host.dma, value)? {
                    value = shadow.read(host.dma)?;
                }
                value
            }
        };
        if value == self.head {
            return Ok(Ok(()));
        }
        // The head moves only over entries that were posted.
        let posted = distance(self.head, self.tail, self.size);
        if value < self.size && distance(self.head, value, self.size) <= posted {
            self.head = value;
            self.reported = None;
            return Ok(Ok(()));
        }
        let known = self.reported.replace(value) == Some(value);
        Ok(if known { Ok(()) } else { Err(InvalidDoorbell) })
    }

    /// Whether an entry can be posted.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full() && self.backlog.is_empty()
    }

    /// Whether there is a place left in the queue.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        next(self.tail, self.size) == self.head
    }

    /// Whether the host has entries to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Entries since the last interrupt.
    pub(crate) fn unannounced(&self) -> u32 {
        distance(self.announced, self.tail, self.size)
    }

    /// An interrupt tells the host of all entries.
    pub(crate) fn announce(&mut self) {
        self.announced = self.tail;
    }

    /// Prepares for posting several entries.
    #[inline]
    pub(crate) fn open(&mut self, dma: &DmaView<'_>) {
        self.window.open(dma, self.base, u64::from(self.size).saturating_mul(CQE), Access::Write);
    }

    /// The end of that.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.window.close();
    }

    /// Posts an entry, for which there is room. Its second word, with the phase tag, is written last.
    #[inline]
    pub(crate) fn post(&mut self, dma: &DmaView<'_>, completion: Completion) -> Result<(), DmaFault> {
        let phase = completion.status.phase() ^ self.phase;
        let completion = Completion { status: completion.status.with_phase(phase), ..completion };
        let [low, high] = completion.to_words();
        let at = u64::from(self.tail).saturating_mul(CQE);
        if let Some([word0, word1]) = self.window.words(at, 2) {
            word0.store(low, Ordering::Relaxed);
            word1.store(high, Ordering::Release);
        } else {
            let (memory, offset) = dma.resolve(self.base.wrapping_add(at), CQE as usize, Access::Write)?;
            let first = offset / 8;
            if let Some([word0, word1]) = memory.words().get(first..first.saturating_add(2)) {
                word0.store(low, Ordering::Relaxed);
                word1.store(high, Ordering::Release);
            }
        }
        self.tail = next(self.tail, self.size);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        Ok(())
    }
}

impl CompletionQueue {
    pub(crate) fn save(&self, id: u32) -> state::CompletionQueue {
        state::CompletionQueue {
            id,
            vector: self.interrupts.then(|| self.vector.into()),
            base: self.base,
            size: self.size,
            head: self.head,
            tail: self.tail,
            phase: self.phase,
            reported: self.reported,
            published: self.shadow.map(|shadow| shadow.published),
            backlog: self.backlog.iter().flat_map(|completion| completion.to_words()).collect(),
        }
    }

    /// As it was, before it is known which submission queues use it.
    pub(crate) fn restore(
        saved: state::CompletionQueue,
        dstrd: u8,
        buffers: Option<ShadowBuffers>,
    ) -> Result<Self, StateError> {
        let state::CompletionQueue { id, vector, base, size, head, tail, phase, reported, published, backlog } = saved;
        let (backlog, rest) = backlog.as_chunks::<2>();
        if size < 2 || head >= size || tail >= size || !rest.is_empty() {
            return bad(format!("completion queue {id} of {size} entries from {head} to {tail}"));
        }
        let slot = DoorbellSlot::head(narrow("completion queue", id)?, dstrd);
        let vector: Option<u16> = vector.map(|vector| narrow("vector", vector)).transpose()?;
        Ok(Self {
            vector: vector.unwrap_or_default(),
            interrupts: vector.is_some(),
            users: 0,
            base,
            size,
            head,
            tail,
            announced: tail,
            phase,
            doorbell: slot.dword(),
            shadow: slot.restore(buffers, published),
            reported,
            window: Window::default(),
            backlog: backlog.iter().map(|words| Completion::from_words(*words)).collect(),
        })
    }
}
