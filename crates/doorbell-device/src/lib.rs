//! How Doorbell reaches a controller.
//!
//! [`Device`] is the whole border between the driver and what is below it: registers, doorbells, memory the
//! controller can reach, interrupts and a reset. Back ends implement it ([`inprocess`]), and devices that wrap a
//! device observe or harm what passes through ([`wrap`]).
//!
//! # Example
//! A controller in software that does one thing: when its first doorbell rings, it writes the value to the address in
//! its register, and raises an interrupt.
//! ```
//! use std::sync::atomic::Ordering;
//! use std::time::Duration;
//! use doorbell_device::inprocess::{Activity, Host, InProcess, Run, SoftController};
//! use doorbell_device::Device;
//!
//! #[derive(Default)]
//! struct Echo { target: u64, seen: u32 }
//!
//! impl SoftController for Echo {
//!     fn register_space(&self) -> usize { 0x2000 }
//!     fn doorbell_stride(&self) -> usize { 4 }
//!     fn read_register(&mut self, _offset: usize, _len: usize) -> u64 { self.target }
//!     fn write_register(&mut self, _host: &Host<'_>, _offset: usize, _len: usize, value: u64) { self.target = value }
//!     fn run(&mut self, host: &Host<'_>, _now: Duration) -> Activity {
//!         let rung = host.doorbells.dwords()[0].load(Ordering::Acquire);
//!         let worked = std::mem::replace(&mut self.seen, rung) != rung;
//!         if worked && host.dma.write(self.target, &rung.to_le_bytes()).is_ok() {
//!             (host.interrupt)(0);
//!         }
//!         Activity { worked, wake_at: None }
//!     }
//!     fn function_reset(&mut self) { *self = Self::default() }
//! }
//!
//! let device = InProcess::new("echo:", Echo::default(), 1, Run::Inline)?;
//! let memory = device.allocate(4096, 4096)?;
//! device.write64(0x28, memory.iova())?;
//! device.doorbell(0x1000)?.ring(42);
//! assert_eq!(memory.host().dwords()[0].load(Ordering::Acquire), 42);
//! assert_eq!(device.interrupt(0)?.take(), 1);
//!
//! // Once the memory is given back, the device cannot reach it.
//! drop(memory);
//! device.doorbell(0x1000)?.ring(43);
//! assert_eq!(device.dma_space().fault_count(), 1);
//! # Ok::<(), doorbell_device::DeviceError>(())
//! ```
//!
//! # Unsafe code
//! This crate is the quarantine for unsafe code: everything it hands out is safe to use, whatever the device does.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod barrier;
mod device;
mod dma;
mod doorbell;
mod error;
mod file_ring;
mod groups;
mod handover;
mod host;
mod inherited;
#[cfg_attr(
    not(test),
    expect(clippy::arithmetic_side_effects, reason = "devices in software, for hosts that are trusted")
)]
pub mod inprocess;
mod interrupt;
mod mapping;
pub mod pci;
mod replaceable;
pub mod sigbus;
pub mod vfio;
mod waker;
#[cfg_attr(
    not(test),
    expect(clippy::arithmetic_side_effects, reason = "devices in software, for hosts that are trusted")
)]
pub mod wrap;
#[cfg_attr(
    not(test),
    expect(clippy::arithmetic_side_effects, reason = "devices in software, for hosts that are trusted")
)]
pub mod zero_work;

pub use barrier::{dma_rmb, dma_wmb, mb};
pub use device::{Device, MapRequest};
pub use dma::{DmaMemory, leaked_mappings};
pub use doorbell::Doorbell;
pub use error::DeviceError;
pub use file_ring::{FileRing, MemoryPiece};
pub use groups::WordGroups;
pub use handover::{Arriving, Files, Leaving, Parts};
pub use host::{Access, HostMemory, OutOfRange};
pub use inherited::{DescriptorLeft, inherited, leave_for_exec};
pub use interrupt::Interrupt;
pub use replaceable::ReplaceableMemory;
pub use waker::{StaticWake, static_waker};
