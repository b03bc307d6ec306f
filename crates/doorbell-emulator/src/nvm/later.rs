//! Commands for storage that finishes later: checked here, and handed over.

use std::sync::RwLockReadGuard;

use doorbell_device::Access;
use doorbell_device::inprocess::Host;
use nvme_spec::nvm::{CopyCdw12, DsmCdw11, ReadWriteCdw12};
use nvme_spec::{Command, NvmOpcode, Status, StatusField};

use super::Io;
use crate::controller::{Controller, Lanes, Outcome, Waiting};
use crate::fault::Verdict;
use crate::lane::{Data, Operation, Ticket};
use crate::namespace::State;
use crate::reservation::Group;
use crate::sync;
use crate::transfer::{Rules, Toward, check_reachable, describe};

impl Controller {
    /// Hands an I/O command to its namespace's storage.
    #[inline(never)]
    pub(super) fn io_later(
        &mut self,
        host: &Host<'_>,
        sqid: u16,
        command: &Command,
        verdict: Option<&Verdict>,
    ) -> Outcome {
        let waiting = Waiting { sqid, command: *command, second: None, verdict: verdict.cloned().map(Box::new) };
        let ticket = self.lanes.begin(Some(waiting));
        let handed = self.with_io(host, command, |io, lanes| io.hand_over(lanes, ticket));
        match handed {
            Ok(Handed::Over) => {
                self.lanes.seal(ticket, None);
                Outcome::Waits
            }
            Ok(Handed::Done(result)) => {
                self.lanes.withdraw(ticket);
                Outcome::Done(Ok(result))
            }
            Err(status) => {
                self.lanes.withdraw(ticket);
                Outcome::Done(Err(status))
            }
        }
    }

    /// Hands over a fused pair, which was found to be one. An error is that of the first half.
    pub(super) fn pair_later(
        &mut self,
        host: &Host<'_>,
        sqid: u16,
        first: &Command,
        second: &Command,
        verdict: Option<&Verdict>,
    ) -> Result<(), Status> {
        let waiting = Waiting { sqid, command: *first, second: Some(*second), verdict: verdict.cloned().map(Box::new) };
        let ticket = self.lanes.begin(Some(waiting));
        match self.with_io(host, first, |io, lanes| io.compare_and_write(lanes, ticket, second)) {
            Ok(()) => {
                self.lanes.seal(ticket, None);
                Ok(())
            }
            Err(status) => {
                self.lanes.withdraw(ticket);
                Err(status)
            }
        }
    }

    /// Flush of every namespace, whose storage may finish later.
    pub(super) fn flush_all_later(&mut self, sqid: u16, command: &Command, verdict: Option<&Verdict>) -> Outcome {
        let waiting = Waiting { sqid, command: *command, second: None, verdict: verdict.cloned().map(Box::new) };
        let ticket = self.lanes.begin(Some(waiting));
        let mut result = self.flush_every_namespace().map(drop);
        for namespace in self.table.iter().flatten().filter(|namespace| namespace.finishes_later()) {
            let state = sync::read(&namespace.state);
            if !state.removed && result.is_ok() {
                let allowed = state.reservations.check(self.host, Group::Write);
                result = allowed.and_then(|()| self.lanes.submit(namespace, ticket, Operation::Flush));
            }
        }
        let failed = result.err().map(|status| StatusField::new().with_status(status));
        self.lanes.seal(ticket, failed);
        Outcome::Waits
    }

