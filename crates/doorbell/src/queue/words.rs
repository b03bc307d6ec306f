//! A run of 64-bit words that a device or another process reads and writes too.

use crate::sync::AtomicU64;

#[cfg(not(loom))]
use doorbell_device::DmaMemory;

/// Rings and slots are made of these: in DMA memory, or in the model checker's memory under `cfg(loom)`.
pub(crate) struct Words {
    #[cfg(not(loom))]
    memory: DmaMemory,
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
    pub(crate) fn new(memory: DmaMemory, offset: usize, len: usize) -> Option<Self> {
        let first = offset.is_multiple_of(8).then_some(offset / 8)?;
        memory.host().words().get(first..first.checked_add(len)?)?;
        Some(Self { memory, first, len })
    }

    /// Word `index`; the last one where the index is too large, which callers rule out.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        debug_assert!(index < self.len);
        &self.memory.host().words()[self.first + index]
    }

    /// Where the device finds the first word.
    pub(crate) fn iova(&self) -> u64 {
        self.memory.iova() + self.first as u64 * 8
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

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}
