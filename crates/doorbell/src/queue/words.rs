//! A run of 64-bit words that a device or another process reads and writes too.

use crate::sync::AtomicU64;

#[cfg(not(loom))]
use doorbell_device::{DmaMemory, HostMemory};

/// Rings and slots are made of these: in DMA memory, or in the model checker's memory under `cfg(loom)`.
pub(crate) struct Words {
    /// The memory of `mapping`, at hand without a look through it.
    #[cfg(not(loom))]
    memory: HostMemory,
    #[cfg(not(loom))]
    mapping: DmaMemory,
    #[cfg(not(loom))]
    first: usize,
    #[cfg(not(loom))]
    len: usize,
    #[cfg(loom)]
    words: Vec<AtomicU64>,
}

#[cfg(not(loom))]
impl Words {
    /// `len` words from byte `offset` of `memory` on; `None` if they do not fit or are not aligned.
    pub(crate) fn new(mapping: DmaMemory, offset: usize, len: usize) -> Option<Self> {
        let first = offset.is_multiple_of(8).then_some(offset / 8)?;
        let memory = mapping.host().clone();
        memory.words().get(first..first.checked_add(len)?)?;
        Some(Self { memory, mapping, first, len })
    }

    /// Word `index`, which must be one of [`len`](Self::len).
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.len);
        &self.memory.words()[self.first + index]
    }

    /// `N` words from word `index` on, which must all be among [`len`](Self::len). One check for all of them.
    #[inline(always)]
    pub(crate) fn array<const N: usize>(&self, index: usize) -> &[AtomicU64; N] {
        debug_assert!(index + N <= self.len);
        match self.memory.words().get(self.first + index..).and_then(|words| words.first_chunk()) {
            Some(words) => words,
            None => Self::out_of_range(),
        }
    }

    /// Only a mistake in this crate leads here: no index comes from a device.
    #[cold]
    #[inline(never)]
    fn out_of_range() -> ! {
        unreachable!("an index past the words of a queue")
    }

    /// Where the device finds the first word.
    pub(crate) fn iova(&self) -> u64 {
        self.mapping.iova() + self.first as u64 * 8
    }

    /// How many words there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[cfg(loom)]
impl Words {
    pub(crate) fn model(len: usize) -> Self {
        Self { words: (0..len).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }

    pub(crate) fn array<const N: usize>(&self, index: usize) -> &[AtomicU64; N] {
        self.words[index..].first_chunk().expect("the model's words are as many as it was made with")
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}
