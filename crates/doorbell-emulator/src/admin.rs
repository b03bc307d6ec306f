//! The admin commands (NVMe Base 2.0, "Admin Command Set").

mod abort;
pub(crate) mod changed;
mod doorbell_buffer;
pub(crate) mod features;
mod format;
mod health_events;
mod identify;
mod log;
mod queues;
pub(crate) mod reservation_log;

use doorbell_device::inprocess::Host;
use nvme_spec::{AdminOpcode, Command, Status};

use crate::controller::{Controller, Outcome};
use crate::fault::Patch;
use crate::transfer::{FromHost, ToHost, describe_admin};

/// An admin command, and where its data goes to and comes from.
pub(crate) struct Call<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) command: &'a Command,
    patch: Option<&'a Patch>,
}

impl Controller {
    /// Carries out an admin command.
    pub(crate) fn admin(&mut self, host: &Host<'_>, command: &Command, patch: Option<&Patch>) -> Outcome {
        let call = Call { host, command, patch };
        // Admin commands use PRPs on a memory-based transport.
        if command.cdw0.psdt() != 0 {
            return Outcome::Done(Err(Status::INVALID_FIELD_IN_COMMAND));
        }
        Outcome::Done(match AdminOpcode(command.cdw0.opcode()) {
            AdminOpcode::IDENTIFY => self.identify(&call),
            AdminOpcode::GET_LOG_PAGE => self.get_log_page(&call),
            AdminOpcode::GET_FEATURES => self.get_features(&call),
            AdminOpcode::SET_FEATURES => self.set_features(&call),
            AdminOpcode::CREATE_IO_CQ => self.create_completion_queue(&call),
            AdminOpcode::CREATE_IO_SQ => self.create_submission_queue(&call),
            AdminOpcode::DELETE_IO_CQ => self.delete_completion_queue(&call),
            AdminOpcode::DELETE_IO_SQ => match self.delete_submission_queue(&call) {
                Some(result) => result,
                None => return Outcome::Waits,
            },
            AdminOpcode::ABORT => self.abort(&call),
            AdminOpcode::ASYNC_EVENT_REQUEST => {
                if self.events.requests.len() > usize::from(self.config.aerl) {
                    Err(Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED)
                } else {
                    self.events.requests.push_back(command.cdw0.cid());
                    return Outcome::Waits;
                }
            }
            AdminOpcode::FORMAT_NVM if self.config.format => self.format_nvm(&call),
            AdminOpcode::DOORBELL_BUFFER_CONFIG if self.config.doorbell_buffer_config => {
                self.doorbell_buffer_config(&call)
            }
            _ => Err(Status::INVALID_COMMAND_OPCODE),
        })
    }

    /// Refuses a transfer beyond MDTS.
    fn check_size(&self, len: u64) -> Result<(), Status> {
        if len > self.config.max_transfer() { Err(Status::INVALID_FIELD_IN_COMMAND) } else { Ok(()) }
    }

    /// Moves data to the host.
    pub(crate) fn send(&mut self, call: &Call<'_>, bytes: &[u8]) -> Result<(), Status> {
        self.send_padded(call, bytes, bytes.len() as u64)
    }

    /// Moves data to the host, `len` bytes in all, of which what there is no data for is zeroes.
    pub(crate) fn send_padded(&mut self, call: &Call<'_>, bytes: &[u8], len: u64) -> Result<(), Status> {
        self.check_size(len)?;
        let dma = call.host.dma;
        let page = self.page_size();
        let scratch = &mut self.scratch;
        describe_admin(dma, page, call.command.dptr, len, &mut scratch.lists, &mut scratch.extents)?;
        let bytes = bytes.get(..usize::try_from(len).unwrap_or(usize::MAX)).unwrap_or(bytes);
        let mut to = ToHost::new(dma, scratch.extents.as_slice(), call.patch);
        let padding = len.saturating_sub(bytes.len() as u64) as usize;
        to.put(bytes).and_then(|()| to.zero(padding)).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }

    /// Moves data from the host.
    pub(crate) fn receive<const N: usize>(&mut self, call: &Call<'_>) -> Result<[u8; N], Status> {
        let dma = call.host.dma;
        let page = self.page_size();
        let scratch = &mut self.scratch;
        describe_admin(dma, page, call.command.dptr, N as u64, &mut scratch.lists, &mut scratch.extents)?;
        let mut bytes = [0; N];
        FromHost::new(dma, scratch.extents.as_slice(), call.patch)
            .take(&mut bytes)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(bytes)
    }

    /// CC.MPS, in bytes.
    #[inline]
    pub(crate) fn page_size(&self) -> u32 {
        1 << (u32::from(self.registers.cc.mps()).saturating_add(12))
    }
}
