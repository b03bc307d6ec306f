use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::shared::{Alarm, DOORBELLS, Shared};
use super::{Activity, DmaSpace, SoftController};
use crate::{Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

/// When the controller runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// On a thread of its own, which sleeps while there is nothing to do.
    Threaded,
    /// In the caller's own call, at each doorbell and register write. Deterministic.
    Inline,
    /// Only in [`InProcess::step`]. Deterministic, and completions come when told.
    Stepped,
}

/// A [`SoftController`] as a [`Device`].
///
/// When it is dropped, its thread is stopped and nothing runs any more; the controller itself goes with the last
/// [`Doorbell`].
pub struct InProcess<C: SoftController> {
    shared: Arc<Shared<C>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<C: SoftController> InProcess<C> {
    /// A device around `controller`, with `interrupts` vectors, known by `address`.
    pub fn new(address: &str, controller: C, interrupts: u32, run: Run) -> Result<Arc<Self>, DeviceError> {
        let shared = Arc::new(Shared::new(address, controller, interrupts, run)?);
        Alarm::set(&shared);
        let thread = if run == Run::Threaded {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("doorbell-emulated".into());
            Some(thread.spawn(move || shared.serve()).map_err(DeviceError::io("starting a thread"))?)
        } else {
            None
        };
        Ok(Arc::new(Self { shared, thread: Mutex::new(thread) }))
    }

    /// Runs the controller until it has nothing more to do at `now`, and tells what it waits for.
    pub fn step(&self, now: Duration) -> Activity {
        self.shared.tell_time(now);
        self.shared.settle()
    }

    /// Gives access to the controller itself, to add a namespace or read a counter, and lets it run after.
    pub fn with_controller<R>(&self, f: impl FnOnce(&mut C) -> R) -> R {
        let result = f(&mut self.shared.lock());
        self.shared.kick();
        result
    }

    /// The memory the device was given.
    pub fn dma_space(&self) -> &Arc<DmaSpace> {
        &self.shared.space
    }
}

impl<C: SoftController> Drop for InProcess<C> {
    fn drop(&mut self) {
        self.shared.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<C: SoftController> Device for InProcess<C> {
    fn address(&self) -> String {
        self.shared.address.clone()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        Ok(self.shared.read(offset, 4)? as u32)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.shared.read(offset, 8)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.shared.write(offset, 4, value.into())
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.shared.write(offset, 8, value)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.shared.check(offset, 4)?;
        let bad = DeviceError::BadRegister { offset, len: 4, size: self.shared.register_space };
        let Some(at) = offset.checked_sub(DOORBELLS) else { return Err(bad) };
        if self.shared.run == Run::Stepped {
            return Doorbell::in_memory(self.shared.doorbells.clone(), at).ok_or(bad);
        }
        // A strong reference: a weak one is two locked instructions to use, each time it rings. It makes no cycle, since
        // nothing in `Shared` owns doorbells.
        let shared = self.shared.clone();
        Ok(Doorbell::from_fn(move |value| shared.ring(at / 4, value)))
    }

    fn completes_inline(&self) -> bool {
        self.shared.run == Run::Inline
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.shared.space.map(request)
    }

    fn interrupt_count(&self) -> u32 {
        self.shared.interrupts.len() as u32
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let count = self.interrupt_count();
        self.shared.interrupts.get(vector as usize).cloned().ok_or(DeviceError::BadVector { vector, count })
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.shared.reset()
    }
}