    fn with_io<R>(
        &mut self,
        host: &Host<'_>,
        command: &Command,
        f: impl FnOnce(&mut Io<'_>, &mut Lanes) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let rules = Rules { page: self.page_size(), sgl: self.config.sgl };
        let Some(Some(namespace)) = self.table.get(command.nsid.wrapping_sub(1) as usize) else {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
        };
        let mut io = Io {
            dma: host.dma,
            command,
            namespace,
            config: &self.config,
            subsystem: &self.subsystem,
            host: self.host,
            rules,
            scratch: &mut self.scratch,
            health: &mut self.health,
            patch: None,
        };
        f(&mut io, &mut self.lanes)
    }
}

/// What became of a command.
enum Handed {
    Over,
    /// There was nothing for storage to do.
    Done(u64),
}

impl<'a> Io<'a> {
    fn hand_over(&mut self, lanes: &mut Lanes, ticket: Ticket) -> Result<Handed, Status> {
        let oncs = self.config.oncs;
        match NvmOpcode(self.command.cdw0.opcode()) {
            NvmOpcode::READ | NvmOpcode::WRITE => self.transfer(lanes, ticket)?,
            NvmOpcode::COMPARE if oncs.compare() => self.transfer(lanes, ticket)?,
            NvmOpcode::FLUSH => {
                let state = sync::read(&self.namespace.state);
                if state.removed {
                    return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
                }
                state.reservations.check(self.host, Group::Write)?;
                lanes.submit(self.namespace, ticket, Operation::Flush)?;
            }
            NvmOpcode::WRITE_ZEROES if oncs.write_zeroes() => return self.on_blocks(lanes, ticket, self.config.wzsl),
            NvmOpcode::WRITE_UNCORRECTABLE if oncs.write_uncorrectable() => {
                return self.on_blocks(lanes, ticket, self.config.wusl);
            }
            NvmOpcode::VERIFY if oncs.verify() => return self.on_blocks(lanes, ticket, self.config.vsl),
            NvmOpcode::DSM if oncs.dataset_management() => return self.deallocate(lanes, ticket),
            NvmOpcode::COPY if oncs.copy() => self.copy_later(lanes, ticket)?,
            // What is left needs nothing of storage.
            opcode => return self.rarer(opcode).map(Handed::Done),
        }
        Ok(Handed::Over)
    }

    /// A command that moves blocks.
    fn transfer(&mut self, lanes: &mut Lanes, ticket: Ticket) -> Result<(), Status> {
        let opcode = NvmOpcode(self.command.cdw0.opcode());
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        let state = self.state()?;
        let layout = state.layout;
        let group = if opcode == NvmOpcode::WRITE { Group::Write } else { Group::Read };
        self.check(&state, group, slba, blocks)?;
        let (toward, access) = match opcode {
            NvmOpcode::READ => (Toward::Host, Access::Write),
            _ => (Toward::Controller, Access::Read),
        };
        self.describe(layout.bytes(blocks), toward)?;
        check_reachable(self.dma, &self.scratch.extents, access)?;
        if group == Group::Read && state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        let data = Data::new(self.dma, self.scratch.extents.as_slice(), access);
        let offset = layout.bytes(slba);
        let operation = match opcode {
            NvmOpcode::READ => Operation::Read { offset, to: data, fua: cdw12.fua() },
            NvmOpcode::WRITE => Operation::Write { offset, from: data, fua: self.is_durable(cdw12.fua()) },
            _ => Operation::Compare { offset, with: data },
        };
        lanes.submit(self.namespace, ticket, operation)?;
        if group == Group::Write {
            self.mend(lanes, ticket, &state, &[(slba, blocks)]);
        }
        Ok(())
    }

    /// The namespace, which keeps its format while this is held.
    fn state(&self) -> Result<RwLockReadGuard<'a, State>, Status> {
        let state = sync::read(&self.namespace.state);
        // Somebody else has given it a format that storage does not finish later.
        if state.layout.metadata > 0 { Err(Status::FORMAT_IN_PROGRESS) } else { Ok(state) }
    }

    /// Blocks that are written can be read again, once they are.
    fn mend(&self, lanes: &mut Lanes, ticket: Ticket, state: &State, written: &[(u64, u64)]) {
        if written.iter().any(|(slba, blocks)| state.uncorrectable.touches(*slba, *blocks)) {
            lanes.mend(ticket, self.namespace, written.to_vec());
        }
    }

    /// Whether a write is to be on the medium when it completes.
    fn is_durable(&self, fua: bool) -> bool {
        fua || !self.config.volatile_write_cache
    }

