use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Backend, BackendError, Crossing};
use crate::transfer::{FromHost, ToHost};

/// Bytes that are moved with one system call.
const PIECE: usize = 256 << 10;

/// Storage in a file (or a block device), read and written through the page cache. Flush is `fdatasync`, deallocation
/// punches holes where the file system can.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
    size: u64,
    buffer: Mutex<Vec<u8>>,
}

impl FileBackend {
    /// Opens a file for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(OpenOptions::new().read(true).write(true).open(path)?)
    }

    /// Storage in an open file of its present size.
    pub fn new(file: File) -> io::Result<Self> {
        use std::io::Seek;
        // Unlike the metadata, this tells the size of block devices too.
        let size = (&file).seek(io::SeekFrom::End(0))?;
        Ok(Self { file, size, buffer: Mutex::default() })
    }
}

/// Gives a range of a file back: by punching a hole, or else by writing zeroes.
pub(super) fn give_back(file: &File, offset: u64, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, len) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => write_zeroes(file, offset, len),
        Err(error) => Err(error.into()),
    }
}

fn write_zeroes(file: &File, offset: u64, len: u64) -> io::Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let end = offset.saturating_add(len);
    let mut at = offset;
    while at < end {
        let part = end.saturating_sub(at).min(ZEROES.len() as u64);
        file.write_all_at(ZEROES.get(..part as usize).unwrap_or_default(), at)?;
        at = at.saturating_add(part);
    }
    Ok(())
}

/// Calls `each` with the pieces of a range, and a buffer for each.
fn in_pieces(
    buffer: &mut Vec<u8>,
    offset: u64,
    len: usize,
    mut each: impl FnMut(u64, &mut [u8]) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let wanted = len.min(PIECE);
    if buffer.len() < wanted {
        buffer.resize(wanted, 0);
    }
    let end = offset.saturating_add(len as u64);
    let mut at = offset;
    while at < end {
        let part = end.saturating_sub(at).min(PIECE as u64);
        each(at, buffer.get_mut(..part as usize).unwrap_or_default())?;
        at = at.saturating_add(part);
    }
    Ok(())
}

impl Backend for FileBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        Ok(self.file.read_exact_at(to, offset)?)
    }

    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError> {
        Ok(self.file.write_all_at(from, offset)?)
    }

    fn read(&self, offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        // Whoever reads at the same time gets a buffer of its own.
        let mut shared = self.buffer.try_lock().ok();
        let mut own = Vec::new();
        let buffer = shared.as_deref_mut().unwrap_or(&mut own);
        in_pieces(buffer, offset, len, |at, piece| {
            self.file.read_exact_at(piece, at)?;
            Ok(to.put(piece)?)
        })
    }

    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        let Self { file, buffer, .. } = self;
        let buffer = buffer.get_mut().unwrap_or_else(PoisonError::into_inner);
        in_pieces(buffer, offset, len, |at, piece| {
            from.take(piece)?;
            Ok(file.write_all_at(piece, at)?)
        })
    }

    fn flush(&self) -> Result<(), BackendError> {
        Ok(self.file.sync_data()?)
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        Ok(give_back(&self.file, offset, len)?)
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        self.file.set_len(size)?;
        self.size = size;
        Ok(())
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(Crossing::File(self.file.as_fd()))
    }
}
