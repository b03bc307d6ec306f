//! A command's data as the kernel takes it.

use doorbell_device::{HostMemory, MemoryPiece};
use nvme_spec::Status;

use crate::lane::Data;

/// Pieces of one operation (`IOV_MAX`).
const MOST_PIECES: usize = 1024;

pub(super) enum Pieces {
    Straight(Vec<MemoryPiece>),
    /// Too many, or with some that are thrown away.
    Odd(Vec<(Option<(HostMemory, usize)>, usize)>),
}

pub(super) fn pieces(data: &Data<'_>) -> Result<Pieces, Status> {
    let mut odd = Vec::new();
    for piece in data.pieces() {
        let piece = piece?;
        odd.push((piece.memory.map(|part| (part.host.clone(), part.offset)), piece.len));
    }
    let straight: Option<Vec<MemoryPiece>> =
        odd.iter().map(|(memory, len)| memory.clone().map(|(memory, offset)| (memory, offset, *len))).collect();
    Ok(match straight.filter(|pieces| pieces.len() <= MOST_PIECES) {
        Some(pieces) => Pieces::Straight(pieces),
        None => Pieces::Odd(odd),
    })
}

pub(super) fn length(pieces: &[MemoryPiece]) -> usize {
    pieces.iter().fold(0, |sum: usize, (_, _, len)| sum.saturating_add(*len))
}

/// Does what is left of a transfer of which only the first `moved` bytes were moved.
pub(super) fn rest(
    offset: u64,
    pieces: &[MemoryPiece],
    moved: usize,
    mut each: impl FnMut(u64, &HostMemory, usize, usize) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut passed = 0usize;
    for (memory, at, len) in pieces {
        let skip = moved.saturating_sub(passed).min(*len);
        if skip < *len {
            let place = offset.saturating_add(passed.saturating_add(skip) as u64);
            each(place, memory, at.saturating_add(skip), len.saturating_sub(skip))?;
        }
        passed = passed.saturating_add(*len);
    }
    Ok(())
}
