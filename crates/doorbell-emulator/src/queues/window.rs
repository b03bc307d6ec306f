//! The memory of a queue, looked up once for many entries.

use std::sync::atomic::AtomicU64;

use doorbell_device::inprocess::DmaView;
use doorbell_device::{Access, HostMemory};

/// A queue's memory, looked up once for a batch. It is held no longer than a run of the controller: what is unmapped
/// after is not touched any more.
#[derive(Debug, Default)]
pub(super) struct Window {
    memory: Option<(HostMemory, usize)>,
    /// The queue does not lie in one mapping: each entry is looked up for itself.
    split: bool,
}

impl Window {
    pub(super) fn open(&mut self, dma: &DmaView<'_>, base: u64, len: u64, access: Access) {
        if self.memory.is_some() || self.split {
            return;
        }
        match dma.resolve(base, len as usize, access) {
            Ok((memory, offset)) => self.memory = Some((memory.clone(), offset)),
            Err(_) => self.split = true,
        }
    }

    /// The eight-byte words of an entry.
    #[inline]
    pub(super) fn words(&self, at: u64, count: usize) -> Option<&[AtomicU64]> {
        let (memory, offset) = self.memory.as_ref()?;
        let first = offset.wrapping_add(at as usize) / 8;
        memory.words().get(first..first.saturating_add(count))
    }

    pub(super) fn close(&mut self) {
        self.memory = None;
    }
}
