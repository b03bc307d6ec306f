//! Interrupts, each an eventfd that the system signals.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use vfio_bindings::bindings::vfio;

use super::function::Function;
use super::options::InterruptKind;
use super::sys::{self, Request};
use crate::{DeviceError, Interrupt};

/// The vectors in use. All are set up when the device is opened: adding to them later would, with most kernels, take
/// all of them away for a moment, and what the device signals in it.
#[derive(Debug)]
pub(super) struct Vectors {
    kind: InterruptKind,
    interrupts: Vec<Interrupt>,
}

impl Vectors {
    /// Sets up at most `limit` vectors, of the kind asked for or else of the best that works.
    pub(super) fn new(function: &Arc<Function>, asked: Option<InterruptKind>, limit: u32) -> Result<Self, DeviceError> {
        if let Some(kind) = asked {
            let interrupts = set_up(function, kind, limit)?;
            return Ok(Self { kind, interrupts });
        }
        for kind in [InterruptKind::MsiX, InterruptKind::Msi, InterruptKind::Intx] {
            match set_up(function, kind, limit) {
                Ok(interrupts) => return Ok(Self { kind, interrupts }),
                Err(error) => tracing::debug!(kind = kind.name(), %error, "no such interrupts"),
            }
        }
        Ok(Self { kind: InterruptKind::None, interrupts: Vec::new() })
    }

    /// Those that another process has set up.
    pub(super) fn adopt(
        function: &Arc<Function>,
        kind: InterruptKind,
        eventfds: Vec<OwnedFd>,
    ) -> Result<Self, DeviceError> {
        let adopted = eventfds.into_iter().map(|fd| match kind {
            InterruptKind::Intx => Interrupt::level_triggered_from(fd, unmask_pin(function)),
            _ => Interrupt::from_fd(fd),
        });
        Ok(Self { kind, interrupts: adopted.collect() })
    }

    pub(super) fn kind(&self) -> InterruptKind {
        self.kind
    }

    pub(super) fn count(&self) -> u32 {
        self.interrupts.len() as u32
    }

    pub(super) fn get(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let found = self.interrupts.get(vector as usize).cloned();
        found.ok_or(DeviceError::BadVector { vector, count: self.count() })
    }

    pub(super) fn all(&self) -> &[Interrupt] {
        &self.interrupts
    }

    /// A pin that is masked because it had interrupted may interrupt again.
    pub(super) fn unmask(&self) {
        self.interrupts.iter().for_each(Interrupt::handled);
    }

    /// Takes the interrupts away from the device.
    pub(super) fn release(&self, function: &Function) {
        if let Some(index) = index(self.kind) {
            disable(function, index);
        }
    }
}

/// Has the system signal an interrupt of one of the kinds that are not about NVMe, if the device has it.
pub(super) fn signal(function: &Function, index: u32, interrupt: &Interrupt) -> Result<bool, DeviceError> {
    if available(function, index)? == 0 {
        return Ok(false);
    }
    enable(function, index, std::slice::from_ref(interrupt)).map(|missing| missing.is_none())
}

/// Takes all interrupts of a kind away.
pub(super) fn disable(function: &Function, index: u32) {
    let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
    let disabled = function
        .with(|fd| sys::set_irqs(fd, flags, index, 0, 0, &[]).map_err(DeviceError::io("switching interrupts off")));
    if let Err(error) = disabled {
        tracing::debug!(index, %error, "interrupts stay on until the device is closed");
    }
}

fn index(kind: InterruptKind) -> Option<u32> {
    match kind {
        InterruptKind::MsiX => Some(vfio::VFIO_PCI_MSIX_IRQ_INDEX),
        InterruptKind::Msi => Some(vfio::VFIO_PCI_MSI_IRQ_INDEX),
        InterruptKind::Intx => Some(vfio::VFIO_PCI_INTX_IRQ_INDEX),
        InterruptKind::None => None,
    }
}

