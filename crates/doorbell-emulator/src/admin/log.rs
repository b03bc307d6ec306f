//! Get Log Page (NVMe Base 2.0, "Get Log Page command").

use nvme_spec::admin::{GetLogPageCdw10, GetLogPageCdw14, log_page_bytes};
use nvme_spec::event::EventKind;
use nvme_spec::identify::cns::csi;
use nvme_spec::log::{
    ActiveFirmware, CommandEffects, Effects, FirmwareSlots, LogId, SupportedLogPage, SupportedLogPages,
};
use nvme_spec::registers::Version;
use nvme_spec::scalar::Ascii;
use nvme_spec::{AdminOpcode, Command, NSID_ALL, NvmOpcode, Status};
use zerocopy::IntoBytes;

use super::Call;
use crate::controller::Controller;

/// Bytes that one command may read, whatever MDTS says: no log page is nearly as long.
const MOST: u64 = 16 << 20;

impl Controller {
    pub(super) fn get_log_page(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = GetLogPageCdw10::from(call.command.cdw10);
        let lid = cdw10.lid();
        if !self.has_log(lid) {
            return Err(Status::INVALID_LOG_PAGE);
        }
        let (len, offset) = self.log_range(call.command)?;
        self.check_size(len)?;
        let mut page = std::mem::take(&mut self.scratch.bytes);
        page.clear();
        let result = self.read_log(call, lid, len, offset, &mut page);
        self.scratch.bytes = page;
        result?;
        if !cdw10.rae() {
            self.log_was_read(lid);
        }
        Ok(0)
    }

    fn read_log(
        &mut self,
        call: &Call<'_>,
        lid: LogId,
        len: u64,
        offset: u64,
        page: &mut Vec<u8>,
    ) -> Result<(), Status> {
        self.write_log(call.command, lid, page)?;
        let from = usize::try_from(offset).ok().and_then(|offset| page.get(offset..));
        self.send_padded(call, from.ok_or(Status::INVALID_FIELD_IN_COMMAND)?, len)
    }

    /// How many bytes are asked for, and from where.
    fn log_range(&self, command: &Command) -> Result<(u64, u64), Status> {
        let refused = Err(Status::INVALID_FIELD_IN_COMMAND);
        let cdw14 = GetLogPageCdw14::from(command.cdw14);
        if self.config.version >= Version::V1_3 && (cdw14.ot() || cdw14.uuid() != 0) {
            return refused;
        }
        if !self.config.extended_log {
            // NUMD had 12 bits then, and there was no offset.
            let numd = u64::from(command.cdw10 >> 16 & 0xfff).saturating_add(1);
            return Ok((numd.saturating_mul(4), 0));
        }
        let len = log_page_bytes(command);
        let offset = u64::from(command.cdw13) << 32 | u64::from(command.cdw12);
        if len > MOST || !offset.is_multiple_of(4) {
            return refused;
        }
        Ok((len, offset))
    }

    fn has_log(&self, lid: LogId) -> bool {
        let config = &self.config;
        match lid {
            LogId::ERROR | LogId::SMART | LogId::FIRMWARE_SLOT => true,
            LogId::CHANGED_NAMESPACES => config.namespace_notices,
            LogId::COMMANDS_SUPPORTED_AND_EFFECTS => config.effects_log,
            LogId::SUPPORTED_LOG_PAGES => config.version >= Version::V2_0,
            LogId::RESERVATION_NOTIFICATION => config.oncs.reservations(),
            _ => false,
        }
    }

