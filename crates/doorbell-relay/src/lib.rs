//! A namespace that Doorbell drives, as the storage of one that it serves: a drive, shared out among virtual machines.
//!
//! [`Drives`] opens controllers, each once; a [`Relay`] is a namespace of one of them, as the
//! [`Backend`](doorbell_emulator::Backend) of an emulated one. Data moves between the client's memory and the drive
//! without a copy: the memory is registered with the drive's driver, and the commands that go down name the pages that
//! those from above did. Where the drive cannot be given the memory, or cannot be told of such pages, it goes through buffers.
//!
//! ```
//! use doorbell::{DriverOptions, ThreadRuntime};
//! use doorbell_device::inprocess::Run;
//! use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem, emulated};
//! use doorbell_relay::Drives;
//!
//! # futures_lite::future::block_on(async {
//! // A drive; here one that is emulated.
//! let inside = Subsystem::default();
//! inside.add_namespace(NamespaceConfig::ram(1 << 20))?;
//! let device = emulated(&inside, ControllerConfig::default(), Run::Threaded)?;
//!
//! let drives = Drives::new();
//! let drive = drives.open("emulated", || Ok(DriverOptions::new(device))).await?;
//! let relay = drive.namespace(1).await?;
//! let (subsystem, follower) = (Subsystem::default(), relay.follower());
//! let nsid = subsystem.add_namespace(relay.config())?;
//! // When it is resized or removed below, so it is above.
//! follower.follow(&*ThreadRuntime::global(), subsystem, nsid, || ());
//! drives.shut_down().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
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

mod below;
mod crossing;
mod drive;
mod follow;
mod lane;
mod memory;
mod relay;
mod status;
mod work;

pub use crossing::{Arriving, CrossingError, Departing};
pub use drive::{Drive, Drives};
pub use follow::Follower;
pub use relay::Relay;
