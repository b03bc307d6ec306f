use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

use crate::DeviceError;

/// One interrupt vector, as an eventfd: what VFIO, vfio-user and an in-process controller can all signal.
///
/// Cheap to clone. Wait for it by polling its descriptor for reading (it never blocks), then [`take`](Self::take).
#[derive(Debug, Clone)]
pub struct Interrupt {
    fd: Arc<OwnedFd>,
}

impl Interrupt {
    /// A new vector, not signalled.
    pub fn new() -> Result<Self, DeviceError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(DeviceError::io("eventfd"))?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// A vector behind an eventfd that somebody else made. It must be non-blocking.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Signals it, as the device does.
    pub fn raise(&self) {
        // The only failure is a counter about to overflow: then it is signalled already.
        let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
    }

    /// How often it was signalled since the last call; 0 when it was not.
    pub fn take(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.fd, &mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            _ => 0,
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