fn set_up(function: &Arc<Function>, kind: InterruptKind, limit: u32) -> Result<Vec<Interrupt>, DeviceError> {
    let Some(index) = index(kind) else { return Ok(Vec::new()) };
    let mut count = available(function, index)?.min(limit.max(1));
    if kind == InterruptKind::Msi && count > 1 {
        // Only powers of two can be had.
        count = 1 << count.ilog2();
    }
    if count == 0 {
        return Err(DeviceError::Unsupported(match kind {
            InterruptKind::MsiX => "MSI-X",
            InterruptKind::Msi => "MSI",
            _ => "an interrupt pin",
        }));
    }
    loop {
        let interrupts = (0..count).map(|_| interrupt(function, kind)).collect::<Result<Vec<_>, _>>()?;
        let fewer = match enable(function, index, &interrupts) {
            Ok(None) => return Ok(interrupts),
            Ok(Some(possible)) => possible.min(count.saturating_sub(1)),
            // The machine may have fewer to give than the device takes.
            Err(error) if count == 1 => return Err(error),
            Err(error) => {
                tracing::debug!(count, %error, "trying fewer vectors");
                count / 2
            }
        };
        if fewer == 0 {
            return Err(DeviceError::Unsupported("interrupts: the machine has no vector left"));
        }
        count = if kind == InterruptKind::Msi { 1 << fewer.ilog2() } else { fewer };
    }
}

fn interrupt(function: &Arc<Function>, kind: InterruptKind) -> Result<Interrupt, DeviceError> {
    if kind != InterruptKind::Intx {
        return Interrupt::new();
    }
    Interrupt::level_triggered(unmask_pin(function))
}

fn unmask_pin(function: &Arc<Function>) -> impl Fn() + Send + Sync + 'static {
    let function = function.clone();
    move || {
        // The system masks the pin as it signals, or the processor would be interrupted until the device is served.
        let flags = vfio::VFIO_IRQ_SET_DATA_NONE | vfio::VFIO_IRQ_SET_ACTION_UNMASK;
        let what = DeviceError::io("unmasking the interrupt");
        let unmasked =
            function.with(|fd| sys::set_irqs(fd, flags, vfio::VFIO_PCI_INTX_IRQ_INDEX, 0, 1, &[]).map_err(what));
        match unmasked {
            Ok(_) | Err(DeviceError::Gone(_)) => {}
            Err(error) => tracing::error!(%error, "the device interrupts no more"),
        }
    }
}

/// How many interrupts of a kind there are.
fn available(function: &Function, index: u32) -> Result<u32, DeviceError> {
    let mut info = vfio::vfio_irq_info { argsz: 0, flags: 0, index, count: 0 };
    let asked = function.with(|fd| {
        sys::call(fd, Request::DEVICE_GET_IRQ_INFO, &mut info).map_err(DeviceError::io("asking for interrupts"))
    });
    match asked {
        Ok(_) if info.flags & vfio::VFIO_IRQ_INFO_EVENTFD != 0 => Ok(info.count),
        Ok(_) => Ok(0),
        // Kinds that this device, or this kernel, does not know.
        Err(DeviceError::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => Ok(0),
        Err(error) => Err(error),
    }
}

/// Sets up as many vectors as there are eventfds; or says how many there could have been.
fn enable(function: &Function, index: u32, interrupts: &[Interrupt]) -> Result<Option<u32>, DeviceError> {
    let flags = vfio::VFIO_IRQ_SET_DATA_EVENTFD | vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
    let eventfds: Vec<i32> = interrupts.iter().map(|interrupt| interrupt.as_fd().as_raw_fd()).collect();
    let what = DeviceError::io("switching interrupts on");
    let count = interrupts.len() as u32;
    let result = function.with(|fd| sys::set_irqs(fd, flags, index, 0, count, &eventfds).map_err(what))?;
    Ok(u32::try_from(result).ok().filter(|possible| *possible != 0))
}
