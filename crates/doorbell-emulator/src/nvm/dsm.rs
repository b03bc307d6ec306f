//! Dataset Management: only Deallocate does anything here; the rest of it is advice.

use nvme_spec::Status;
use nvme_spec::nvm::{DsmCdw10, DsmCdw11, DsmRange};
use zerocopy::FromBytes;

use super::{Io, write_failed};
use crate::namespace::State;
use crate::reservation::Group;
use crate::sync;

impl Io<'_> {
    pub(super) fn dataset_management(&mut self) -> Result<u64, Status> {
        let ranges = self.receive_ranges()?;
        let mut state = sync::write(&self.namespace.state);
        self.check_ranges(&state, &ranges)?;
        if DsmCdw11::from(self.command.cdw11).ad() {
            for range in &ranges {
                state.deallocate(range.slba, range.nlb.into()).map_err(write_failed)?;
            }
        }
        Ok(0)
    }

    /// The ranges that the command carries.
    pub(super) fn receive_ranges(&mut self) -> Result<Vec<DsmRange>, Status> {
        let count = u32::from(DsmCdw10::from(self.command.cdw10).nr()).saturating_add(1);
        let most = self.config.dmrl;
        if most != 0 && count > u32::from(most) {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        self.receive((count as usize).saturating_mul(size_of::<DsmRange>()))?;
        let (each, _) = self.scratch.bytes.as_chunks::<{ size_of::<DsmRange>() }>();
        Ok(each.iter().filter_map(|bytes| DsmRange::read_from_bytes(bytes).ok()).collect())
    }

    /// Refuses ranges outside of the namespace, or more than the controller takes.
    pub(super) fn check_ranges(&self, state: &State, ranges: &[DsmRange]) -> Result<(), Status> {
        let config = self.config;
        let mut total = 0u64;
        for range in ranges {
            if config.dmrsl != 0 && range.nlb > config.dmrsl {
                return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED);
            }
            total = total.saturating_add(range.nlb.into());
            self.check(state, Group::Write, range.slba, range.nlb.into())?;
        }
        if config.dmsl != 0 && total > config.dmsl {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED);
        }
        Ok(())
    }
}
