//! The PCI function behind a connection: that it is an NVMe controller, and what it needs before it is enabled.

use std::os::fd::{AsFd, BorrowedFd};

use doorbell_device::{DeviceError, Interrupt};
use vfio_user::wire::{DEVICE_PCI, DEVICE_RESET, IrqSet, SET_ACTION_TRIGGER, SET_DATA_EVENTFD, irq, region};
use vfio_user::{Call, CallError, Region};

use crate::error::device_error;

/// Mass storage, non-volatile memory, NVMe I/O controller.
const NVME_CLASS: u32 = 0x01_08_02;
const COMMAND: u64 = 0x04;
const MEMORY_AND_BUS_MASTER: u16 = 0x6;
const STATUS: u64 = 0x06;
const HAS_CAPABILITIES: u16 = 1 << 4;
const CLASS_AND_REVISION: u64 = 0x08;
const CAPABILITIES: u64 = 0x34;
const MSIX: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;
const MSIX_MASK_ALL: u16 = 1 << 14;
/// More cannot be in a configuration space.
const MOST_CAPABILITIES: usize = 48;
/// Descriptors that go with one message, whatever more the server would take.
const MOST_FDS: u32 = 16;

/// What a function is like.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) bar: Region,
    pub(crate) vectors: u32,
    pub(crate) can_reset: bool,
}

impl Function {
    /// Asks what it is.
    pub(crate) fn survey(by: &mut impl Call, address: &str) -> Result<Self, DeviceError> {
        let unusable = |reason: String| DeviceError::Unusable { device: address.into(), reason };
        let info = by.device_info().map_err(device_error)?;
        if info.flags & DEVICE_PCI == 0 || info.regions <= region::CONFIG {
            let reason = format!("it is no PCI device: flags {:#x}, {} regions", info.flags, info.regions);
            return Err(unusable(reason));
        }
        let mut class = [0; 4];
        by.region_read(region::CONFIG, CLASS_AND_REVISION, &mut class).map_err(device_error)?;
        let class = u32::from_le_bytes(class) >> 8;
        if class != NVME_CLASS {
            return Err(unusable(format!("its class is {class:06x}, that of an NVMe controller is {NVME_CLASS:06x}")));
        }
        let bar = by.region_info(region::BAR0).map_err(device_error)?;
        let vectors = if info.irqs > irq::MSIX { by.irq_info(irq::MSIX).map_err(device_error)?.count } else { 0 };
        Ok(Self { bar, vectors, can_reset: info.flags & DEVICE_RESET != 0 })
    }
}

/// Makes the function ready for its controller to be enabled: interrupts lead to eventfds, and it may reach memory.
pub(crate) fn prepare(by: &mut impl Call, interrupts: &[Interrupt]) -> Result<(), CallError> {
    let most = by.server().max_msg_fds.clamp(1, MOST_FDS);
    let mut start = 0u32;
    for some in interrupts.chunks(usize::try_from(most).unwrap_or(1)) {
        let fds: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let count = u32::try_from(some.len()).unwrap_or(u32::MAX);
        let flags = SET_DATA_EVENTFD | SET_ACTION_TRIGGER;
        by.set_irqs(IrqSet { argsz: 0, flags, index: irq::MSIX, start, count }, &[], &fds)?;
        start = start.saturating_add(count);
    }
    if !interrupts.is_empty() {
        enable_msix(by)?;
    }
    let command = read16(by, COMMAND)? | MEMORY_AND_BUS_MASTER;
    by.region_write(region::CONFIG, COMMAND, &command.to_le_bytes())
}

fn enable_msix(by: &mut impl Call) -> Result<(), CallError> {
    if read16(by, STATUS)? & HAS_CAPABILITIES == 0 {
        return Ok(());
    }
    let mut at = [0];
    by.region_read(region::CONFIG, CAPABILITIES, &mut at)?;
    for _ in 0..MOST_CAPABILITIES {
        let [pointer] = at;
        let pointer = u64::from(pointer & !3);
        if pointer < 0x40 {
            break;
        }
        let mut capability = [0; 4];
        by.region_read(region::CONFIG, pointer, &mut capability)?;
        let [id, next, low, high] = capability;
        if id == MSIX {
            let control = (u16::from_le_bytes([low, high]) | MSIX_ENABLE) & !MSIX_MASK_ALL;
            return by.region_write(region::CONFIG, pointer.saturating_add(2), &control.to_le_bytes());
        }
        at = [next];
    }
    Ok(())
}

fn read16(by: &mut impl Call, offset: u64) -> Result<u16, CallError> {
    let mut bytes = [0; 2];
    by.region_read(region::CONFIG, offset, &mut bytes)?;
    Ok(u16::from_le_bytes(bytes))
}
