//! Where the metadata of a namespace's blocks is kept, whatever keeps the data.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use crate::backend::{Backend, BackendError, SharedRamBackend};
use crate::protection::PI_BYTES;

/// The metadata of all blocks, in memory that another process can have. What was never written is all ones, which is protection
/// information that is not checked: the memory, which begins as zeroes, holds the complement.
pub(crate) struct BlockMetadata(SharedRamBackend);

impl BlockMetadata {
    pub(crate) fn new(blocks: u64) -> Result<Self, BackendError> {
        SharedRamBackend::new(bytes(blocks)).map(Self).map_err(unavailable)
    }

    /// What another process had, from the file that is behind it.
    pub(crate) fn from_file(file: File, blocks: u64) -> Result<Self, BackendError> {
        SharedRamBackend::from_file(file, bytes(blocks)).map(Self).map_err(unavailable)
    }

    pub(crate) fn load(&self, lba: u64) -> Result<[u8; PI_BYTES], BackendError> {
        let mut pi = [0; PI_BYTES];
        self.0.read_bytes(bytes(lba), &mut pi)?;
        Ok(pi.map(|byte| !byte))
    }

    pub(crate) fn store(&mut self, lba: u64, pi: [u8; PI_BYTES]) -> Result<(), BackendError> {
        self.0.write_bytes(bytes(lba), &pi.map(|byte| !byte))
    }

    pub(crate) fn deallocate(&mut self, slba: u64, blocks: u64) -> Result<(), BackendError> {
        self.0.deallocate(bytes(slba), bytes(blocks))
    }

    pub(crate) fn resize(&mut self, blocks: u64) -> Result<(), BackendError> {
        self.0.resize(bytes(blocks))
    }
}

impl AsFd for BlockMetadata {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file().as_fd()
    }
}

fn bytes(blocks: u64) -> u64 {
    blocks.saturating_mul(PI_BYTES as u64)
}

fn unavailable(error: doorbell_device::DeviceError) -> BackendError {
    std::io::Error::other(error).into()
}
