//! A device that does no work: the floor under benchmarks.
//!
//! [`ZeroWork`] is brought up like any controller: its admin commands are answered at once, in the call that rings the
//! admin doorbell. Its I/O doorbells are plain memory, no data moves, and completions come only when told, in the
//! thread that tells: what a [`Queue`] costs is one load of a doorbell and, for each command, a load from the
//! submission queue and two stores to the completion queue. It has no thread and, unless asked for, no interrupts.
//!
//! ```
//! use doorbell_device::zero_work::{Options, ZeroWork};
//! use doorbell_device::Device;
//! use nvme_spec::registers::offset;
//!
//! let device = ZeroWork::new(Options::default())?;
//! assert_eq!(device.read32(offset::CSTS)?, 0);
//! // A driver brings it up, creates queue 1 and submits to it. Then:
//! let completed = device.complete(1, usize::MAX);
//! assert_eq!(completed, 0, "no such queue yet");
//! # Ok::<(), doorbell_device::DeviceError>(())
//! ```

mod admin;
mod device;
mod identify;
mod queue;

pub use device::{Options, ZeroWork};
pub use queue::Queue;