    fn write_log(&self, command: &Command, lid: LogId, page: &mut Vec<u8>) -> Result<(), Status> {
        match lid {
            LogId::ERROR => {
                for entry in self.health.errors() {
                    page.extend_from_slice(entry.as_bytes());
                }
                let size = usize::from(self.config.elpe).saturating_add(1);
                page.resize(size.saturating_mul(size_of::<nvme_spec::log::ErrorEntry>()), 0);
            }
            LogId::SMART => {
                // LPA: not for each namespace.
                if !matches!(command.nsid, 0 | NSID_ALL) {
                    return Err(Status::INVALID_FIELD_IN_COMMAND);
                }
                let age = self.now.saturating_sub(self.powered_on.unwrap_or_default());
                page.extend_from_slice(self.health.log_page(age).as_bytes());
            }
            LogId::FIRMWARE_SLOT => {
                let mut slots = FirmwareSlots { afi: ActiveFirmware::new().with_active(1), ..FirmwareSlots::default() };
                if let Some(first) = slots.frs.first_mut() {
                    *first = Ascii::new(&self.config.firmware);
                }
                page.extend_from_slice(slots.as_bytes());
            }
            LogId::CHANGED_NAMESPACES => page.extend_from_slice(self.changed.list().as_bytes()),
            LogId::COMMANDS_SUPPORTED_AND_EFFECTS => {
                let cdw14 = GetLogPageCdw14::from(command.cdw14);
                if self.config.version >= Version::V2_0 && cdw14.csi() != csi::NVM {
                    return Err(Status::INVALID_FIELD_IN_COMMAND);
                }
                page.extend_from_slice(self.effects().as_bytes());
            }
            LogId::SUPPORTED_LOG_PAGES => {
                let mut pages = SupportedLogPages::default();
                for (lid, page) in (0..=u8::MAX).zip(&mut pages.pages) {
                    *page = SupportedLogPage::new().with_lsupp(self.has_log(LogId(lid)));
                }
                page.extend_from_slice(pages.as_bytes());
            }
            LogId::RESERVATION_NOTIFICATION => page.extend_from_slice(self.reservation_log.page().as_bytes()),
            _ => return Err(Status::INVALID_LOG_PAGE),
        }
        Ok(())
    }

    /// What reading a log page, without Retain Asynchronous Event, clears.
    fn log_was_read(&mut self, lid: LogId) {
        self.events.log_was_read(lid);
        match lid {
            LogId::CHANGED_NAMESPACES => self.changed.clear(),
            LogId::RESERVATION_NOTIFICATION if self.reservation_log.pop() => {
                self.events.raise(EventKind::RESERVATION_LOG_PAGE_AVAILABLE, lid);
            }
            _ => {}
        }
    }

    fn effects(&self) -> CommandEffects {
        let mut log = CommandEffects::default();
        let plain = Effects::new().with_csupp(true);
        let writes = plain.with_lbcc(true);
        let config = &self.config;
        let oncs = config.oncs;
        let admin = [
            (AdminOpcode::DELETE_IO_SQ, true, plain),
            (AdminOpcode::CREATE_IO_SQ, true, plain),
            (AdminOpcode::GET_LOG_PAGE, true, plain),
            (AdminOpcode::DELETE_IO_CQ, true, plain),
            (AdminOpcode::CREATE_IO_CQ, true, plain),
            (AdminOpcode::IDENTIFY, true, plain),
            (AdminOpcode::ABORT, true, plain),
            (AdminOpcode::SET_FEATURES, true, plain),
            (AdminOpcode::GET_FEATURES, true, plain),
            (AdminOpcode::ASYNC_EVENT_REQUEST, true, plain),
            (AdminOpcode::FORMAT_NVM, config.format, writes.with_ncc(true).with_cse(1)),
            (AdminOpcode::DOORBELL_BUFFER_CONFIG, config.doorbell_buffer_config, plain),
        ];
        for (opcode, supported, effects) in admin {
            if let Some(entry) = log.admin.get_mut(usize::from(opcode.0)).filter(|_| supported) {
                *entry = effects;
            }
        }
        let io = [
            (NvmOpcode::FLUSH, true, plain),
            (NvmOpcode::WRITE, true, writes),
            (NvmOpcode::READ, true, plain),
            (NvmOpcode::WRITE_UNCORRECTABLE, oncs.write_uncorrectable(), writes),
            (NvmOpcode::COMPARE, oncs.compare(), plain),
            (NvmOpcode::WRITE_ZEROES, oncs.write_zeroes(), writes),
            (NvmOpcode::DSM, oncs.dataset_management(), writes),
            (NvmOpcode::VERIFY, oncs.verify(), plain),
            (NvmOpcode::RESERVATION_REGISTER, oncs.reservations(), plain),
            (NvmOpcode::RESERVATION_REPORT, oncs.reservations(), plain),
            (NvmOpcode::RESERVATION_ACQUIRE, oncs.reservations(), plain),
            (NvmOpcode::RESERVATION_RELEASE, oncs.reservations(), plain),
            (NvmOpcode::COPY, oncs.copy(), writes),
        ];
        for (opcode, supported, effects) in io {
            if let Some(entry) = log.io.get_mut(usize::from(opcode.0)).filter(|_| supported) {
                *entry = effects;
            }
        }
        log
    }
}
