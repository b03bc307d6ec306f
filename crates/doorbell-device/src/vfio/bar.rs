//! The controller's registers, in BAR0.

use std::sync::{Arc, Mutex, PoisonError};

use std::sync::atomic::Ordering;

use vfio_bindings::bindings::vfio;

use super::function::{Function, Region};
use crate::mapping::Mapping;
use crate::sigbus::{self, Guard, Substitute};
use crate::{DeviceError, Doorbell, HostMemory, Interrupt};

pub(super) struct Bar {
    function: Arc<Function>,
    region: Region,
    size: usize,
    /// The parts that are mapped; the others are reached by system calls.
    mapped: Vec<Part>,
}

struct Part {
    start: usize,
    mapping: Arc<Mapping>,
    memory: HostMemory,
    guard: Mutex<Option<Guard>>,
}

impl Bar {
    /// Maps what can be mapped. `lost` is raised when it is no longer there.
    pub(super) fn new(function: Arc<Function>, lost: &Interrupt) -> Result<Self, DeviceError> {
        let region = function.region(vfio::VFIO_PCI_BAR0_REGION_INDEX)?;
        let size = usize::try_from(region.size).unwrap_or(usize::MAX);
        if size < 4096 {
            return Err(DeviceError::Unsupported("NVMe: its BAR0 has less than a page"));
        }
        let mut mapped = Vec::new();
        for &(start, len) in &region.mappable {
            let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(len)) else { continue };
            if len == 0 {
                continue;
            }
            if start.checked_add(len).is_none_or(|end| end > size) {
                return Err(DeviceError::BadRegister { offset: start, len, size });
            }
            let offset = region.offset.saturating_add(start as u64);
            let mapping = Arc::new(function.with(|fd| Mapping::of_device(fd, offset, len))?);
            let memory = HostMemory::from_mapping(mapping.clone())?;
            let guard = Mutex::new(Some(sigbus::guard(memory.clone(), Substitute::Ones, lost)?));
            mapped.push(Part { start, mapping, memory, guard });
        }
        Ok(Self { function, region, size, mapped })
    }

    pub(super) fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.check(offset, 4)?;
        match self.find(offset) {
            Some((memory, at)) => {
                let register = memory.dwords().get(at / 4).ok_or(self.bad(offset, 4))?;
                // The compiler cannot make anything else of it than one load of 32 bits, nor move it.
                Ok(u32::from_le(register.load(Ordering::SeqCst)))
            }
            None => Ok(u32::from_le_bytes(self.function.read(&self.region, offset as u64)?)),
        }
    }

    pub(super) fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.check(offset, 4)?;
        match self.find(offset) {
            Some((memory, at)) => {
                let register = memory.dwords().get(at / 4).ok_or(self.bad(offset, 4))?;
                // What was written to memory before is seen by the device before.
                crate::dma_wmb();
                register.store(value.to_le(), Ordering::Release);
                Ok(())
            }
            None => self.function.write(&self.region, offset as u64, &value.to_le_bytes()),
        }
    }

    /// As two halves, the lower first: every controller has to take that (NVMe Base 2.0, Controller Properties), and
    /// some take nothing else.
    pub(super) fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.check(offset, 8)?;
        let low = self.read32(offset)?;
        let high = self.read32(offset.saturating_add(4))?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    pub(super) fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.check(offset, 8)?;
        self.write32(offset, value as u32)?;
        self.write32(offset.saturating_add(4), (value >> 32) as u32)
    }

    pub(super) fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.check(offset, 4)?;
        if let Some((memory, at)) = self.find(offset) {
            return Doorbell::in_memory(memory.clone(), at).ok_or(self.bad(offset, 4));
        }
        let (function, region) = (self.function.clone(), self.region.clone());
        Ok(Doorbell::from_fn(move |value| {
            if let Err(error) = function.write(&region, offset as u64, &value.to_le_bytes()) {
                tracing::debug!(offset, %error, "a doorbell could not be rung");
            }
        }))
    }

    /// Takes the device out from under all who have registers or doorbells of it: they have memory of ones instead.
    pub(super) fn release(&self) -> Result<(), DeviceError> {
        let mut result = Ok(());
        for part in &self.mapped {
            let replaced = part.mapping.replace_with_ones();
            if replaced.is_ok() {
                part.guard.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            result = result.and(replaced);
        }
        result
    }

    /// The mapped memory that a register is in, and where in it.
    fn find(&self, offset: usize) -> Option<(&HostMemory, usize)> {
        self.mapped.iter().find_map(|part| {
            let at = offset.checked_sub(part.start)?;
            (at < part.memory.len()).then_some((&part.memory, at))
        })
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.size);
        if inside && offset.is_multiple_of(len) { Ok(()) } else { Err(self.bad(offset, len)) }
    }

    fn bad(&self, offset: usize, len: usize) -> DeviceError {
        DeviceError::BadRegister { offset, len, size: self.size }
    }
}
