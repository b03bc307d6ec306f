use super::{Backend, BackendError, Crossing};
use crate::transfer::{FromHost, ToHost};

/// Storage of any size that forgets what is written to it.
#[derive(Debug, Clone)]
pub struct NullBackend {
    size: u64,
    zeroes: bool,
}

impl NullBackend {
    /// Storage of `size` bytes that moves no data: a read leaves the host's memory as it is, as with Linux's null_blk. What
    /// the controller itself reads, for a Compare say, is zero.
    pub fn new(size: u64) -> Self {
        Self { size, zeroes: false }
    }

    /// Storage of `size` bytes that reads as zero.
    pub fn zeroes(size: u64) -> Self {
        Self { size, zeroes: true }
    }
}

impl Backend for NullBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_bytes(&self, _offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        to.fill(0);
        Ok(())
    }

    fn write_bytes(&mut self, _offset: u64, _from: &[u8]) -> Result<(), BackendError> {
        Ok(())
    }

    #[inline]
    fn read(&self, _offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        Ok(if self.zeroes { to.zero(len) } else { to.skip(len) }?)
    }

    #[inline]
    fn write(&mut self, _offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        Ok(from.skip(len)?)
    }

    fn deallocate(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Ok(())
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        self.size = size;
        Ok(())
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(if self.zeroes { Crossing::Zero } else { Crossing::Null })
    }
}
