//! A process that drives a controller hands it to another one, under load: nothing is reset, no I/O is lost, none is done
//! twice.
//!
//! The two processes have a socket between them ([`pair`]). The old one [gives](Handover::give), the new one
//! [takes](Handover::take):
//!
//! ```no_run
//! use std::os::fd::{AsFd, OwnedFd};
//! use std::process::Command;
//! use doorbell::{DriverOptions, NvmeDriver};
//! use doorbell_handover::{Handover, Luggage};
//!
//! fn in_the_old_process(driver: &NvmeDriver) -> Result<(), Box<dyn std::error::Error>> {
//!     // The new process finds its end of the socket at its standard input.
//!     let (ours, theirs) = doorbell_handover::pair()?;
//!     Command::new("/usr/bin/storage-service").arg("--take-over").stdin(theirs).spawn()?;
//!     Handover::over(ours).give(driver, |_| Ok::<_, std::io::Error>(Luggage::from(b"who has which disk".to_vec())))?;
//!     // All I/O that was pending here ends with `RequestError::HandedOver`.
//!     Ok(())
//! }
//!
//! fn in_the_new_process() -> Result<(), Box<dyn std::error::Error>> {
//!     let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
//!     let taken = Handover::over(socket).take(DriverOptions::new)?;
//!     for command in taken.restored.commands {
//!         // Await it, and answer to whoever the tag says; dropped, its result is nobody's.
//!         println!("{:?} for {}", command.command(), command.tag());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Who has the controller
//! One word of memory that both processes share says so, and changes once, by one compare-and-swap. The new process sets it
//! when all that can fail has been done: the device's descriptors are there, its memory is mapped, the state was read and
//! makes sense. The old one sets it, to keep the controller, when the new one fails, dies, or takes too long. Whoever sets
//! it first has the controller:
//! * Up to that point, a failure of any kind leaves the old process in charge. Its I/O goes on, nothing lost.
//! * From there on the new one has it, even if the old one dies before it knows. The new one says that it has before it
//!   touches anything: if it dies in between, the old one takes the controller back, and goes on.
//!
//! # Without a process that takes it
//! A [`Resting`] controller is kept by one descriptor, until a program [resumes](resume) it that comes later: by `exec` in the same
//! process, or from systemd's descriptor store.
//!
//! ```no_run
//! use doorbell::{DriverOptions, NvmeDriver};
//! use doorbell_handover::{Luggage, Resting, resume};
//!
//! fn at_the_start() -> Result<Option<NvmeDriver>, Box<dyn std::error::Error>> {
//!     Ok(resume("drive", DriverOptions::new)?.map(|taken| taken.restored.driver))
//! }
//!
//! fn when_the_service_is_restarted(driver: &NvmeDriver) -> Result<(), Box<dyn std::error::Error>> {
//!     let resting = Resting::new(driver, |_| Ok::<_, std::io::Error>(Luggage::default()))?;
//!     Ok(resting.store("drive")?)
//! }
//! ```
//!
//! # What goes over
//! The driver's state ([`Saved`](doorbell::Saved)), the device's ([`Leaving`](doorbell_device::Leaving)) with its
//! descriptors, and [`Luggage`] of the caller's own. What is large goes in memory files, so that the messages are small.

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

mod error;
mod give;
mod handover;
mod luggage;
mod message;
mod owner;
mod passage;
mod rest;
mod socket;
mod step;
mod store;
mod take;

pub use error::{GiveError, HandoverError, TakeError};
pub use give::Given;
pub use handover::Handover;
pub use luggage::Luggage;
pub use passage::{Arrival, Departure};
pub use rest::{Resting, ResumeError, resume, resume_from};
pub use socket::{Channel, MOST_DESCRIPTORS, pair};
pub use step::{STEPS, Step};
pub use take::Taken;
