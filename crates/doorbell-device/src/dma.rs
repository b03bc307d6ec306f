use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{DeviceError, HostMemory};

/// Memory that a device reaches at an I/O virtual address (IOVA).
///
/// It owns both the memory and the mapping: when the last clone goes, the mapping is taken down first and the memory
/// freed after. If taking it down fails, the memory is leaked on purpose, since the device may still write to it; see
/// [`leaked_mappings`].
#[derive(Clone)]
pub struct DmaMemory {
    inner: Arc<Inner>,
}

type Unmap = Box<dyn FnOnce() -> Result<(), DeviceError> + Send + Sync>;

struct Inner {
    host: HostMemory,
    iova: u64,
    unmap: Option<Unmap>,
}

static LEAKED: AtomicU64 = AtomicU64::new(0);

/// How many mappings of this process could not be taken down, their memory leaked on purpose.
pub fn leaked_mappings() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

impl DmaMemory {
    /// `host`, reachable by a device at `iova` until `unmap` succeeds. For back ends.
    pub fn new(
        host: HostMemory,
        iova: u64,
        unmap: impl FnOnce() -> Result<(), DeviceError> + Send + Sync + 'static,
    ) -> Self {
        Self { inner: Arc::new(Inner { host, iova, unmap: Some(Box::new(unmap)) }) }
    }

    /// Where the device finds the first byte.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.inner.iova
    }

    /// The memory itself.
    #[inline]
    pub fn host(&self) -> &HostMemory {
        &self.inner.host
    }

    /// Bytes of memory.
    #[inline]
    pub fn len(&self) -> usize {
        self.inner.host.len()
    }

    /// Whether there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps memory and mapping for the rest of the process's life: the device could not be stopped.
    pub fn leak(self) {
        LEAKED.fetch_add(1, Ordering::Relaxed);
        std::mem::forget(self);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(unmap) = self.unmap.take() else { return };
        // Also if `unmap` panics.
        let mut keep = LeakUnlessTaken(Some(self.host.clone()));
        match unmap() {
            Ok(()) => drop(keep.0.take()),
            Err(error) => {
                tracing::error!(iova = self.iova, len = self.host.len(), %error, "unmapping failed, memory is leaked");
            }
        }
    }
}

/// Memory that the device may still write to: it is never freed, unless it is taken out first.
struct LeakUnlessTaken(Option<HostMemory>);

impl Drop for LeakUnlessTaken {
    fn drop(&mut self) {
        if let Some(memory) = self.0.take() {
            LEAKED.fetch_add(1, Ordering::Relaxed);
            std::mem::forget(memory);
        }
    }
}

impl fmt::Debug for DmaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaMemory")
            .field("iova", &format_args!("{:#x}", self.iova()))
            .field("len", &self.len())
            .finish()
    }
}
