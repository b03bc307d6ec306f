//! The NVM command set (NVM Command Set 1.0, "NVM Commands"), carried out.

mod compare;
mod copy;
mod dsm;
mod flush;
mod later;
mod metadata;
mod read_write;
mod reservation;
mod zeroes;

use doorbell_device::inprocess::{DmaView, Host};
use nvme_spec::{Command, NvmOpcode, Status};

use crate::backend::BackendError;
use crate::config::ControllerConfig;
use crate::controller::{Controller, Outcome, Scratch};
use crate::fault::{Patch, Verdict};
use crate::health::Health;
use crate::namespace::{Namespace, State};
use crate::reservation::{Group, HostId};
use crate::subsystem::Subsystem;
use crate::sync;
use crate::transfer::{FromHost, Rules, ToHost, Toward, describe};

/// An I/O command, and what it works on.
pub(crate) struct Io<'a> {
    dma: &'a DmaView<'a>,
    command: &'a Command,
    namespace: &'a Namespace,
    config: &'a ControllerConfig,
    subsystem: &'a Subsystem,
    host: HostId,
    rules: Rules,
    scratch: &'a mut Scratch,
    health: &'a mut Health,
    patch: Option<&'a Patch>,
}

impl Controller {
    /// Carries out an I/O command that is not fused.
    #[inline]
    pub(crate) fn io(&mut self, host: &Host<'_>, sqid: u16, command: &Command, verdict: Option<&Verdict>) -> Outcome {
        let Some(Some(namespace)) = self.table.get(command.nsid.wrapping_sub(1) as usize) else {
            return self.io_without_namespace(sqid, command, verdict);
        };
        if namespace.finishes_later() && !is_spoilt_here(namespace, verdict) {
            return self.io_later(host, sqid, command, verdict);
        }
        let mut io = Io {
            dma: host.dma,
            command,
            namespace,
            config: &self.config,
            subsystem: &self.subsystem,
            host: self.host,
            rules: Rules { page: 1 << (u32::from(self.registers.cc.mps()).saturating_add(12)), sgl: self.config.sgl },
            scratch: &mut self.scratch,
            health: &mut self.health,
            patch: verdict.and_then(|verdict| verdict.patch.as_ref()),
        };
        Outcome::Done(match NvmOpcode(command.cdw0.opcode()) {
            NvmOpcode::READ => io.read(),
            NvmOpcode::WRITE => io.write(),
            opcode => io.rarer(opcode),
        })
    }

    /// Flush of all namespaces, or a mistake.
    #[cold]
    fn io_without_namespace(&mut self, sqid: u16, command: &Command, verdict: Option<&Verdict>) -> Outcome {
        let opcode = NvmOpcode(command.cdw0.opcode());
        if opcode == NvmOpcode::FLUSH && command.nsid == nvme_spec::NSID_ALL {
            let later = self.table.iter().flatten().any(|namespace| namespace.finishes_later());
            if later && self.config.flush_all {
                return self.flush_all_later(sqid, command, verdict);
            }
            return Outcome::Done(self.flush_every_namespace());
        }
        Outcome::Done(Err(self.not_attached(command.nsid)))
    }
}

impl Io<'_> {
    fn rarer(&mut self, opcode: NvmOpcode) -> Result<u64, Status> {
        let oncs = self.config.oncs;
        match opcode {
            NvmOpcode::FLUSH => self.flush(),
            NvmOpcode::WRITE_UNCORRECTABLE if oncs.write_uncorrectable() => self.write_uncorrectable(),
            NvmOpcode::COMPARE if oncs.compare() => self.compare(),
            NvmOpcode::WRITE_ZEROES if oncs.write_zeroes() => self.write_zeroes(),
            NvmOpcode::DSM if oncs.dataset_management() => self.dataset_management(),
            NvmOpcode::VERIFY if oncs.verify() => self.verify(),
            NvmOpcode::COPY if oncs.copy() => self.copy(),
            NvmOpcode::RESERVATION_REGISTER if oncs.reservations() => self.reservation_register(),
            NvmOpcode::RESERVATION_ACQUIRE if oncs.reservations() => self.reservation_acquire(),
            NvmOpcode::RESERVATION_RELEASE if oncs.reservations() => self.reservation_release(),
            NvmOpcode::RESERVATION_REPORT if oncs.reservations() => self.reservation_report(),
            _ => Err(Status::INVALID_COMMAND_OPCODE),
        }
    }

    /// What every command on blocks asks first: is the namespace still there, may this host, does the range exist.
    #[inline]
    fn check(&self, state: &State, group: Group, slba: u64, blocks: u64) -> Result<(), Status> {
        if state.removed {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
        }
        state.reservations.check(self.host, group)?;
        if group == Group::Write && state.write_protected {
            return Err(Status::NAMESPACE_IS_WRITE_PROTECTED);
        }
        state.check_range(slba, blocks)
    }

    /// Finds the pieces of the command's data.
    #[inline]
    fn describe(&mut self, len: u64, toward: Toward) -> Result<(), Status> {
        if len > self.config.max_transfer() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let Scratch { lists, extents, .. } = &mut *self.scratch;
        describe(self.dma, self.rules, self.command, len, toward, lists, extents)
    }

    /// Copies `len` bytes of parameters from the host into the scratch memory.
    fn receive(&mut self, len: usize) -> Result<(), Status> {
        self.describe(len as u64, Toward::Controller)?;
        let Scratch { extents, bytes, .. } = &mut *self.scratch;
        bytes.clear();
        bytes.resize(len, 0);
        FromHost::new(self.dma, extents.as_slice(), self.patch).take(bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Moves `len` bytes to the host: those given, and zeroes where they end.
    fn send_padded(&mut self, given: &[u8], len: u64) -> Result<(), Status> {
        self.describe(len, Toward::Host)?;
        let given = given.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(given);
        let mut to = ToHost::new(self.dma, self.scratch.extents.as_slice(), self.patch);
        let padding = len.saturating_sub(given.len() as u64) as usize;
        to.put(given).and_then(|()| to.zero(padding)).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }
}

/// Whether the controller has to carry a command out itself to spoil its data.
#[inline]
fn is_spoilt_here(namespace: &Namespace, verdict: Option<&Verdict>) -> bool {
    verdict.is_some_and(|verdict| verdict.patch.is_some()) && sync::read(&namespace.state).data.is_plain()
}

/// Storage failed while reading.
#[cold]
fn read_failed(error: BackendError) -> Status {
    match error {
        BackendError::Transfer(_) => Status::DATA_TRANSFER_ERROR,
        error => {
            tracing::warn!(%error, "reading from storage failed");
            Status::UNRECOVERED_READ_ERROR
        }
    }
}

/// Storage failed while writing.
#[cold]
fn write_failed(error: BackendError) -> Status {
    match error {
        BackendError::Transfer(_) => Status::DATA_TRANSFER_ERROR,
        error => {
            tracing::warn!(%error, "writing to storage failed");
            Status::WRITE_FAULT
        }
    }
}
