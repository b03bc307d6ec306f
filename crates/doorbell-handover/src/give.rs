//! The old process's side.

use std::error::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use doorbell::{NvmeDriver, Saved};

use crate::handover::{Handover, reason};
use crate::message::{Body, Hello, OLDEST, Offer, VERSION, What};
use crate::owner::Owner;
use crate::{Departure, GiveError, HandoverError, Luggage, MOST_DESCRIPTORS, Step};

/// What a handover was like.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Given {
    /// How long [`NvmeDriver::save`] took.
    pub save: Duration,
    /// From then on until the other process had the controller, as far as this one knows.
    pub still: Duration,
}

impl Handover {
    /// Hands a driver's controller over, and waits for that; I/O goes on until the other process is there. `luggage` is asked
    /// for what goes along when the driver is held still: no I/O ends from then on.
    ///
    /// After it, all that was pending on the driver ends with [`RequestError::HandedOver`](doorbell::RequestError::HandedOver).
    ///
    /// # Errors
    /// [`GiveError`]. Then this process has the controller still, and everything goes on.
    pub fn give<E: Into<Box<dyn Error + Send + Sync>>>(
        self,
        driver: &NvmeDriver,
        luggage: impl FnOnce(&Saved) -> Result<Luggage, E>,
    ) -> Result<Given, GiveError> {
        Departure::check(driver).inspect_err(|error| self.refuse(error))?;
        self.greet().inspect_err(|error| self.refuse(error))?;
        self.step(Step::Greeted);

        let started = Instant::now();
        let saved = driver.save().inspect_err(|error| self.refuse(error))?;
        let save = started.elapsed();
        self.step(Step::Saved);
        let departure = Departure::new(driver, saved).inspect_err(|error| self.refuse(error))?;
        self.step(Step::Held);
        let luggage = luggage(departure.saved()).map_err(|error| GiveError::Luggage(error.into()));
        let luggage = luggage.inspect_err(|error| self.refuse(error))?;

        let owner = Owner::offer()?;
        let answer = self.offer(&owner, &departure, luggage).and_then(|()| self.await_answer());
        self.settle(&owner, answer).inspect_err(|error| self.refuse(error))?;
        let still = started.elapsed();
        self.step(Step::Informed);
        departure.let_go();
        self.step(Step::HandedOver);
        Ok(Given { save, still })
    }

    fn greet(&self) -> Result<(), HandoverError> {
        let (What::Hello(Hello { version, oldest }), _) = self.receive(self.patience)? else {
            return Err(HandoverError::Misbehaved("it does not begin with its version".into()));
        };
        if oldest > VERSION || version < OLDEST {
            return Err(HandoverError::Version { theirs: version, ours: VERSION });
        }
        Ok(())
    }

    fn offer(&self, owner: &Owner, departure: &Departure, luggage: Luggage) -> Result<(), HandoverError> {
        let word = owner.descriptor()?;
        let Luggage { bytes, descriptors } = luggage;
        self.send_state(&[word.as_fd()], &departure.body(bytes), departure.descriptors(), &descriptors)?;
        self.step(Step::Sent);
        Ok(())
    }

    /// Sends a state, with the descriptors of the device and those that go along; `first` goes before everything else.
    pub(crate) fn send_state(
        &self,
        first: &[BorrowedFd<'_>],
        body: &Body,
        device: &[OwnedFd],
        others: &[OwnedFd],
    ) -> Result<(), HandoverError> {
        let (file, len, crc) = body.write()?;
        let count = |fds: usize| u32::try_from(fds).unwrap_or(u32::MAX);
        let (device_descriptors, other_descriptors) = (count(device.len()), count(others.len()));
        let first: Vec<_> = first.iter().copied().chain([file.as_fd()]).collect();
        self.send(What::Offer(Offer { len, crc, device_descriptors, other_descriptors }), &first)?;
        self.step(Step::Offered);
        let all: Vec<BorrowedFd<'_>> = device.iter().chain(others).map(AsFd::as_fd).collect();
        for some in all.chunks(MOST_DESCRIPTORS) {
            self.send(What::Descriptors(count(some.len())), some)?;
        }
        Ok(())
    }

    /// Whether it is the other process's, after its answer, or what came instead.
    ///
    /// # Errors
    /// It is this one's still.
    fn settle(&self, owner: &Owner, answer: Result<(), HandoverError>) -> Result<(), HandoverError> {
        let Err(error) = answer else { return Ok(()) };
        if owner.keep() {
            return Err(error);
        }
        // It has taken it, and touches nothing before it has said so: that is still to come, or it has ended.
        let told = match error {
            HandoverError::TimedOut => self.await_answer(),
            error => Err(error),
        };
        match told {
            Err(HandoverError::PeerGone) if owner.take_back() => Err(HandoverError::PeerGone),
            Err(error) if owner.is_kept() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "the controller was handed over");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn await_answer(&self) -> Result<(), HandoverError> {
        match self.receive(self.limit)?.0 {
            What::Taken(true) => Ok(()),
            other => Err(HandoverError::Misbehaved(format!("{other:?} instead of an answer"))),
        }
    }

    /// Says why, to whoever still listens.
    pub(crate) fn refuse(&self, error: &dyn Error) {
        let _ = self.send(What::Refused(reason(error)), &[]);
    }
}
