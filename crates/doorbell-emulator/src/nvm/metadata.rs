//! Metadata and protection information of a command's blocks (NVM Command Set 1.0, "Metadata Handling", "End-to-end Data
//! Protection").

use nvme_spec::Status;
use nvme_spec::command::Cdw0;
use nvme_spec::identify::PiType;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12, ReadWriteCdw15};

use super::{Io, read_failed};
use crate::namespace::{Layout, State};
use crate::protection::{Checks, PI_BYTES, ProtectionInfo};
use crate::transfer::{Extents, Toward, sgl};

/// How the metadata of a command travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// The format has none.
    None,
    /// The controller makes and strips it (PRACT).
    Made,
    /// In a buffer of its own.
    Separate,
    /// At the end of each block's data.
    Inline,
}

impl Path {
    #[inline]
    pub(super) fn new(layout: Layout, pract: bool) -> Self {
        if layout.metadata == 0 {
            Self::None
        } else if layout.protection != PiType::NONE && pract {
            Self::Made
        } else if layout.inline {
            Self::Inline
        } else {
            Self::Separate
        }
    }

    /// Bytes of data that a command for so many blocks moves.
    #[inline]
    pub(super) fn data_len(self, layout: Layout, blocks: u64) -> u64 {
        let metadata = if self == Self::Inline { u64::from(layout.metadata) } else { 0 };
        layout.block().saturating_add(metadata).saturating_mul(blocks)
    }
}

/// What a command with dwords 12, 14 and 15 says of protection information.
pub(super) fn checks(io: &Io<'_>, layout: Layout) -> Result<Checks, Status> {
    let cdw12 = ReadWriteCdw12::from(io.command.cdw12);
    let cdw15 = ReadWriteCdw15::from(io.command.cdw15);
    let prinfo = PrInfo::from(cdw12.prinfo());
    make_checks(layout, prinfo, io.command.cdw14, cdw15.lbat(), cdw15.lbatm(), io.command.cdw10_11())
}

pub(super) fn make_checks(
    layout: Layout,
    prinfo: PrInfo,
    first_reference: u32,
    application_tag: u16,
    application_mask: u16,
    slba: u64,
) -> Result<Checks, Status> {
    let kind = layout.protection;
    let is_protected = kind != PiType::NONE;
    let reference = is_protected && prinfo.check_reference();
    let valid = match kind {
        PiType::TYPE1 => first_reference == slba as u32,
        PiType::TYPE3 => false,
        _ => true,
    };
    if reference && !valid {
        return Err(Status::INVALID_PROTECTION_INFORMATION);
    }
    Ok(Checks {
        kind,
        guard: is_protected && prinfo.check_guard(),
        application: is_protected && prinfo.check_application(),
        reference,
        first_reference,
        application_tag,
        application_mask,
    })
}

impl Io<'_> {
    /// Finds the pieces of the metadata buffer, into the second list of extents.
    pub(super) fn describe_metadata(&mut self, len: u64, toward: Toward) -> Result<(), Status> {
        let mptr = self.command.mptr;
        let extents: &mut Extents = &mut self.scratch.more_extents;
        extents.clear();
        if self.command.cdw0.psdt() == Cdw0::PSDT_SGL_METADATA_SGL {
            // MPTR is the address of one descriptor.
            if !mptr.is_multiple_of(8) {
                return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR);
            }
            let mut words = [0u64; 2];
            let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut words);
            self.dma.read(mptr, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
            let descriptor = nvme_spec::sgl::SglDescriptor::from_words(words);
            let walked = sgl::walk(self.dma, self.rules.sgl, descriptor, len, toward, &mut self.scratch.lists, extents);
            return walked.map_err(|status| match status {
                Status::DATA_SGL_LENGTH_INVALID => Status::METADATA_SGL_LENGTH_INVALID,
                other => other,
            });
        }
        if !mptr.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        extents.push(mptr, u32::try_from(len).map_err(|_| Status::INVALID_FIELD_IN_COMMAND)?);
        Ok(())
    }
}

/// The stored metadata of a block.
pub(super) fn load(state: &State, lba: u64) -> Result<[u8; PI_BYTES], Status> {
    let Some(metadata) = &state.metadata else { return Ok([0; PI_BYTES]) };
    metadata.load(lba).map_err(read_failed)
}

/// Stores the metadata of a block.
pub(super) fn store(state: &mut State, lba: u64, pi: [u8; PI_BYTES]) -> Result<(), Status> {
    let Some(metadata) = &mut state.metadata else { return Ok(()) };
    metadata.store(lba, pi).map_err(super::write_failed)
}

/// Checks the protection information of a block as the command wants.
pub(super) fn verify_block(checks: &Checks, index: u32, data: &[u8], pi: [u8; PI_BYTES]) -> Result<(), Status> {
    if checks.kind == PiType::NONE {
        return Ok(());
    }
    checks.check(index, data, ProtectionInfo::from_bytes(pi))
}
