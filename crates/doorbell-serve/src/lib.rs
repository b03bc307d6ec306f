//! Emulated NVMe controllers for other processes, by vfio-user: a virtual machine's PCI device is a
//! [`Controller`](doorbell_emulator::Controller) in this process.
//!
//! An [`Endpoint`] is one controller behind one socket, with a thread of its own. It serves one client at a time, and a
//! new one after that has gone. Several endpoints of one [`Subsystem`](doorbell_emulator::Subsystem) share namespaces.
//!
//! ```no_run
//! use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
//! use doorbell_serve::Endpoint;
//!
//! let subsystem = Subsystem::default();
//! subsystem.add_namespace(NamespaceConfig::ram(1 << 30))?;
//! let endpoint = Endpoint::start("/tmp/nvme0.sock".as_ref(), &subsystem, ControllerConfig::default())?;
//! // The namespace grows; the controller learns of it at once.
//! subsystem.resize_namespace(1, 2 << 30)?;
//! endpoint.wake();
//! // What is under way is finished, and the socket goes.
//! endpoint.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Trust
//! Clients are not trusted. Whatever one does, it cannot make this process panic, wait, or take memory without bound,
//! and it reaches nothing but its own memory and the namespaces of its controller.

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

mod endpoint;
mod irqs;
mod listener;
mod mappings;
mod pace;
mod pci;
mod session;
mod stepped;
mod takeover;

pub use endpoint::{Endpoint, Statistics};
pub use listener::{Listener, ServeError};
pub use stepped::Stepped;
pub use takeover::{Baggage, Behind, BehindError, Belongings, Taken, TakeoverError, hand_over, take_over};
