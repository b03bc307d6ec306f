//! Compare, Verify, and the fused Compare and Write.

use doorbell_device::inprocess::Host;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};
use nvme_spec::{Command, NvmOpcode, Status};

use super::metadata::{self, Path};
use super::{Io, read_failed};
use crate::controller::Controller;
use crate::fault::Verdict;
use crate::namespace::State;
use crate::protection::PI_BYTES;
use crate::reservation::Group;
use crate::sync;
use crate::transfer::{FromHost, Rules, Toward};

/// Bytes compared at a time.
const PIECE: u64 = 64 << 10;

impl Io<'_> {
    pub(super) fn compare(&mut self) -> Result<u64, Status> {
        let namespace = self.namespace;
        self.compare_with(&sync::read(&namespace.state))
    }

    /// Compare, with a namespace that is locked already.
    fn compare_with(&mut self, state: &State) -> Result<u64, Status> {
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        self.check(state, Group::Read, slba, blocks)?;
        let layout = state.layout;
        let path = Path::new(layout, PrInfo::from(cdw12.prinfo()).pract());
        self.describe(path.data_len(layout, blocks), Toward::Controller)?;
        if path == Path::Separate {
            self.describe_metadata(blocks.saturating_mul(PI_BYTES as u64), Toward::Controller)?;
        }
        if state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        self.health.reads = self.health.reads.wrapping_add(1);
        self.health.bytes_read = self.health.bytes_read.wrapping_add(layout.bytes(blocks));
        if path == Path::None {
            self.compare_data(state, layout.bytes(slba), layout.bytes(blocks))?;
        } else {
            self.compare_with_metadata(state, path, slba, blocks)?;
        }
        Ok(0)
    }

    fn compare_data(&mut self, state: &State, offset: u64, len: u64) -> Result<(), Status> {
        let scratch = &mut *self.scratch;
        let mut from = FromHost::new(self.dma, scratch.extents.as_slice(), self.patch);
        let mut done = 0;
        while done < len {
            let part = len.saturating_sub(done).min(PIECE);
            scratch.bytes.resize(part as usize, 0);
            scratch.more_bytes.resize(part as usize, 0);
            from.take(&mut scratch.bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            let read = state.data.read_bytes(offset.saturating_add(done), &mut scratch.more_bytes);
            read.map_err(read_failed)?;
            if scratch.bytes != scratch.more_bytes {
                return Err(Status::COMPARE_FAILURE);
            }
            done = done.saturating_add(part);
        }
        Ok(())
    }

    fn compare_with_metadata(&mut self, state: &State, path: Path, slba: u64, blocks: u64) -> Result<(), Status> {
        let checks = metadata::checks(self, state.layout)?;
        let failed = |_| Status::DATA_TRANSFER_ERROR;
        let block = state.layout.block() as usize;
        let scratch = &mut *self.scratch;
        scratch.bytes.resize(block, 0);
        scratch.more_bytes.resize(block, 0);
        let mut from = FromHost::new(self.dma, scratch.extents.as_slice(), self.patch);
        let mut metadata_from = FromHost::new(self.dma, scratch.more_extents.as_slice(), None);
        for (index, lba) in (0u32..).zip(slba..slba.saturating_add(blocks)) {
            from.take(&mut scratch.bytes).map_err(failed)?;
            state.data.read_bytes(state.layout.bytes(lba), &mut scratch.more_bytes).map_err(read_failed)?;
            let stored = metadata::load(state, lba)?;
            metadata::verify_block(&checks, index, &scratch.more_bytes, stored)?;
            let mut given = stored;
            match path {
                Path::Inline => from.take(&mut given).map_err(failed)?,
                Path::Separate => metadata_from.take(&mut given).map_err(failed)?,
                Path::None | Path::Made => {}
            }
            if scratch.bytes != scratch.more_bytes || given != stored {
                return Err(Status::COMPARE_FAILURE);
            }
        }
        Ok(())
    }

    /// Refuses a fused pair of more blocks than are compared and written in one.
    pub(super) fn check_fused(&self, state: &State) -> Result<(), Status> {
        // NACWU 0 is "as ACWU says".
        let own = state.config.atomic.map(|atomic| atomic.nacwu).filter(|nacwu| *nacwu != 0);
        let unit = own.unwrap_or(self.config.acwu);
        if self.command.cdw12 & 0xffff > u32::from(unit) {
            return Err(Status::ATOMIC_WRITE_UNIT_EXCEEDED);
        }
        Ok(())
    }

    /// Verify: reads blocks, and checks them, without moving data.
    pub(super) fn verify(&mut self) -> Result<u64, Status> {
        let state = sync::read(&self.namespace.state);
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        let layout = state.layout;
        if layout.bytes(blocks) > self.config.size_limit(self.config.vsl) {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        self.check(&state, Group::Read, slba, blocks)?;
        if state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        let checks = metadata::checks(self, layout)?;
        let scratch = &mut *self.scratch;
        let has_metadata = layout.metadata > 0;
        // Without metadata there is nothing to check block by block.
        let step = if has_metadata { 1 } else { (PIECE >> layout.shift).max(1) };
        let end = slba.saturating_add(blocks);
        let mut lba = slba;
        let mut index = 0u32;
        while lba < end {
            let count = end.saturating_sub(lba).min(step);
            scratch.bytes.resize(layout.bytes(count) as usize, 0);
            state.data.read_bytes(layout.bytes(lba), &mut scratch.bytes).map_err(read_failed)?;
            if has_metadata {
                metadata::verify_block(&checks, index, &scratch.bytes, metadata::load(&state, lba)?)?;
            }
            lba = lba.saturating_add(count);
            index = index.wrapping_add(1);
        }
        self.health.reads = self.health.reads.wrapping_add(1);
        self.health.bytes_read = self.health.bytes_read.wrapping_add(layout.bytes(blocks));
        Ok(0)
    }
}

impl Controller {
    /// The fused pair of Compare and Write: nobody sees the namespace between the two. `None` if it ends later.
    pub(crate) fn compare_and_write(
        &mut self,
        host: &Host<'_>,
        sqid: u16,
        first: &Command,
        second: &Command,
        verdict: Option<&Verdict>,
    ) -> Option<(Result<u64, Status>, Result<u64, Status>)> {
        let refused = |status| Some((Err(status), Err(Status::ABORTED_FAILED_FUSED)));
        let opcodes = (NvmOpcode(first.cdw0.opcode()), NvmOpcode(second.cdw0.opcode()));
        if !self.config.compare_and_write || opcodes != (NvmOpcode::COMPARE, NvmOpcode::WRITE) {
            return refused(Status::INVALID_FIELD_IN_COMMAND);
        }
        let range = |command: &Command| (command.nsid, command.cdw10_11(), command.cdw12 & 0xffff);
        if range(first) != range(second) {
            return refused(Status::INVALID_FIELD_IN_COMMAND);
        }
        let Some(namespace) = self.namespace(first.nsid).cloned() else {
            return refused(self.not_attached(first.nsid));
        };
        if namespace.finishes_later() {
            return self.pair_later(host, sqid, first, second, verdict).err().and_then(refused);
        }
        let mut state = sync::write(&namespace.state);
        let rules = Rules { page: self.page_size(), sgl: self.config.sgl };
        let mut io = Io {
            dma: host.dma,
            command: first,
            namespace: &namespace,
            config: &self.config,
            subsystem: &self.subsystem,
            host: self.host,
            rules,
            scratch: &mut self.scratch,
            health: &mut self.health,
            patch: None,
        };
        let compared = io.check_fused(&state).and_then(|()| io.compare_with(&state));
        if compared.is_err() {
            return Some((compared, Err(Status::ABORTED_FAILED_FUSED)));
        }
        io.command = second;
        Some((compared, io.write_to(&mut state)))
    }
}
