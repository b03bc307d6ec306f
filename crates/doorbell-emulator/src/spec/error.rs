use std::path::PathBuf;

use doorbell_device::DeviceError;

use crate::EmulatorError;

/// What is wrong with the address of an emulated device, or with what it names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Not an address of an emulated device.
    #[error("{address:?} does not begin with \"emulated:\"")]
    Scheme {
        /// The address.
        address: String,
    },
    /// No such key.
    #[error("there is no key {key:?}; there are {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// The keys that there are.
        known: String,
    },
    /// A key was given twice.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A key without the value it needs.
    #[error("{key} needs a value: {key}=...")]
    NoValue {
        /// The key.
        key: String,
    },
    /// A value that the key cannot have.
    #[error("{key}={value} is not possible: it has to be {allowed}")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
    /// Two keys that exclude each other.
    #[error("{one} and {other} exclude each other")]
    Conflict {
        /// One of them.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
    /// Neither a size nor a file.
    #[error("a size (size=1G) or a file (file=disk.img) is needed")]
    NoSize,
    /// The fault plan cannot be read.
    #[error("fault plan {path}: {reason}", path = path.display())]
    FaultFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A namespace cannot be made.
    #[error(transparent)]
    Namespace(#[from] EmulatorError),
    /// The device cannot be made.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl SpecError {
    pub(super) fn bad(key: &str, value: &str, allowed: &str) -> Self {
        Self::BadValue { key: key.into(), value: value.into(), allowed: allowed.into() }
    }
}
