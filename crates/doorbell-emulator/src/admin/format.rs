//! Format NVM (NVMe Base 2.0, "Format NVM command").

use std::sync::Arc;

use nvme_spec::admin::FormatNvmCdw10;
use nvme_spec::identify::PiType;
use nvme_spec::{NSID_ALL, Status};

use super::Call;
use crate::controller::Controller;
use crate::error::EmulatorError;
use crate::namespace::Namespace;
use crate::reservation::Group;
use crate::sync::read;

impl Controller {
    pub(super) fn format_nvm(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = FormatNvmCdw10::from(call.command.cdw10);
        // Neither metadata in the first bytes nor cryptographic erase; user data erase is what a format does anyway.
        if cdw10.ses() > 1 || cdw10.pi().0 > PiType::TYPE3.0 {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let upper = if self.features.structured.extended_formats() { cdw10.lbafu() } else { 0 };
        let index = usize::from(upper << 4 | cdw10.lbafl());
        let nsid = call.command.nsid;
        let targets: Vec<Arc<Namespace>> = if nsid == NSID_ALL {
            self.table.iter().flatten().cloned().collect()
        } else {
            vec![self.attached(nsid)?.clone()]
        };
        for namespace in &targets {
            let state = read(&namespace.state);
            state.reservations.check(self.host, Group::Write)?;
            if state.write_protected {
                return Err(Status::NAMESPACE_IS_WRITE_PROTECTED);
            }
        }
        for namespace in &targets {
            let formatted = namespace.format(index, cdw10.mset(), cdw10.pi());
            formatted.map_err(|error| match error {
                EmulatorError::BadFormat(_) | EmulatorError::BadSize { .. } => Status::INVALID_FORMAT,
                EmulatorError::Busy => Status::COMMAND_SEQUENCE_ERROR,
                _ => Status::INTERNAL_ERROR,
            })?;
            // The host that formats knows; the others are told.
            self.subsystem.announce(namespace.nsid, Some(self.port.cntlid));
        }
        Ok(0)
    }
}
