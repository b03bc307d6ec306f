use super::{Backend, BackendError, Crossing};
use crate::transfer::{FromHost, ToHost};

/// Storage that reads as zero and forgets what is written to it, of any size.
#[derive(Debug, Clone)]
pub struct NullBackend {
    size: u64,
}

impl NullBackend {
    /// Storage of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { size }
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
        Ok(to.zero(len)?)
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
        Some(Crossing::Null)
    }
}
