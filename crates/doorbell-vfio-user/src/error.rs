//! What the driver is told of a call that failed.

use std::io;

use doorbell_device::DeviceError;
use vfio_user::{CallError, ConnectionError};

/// The error of a request that the server did not fulfil.
pub(crate) fn device_error(error: CallError) -> DeviceError {
    match error {
        CallError::Connection(error) => connection_error(error),
        CallError::Malformed(malformed) => DeviceError::Misbehaved(malformed.to_string()),
        CallError::Refused { errno, .. } => {
            let kind = i32::try_from(errno).map(|errno| io::Error::from_raw_os_error(errno).kind());
            let kind = kind.unwrap_or(io::ErrorKind::Other);
            DeviceError::Io { what: "a request to the server", source: io::Error::new(kind, error) }
        }
        error => DeviceError::Misbehaved(error.to_string()),
    }
}

pub(crate) fn connection_error(error: ConnectionError) -> DeviceError {
    match error {
        ConnectionError::Closed { .. } => DeviceError::Gone(error.to_string()),
        ConnectionError::MessageSize { .. } => DeviceError::Misbehaved(error.to_string()),
        ConnectionError::Io { what, source } => DeviceError::Io { what, source },
        error => DeviceError::Io { what: "a message of the server", source: error.into() },
    }
}
