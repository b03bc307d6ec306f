use std::io;
use std::path::PathBuf;

/// Why the emulator could not do what its owner asked of it. (What hosts ask is answered with NVMe status codes.)
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The NSID is outside of what the subsystem allows.
    #[error("namespace identifier {nsid} is not possible, 1 to {most} are")]
    BadNsid {
        /// The NSID.
        nsid: u32,
        /// The largest possible one.
        most: u32,
    },
    /// There is a namespace with that NSID already.
    #[error("namespace {nsid} exists already")]
    NamespaceExists {
        /// The NSID.
        nsid: u32,
    },
    /// There is no namespace with that NSID.
    #[error("there is no namespace {nsid}")]
    NoSuchNamespace {
        /// The NSID.
        nsid: u32,
    },
    /// As many namespaces as the subsystem allows exist.
    #[error("all {most} namespaces that the subsystem allows exist already")]
    TooManyNamespaces {
        /// How many it allows.
        most: u32,
    },
    /// The size is not one that a namespace can have.
    #[error("{size} bytes are not a possible size: {reason}")]
    BadSize {
        /// The size, in bytes.
        size: u64,
        /// What would be allowed.
        reason: String,
    },
    /// The LBA format is not one that the emulator has.
    #[error("the LBA format is not possible: {0}")]
    BadFormat(String),
    /// Commands that the storage has not finished are in the way of a format.
    #[error("the namespace has commands outstanding")]
    Busy,
    /// The file behind a namespace cannot be used.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file behind a namespace is not a whole number of blocks long.
    #[error("{path}: its {size} bytes are not one or more whole blocks of {block}", path = path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size, in bytes.
        size: u64,
        /// Bytes of a block.
        block: u64,
    },
    /// The storage behind a namespace failed.
    #[error("storage: {0}")]
    Storage(#[from] crate::BackendError),
}
