//! Storage with a volatile write cache, whose content the simulation can see and lose.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_emulator::{Backend, BackendError, FromHost};

use crate::rng::Rng;

/// The storage of a namespace. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

struct State {
    block_size: usize,
    data: Vec<u8>,
    /// What each block held since the last flush, the durable content first.
    before: Vec<Vec<Box<[u8]>>>,
}

/// So many contents of a block may be found again after the power was lost.
const KEPT: usize = 6;

impl Disk {
    pub(crate) fn new(blocks: u64, block_size: u32) -> Self {
        let block_size = block_size as usize;
        let data = vec![0; blocks as usize * block_size];
        Self(Arc::new(Mutex::new(State { block_size, data, before: vec![Vec::new(); blocks as usize] })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a block holds; nothing past the end.
    pub(crate) fn block(&self, lba: u64) -> Option<Vec<u8>> {
        let state = self.lock();
        state.data.chunks_exact(state.block_size).nth(lba as usize).map(<[u8]>::to_vec)
    }

    /// The power is lost: each block holds what is durable, or anything that was written to it since.
    pub(crate) fn lose_power(&self, rng: &mut Rng) {
        let mut state = self.lock();
        let state = &mut *state;
        for (block, before) in state.data.chunks_exact_mut(state.block_size).zip(&mut state.before) {
            let which = rng.below(before.len() as u64 + 1) as usize;
            if let Some(old) = before.get(which) {
                block.copy_from_slice(old);
            }
            before.clear();
        }
    }
}

impl State {
    fn remember(&mut self, offset: usize, len: usize) {
        let first = offset / self.block_size;
        let last = (offset + len).div_ceil(self.block_size);
        for lba in first..last.min(self.before.len()) {
            let block = &self.data[lba * self.block_size..][..self.block_size];
            let before = &mut self.before[lba];
            if before.len() == KEPT {
                before.remove(1);
            }
            before.push(block.into());
        }
    }

    fn range(&self, offset: u64, len: usize) -> Result<std::ops::Range<usize>, BackendError> {
        let start = offset as usize;
        match start.checked_add(len) {
            Some(end) if end <= self.data.len() => Ok(start..end),
            _ => Err(BackendError::OutOfRange { offset, len: len as u64 }),
        }
    }
}

impl Backend for Disk {
    fn size(&self) -> u64 {
        self.lock().data.len() as u64
    }

    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        let state = self.lock();
        let range = state.range(offset, to.len())?;
        to.copy_from_slice(&state.data[range]);
        Ok(())
    }

    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError> {
        let mut state = self.lock();
        let range = state.range(offset, from.len())?;
        state.remember(range.start, range.len());
        state.data[range].copy_from_slice(from);
        Ok(())
    }

    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        // In one piece, so that no block is half written.
        let mut bytes = vec![0; len];
        from.take(&mut bytes)?;
        self.write_bytes(offset, &bytes)
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.lock().before.iter_mut().for_each(Vec::clear);
        Ok(())
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        let mut state = self.lock();
        let range = state.range(offset, len as usize)?;
        state.remember(range.start, range.len());
        state.data[range].fill(0);
        Ok(())
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        let mut state = self.lock();
        let blocks = size as usize / state.block_size;
        state.data.resize(size as usize, 0);
        state.before.resize(blocks, Vec::new());
        Ok(())
    }
}
