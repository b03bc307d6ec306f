use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::HostMemory;

/// Words of a memory in groups of `N`, such as the entries of a ring: found by index alone, with one check.
#[derive(Clone)]
pub struct WordGroups<const N: usize> {
    first: NonNull<[AtomicU64; N]>,
    count: usize,
    /// Keeps the mapping.
    memory: HostMemory,
}

// SAFETY: as for `HostMemory`: `first` is an address in the mapping that `memory` keeps in place, and what is made of it
// are references to atomics, which are `Send`.
unsafe impl<const N: usize> Send for WordGroups<N> {}
// SAFETY: through `&WordGroups`, `first` is only turned into references to atomics, which are `Sync`.
unsafe impl<const N: usize> Sync for WordGroups<N> {}

impl<const N: usize> WordGroups<N> {
    /// `count` groups from word `first` of `memory` on; `None` if they do not fit, or the memory has no words.
    pub fn new(memory: HostMemory, first: usize, count: usize) -> Option<Self> {
        let groups = memory.words().get(first..)?.as_chunks::<N>().0.get(..count)?;
        Some(Self { first: NonNull::from(groups).cast(), count, memory })
    }

    /// All of them.
    #[inline(always)]
    pub fn all(&self) -> &[[AtomicU64; N]] {
        // SAFETY: pointer and length are those of a slice that `new` got from `memory.words()`. What `from_raw_parts` asks
        // is what was true of that slice, and it stays true as long as `memory` keeps the mapping: it is borrowed with
        // `self`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }

    /// The memory that they lie in.
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }
}
