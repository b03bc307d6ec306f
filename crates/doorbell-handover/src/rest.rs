//! A controller at rest: no process has it, and one descriptor keeps all of it, for a program that is yet to start.
//!
//! The descriptor is the end of a socket, in which everything waits that [`Handover`] would have sent to somebody.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use doorbell::{DriverOptions, NvmeDriver, Saved};
use doorbell_device::{Device, inherited, leave_for_exec};

use crate::handover::Handover;
use crate::message::Body;
use crate::take::Came;
use crate::{Arrival, Departure, GiveError, HandoverError, Luggage, TakeError, Taken, pair, store};

/// A controller at rest. The device works on, and what ends waits in the completion queues.
///
/// Whoever [resumes](resume) it has the controller. Dropped before it was left to anybody, this process goes on with it.
#[derive(Debug)]
#[must_use = "dropped, it lets the driver go on"]
pub struct Resting {
    departure: Departure,
    kept: OwnedFd,
}

impl Resting {
    /// Puts a driver's controller to rest. `luggage` is asked for what goes along when the driver is held still: no I/O ends
    /// from then on.
    ///
    /// # Errors
    /// [`GiveError`]. Then everything goes on.
    pub fn new<E: Into<Box<dyn Error + Send + Sync>>>(
        driver: &NvmeDriver,
        luggage: impl FnOnce(&Saved) -> Result<Luggage, E>,
    ) -> Result<Self, GiveError> {
        Departure::check(driver)?;
        let departure = Departure::new(driver, driver.save()?)?;
        let luggage = luggage(departure.saved()).map_err(|error| GiveError::Luggage(error.into()))?;
        let Luggage { bytes, descriptors } = luggage;
        let kept = keep(&departure.body(bytes), departure.descriptors(), &descriptors)?;
        Ok(Self { departure, kept })
    }

    /// What keeps it: wherever the caller has this crosses, whoever has it in the end can [resume](resume_from) it.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.kept.as_fd()
    }

    /// Lets go, and leaves it to whoever has the descriptor. All that was pending here ends with
    /// [`RequestError::HandedOver`](doorbell::RequestError::HandedOver).
    pub fn let_go(self) -> OwnedFd {
        self.departure.let_go();
        self.kept
    }

    /// Has another program take this process's place, which [resumes](resume) the controller by `name`. Returns only if that
    /// program could not be started: then this process goes on with the controller.
    ///
    /// Threads, and all that ends with them, are gone without a word, as with any `exec`; and there is no way back: if the new
    /// program cannot resume the controller, nobody drives it.
    pub fn exec(self, name: &str, mut command: Command) -> HandoverError {
        match leave_for_exec(&mut command, name, &self.kept) {
            Ok(_left) => HandoverError::io("starting the program that is to take over")(command.exec()),
            Err(error) => error.into(),
        }
    }

    /// Leaves it to the service manager: in systemd's descriptor store, which passes it to the next process of this service.
    /// The unit needs `FileDescriptorStoreMax=`, and `FileDescriptorStorePreserve=yes` if it is to survive a stop. All that was
    /// pending here ends with [`RequestError::HandedOver`](doorbell::RequestError::HandedOver).
    ///
    /// # Errors
    /// If there is no service manager, or it does not answer. Then this process goes on with the controller.
    pub fn store(self, name: &str) -> Result<(), HandoverError> {
        store::add(name, self.kept.as_fd())?;
        self.departure.let_go();
        Ok(())
    }
}

/// Why a controller at rest was not resumed.
#[derive(Debug, thiserror::Error)]
#[error("the controller at rest cannot be resumed: {error}")]
pub struct ResumeError {
    /// What is wrong.
    pub error: TakeError,
    /// What keeps the controller, for a program that can go on with it. None if there is nothing more to be had of it.
    pub kept: Option<OwnedFd>,
}

/// Goes on with the controller that was put to rest by this name: by the program that had this process before, or in the service
/// manager's store. None if there is none. `options` is as for [`Handover::take`].
///
/// # Errors
/// [`ResumeError`]. Nobody drives the controller then; it rests on, in the store too.
pub fn resume(
    name: &str,
    options: impl FnOnce(Arc<dyn Device>) -> DriverOptions,
) -> Result<Option<Taken>, ResumeError> {
    let lost = |error: HandoverError| ResumeError { error: error.into(), kept: None };
    let Some(kept) = inherited(name).map_err(|error| lost(error.into()))? else { return Ok(None) };
    let resumed = resume_from(kept, options);
    // What the store has is used up.
    let stored = store::remove(name).and_then(|()| match &resumed {
        Err(ResumeError { kept: Some(kept), .. }) => store::add(name, kept.as_fd()),
        _ => Ok(()),
    });
    if let Err(error) = stored {
        tracing::debug!(%error, name, "the service manager does not keep it");
    }
    resumed.map(Some)
}

/// As [`resume`], from the [descriptor](Resting::descriptor) itself.
///
/// # Errors
/// [`ResumeError`]
pub fn resume_from(
    kept: OwnedFd,
    options: impl FnOnce(Arc<dyn Device>) -> DriverOptions,
) -> Result<Taken, ResumeError> {
    let lost = |error: TakeError| ResumeError { error, kept: None };
    let Came { body, device, luggage: descriptors, .. } =
        Handover::over(kept).receive_state().map_err(|error| lost(error.into()))?;
    let again = || keep(&body, &device, &descriptors).ok();
    let copies = device.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
    let copies = copies.map_err(HandoverError::io("duplicating a descriptor")).map_err(TakeError::from);
    let arrival = copies.and_then(|device| Arrival::of(body.clone(), device, options));
    let restored = match arrival {
        Ok(arrival) => arrival.begin().map_err(lost)?,
        Err(error) => return Err(ResumeError { error, kept: again() }),
    };
    Ok(Taken { restored, luggage: Luggage { bytes: body.luggage, descriptors } })
}

/// Puts a state and its descriptors into one that keeps them all.
fn keep(body: &Body, device: &[OwnedFd], others: &[OwnedFd]) -> Result<OwnedFd, HandoverError> {
    let (ours, kept) = pair()?;
    Handover::over(ours).send_state(&[], body, device, others)?;
    Ok(kept)
}
