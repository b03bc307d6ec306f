//! Write Zeroes and Write Uncorrectable: commands on blocks without data.

use nvme_spec::Status;
use nvme_spec::identify::PiType;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};

use super::{Io, metadata, write_failed};
use crate::protection::ProtectionInfo;
use crate::reservation::Group;
use crate::sync;

impl Io<'_> {
    pub(super) fn write_zeroes(&mut self) -> Result<u64, Status> {
        let mut state = sync::write(&self.namespace.state);
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        let layout = state.layout;
        if layout.bytes(blocks) > self.config.size_limit(self.config.wzsl) {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        self.check(&state, Group::Write, slba, blocks)?;
        // What is given back reads as zero, so that is how zeroes are written, asked to deallocate (DEAC) or not.
        state.deallocate(slba, blocks).map_err(write_failed)?;
        let pract = PrInfo::from(cdw12.prinfo()).pract();
        if layout.protection != PiType::NONE && pract && !cdw12.deac() {
            let checks = metadata::checks(self, layout)?;
            // The guard of zeroes is 0, whatever the size.
            let mut pi = ProtectionInfo { guard: 0, application_tag: checks.application_tag, reference_tag: 0 };
            for (index, lba) in (0u32..).zip(slba..slba.saturating_add(blocks)) {
                pi.reference_tag = checks.reference_of(index);
                metadata::store(&mut state, lba, pi.to_bytes())?;
            }
        }
        if cdw12.fua() {
            state.data.flush().map_err(write_failed)?;
        }
        Ok(0)
    }

    pub(super) fn write_uncorrectable(&mut self) -> Result<u64, Status> {
        let mut state = sync::write(&self.namespace.state);
        let cdw12 = ReadWriteCdw12::from(self.command.cdw12);
        let (slba, blocks) = (self.command.cdw10_11(), u64::from(cdw12.block_count()));
        if state.layout.bytes(blocks) > self.config.size_limit(self.config.wusl) {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        self.check(&state, Group::Write, slba, blocks)?;
        if state.uncorrectable.insert(slba, blocks) { Ok(0) } else { Err(Status::INTERNAL_ERROR) }
    }
}
