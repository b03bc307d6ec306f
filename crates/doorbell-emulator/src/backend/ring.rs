//! A file by io_uring: many operations at a time, straight between the file and the host's memory.

mod lane;
mod own;
mod pieces;
mod watch;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use doorbell_device::{DeviceError, FileRing};

use self::lane::RingLane;
use super::claims::Claims;
use super::{Backend, BackendError, Crossing, FileBackend};
use crate::lane::Lane;
use crate::transfer::{FromHost, ToHost};

/// Storage in a file (or a block device) that [finishes later](Backend::finishes_later), by io_uring.
///
/// Data moves straight between the page cache and the host's memory. Flush is `fdatasync`, and a write with Force Unit
/// Access is on disk when it completes. Operations that touch the same bytes take turns. Comparing, copying and
/// deallocating are carried out by the controller's thread, between the others; so is everything while the format has
/// metadata.
pub struct RingBackend {
    file: FileBackend,
    handle: Arc<File>,
    claims: Arc<Claims>,
}

impl RingBackend {
    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// If it cannot be opened, or the kernel has no io_uring or does not let this process use it:
    /// [`io::ErrorKind::Unsupported`]. Then there is still [`FileBackend`].
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Storage in an open file of its present size.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn new(file: File) -> io::Result<Self> {
        let handle = Arc::new(file.try_clone()?);
        let refused = |error: DeviceError| io::Error::new(io::ErrorKind::Unsupported, error);
        FileRing::new(handle.clone(), 1).map_err(refused)?;
        Ok(Self { file: FileBackend::new(file)?, handle, claims: Arc::default() })
    }
}

impl Backend for RingBackend {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        self.file.read_bytes(offset, to)
    }

    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError> {
        self.file.write_bytes(offset, from)
    }

    fn read(&self, offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        self.file.read(offset, len, to)
    }

    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        self.file.write(offset, len, from)
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.file.flush()
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.file.deallocate(offset, len)
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        self.file.resize(size)
    }

    fn finishes_later(&self) -> bool {
        true
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }

    fn lane(&self, waker: Waker) -> Option<Box<dyn Lane>> {
        match RingLane::new(&self.handle, &self.claims, waker) {
            Ok(lane) => Some(Box::new(lane)),
            Err(error) => {
                tracing::error!(%error, "a file cannot be read or written: no ring for it");
                None
            }
        }
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(Crossing::Ring(self.handle.as_fd()))
    }
}
