//! The PCI function behind a VFIO device descriptor: its regions and its configuration space.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use rustix::io::{pread, pwrite};
use vfio_bindings::bindings::vfio;

use super::caps;
use super::sys::{self, Request};
use crate::DeviceError;

/// PCI Local Bus 3.0, Command Register.
const COMMAND: u64 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Status Register, Capabilities List.
const STATUS: u64 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES: u64 = 0x34;
/// PCI Bus Power Management Interface.
const CAPABILITY_POWER: u8 = 0x01;
const POWER_CONTROL: u64 = 4;
const POWER_STATE: u16 = 3;

/// A function, open until it is let go.
#[derive(Debug)]
pub(super) struct Function {
    fd: RwLock<Option<OwnedFd>>,
    config: Region,
    can_reset: bool,
}

/// Where a region is behind the descriptor.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// The parts that can be mapped, offset in the region and bytes.
    pub(super) mappable: Vec<(u64, u64)>,
}

impl Function {
    pub(super) fn new(fd: OwnedFd) -> Result<Self, DeviceError> {
        let mut info =
            vfio::vfio_device_info { argsz: 0, flags: 0, num_regions: 0, num_irqs: 0, cap_offset: 0, pad: 0 };
        sys::call(&fd, Request::DEVICE_GET_INFO, &mut info).map_err(DeviceError::io("asking what the device is"))?;
        if info.flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 {
            return Err(DeviceError::Unsupported("PCI"));
        }
        let config = region(fd.as_fd(), vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
        let can_reset = info.flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0;
        Ok(Self { fd: RwLock::new(Some(fd)), config, can_reset })
    }

    /// Has `work` done with the descriptor, unless the function was let go.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(BorrowedFd<'_>) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        match &*self.fd.read().unwrap_or_else(PoisonError::into_inner) {
            Some(fd) => work(fd.as_fd()),
            None => Err(DeviceError::Gone("it was let go".into())),
        }
    }

    /// Closes it. What is under way ends first.
    pub(super) fn close(&self) {
        drop(self.fd.write().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn region(&self, index: u32) -> Result<Region, DeviceError> {
        self.with(|fd| region(fd, index))
    }

    /// Reads from a region by a system call.
    pub(super) fn read<const N: usize>(&self, region: &Region, at: u64) -> Result<[u8; N], DeviceError> {
        let what = DeviceError::io("reading from the device");
        let mut bytes = [0; N];
        match self.with(|fd| pread(fd, &mut bytes, region.offset.saturating_add(at)).map_err(what))? {
            read if read == N => Ok(bytes),
            _ => Err(DeviceError::io("reading from the device")(io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }

    /// Writes to a region by a system call.
    pub(super) fn write(&self, region: &Region, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let what = DeviceError::io("writing to the device");
        match self.with(|fd| pwrite(fd, bytes, region.offset.saturating_add(at)).map_err(what))? {
            written if written == bytes.len() => Ok(()),
            _ => Err(DeviceError::io("writing to the device")(io::Error::from(io::ErrorKind::WriteZero))),
        }
    }

    /// Reads configuration space.
    pub(super) fn read_config<const N: usize>(&self, at: u64) -> Result<[u8; N], DeviceError> {
        self.read(&self.config, at)
    }

    /// Writes configuration space.
    pub(super) fn write_config(&self, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        self.write(&self.config, at, bytes)
    }

    /// Full power, its memory space switched on, and allowed to reach memory.
    pub(super) fn switch_on(&self) -> Result<(), DeviceError> {
        if let Some(power) = self.capability(CAPABILITY_POWER)? {
            let control = u16::from_le_bytes(self.read_config(power.saturating_add(POWER_CONTROL))?);
            if control & POWER_STATE != 0 {
                self.write_config(power.saturating_add(POWER_CONTROL), &(control & !POWER_STATE).to_le_bytes())?;
                // D3hot to D0 (PCI Express Base, PCI Power Management): no access for 10 ms.
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
        let command = u16::from_le_bytes(self.read_config(COMMAND)?);
        let wanted = command | COMMAND_MEMORY | COMMAND_BUS_MASTER;
        if wanted != command {
            self.write_config(COMMAND, &wanted.to_le_bytes())?;
        }
        Ok(())
    }

    /// Forbids it to reach memory.
    pub(super) fn stop_bus_master(&self) -> Result<(), DeviceError> {
        let command = u16::from_le_bytes(self.read_config(COMMAND)?);
        self.write_config(COMMAND, &(command & !COMMAND_BUS_MASTER).to_le_bytes())
    }

    /// Resets the function alone.
    pub(super) fn reset(&self) -> Result<(), DeviceError> {
        if !self.can_reset {
            return Err(DeviceError::Unsupported("a function reset"));
        }
        self.with(|fd| {
            let reset = sys::call_number(fd, Request::DEVICE_RESET, 0);
            reset.map(drop).map_err(DeviceError::io("resetting the function"))
        })
    }

    /// Where a capability is in configuration space.
    fn capability(&self, id: u8) -> Result<Option<u64>, DeviceError> {
        let status = u16::from_le_bytes(self.read_config(STATUS)?);
        if status & STATUS_CAPABILITIES == 0 {
            return Ok(None);
        }
        let [mut at] = self.read_config(CAPABILITIES)?;
        // There is no room for more than 48; a list that goes round ends.
        for _ in 0..48 {
            at &= !3;
            if at < 0x40 {
                break;
            }
            let [this, next] = self.read_config(at.into())?;
            if this == id {
                return Ok(Some(at.into()));
            }
            at = next;
        }
        Ok(None)
    }
}

fn region(fd: BorrowedFd<'_>, index: u32) -> Result<Region, DeviceError> {
    let what = DeviceError::io("asking for a region of the device");
    let message = vfio::vfio_region_info { argsz: 0, flags: 0, index, cap_offset: 0, size: 0, offset: 0 };
    let mut info = message;
    sys::call(fd, Request::DEVICE_GET_REGION_INFO, &mut info).map_err(what)?;
    let mut mappable = Vec::new();
    if info.flags & vfio::VFIO_REGION_INFO_FLAG_MMAP != 0 {
        mappable.push((0, info.size));
        if info.flags & vfio::VFIO_REGION_INFO_FLAG_CAPS != 0 {
            let what = DeviceError::io("asking for a region of the device");
            let answer = sys::call_long(fd, Request::DEVICE_GET_REGION_INFO, message).map_err(what)?;
            let first = caps::read_u32(&answer, std::mem::offset_of!(vfio::vfio_region_info, cap_offset));
            let sparse = caps::find(&answer, first.unwrap_or(0), vfio::VFIO_REGION_INFO_CAP_SPARSE_MMAP as u16);
            if let Some(sparse) = sparse {
                mappable = caps::pairs(sparse);
            }
        }
    }
    Ok(Region { offset: info.offset, size: info.size, mappable })
}
