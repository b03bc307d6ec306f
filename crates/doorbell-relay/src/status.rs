//! What the drive says, as the status of the command above.

use doorbell::RequestError;
use nvme_spec::{Status, StatusField};

/// The drive's own status as it is; for what failed elsewhere, the one that says so best.
pub(crate) fn status(result: Result<(), RequestError>) -> StatusField {
    let Err(error) = result else { return StatusField::new() };
    let (status, final_) = match &error {
        RequestError::Nvme(error) => (error.status, error.do_not_retry),
        RequestError::OutOfRange { .. } => (Status::LBA_OUT_OF_RANGE, true),
        RequestError::Memory(_) => (Status::DATA_TRANSFER_ERROR, false),
        RequestError::Unsupported(_) => (Status::INVALID_COMMAND_OPCODE, true),
        RequestError::TooLarge { .. } | RequestError::BadParameter { .. } => (Status::INVALID_FIELD_IN_COMMAND, true),
        RequestError::Interrupted => (Status::COMMAND_INTERRUPTED, false),
        // The drive was given up, or cannot be reached.
        _ => (Status::INTERNAL_PATH_ERROR, true),
    };
    tracing::debug!(%error, %status, "the drive refuses");
    StatusField::new().with_status(status).with_dnr(final_)
}
