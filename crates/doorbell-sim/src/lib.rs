//! Driver and emulated controllers on one thread, in virtual time.
//!
//! A [`World`] runs futures, the driver's background tasks and the devices in turn. Time stands still while anything
//! has something to do, and jumps to the next deadline when nothing has: a test of a 60-second time-out takes
//! microseconds, and every run is the same.
//!
//! ```
//! use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
//! use doorbell_sim::World;
//!
//! let subsystem = Subsystem::default();
//! subsystem.add_namespace(NamespaceConfig::ram(1 << 20))?;
//! let world = World::new();
//! let device = world.device(&subsystem, ControllerConfig::default())?;
//! let blocks = world.run(async {
//!     let driver = world.options(device).open().await?;
//!     let blocks = driver.namespace(1).await?.block_count();
//!     driver.shutdown().await;
//!     Ok::<_, Box<dyn std::error::Error>>(blocks)
//! })?;
//! assert_eq!(blocks, 2048);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod runtime;
mod world;

pub use runtime::SimRuntime;
pub use world::World;
