use std::sync::Arc;

use doorbell_device::inprocess::InProcess;
use doorbell_device::{Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

use super::input::Input;
use super::liar::Liar;

/// What carries the liar: it fails when the input says so.
pub(super) struct Odd {
    pub(super) device: Arc<InProcess<Liar>>,
    pub(super) input: Input,
    pub(super) loss: Option<Interrupt>,
    pub(super) may_return: bool,
}

impl Odd {
    fn failing(&self) -> Result<(), DeviceError> {
        match self.input.below(128) {
            125 => Err(DeviceError::Gone("no answer".into())),
            126 => Err(DeviceError::MappingLimit("the input says so".into())),
            127 => Err(DeviceError::Misbehaved("the input says so".into())),
            _ => Ok(()),
        }
    }
}

macro_rules! failing {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Result<$result, DeviceError> {
            self.failing()?;
            self.device.$name($($arg),*)
        })*
    };
}

impl Device for Odd {
    failing! {
        read32(offset: usize) -> u32;
        read64(offset: usize) -> u64;
        write32(offset: usize, value: u32) -> ();
        write64(offset: usize, value: u64) -> ();
        doorbell(offset: usize) -> Doorbell;
        map(request: MapRequest) -> DmaMemory;
        interrupt(vector: u32) -> Interrupt;
        check_present() -> ();
    }

    fn reset(&self) -> Result<(), DeviceError> {
        let failing = self.failing();
        self.device.with_controller(|liar| liar.cut_off = failing.is_err());
        failing?;
        self.device.reset()
    }

    fn address(&self) -> String {
        self.device.address()
    }

    fn interrupt_count(&self) -> u32 {
        self.device.interrupt_count()
    }

    fn loss(&self) -> Option<Interrupt> {
        self.loss.clone()
    }

    fn may_return(&self) -> bool {
        self.may_return
    }

    fn release(&self) -> Result<(), DeviceError> {
        self.failing()?;
        self.device.with_controller(Liar::release);
        Ok(())
    }
}
