//! Where a namespace keeps its blocks.

mod claims;
mod file;
mod null;
mod ram;
mod ring;
mod shared;

pub use file::FileBackend;
pub use null::NullBackend;
pub use ram::RamBackend;
pub use ring::RingBackend;
pub use shared::SharedRamBackend;

use std::io;
use std::os::fd::BorrowedFd;
use std::task::Waker;

use crate::lane::Lane;
use crate::transfer::{FromHost, ToHost, TransferError};

/// Bytes that the provided methods move at a time.
const PIECE: usize = 4096;

/// Storage: bytes from 0 to [`size`](Backend::size), which read as zero until written.
///
/// The controller has checked every range against the size, and whoever holds `&mut` is alone: no lock is needed
/// inside. A backend that keeps data in memory of its own should override [`read`](Backend::read) and
/// [`write`](Backend::write), to move data straight between that and the host's.
pub trait Backend: Send + Sync + 'static {
    /// Bytes of storage.
    fn size(&self) -> u64;

    /// Copies from `offset` on into memory of this process.
    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError>;

    /// Stores bytes from `offset` on.
    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError>;

    /// Moves `len` bytes from `offset` on into the host's memory.
    fn read(&self, offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        let mut piece = [0; PIECE];
        for (at, len) in pieces(offset, len) {
            let piece = piece.get_mut(..len).unwrap_or_default();
            self.read_bytes(at, piece)?;
            to.put(piece)?;
        }
        Ok(())
    }

    /// Stores `len` bytes of the host's memory from `offset` on.
    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        let mut piece = [0; PIECE];
        for (at, len) in pieces(offset, len) {
            let piece = piece.get_mut(..len).unwrap_or_default();
            from.take(piece)?;
            self.write_bytes(at, piece)?;
        }
        Ok(())
    }

    /// Makes what was written durable. With nothing volatile in between, there is nothing to do.
    fn flush(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// Gives a range back: it takes no space from now on and reads as zero.
    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError>;

    /// Changes the size. What is cut off is gone, what is added reads as zero.
    fn resize(&mut self, size: u64) -> Result<(), BackendError>;

    /// Whether commands are handed to [`lane`](Self::lane)s, which finish them later, instead of being carried out by the
    /// methods above. Never changes. The size, and what becomes durable at the end, are still these methods' matter.
    fn finishes_later(&self) -> bool {
        false
    }

    /// Whether this is bytes and nothing else, to which the controller adds formats, metadata and Write Uncorrectable. Then
    /// the methods above have to do what they say even if it finishes later: a format with metadata is served by them
    /// alone. Never changes.
    fn is_plain(&self) -> bool {
        !self.finishes_later()
    }

    /// Whether nothing is under way in any [`lane`](Self::lane). Asked before a format, while no lane is handed anything.
    fn is_idle(&self) -> bool {
        true
    }

    /// A controller's own way in, if this storage [finishes later](Self::finishes_later). `waker` wakes the controller.
    fn lane(&self, _waker: Waker) -> Option<Box<dyn Lane>> {
        None
    }

    /// What another process needs to have the same storage; none if it cannot.
    fn crossing(&self) -> Option<Crossing<'_>> {
        None
    }
}

/// How storage is had by another process too.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Crossing<'a> {
    /// A [`NullBackend`]: there is nothing to it.
    Null,
    /// One that [reads as zero](NullBackend::zeroes).
    Zero,
    /// The file of a [`FileBackend`].
    File(BorrowedFd<'a>),
    /// The file of a [`RingBackend`].
    Ring(BorrowedFd<'a>),
    /// The memory of a [`SharedRamBackend`].
    Memory(BorrowedFd<'a>),
    /// Storage that whoever goes on with the subsystem [brings](crate::Subsystem::restore), by the name that it has for it.
    Elsewhere(&'a str),
}

/// Cuts a range into pieces of [`PIECE`] bytes.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize)> {
    let end = offset.saturating_add(len as u64);
    (offset..end).step_by(PIECE).map(move |at| (at, PIECE.min(end.saturating_sub(at) as usize)))
}

/// What can go wrong in storage.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The host's side of the transfer failed.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The storage is not made for that.
    #[error("this storage cannot {0}")]
    Unsupported(&'static str),
    /// The range does not lie within the storage.
    #[error("{len:#x} bytes at {offset:#x} are outside of the storage")]
    OutOfRange {
        /// First byte of the range.
        offset: u64,
        /// Bytes of it.
        len: u64,
    },
}
