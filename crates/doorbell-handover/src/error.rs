use doorbell::{NotYet, RestoreError};
use doorbell_device::DeviceError;

/// What can go wrong between the two processes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The other process ended, or closed the socket.
    #[error("the other process is gone")]
    PeerGone,
    /// The other process did not do its part in time.
    #[error("the other process did nothing for too long")]
    TimedOut,
    /// The other process says that it cannot.
    #[error("the other process refuses: {0}")]
    Refused(String),
    /// What came is not what comes in a handover.
    #[error("the other process broke the protocol: {0}")]
    Misbehaved(String),
    /// The other process is of a version that does not understand this one.
    #[error("the other process speaks version {theirs} of the protocol, this one {ours}")]
    Version {
        /// The other's.
        theirs: u32,
        /// This one's.
        ours: u32,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The shared memory.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl HandoverError {
    pub(crate) fn io<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { what, source: source.into() }
    }
}

/// Why a controller was not given away. This process has it still, and all its I/O goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GiveError {
    /// The device, or memory that is mapped for it, cannot be given to another process. Nothing was held still.
    #[error("the device cannot be handed over: {0}")]
    Device(#[source] DeviceError),
    /// The driver cannot be saved just now.
    #[error("the driver cannot be handed over yet: {0}")]
    NotYet(#[from] NotYet),
    /// The caller's own part of it failed.
    #[error("what goes along could not be had: {0}")]
    Luggage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The other process did not take it.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

/// Why a controller was not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeError {
    /// The two processes did not come together. The other one has the controller.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The device cannot be gone on with here. The other process has it.
    #[error("the device cannot be taken over: {0}")]
    Device(#[source] DeviceError),
    /// The driver's state cannot be gone on with here. The other process has the controller.
    #[error("the driver's state cannot be taken over: {0}")]
    State(#[source] RestoreError),
    /// The other process has kept the controller: this one took too long.
    #[error("the other process waited no longer, and has kept the controller")]
    Kept,
    /// This process has the controller, and cannot reach it.
    #[error("the controller was taken over, and cannot be reached: {0}")]
    Begin(#[source] DeviceError),
    /// This process has the controller, and cannot use it: it does not run any more, or is not to be reached. It can be
    /// opened anew.
    #[error("the controller was taken over, and does not work: {0}")]
    NotWorking(#[source] RestoreError),
}
