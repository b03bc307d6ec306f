//! 64-bit words that a device or another process reads and writes too, in groups of `N`.

use doorbell_device::{DmaMemory, HostMemory};

use crate::sync::AtomicU64;

#[cfg(not(doorbell_loom))]
type Groups<const N: usize> = doorbell_device::WordGroups<N>;
#[cfg(doorbell_loom)]
type Groups<const N: usize> = Vec<[AtomicU64; N]>;

/// Rings and slots are made of these: in DMA memory, or in the model checker's memory under `cfg(doorbell_loom)`.
pub(crate) struct Words<const N: usize> {
    groups: Groups<N>,
    /// Where the device finds the first.
    iova: u64,
    /// Keeps the device's way to it, and the byte offset in it.
    mapping: Option<(DmaMemory, usize)>,
}

impl<const N: usize> Words<N> {
    /// `count` groups from byte `offset` of `mapping` on; `None` if they do not fit or are not aligned.
    #[cfg(not(doorbell_loom))]
    pub(crate) fn new(mapping: DmaMemory, offset: usize, count: usize) -> Option<Self> {
        let first = offset.is_multiple_of(8).then_some(offset / 8)?;
        let groups = Groups::new(mapping.host().clone(), first, count)?;
        Some(Self { groups, iova: mapping.iova() + offset as u64, mapping: Some((mapping, offset)) })
    }

    /// `count` groups that no device reaches.
    #[cfg(not(doorbell_loom))]
    pub(crate) fn private(host: &HostMemory, count: usize) -> Option<Self> {
        Some(Self { groups: Groups::new(host.clone(), 0, count)?, iova: 0, mapping: None })
    }

    #[cfg(doorbell_loom)]
    pub(crate) fn private(_: &HostMemory, count: usize) -> Option<Self> {
        Some(Self::model(count))
    }

    /// The memory that it is part of, and the byte offset in that; none of what no device reaches.
    pub(crate) fn place(&self) -> Option<(&DmaMemory, usize)> {
        self.mapping.as_ref().map(|(memory, offset)| (memory, *offset))
    }

    #[cfg(doorbell_loom)]
    pub(crate) fn new(_: DmaMemory, _: usize, count: usize) -> Option<Self> {
        Some(Self::model(count))
    }

    #[cfg(doorbell_loom)]
    pub(crate) fn model(count: usize) -> Self {
        let group = || std::array::from_fn(|_| AtomicU64::new(0));
        Self { groups: (0..count).map(|_| group()).collect(), iova: 0, mapping: None }
    }

    /// All groups. For what a device names by an index: nobody has checked that.
    #[inline(always)]
    pub(crate) fn all(&self) -> &[[AtomicU64; N]] {
        #[cfg(not(doorbell_loom))]
        return self.groups.all();
        #[cfg(doorbell_loom)]
        return &self.groups;
    }

    /// Group `index`, which must be one of all.
    #[inline(always)]
    pub(crate) fn at(&self, index: u16) -> &[AtomicU64; N] {
        match self.all().get(usize::from(index)) {
            Some(group) => group,
            None => out_of_range(),
        }
    }

    /// Where the device finds the first.
    #[inline(always)]
    pub(crate) fn iova(&self) -> u64 {
        self.iova
    }
}

impl Words<1> {
    /// `len` words from word `index` on, which must all be among them.
    #[inline(always)]
    pub(crate) fn slice(&self, index: usize, len: usize) -> &[AtomicU64] {
        match self.all().as_flattened().get(index..index + len) {
            Some(words) => words,
            None => out_of_range(),
        }
    }
}

/// Only a mistake in this crate leads here: no index comes from a device.
#[cold]
#[inline(never)]
fn out_of_range() -> ! {
    unreachable!("an index past the words of a queue")
}
