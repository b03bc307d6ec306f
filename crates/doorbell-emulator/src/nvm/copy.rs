//! Copy, within a namespace.

use nvme_spec::Status;
use nvme_spec::nvm::{CopyCdw12, CopyFormat, CopyRange, PrInfo, ReadWriteCdw15};
use zerocopy::FromBytes;

use super::metadata::{make_checks, verify_block};
use super::{Io, metadata, read_failed, write_failed};
use crate::namespace::State;
use crate::protection::Checks;
use crate::reservation::Group;
use crate::sync;

/// Bytes copied at a time.
const PIECE: u64 = 256 << 10;

impl Io<'_> {
    pub(super) fn copy(&mut self) -> Result<u64, Status> {
        let cdw12 = CopyCdw12::from(self.command.cdw12);
        let ranges = self.receive_sources()?;
        let namespace = self.namespace;
        let mut state = sync::write(&namespace.state);
        let total = self.check_sources(&state, &ranges)?;
        let target = self.command.cdw10_11();
        if state.layout.metadata > 0 {
            self.copy_with_metadata(&mut state, cdw12, &ranges, target)?;
        } else {
            self.copy_data(&mut state, &ranges, target)?;
        }
        state.uncorrectable.remove(target, total);
        let bytes = state.layout.bytes(total);
        self.health.reads = self.health.reads.wrapping_add(1);
        self.health.writes = self.health.writes.wrapping_add(1);
        self.health.bytes_read = self.health.bytes_read.wrapping_add(bytes);
        self.health.bytes_written = self.health.bytes_written.wrapping_add(bytes);
        if cdw12.fua() || !self.config.volatile_write_cache {
            state.data.flush().map_err(write_failed)?;
        } else {
            *state.dirty.get_mut() = true;
        }
        Ok(0)
    }

    /// The source ranges that the command carries.
    pub(super) fn receive_sources(&mut self) -> Result<Vec<CopyRange>, Status> {
        let cdw12 = CopyCdw12::from(self.command.cdw12);
        if cdw12.desfmt() != CopyFormat::RANGE {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let count = usize::from(cdw12.nr()).saturating_add(1);
        self.receive(count.saturating_mul(size_of::<CopyRange>()))?;
        let (each, _) = self.scratch.bytes.as_chunks::<{ size_of::<CopyRange>() }>();
        Ok(each.iter().filter_map(|bytes| CopyRange::read_from_bytes(bytes).ok()).collect())
    }

    /// Refuses what is not in the namespace, or more than it copies; gives how many blocks are copied.
    pub(super) fn check_sources(&self, state: &State, ranges: &[CopyRange]) -> Result<u64, Status> {
        let (mssrl, mcl, msrc) = (state.config.mssrl, state.config.mcl, state.config.msrc);
        let total: u64 = ranges.iter().map(|range| u64::from(range.block_count())).sum();
        let too_long = |range: &CopyRange| range.block_count() > u32::from(mssrl);
        let too_many = ranges.len() > usize::from(msrc).saturating_add(1);
        if too_many || ranges.iter().any(too_long) || total > u64::from(mcl) {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        self.check(state, Group::Write, self.command.cdw10_11(), total)?;
        for range in ranges {
            state.check_range(range.slba, range.block_count().into())?;
            if state.uncorrectable.touches(range.slba, range.block_count().into()) {
                return Err(Status::UNRECOVERED_READ_ERROR);
            }
        }
        Ok(total)
    }

    fn copy_data(&mut self, state: &mut State, ranges: &[CopyRange], target: u64) -> Result<(), Status> {
        let layout = state.layout;
        let mut to = layout.bytes(target);
        let buffer = &mut self.scratch.bytes;
        for range in ranges {
            let mut from = layout.bytes(range.slba);
            let end = from.saturating_add(layout.bytes(range.block_count().into()));
            while from < end {
                let part = end.saturating_sub(from).min(PIECE);
                buffer.resize(part as usize, 0);
                state.data.read_bytes(from, buffer).map_err(read_failed)?;
                state.data.write_bytes(to, buffer).map_err(write_failed)?;
                from = from.saturating_add(part);
                to = to.saturating_add(part);
            }
        }
        Ok(())
    }

    fn copy_with_metadata(
        &mut self,
        state: &mut State,
        cdw12: CopyCdw12,
        ranges: &[CopyRange],
        target: u64,
    ) -> Result<(), Status> {
        let layout = state.layout;
        let (read, write) = (PrInfo::from(cdw12.prinfor()), PrInfo::from(cdw12.prinfow()));
        // Protection information is either carried along, or stripped and made anew.
        if read.pract() != write.pract() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let cdw15 = ReadWriteCdw15::from(self.command.cdw15);
        let (lbat, lbatm) = (cdw15.lbat(), cdw15.lbatm());
        let writes = make_checks(layout, write, self.command.cdw14, lbat, lbatm, target)?;
        let is_protected = layout.protection != nvme_spec::identify::PiType::NONE;
        let mut to = target;
        let mut written = 0u32;
        self.scratch.bytes.resize(layout.block() as usize, 0);
        for range in ranges {
            let CopyRange { slba, eilbrt, elbat, elbatm, .. } = *range;
            let reads: Checks = make_checks(layout, read, eilbrt, elbat, elbatm, slba)?;
            for index in 0..range.block_count() {
                let from = slba.saturating_add(index.into());
                let data = &mut self.scratch.bytes;
                state.data.read_bytes(layout.bytes(from), data).map_err(read_failed)?;
                let mut pi = metadata::load(state, from)?;
                verify_block(&reads, index, data, pi)?;
                if is_protected && write.pract() {
                    pi = writes.make(written, data).to_bytes();
                } else {
                    verify_block(&writes, written, data, pi)?;
                }
                state.data.write_bytes(layout.bytes(to), data).map_err(write_failed)?;
                metadata::store(state, to, pi)?;
                to = to.saturating_add(1);
                written = written.wrapping_add(1);
            }
        }
        Ok(())
    }
}
