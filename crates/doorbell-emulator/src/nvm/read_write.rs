//! Read and Write.

use std::sync::atomic::Ordering;

use doorbell_device::Access;
use nvme_spec::Status;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};

use super::metadata::{self, Path};
use super::{Io, read_failed, write_failed};
use crate::namespace::State;
use crate::protection::PI_BYTES;
use crate::reservation::Group;
use crate::sync;
use crate::transfer::{FromHost, ToHost, Toward, check_reachable};

impl Io<'_> {
    #[inline]
    pub(super) fn read(&mut self) -> Result<u64, Status> {
        let namespace = self.namespace;
        let state = sync::read(&namespace.state);
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        self.check(&state, Group::Read, slba, blocks)?;
        let layout = state.layout;
        let path = Path::new(layout, PrInfo::from(cdw12.prinfo()).pract());
        self.describe(path.data_len(layout, blocks), Toward::Host)?;
        if state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        if path == Path::None {
            let mut to = ToHost::new(self.dma, self.scratch.extents.as_slice(), self.patch);
            let len = layout.bytes(blocks) as usize;
            state.data.read(layout.bytes(slba), len, &mut to).map_err(read_failed)?;
        } else {
            self.read_with_metadata(&state, path, slba, blocks)?;
        }
        self.health.reads = self.health.reads.wrapping_add(1);
        self.health.bytes_read = self.health.bytes_read.wrapping_add(layout.bytes(blocks));
        if cdw12.fua() && state.dirty.load(Ordering::Relaxed) {
            state.data.flush().map_err(read_failed)?;
        }
        Ok(0)
    }

    fn read_with_metadata(&mut self, state: &State, path: Path, slba: u64, blocks: u64) -> Result<(), Status> {
        let checks = metadata::checks(self, state.layout)?;
        if path == Path::Separate {
            self.describe_metadata(blocks.saturating_mul(PI_BYTES as u64), Toward::Host)?;
        }
        let failed = |_| Status::DATA_TRANSFER_ERROR;
        let block = state.layout.block() as usize;
        let scratch = &mut *self.scratch;
        scratch.bytes.resize(block, 0);
        let mut to = ToHost::new(self.dma, scratch.extents.as_slice(), self.patch);
        let mut metadata_to = ToHost::new(self.dma, scratch.more_extents.as_slice(), None);
        for (index, lba) in (0u32..).zip(slba..slba.saturating_add(blocks)) {
            state.data.read_bytes(state.layout.bytes(lba), &mut scratch.bytes).map_err(read_failed)?;
            let pi = metadata::load(state, lba)?;
            metadata::verify_block(&checks, index, &scratch.bytes, pi)?;
            to.put(&scratch.bytes).map_err(failed)?;
            match path {
                Path::Inline => to.put(&pi).map_err(failed)?,
                Path::Separate => metadata_to.put(&pi).map_err(failed)?,
                Path::None | Path::Made => {}
            }
        }
        Ok(())
    }

    #[inline]
    pub(super) fn write(&mut self) -> Result<u64, Status> {
        let namespace = self.namespace;
        self.write_to(&mut sync::write(&namespace.state))
    }

    /// Write, to a namespace that is locked already.
    #[inline]
    pub(super) fn write_to(&mut self, state: &mut State) -> Result<u64, Status> {
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        self.check(state, Group::Write, slba, blocks)?;
        let layout = state.layout;
        let path = Path::new(layout, PrInfo::from(cdw12.prinfo()).pract());
        self.describe(path.data_len(layout, blocks), Toward::Controller)?;
        check_reachable(self.dma, &self.scratch.extents, Access::Read)?;
        if path == Path::None {
            let mut from = FromHost::new(self.dma, self.scratch.extents.as_slice(), self.patch);
            let len = layout.bytes(blocks) as usize;
            state.data.write(layout.bytes(slba), len, &mut from).map_err(write_failed)?;
        } else {
            self.write_with_metadata(state, path, slba, blocks)?;
        }
        state.uncorrectable.remove(slba, blocks);
        self.health.writes = self.health.writes.wrapping_add(1);
        self.health.bytes_written = self.health.bytes_written.wrapping_add(layout.bytes(blocks));
        if cdw12.fua() || !self.config.volatile_write_cache {
            state.data.flush().map_err(write_failed)?;
        } else {
            *state.dirty.get_mut() = true;
        }
        Ok(0)
    }

    /// Data and metadata are copied and checked in full before any of it is stored.
    fn write_with_metadata(&mut self, state: &mut State, path: Path, slba: u64, blocks: u64) -> Result<(), Status> {
        let checks = metadata::checks(self, state.layout)?;
        if path == Path::Separate {
            self.describe_metadata(blocks.saturating_mul(PI_BYTES as u64), Toward::Controller)?;
        }
        let failed = |_| Status::DATA_TRANSFER_ERROR;
        let layout = state.layout;
        let block = layout.block() as usize;
        let scratch = &mut *self.scratch;
        scratch.bytes.resize(layout.bytes(blocks) as usize, 0);
        scratch.more_bytes.clear();
        let mut from = FromHost::new(self.dma, scratch.extents.as_slice(), self.patch);
        let mut metadata_from = FromHost::new(self.dma, scratch.more_extents.as_slice(), None);
        for (index, data) in (0u32..).zip(scratch.bytes.chunks_exact_mut(block)) {
            from.take(data).map_err(failed)?;
            let mut pi = [0; PI_BYTES];
            match path {
                Path::Inline => from.take(&mut pi).map_err(failed)?,
                Path::Separate => metadata_from.take(&mut pi).map_err(failed)?,
                Path::None | Path::Made => pi = checks.make(index, data).to_bytes(),
            }
            if path != Path::Made {
                metadata::verify_block(&checks, index, data, pi)?;
            }
            scratch.more_bytes.extend_from_slice(&pi);
        }
        state.data.write_bytes(layout.bytes(slba), &scratch.bytes).map_err(write_failed)?;
        let (each, _) = scratch.more_bytes.as_chunks::<PI_BYTES>();
        for (lba, pi) in (slba..).zip(each) {
            metadata::store(state, lba, *pi)?;
        }
        Ok(())
    }
}
