//! An NVMe controller in software: a state machine that follows the *NVM Express Base Specification 2.0* and the *NVM
//! Command Set Specification 1.0*, without a thread, a clock or I/O of its own.
//!
//! A [`Subsystem`] holds namespaces; each [`Controller`] of it is run by an
//! [`InProcess`](doorbell_device::inprocess::InProcess), on a thread or step by step. How it is equipped is plain data:
//! [`ControllerConfig`], [`NamespaceConfig`]; and so is what goes wrong: [`FaultPlan`].
//!
//! ```
//! use doorbell_device::Device;
//! use doorbell_device::inprocess::Run;
//! use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem, emulated};
//!
//! let subsystem = Subsystem::default();
//! subsystem.add_namespace(NamespaceConfig::ram(1 << 30).block_size(4096))?;
//! // An odd device: queues of two entries, and no interrupts.
//! let odd = ControllerConfig { mqes: 1, vectors: 0, ..ControllerConfig::default() };
//! let device = emulated(&subsystem, odd, Run::Inline)?;
//! assert_eq!(device.interrupt_count(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The host is not trusted: what it wrote is copied once, then checked, and whatever it is, it makes the controller
//! neither panic nor work or allocate without bound.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod admin;
mod backend;
mod block_metadata;
mod config;
mod controller;
mod delayed;
mod error;
mod events;
mod fault;
mod health;
mod lane;
mod marks;
mod namespace;
mod namespace_config;
mod nvm;
mod port;
mod protection;
mod queues;
mod registers;
mod reservation;
mod saved;
mod spec;
mod subsystem;
mod sync;
mod transfer;

pub use backend::{
    Backend, BackendError, Crossing, FileBackend, NullBackend, RamBackend, RingBackend, SharedRamBackend,
};
pub use config::{
    ControllerConfig, Descriptors, InterruptMode, MAX_PAGE_SHIFT, MAX_QUEUE_ENTRIES, MAX_QUEUE_PAIRS, SglSupport,
};
pub use controller::{Controller, Mark};
pub use error::EmulatorError;
pub use fault::{CommandMatch, Fault, FaultPlan, FaultRule, LbaRange, Patch, QueueMatch, When};
pub use health::Condition;
pub use lane::{Data, Ended, Lane, Operation, Piece, Ticket};
pub use namespace_config::{AtomicUnits, NamespaceConfig, OptimalSizes, Storage};
pub use saved::{CrossingError, StateError};
pub use spec::{EmulatedSpec, SpecError, StorageSpec, emulated};
pub use subsystem::{Subsystem, SubsystemConfig};
pub use transfer::{FromHost, ToHost, TransferError};
