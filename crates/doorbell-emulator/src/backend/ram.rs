use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use super::{Backend, BackendError};
use crate::transfer::{FromHost, ToHost};

/// Bytes that are allocated, or given back, at a time.
pub(super) const CHUNK: usize = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 16;

/// Storage in memory, allocated where it is written to.
pub struct RamBackend {
    size: u64,
    chunks: HashMap<u64, Box<[u8]>, BuildHasherDefault<IndexHasher>>,
    blank: Box<[u8]>,
}

impl RamBackend {
    /// Storage of `size` bytes, all zero.
    pub fn new(size: u64) -> Self {
        Self { size, chunks: HashMap::default(), blank: vec![0; CHUNK].into_boxed_slice() }
    }

    /// Bytes of memory that are allocated.
    pub fn allocated(&self) -> u64 {
        (self.chunks.len() as u64).saturating_mul(CHUNK as u64)
    }

    /// Bytes `start..start + len` of a chunk.
    #[inline]
    fn part(&self, part: &Part) -> Result<&[u8], BackendError> {
        let chunk = self.chunks.get(&part.chunk).unwrap_or(&self.blank);
        chunk.get(part.start..part.end).ok_or_else(|| part.out_of_range())
    }

    #[inline]
    fn part_mut(&mut self, part: &Part) -> Result<&mut [u8], BackendError> {
        let chunk = self.chunks.entry(part.chunk).or_insert_with(|| vec![0; CHUNK].into_boxed_slice());
        chunk.get_mut(part.start..part.end).ok_or_else(|| part.out_of_range())
    }
}

impl Backend for RamBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        let mut to = to;
        for part in parts(offset, to.len() as u64) {
            let (now, later) = to.split_at_mut_checked(part.len()).ok_or_else(|| part.out_of_range())?;
            now.copy_from_slice(self.part(&part)?);
            to = later;
        }
        Ok(())
    }

    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError> {
        let mut from = from;
        for part in parts(offset, from.len() as u64) {
            let (now, later) = from.split_at_checked(part.len()).ok_or_else(|| part.out_of_range())?;
            self.part_mut(&part)?.copy_from_slice(now);
            from = later;
        }
        Ok(())
    }

    #[inline]
    fn read(&self, offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        for part in parts(offset, len as u64) {
            to.put(self.part(&part)?)?;
        }
        Ok(())
    }

    #[inline]
    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        for part in parts(offset, len as u64) {
            from.take(self.part_mut(&part)?)?;
        }
        Ok(())
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        let chunks = len.div_ceil(CHUNK as u64).saturating_add(1);
        if chunks > self.chunks.len() as u64 {
            // Fewer chunks are there than the range spans: look at those only.
            let end = offset.saturating_add(len);
            self.chunks.retain(|&index, chunk| {
                let first = index.saturating_mul(CHUNK as u64);
                let start = offset.saturating_sub(first).min(CHUNK as u64);
                let end = end.saturating_sub(first).min(CHUNK as u64);
                let whole = start == 0 && end == CHUNK as u64;
                if !whole && let Some(part) = chunk.get_mut(start as usize..end as usize) {
                    part.fill(0);
                }
                !whole
            });
            return Ok(());
        }
        for part in parts(offset, len) {
            if part.len() == CHUNK {
                self.chunks.remove(&part.chunk);
            } else if self.chunks.contains_key(&part.chunk) {
                self.part_mut(&part)?.fill(0);
            }
        }
        Ok(())
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        if let Some(cut) = self.size.checked_sub(size) {
            self.deallocate(size, cut)?;
        }
        self.size = size;
        Ok(())
    }
}

impl fmt::Debug for RamBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RamBackend").field("size", &self.size).field("allocated", &self.allocated()).finish()
    }
}

/// The part of a range that lies in one chunk.
pub(super) struct Part {
    pub(super) chunk: u64,
    pub(super) start: usize,
    end: usize,
}

impl Part {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    #[cold]
    pub(super) fn out_of_range(&self) -> BackendError {
        let offset = self.chunk.saturating_mul(CHUNK as u64).saturating_add(self.start as u64);
        BackendError::OutOfRange { offset, len: self.len() as u64 }
    }
}

/// Cuts a range at the borders of chunks.
#[inline]
pub(super) fn parts(offset: u64, len: u64) -> impl Iterator<Item = Part> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let chunk = at >> CHUNK_SHIFT;
        let start = at as usize & CHUNK.saturating_sub(1);
        let len = end.saturating_sub(at).min((CHUNK.saturating_sub(start)) as u64);
        at = at.saturating_add(len);
        Some(Part { chunk, start, end: start.saturating_add(len as usize) })
    })
}

/// Spreads chunk numbers; they are chosen by whoever owns the disk, and at worst slow that disk down.
#[derive(Default)]
struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, index: u64) {
        let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
