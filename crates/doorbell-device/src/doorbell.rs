use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{HostMemory, dma_wmb};

/// One doorbell register of one queue, ready to be written without looking anything up.
#[derive(Clone)]
pub struct Doorbell {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Register { memory: HostMemory, dword: usize },
    Call(Arc<dyn Fn(u32) + Send + Sync>),
}

impl Doorbell {
    /// A doorbell that is a 32-bit word in mapped memory, at byte `offset`; `None` outside the memory.
    pub fn in_memory(memory: HostMemory, offset: usize) -> Option<Self> {
        let dword = offset / 4;
        (offset.is_multiple_of(4) && dword < memory.dwords().len())
            .then_some(Self { kind: Kind::Register { memory, dword } })
    }

    /// A doorbell that is a call.
    pub fn from_fn(ring: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self { kind: Kind::Call(Arc::new(ring)) }
    }

    /// Tells the device the new tail or head. Everything this thread wrote before is visible to the device by then.
    #[inline]
    pub fn ring(&self, value: u32) {
        dma_wmb();
        match &self.kind {
            Kind::Register { memory, dword } => {
                if let Some(register) = memory.dwords().get(*dword) {
                    AtomicU32::store(register, value, Ordering::Release);
                }
            }
            Kind::Call(ring) => ring(value),
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Register { .. } => "Doorbell::Register",
            Kind::Call(_) => "Doorbell::Call",
        })
    }
}
