use std::fmt;
use std::ptr::NonNull;
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
    Register(Register),
    Call(Arc<dyn Fn(u32) + Send + Sync>),
}

#[derive(Clone)]
struct Register {
    dword: NonNull<AtomicU32>,
    /// Keeps the mapping.
    _memory: HostMemory,
}

// SAFETY: as for `HostMemory`: `dword` is an address in the mapping that `_memory` keeps in place, and what is made of it
// is a reference to an atomic, which is `Send`.
unsafe impl Send for Register {}
// SAFETY: through `&Register`, `dword` is only turned into a reference to an atomic, which is `Sync`.
unsafe impl Sync for Register {}

impl Register {
    #[inline(always)]
    fn get(&self) -> &AtomicU32 {
        // SAFETY: the pointer was made of a reference into `memory.dwords()`, so it is aligned, initialised and never
        // mutated but as an atomic. All that stays true while `_memory` keeps the mapping: it is borrowed with `self`.
        unsafe { self.dword.as_ref() }
    }
}

impl Doorbell {
    /// A doorbell that is a 32-bit word in mapped memory, at byte `offset`; `None` outside the memory.
    pub fn in_memory(memory: HostMemory, offset: usize) -> Option<Self> {
        let dword = memory.dwords().get(offset / 4).filter(|_| offset.is_multiple_of(4))?;
        let dword = NonNull::from(dword);
        Some(Self { kind: Kind::Register(Register { dword, _memory: memory }) })
    }

    /// A doorbell that is a call.
    pub fn from_fn(ring: impl Fn(u32) + Send + Sync + 'static) -> Self {
        Self { kind: Kind::Call(Arc::new(ring)) }
    }

    /// Tells the device the new tail or head. Everything this thread wrote before is visible to the device by then.
    #[inline(always)]
    pub fn ring(&self, value: u32) {
        dma_wmb();
        match &self.kind {
            Kind::Register(register) => register.get().store(value, Ordering::Release),
            Kind::Call(ring) => ring(value),
        }
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Register(_) => "Doorbell::Register",
            Kind::Call(_) => "Doorbell::Call",
        })
    }
}
