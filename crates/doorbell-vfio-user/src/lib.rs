//! Doorbell's way to a controller in another process: a vfio-user client.
//!
//! [`VfioUserDevice`] is a [`Device`](doorbell_device::Device) behind a UNIX socket, where SPDK's target, `doorbell
//! serve` or another server offers an NVMe controller as a PCI device.
//!
//! ```no_run
//! use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
//!
//! let options: VfioUserOptions = "vfio-user:/run/nvme0.sock,reconnect".parse()?;
//! let device = VfioUserDevice::open(options)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What goes which way
//! * Doorbells are plain stores where the server lets BAR0 be mapped, and messages that nobody waits for elsewhere.
//! * Registers are messages, each waited for: they are for bring-up and recovery.
//! * Memory is given to the server as descriptors, a few large ones: small allocations share one ([`Device::allocate`]),
//!   and what lies side by side in a file goes as one ([`Device::map_all`]). A server that cannot map them may read and
//!   write by messages.
//! * Interrupts are eventfds that the server signals.
//!
//! # Trust
//! Nothing the server says is believed: each message is checked, each wait has a limit, and what breaks the protocol is
//! an error. A server that is gone is known at once. What the server can do is what the memory that it was given
//! allows: it has descriptors of it, and what it does with them after it hung up, nobody sees. The memory of this process's own
//! queues lies in files that hold nothing else.
//!
//! [`Device::allocate`]: doorbell_device::Device::allocate
//! [`Device::map_all`]: doorbell_device::Device::map_all

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

mod bar;
mod device;
mod error;
mod function;
mod keeper;
mod link;
mod options;
mod passed;
mod pool;
mod space;

pub use device::VfioUserDevice;
pub use options::{BadVfioUserAddress, VfioUserOptions};
