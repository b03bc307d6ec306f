//! A namespace that Doorbell drives, as the storage of one that it serves: a drive, shared out among virtual machines.
//!
//! [`Drives`] opens controllers, each once; a [`Relay`] is a namespace of one of them, and a
//! [`Backend`](doorbell_emulator::Backend) of emulated namespaces. Data moves between the client's memory and the drive
//! without a copy: the memory is registered with the drive's driver, and the commands that go down name the pages that
//! those from above did. Where the drive cannot be given the memory, or cannot be told of such pages, it goes through buffers.
//!
//! ```no_run
//! # fn options(address: &str) -> Result<doorbell::DriverOptions, doorbell::DriverError> { unimplemented!() }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use doorbell::ThreadRuntime;
//! use doorbell_emulator::Subsystem;
//! use doorbell_relay::Drives;
//!
//! let drives = Drives::new();
//! let drive = drives.open("pci:0000:01:00.0", || options("pci:0000:01:00.0")).await?;
//! let relay = drive.namespace(1).await?;
//! let (subsystem, follower) = (Subsystem::default(), relay.follower());
//! let nsid = subsystem.add_namespace(relay.config())?;
//! // When it is resized or removed below, so it is above.
//! follower.follow(&*ThreadRuntime::global(), subsystem, nsid, || ());
//! # Ok(())
//! # }
//! ```

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

mod drive;
mod follow;
mod lane;
mod memory;
mod relay;
mod status;
mod work;

pub use drive::{Drive, Drives};
pub use follow::Follower;
pub use relay::Relay;
