//! A run of 64-bit words that a device or another process reads and writes too.

use crate::sync::AtomicU64;

#[cfg(not(doorbell_loom))]
use doorbell_device::{DmaMemory, HostMemory};

/// Rings and slots are made of these: in DMA memory, or in the model checker's memory under `cfg(doorbell_loom)`.
pub(crate) struct Words {
    /// The memory of `mapping`, at hand without a look through it.
    #[cfg(not(doorbell_loom))]
    memory: HostMemory,
    #[cfg(not(doorbell_loom))]
    mapping: DmaMemory,
    #[cfg(not(doorbell_loom))]
    first: usize,
    #[cfg(not(doorbell_loom))]
    len: usize,
    #[cfg(doorbell_loom)]
    words: Vec<AtomicU64>,
}

#[cfg(not(doorbell_loom))]
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

    /// The words in groups of `N`, from the first to beyond the last: what lies behind them is memory of the same
    /// queue. For loops: one look through the memory. The first word must be a multiple of `N`.
    #[inline(always)]
    pub(crate) fn groups<const N: usize>(&self) -> &[[AtomicU64; N]] {
        match self.memory.words().as_chunks().0.get(self.first / N..) {
            Some(groups) => groups,
            None => Self::out_of_range(),
        }
    }

    /// One of [`groups`](Self::groups). The I/O path's way in: one check of the index.
    #[inline(always)]
    pub(crate) fn group<const N: usize>(&self, index: u16) -> &[AtomicU64; N] {
        debug_assert!(self.first.is_multiple_of(N) && usize::from(index) < self.len / N);
        match self.memory.words().as_chunks().0.get(self.first / N + usize::from(index)) {
            Some(group) => group,
            None => Self::out_of_range(),
        }
    }

    /// `len` words from word `index` on, which must all be among [`len`](Self::len).
    #[inline]
    pub(crate) fn slice(&self, index: usize, len: usize) -> &[AtomicU64] {
        debug_assert!(index + len <= self.len);
        match self.memory.words().get(self.first + index..).and_then(|words| words.get(..len)) {
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

#[cfg(doorbell_loom)]
impl Words {
    pub(crate) fn new(_: doorbell_device::DmaMemory, _: usize, len: usize) -> Option<Self> {
        Some(Self::model(len))
    }

    pub(crate) fn model(len: usize) -> Self {
        Self { words: (0..len).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn at(&self, index: usize) -> &AtomicU64 {
        &self.words[index]
    }

    pub(crate) fn groups<const N: usize>(&self) -> &[[AtomicU64; N]] {
        self.words.as_chunks().0
    }

    pub(crate) fn group<const N: usize>(&self, index: u16) -> &[AtomicU64; N] {
        &self.groups()[usize::from(index)]
    }

    pub(crate) fn slice(&self, index: usize, len: usize) -> &[AtomicU64] {
        &self.words[index..index + len]
    }

    pub(crate) fn iova(&self) -> u64 {
        0
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }
}
