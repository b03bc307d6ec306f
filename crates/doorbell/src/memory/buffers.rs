//! The buffers that a driver has handed out, so that those the device works on can cross over to another process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use doorbell_device::DmaMemory;

#[derive(Default)]
pub(crate) struct Buffers {
    /// By IOVA; with the bytes that were asked for.
    known: Mutex<BTreeMap<u64, (DmaMemory, usize)>>,
}

/// A buffer's memory. It is known until this goes.
pub(crate) struct Lent {
    pub(crate) memory: DmaMemory,
    buffers: Weak<Buffers>,
}

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (DmaMemory, usize)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lend(self: &Arc<Self>, memory: DmaMemory, len: usize) -> Lent {
        self.lock().insert(memory.iova(), (memory.clone(), len));
        Lent { memory, buffers: Arc::downgrade(self) }
    }

    /// The buffer that an IOVA lies in, and its length.
    pub(crate) fn find(&self, iova: u64) -> Option<(DmaMemory, usize)> {
        let known = self.lock();
        let (begin, (memory, len)) = known.range(..=iova).next_back()?;
        (iova.checked_sub(*begin)? < memory.len() as u64).then(|| (memory.clone(), *len))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(buffers) = self.buffers.upgrade() {
            let known = buffers.lock().remove(&self.memory.iova());
            // Unmapped without the lock, if this was the last.
            drop(known);
        }
    }
}
