//! A device that goes from one process to another, as it is.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::{Device, DeviceError, DmaMemory};

/// A device that is held still, and what another process needs to go on with it.
///
/// [`let_go`](Self::let_go) leaves the device to that process. Dropped instead, this process goes on with it.
#[must_use = "dropped, it lets the device go on here"]
pub struct Leaving {
    parts: Parts,
    decide: Option<Decide>,
}

/// Told, once, whether the device has left.
type Decide = Box<dyn FnOnce(bool) + Send>;

/// What goes to the other process.
#[derive(Debug, Default)]
pub struct Parts {
    /// Which back end's it is.
    pub kind: String,
    /// What that back end knows of the device, for this version of it or a later one.
    pub state: Vec<u8>,
    /// Descriptors, in an order that the back end knows.
    pub descriptors: Vec<OwnedFd>,
}

impl Leaving {
    /// For back ends: `decide` is called once, with whether the device has left.
    pub fn new(parts: Parts, decide: impl FnOnce(bool) + Send + 'static) -> Self {
        Self { parts, decide: Some(Box::new(decide)) }
    }

    /// What goes to the other process.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The other process has the device: from now on, nothing here reaches it, and what is dropped here is not taken from
    /// it.
    pub fn let_go(mut self) {
        if let Some(decide) = self.decide.take() {
            decide(true);
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(decide) = self.decide.take() {
            decide(false);
        }
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaving").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// The files that memory lies in, each once however much memory is in it; for back ends.
#[derive(Debug, Default)]
pub struct Files {
    files: Vec<Arc<File>>,
}

impl Files {
    /// The number of a file, in the order in which they came.
    pub fn number(&mut self, file: &Arc<File>) -> u32 {
        let known = self.files.iter().position(|other| Arc::ptr_eq(other, file));
        let number = known.unwrap_or_else(|| {
            self.files.push(file.clone());
            self.files.len().saturating_sub(1)
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// Their descriptors, in that order.
    ///
    /// # Errors
    /// If this process may have no more.
    pub fn descriptors(&self) -> Result<Vec<OwnedFd>, DeviceError> {
        let duplicates = self.files.iter().map(|file| file.as_fd().try_clone_to_owned());
        duplicates.collect::<Result<_, _>>().map_err(DeviceError::io("duplicating a descriptor"))
    }
}

/// A device of another process, of which everything is there, and nothing has been used.
///
/// [`begin`](Self::begin) makes it this process's. Dropped instead, it is still the other's.
#[must_use = "dropped, it stays the other process's"]
pub struct Arriving {
    device: Arc<dyn Device>,
    memory: Vec<DmaMemory>,
    begin: Begin,
}

type Begin = Box<dyn FnOnce() -> Result<(), DeviceError> + Send>;

impl Arriving {
    /// For back ends: until `begin` is called, `device` and `memory` do nothing that the other process would notice.
    pub fn new(
        device: Arc<dyn Device>,
        memory: Vec<DmaMemory>,
        begin: impl FnOnce() -> Result<(), DeviceError> + Send + 'static,
    ) -> Self {
        Self { device, memory, begin: Box::new(begin) }
    }

    /// The device. Until it has begun, its registers are [`DeviceError::Gone`].
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The memory that was named when it [left](Device::leave), in that order.
    #[must_use]
    pub fn memory(&self) -> &[DmaMemory] {
        &self.memory
    }

    /// The device is this process's from now on. The other one has let go of it, or is about to, and uses it no more.
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn begin(self) -> Result<(), DeviceError> {
        (self.begin)()
    }
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("address", &self.device.address())
            .field("memory", &self.memory)
            .finish_non_exhaustive()
    }
}
