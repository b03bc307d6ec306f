//! Devices around a device: they observe, or harm, what passes between the driver and a controller.
//!
//! Each takes an `Arc<dyn Device>` and is a [`Device`](crate::Device), so they stack in any order:
//!
//! | wrapper | what it does |
//! |---|---|
//! | [`Tracer`] | writes down every register access, doorbell, mapping, interrupt and reset |
//! | [`DmaLedger`] | knows which memory the device could reach, and when |
//! | [`FaultInjector`] | registers, doorbells, interrupts, mappings and resets that fail, by a plan that is data |
//! | [`Rogue`] | a controller that lies in its completions |
//!
//! ```
//! use std::sync::Arc;
//! use doorbell_device::wrap::{Fault, FaultInjector, Tracer};
//! use doorbell_device::zero_work::ZeroWork;
//! use doorbell_device::Device;
//! use nvme_spec::registers::offset;
//!
//! let device = ZeroWork::new(Default::default())?;
//! let device = FaultInjector::new(device, [Fault::read_as(offset::CSTS, u64::MAX).after(1)]);
//! let device = Tracer::new(device, 1000);
//! assert_eq!(device.read32(offset::CSTS)?, 0);
//! assert_eq!(device.read32(offset::CSTS)?, u32::MAX);
//! assert_eq!(device.to_string(), "     1 read32   CSTS = 0h\n     2 read32   CSTS = FFFFFFFFh\n");
//! # Ok::<(), doorbell_device::DeviceError>(())
//! ```

mod fault;
mod injector;
mod ledger;
mod rogue;
mod tracer;

pub use fault::{Fault, MapFailure, Rule};
pub use injector::FaultInjector;
pub use ledger::{DmaLedger, LedgerEntry, LedgerEvent, LiveRange};
pub use rogue::{Rogue, RogueError, RogueQueue};
pub use tracer::{Event, Tracer, What};

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::DmaMemory;

/// Device methods that a wrapper passes on unchanged.
macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result {
            self.device.$name($($arg),*)
        })*
    };
}
use pass_on;

/// `memory`, and a call when the last clone of it goes, before the mapping is taken down.
fn on_unmap(memory: DmaMemory, call: impl FnOnce() + Send + Sync + 'static) -> DmaMemory {
    DmaMemory::new(memory.host().clone(), memory.iova(), move || {
        call();
        // If this fails, it is the inner one that leaks and counts the memory.
        drop(memory);
        Ok(())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
