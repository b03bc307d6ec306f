//! What the emulator sees of a namespace below: storage that finishes later.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use doorbell::Namespace;
use doorbell_emulator::{Backend, BackendError, Crossing, Lane};
use event_listener::Event;
use futures_lite::future::block_on;

use crate::crossing;
use crate::drive::Drive;
use crate::lane::RelayLane;

/// A namespace that is somebody's storage.
pub(crate) struct Shared {
    pub(crate) drive: Arc<Drive>,
    pub(crate) namespace: Namespace,
    /// It is nobody's storage any more.
    pub(crate) closed: AtomicBool,
    pub(crate) closing: Event,
}

impl Shared {
    pub(crate) fn new(drive: Arc<Drive>, namespace: Namespace) -> Self {
        Self { drive, namespace, closed: AtomicBool::new(false), closing: Event::new() }
    }

    pub(crate) fn size(&self) -> u64 {
        self.namespace.block_count().saturating_mul(self.namespace.block_size().into())
    }
}

/// Where the namespace is, from the beginning or once its drive has come.
pub(crate) type Place = Arc<OnceLock<Arc<Shared>>>;

/// The storage. Dropped, it is nobody's any more.
pub(crate) struct Below {
    name: String,
    /// Before the namespace is there.
    size: u64,
    pub(crate) place: Place,
}

impl Below {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let name = crossing::name(&shared.drive, shared.namespace.nsid());
        Self { name, size: shared.size(), place: Arc::new(shared.clone().into()) }
    }

    /// Of a drive that is yet to come.
    pub(crate) fn awaited(name: String, size: u64) -> Self {
        Self { name, size, place: Place::default() }
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        if let Some(shared) = self.place.get() {
            shared.closed.store(true, Ordering::SeqCst);
            shared.closing.notify(usize::MAX);
        }
    }
}

impl Backend for Below {
    fn size(&self) -> u64 {
        self.place.get().map_or(self.size, |shared| shared.size())
    }

    fn read_bytes(&self, _offset: u64, _to: &mut [u8]) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be read at once"))
    }

    fn write_bytes(&mut self, _offset: u64, _from: &[u8]) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be written at once"))
    }

    fn deallocate(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be deallocated at once"))
    }

    /// Waits for the drive: not for a controller's thread.
    fn flush(&self) -> Result<(), BackendError> {
        let Some(shared) = self.place.get() else { return Ok(()) };
        block_on(shared.namespace.flush(0)).map_err(|error| BackendError::Io(std::io::Error::other(error)))
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        if size == self.size() {
            return Ok(());
        }
        Err(BackendError::Unsupported("be resized from here: it is as large as the namespace behind it"))
    }

    fn finishes_later(&self) -> bool {
        true
    }

    fn lane(&self, waker: Waker) -> Option<Box<dyn Lane>> {
        Some(Box::new(RelayLane::new(self.place.get()?.clone(), waker)))
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(Crossing::Elsewhere(&self.name))
    }
}
