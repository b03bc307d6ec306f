//! What the controller's thread does with the file itself: what the kernel has no operation for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use doorbell_device::HostMemory;
use nvme_spec::Status;
use rustix::io::Errno;

use crate::backend::file::give_back;

/// Bytes that are looked at, at a time.
const PIECE: usize = 256 << 10;

pub(super) fn failed(error: &io::Error, otherwise: Status) -> Status {
    // The client has taken its memory away.
    if Errno::from_io_error(error) == Some(Errno::FAULT) {
        return Status::DATA_TRANSFER_ERROR;
    }
    tracing::warn!(%error, "the file fails");
    otherwise
}

pub(super) fn sync(file: &File) -> Result<(), Status> {
    file.sync_data().map_err(|error| failed(&error, Status::WRITE_FAULT))
}

fn read_at(file: &File, offset: u64, to: &mut [u8]) -> Result<(), Status> {
    file.read_exact_at(to, offset).map_err(|error| failed(&error, Status::UNRECOVERED_READ_ERROR))
}

pub(super) fn write_at(file: &File, offset: u64, from: &[u8], fua: bool) -> Result<(), Status> {
    file.write_all_at(from, offset).map_err(|error| failed(&error, Status::WRITE_FAULT))?;
    if fua { sync(file) } else { Ok(()) }
}

pub(super) fn scatter(
    file: &File,
    offset: u64,
    pieces: &[(Option<(HostMemory, usize)>, usize)],
    fua: bool,
) -> Result<(), Status> {
    let mut at = offset;
    for (memory, len) in pieces {
        if let Some((memory, place)) = memory {
            let mut bytes = vec![0; *len];
            read_at(file, at, &mut bytes)?;
            memory.write_at(*place, &bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        }
        at = at.saturating_add(*len as u64);
    }
    if fua { sync(file) } else { Ok(()) }
}

/// Reads a range in pieces.
fn each_piece(
    file: &File,
    offset: u64,
    len: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut buffer = vec![0; PIECE.min(usize::try_from(len).unwrap_or(PIECE))];
    let mut done = 0;
    while done < len {
        let part = len.saturating_sub(done).min(PIECE as u64);
        let bytes = buffer.get_mut(..part as usize).ok_or(Status::INTERNAL_ERROR)?;
        read_at(file, offset.saturating_add(done), bytes)?;
        each(done, bytes)?;
        done = done.saturating_add(part);
    }
    Ok(())
}

pub(super) fn verify(file: &File, offset: u64, len: u64) -> Result<(), Status> {
    each_piece(file, offset, len, |_, _| Ok(()))
}

pub(super) fn compare(file: &File, offset: u64, with: &[u8]) -> Result<(), Status> {
    each_piece(file, offset, with.len() as u64, |at, bytes| {
        let same = with.get(at as usize..).is_some_and(|rest| rest.starts_with(bytes));
        if same { Ok(()) } else { Err(Status::COMPARE_FAILURE) }
    })
}

pub(super) fn copy(file: &File, from: &[(u64, u64)], to: u64, fua: bool) -> Result<(), Status> {
    let mut target = to;
    for (offset, len) in from {
        each_piece(file, *offset, *len, |at, bytes| write_at(file, target.saturating_add(at), bytes, false))?;
        target = target.saturating_add(*len);
    }
    if fua { sync(file) } else { Ok(()) }
}

/// Gives ranges back, which read as zero then.
pub(super) fn zero(file: &File, ranges: &[(u64, u64)], fua: bool) -> Result<(), Status> {
    for (offset, len) in ranges {
        give_back(file, *offset, *len).map_err(|error| failed(&error, Status::WRITE_FAULT))?;
    }
    if fua { sync(file) } else { Ok(()) }
}
