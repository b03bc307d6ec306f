use std::io;

/// What can go wrong between the driver and a controller, below the NVMe protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device is no longer there: unplugged, its server dead, or its registers read all ones.
    #[error("the device is gone: {0}")]
    Gone(String),
    /// The device cannot be had on this machine as it is set up.
    #[error("{device} cannot be used: {reason}")]
    Unusable {
        /// The device's address.
        device: String,
        /// What is in the way, and what would help.
        reason: String,
    },
    /// A register outside the device's register space, or not aligned to its size.
    #[error("register offset {offset:#x} with {len} bytes is outside the {size:#x} bytes of registers or not aligned")]
    BadRegister {
        /// Byte offset from the start of the controller's registers.
        offset: usize,
        /// Bytes accessed.
        len: usize,
        /// Bytes of registers that there are.
        size: usize,
    },
    /// An interrupt vector that the device does not have.
    #[error("interrupt vector {vector} asked for, the device has {count}")]
    BadVector {
        /// The vector asked for.
        vector: u32,
        /// Vectors that there are, counted from 0.
        count: u32,
    },
    /// Memory that this device cannot be given.
    #[error("memory of {len:#x} bytes cannot be mapped for the device: {reason}")]
    Unmappable {
        /// Bytes asked for.
        len: usize,
        /// Why not.
        reason: String,
    },
    /// The device, or what stands between it and us, has no room for one more mapping.
    #[error("no room for another DMA mapping: {0}")]
    MappingLimit(String),
    /// Memory that another process cannot be given, which keeps the device from leaving this one.
    #[error("memory of {len:#x} bytes cannot be shared with another process: {reason}")]
    NotShareable {
        /// Its bytes.
        len: usize,
        /// Why not.
        reason: String,
    },
    /// What another process left of a device does not make one.
    #[error("the device that another process left cannot be gone on with: {0}")]
    NotAdoptable(String),
    /// The device cannot do what was asked, and never will.
    #[error("the device does not support {0}")]
    Unsupported(&'static str),
    /// What carries the device, such as the server of a vfio-user socket, does not keep to its protocol.
    #[error("the device's other end broke the protocol: {0}")]
    Misbehaved(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl DeviceError {
    /// Wraps what the system said while doing `what`; for use with `map_err`.
    pub fn io<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }
}