    fn compare_and_write(&mut self, lanes: &mut Lanes, ticket: Ticket, second: &Command) -> Result<(), Status> {
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        let state = self.state()?;
        self.check_fused(&state)?;
        self.check(&state, Group::Read, slba, blocks)?;
        self.check(&state, Group::Write, slba, blocks)?;
        if state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        let layout = state.layout;
        let len = layout.bytes(blocks);
        let fua = self.is_durable(ReadWriteCdw12::from(second.cdw12).fua());
        self.describe(len, Toward::Controller)?;
        let scratch = &mut *self.scratch;
        let (lists, more) = (&mut scratch.lists, &mut scratch.more_extents);
        describe(self.dma, self.rules, second, len, Toward::Controller, lists, more)?;
        check_reachable(self.dma, &scratch.extents, Access::Read)?;
        check_reachable(self.dma, &scratch.more_extents, Access::Read)?;
        let compare = Data::new(self.dma, scratch.extents.as_slice(), Access::Read);
        let write = Data::new(self.dma, scratch.more_extents.as_slice(), Access::Read);
        // None of these blocks is marked: they were found readable.
        let operation = Operation::CompareAndWrite { offset: layout.bytes(slba), compare, write, fua };
        lanes.submit(self.namespace, ticket, operation)
    }

    /// A command on blocks that moves none.
    fn on_blocks(&mut self, lanes: &mut Lanes, ticket: Ticket, limit: u8) -> Result<Handed, Status> {
        let opcode = NvmOpcode(self.command.cdw0.opcode());
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        let state = self.state()?;
        if opcode == NvmOpcode::WRITE_UNCORRECTABLE && state.data.is_plain() {
            drop(state);
            return self.write_uncorrectable().map(Handed::Done);
        }
        let (offset, len) = (state.layout.bytes(slba), state.layout.bytes(blocks));
        if len > self.config.size_limit(limit) {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let group = if opcode == NvmOpcode::VERIFY { Group::Read } else { Group::Write };
        self.check(&state, group, slba, blocks)?;
        if group == Group::Read && state.uncorrectable.touches(slba, blocks) {
            return Err(Status::UNRECOVERED_READ_ERROR);
        }
        let operation = match opcode {
            NvmOpcode::VERIFY => Operation::Verify { offset, len },
            NvmOpcode::WRITE_UNCORRECTABLE => Operation::WriteUncorrectable { offset, len },
            _ => {
                let fua = self.is_durable(cdw12.fua());
                Operation::WriteZeroes { offset, len, deallocate: cdw12.deac(), fua }
            }
        };
        lanes.submit(self.namespace, ticket, operation)?;
        if group == Group::Write {
            self.mend(lanes, ticket, &state, &[(slba, blocks)]);
        }
        Ok(Handed::Over)
    }

    fn deallocate(&mut self, lanes: &mut Lanes, ticket: Ticket) -> Result<Handed, Status> {
        let ranges = self.receive_ranges()?;
        let state = self.state()?;
        self.check_ranges(&state, &ranges)?;
        if !DsmCdw11::from(self.command.cdw11).ad() {
            return Ok(Handed::Done(0));
        }
        let layout = state.layout;
        let blocks: Vec<_> = ranges.iter().map(|range| (range.slba, u64::from(range.nlb))).collect();
        let ranges: Vec<_> = blocks.iter().map(|(slba, nlb)| (layout.bytes(*slba), layout.bytes(*nlb))).collect();
        lanes.submit(self.namespace, ticket, Operation::Deallocate { ranges: &ranges })?;
        self.mend(lanes, ticket, &state, &blocks);
        Ok(Handed::Over)
    }

    fn copy_later(&mut self, lanes: &mut Lanes, ticket: Ticket) -> Result<(), Status> {
        let ranges = self.receive_sources()?;
        let state = self.state()?;
        let (target, total) = (self.command.cdw10_11(), self.check_sources(&state, &ranges)?);
        let layout = state.layout;
        let bytes = |blocks: u64| layout.bytes(blocks);
        let from: Vec<_> = ranges.iter().map(|range| (bytes(range.slba), bytes(range.block_count().into()))).collect();
        let fua = self.is_durable(CopyCdw12::from(self.command.cdw12).fua());
        lanes.submit(self.namespace, ticket, Operation::Copy { from: &from, to: bytes(target), fua })?;
        self.mend(lanes, ticket, &state, &[(target, total)]);
        Ok(())
    }
}
