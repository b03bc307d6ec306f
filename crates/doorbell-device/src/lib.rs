//! How Doorbell reaches a controller.
//!
//! [`Device`] is the whole border between the driver and what is below it: registers, doorbells, memory the
//! controller can reach, interrupts and a reset. Back ends implement it ([`inprocess`]), and devices that wrap a
//! device observe or harm what passes through ([`wrap`]).
//!
//! This crate is the quarantine for unsafe code: everything it hands out is safe to use, whatever the device does.

mod barrier;
mod device;
mod dma;
mod doorbell;
mod error;
mod host;
pub mod inprocess;
mod interrupt;
pub mod wrap;
pub mod zero_work;

pub use barrier::{dma_rmb, dma_wmb, mb};
pub use device::{Device, MapRequest};
pub use dma::{DmaMemory, leaked_mappings};
pub use doorbell::Doorbell;
pub use error::DeviceError;
pub use host::{Access, HostMemory, OutOfRange};
pub use interrupt::Interrupt;
