//! The new process's side.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use doorbell::{DriverOptions, Restored};
use doorbell_device::Device;

use crate::handover::Handover;
use crate::message::{Body, Hello, OLDEST, Offer, VERSION, What};
use crate::owner::Owner;
use crate::{Arrival, HandoverError, Luggage, MOST_DESCRIPTORS, Step, TakeError};

/// Descriptors that are taken at most.
const MOST_IN_ALL: usize = 16384;

/// A controller that was another process's.
#[derive(Debug)]
#[non_exhaustive]
pub struct Taken {
    /// The driver, the commands that were in flight, and the guest memory.
    pub restored: Restored,
    /// What came along.
    pub luggage: Luggage,
}

/// A state that has come, with its descriptors.
pub(crate) struct Came {
    pub(crate) first: Option<OwnedFd>,
    pub(crate) body: Body,
    pub(crate) device: Vec<OwnedFd>,
    pub(crate) luggage: Vec<OwnedFd>,
}

impl Handover {
    /// Takes over what another process gives. `options` says how the device is to be driven; see
    /// [`DriverOptions::restore`].
    ///
    /// # Errors
    /// [`TakeError`]. But for [`TakeError::NotWorking`], the other process has the controller still.
    pub fn take(self, options: impl FnOnce(Arc<dyn Device>) -> DriverOptions) -> Result<Taken, TakeError> {
        self.send(What::Hello(Hello { version: VERSION, oldest: OLDEST }), &[])?;
        let came = self.receive_state().and_then(|came| {
            let word =
                came.first.ok_or_else(|| HandoverError::Misbehaved("an offer without the word or the state".into()))?;
            Ok((Owner::from_descriptor(word)?, came.body, came.device, came.luggage))
        });
        let (owner, mut body, device, descriptors) = came.inspect_err(|error| self.refuse(error))?;
        self.step(Step::Received);
        let bytes = std::mem::take(&mut body.luggage);
        let options = |device| {
            self.step(Step::Adopted);
            options(device)
        };
        let arrival = Arrival::of(body, device, options).inspect_err(|error| self.refuse(error))?;
        self.step(Step::Prepared);
        if !owner.take() {
            return Err(TakeError::Kept);
        }
        self.step(Step::Taken);
        match self.send(What::Taken(true), &[]) {
            Ok(()) => {}
            Err(HandoverError::PeerGone) => tracing::warn!("the process before has ended before it was told"),
            Err(error) => {
                // It may be there still, and does not know. Nothing was touched yet.
                tracing::warn!(%error, "the process before could not be told");
                owner.take_back();
                return Err(TakeError::Kept);
            }
        }
        self.step(Step::Told);
        let restored = arrival.begin()?;
        self.step(Step::TakenOver);
        Ok(Taken { restored, luggage: Luggage { bytes, descriptors } })
    }

    /// What [`send_state`](Self::send_state) has sent.
    pub(crate) fn receive_state(&self) -> Result<Came, HandoverError> {
        let bad = |what: &str| HandoverError::Misbehaved(what.into());
        let (What::Offer(offer), mut fds) = self.receive(self.patience)? else {
            return Err(bad("it does not begin with an offer"));
        };
        let file = fds.pop().ok_or_else(|| bad("an offer without the word or the state"))?;
        let Offer { len, crc, device_descriptors, other_descriptors } = offer;
        let (device, others) = (device_descriptors as usize, other_descriptors as usize);
        let all = device.saturating_add(others);
        if all > MOST_IN_ALL {
            return Err(HandoverError::Misbehaved(format!("{all} descriptors; {MOST_IN_ALL} are taken at most")));
        }
        let mut descriptors = Vec::with_capacity(all);
        while descriptors.len() < all {
            let (What::Descriptors(count), some) = self.receive(self.limit)? else {
                return Err(bad("something else instead of descriptors"));
            };
            if some.is_empty() || some.len() != count as usize || some.len() > MOST_DESCRIPTORS {
                return Err(HandoverError::Misbehaved(format!("{count} descriptors announced, {} came", some.len())));
            }
            descriptors.extend(some);
        }
        if descriptors.len() != all {
            return Err(bad("more descriptors than announced"));
        }
        let luggage = descriptors.split_off(device);
        Ok(Came { first: fds.pop(), body: Body::read(file, len, crc)?, device: descriptors, luggage })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use doorbell_device::DeviceError;

    use super::*;
    use crate::pair;

    /// What becomes of an offer, and what the other side is told.
    fn take(offer: impl FnOnce(&Handover)) -> (TakeError, Option<String>) {
        let (ours, theirs) = pair().unwrap();
        let old = Handover::over(ours).limit(Duration::from_secs(5));
        offer(&old);
        let new = Handover::over(theirs).limit(Duration::from_millis(200)).patience(Duration::from_millis(200));
        let error = new.take(DriverOptions::new).unwrap_err();
        let (What::Hello(_), _) = old.receive(old.limit).unwrap() else { panic!("no hello") };
        let told = match old.receive(old.limit) {
            Err(HandoverError::Refused(why)) => Some(why),
            Err(HandoverError::PeerGone) => None,
            other => panic!("{other:?}"),
        };
        (error, told)
    }

    fn body() -> Body {
        Body { kind: "vfio-user".into(), ..Body::default() }
    }

    fn send(old: &Handover, owner: &Owner, body: &Body, change: impl FnOnce(&mut Offer)) {
        let (file, len, crc) = body.write().unwrap();
        let mut offer = Offer { len, crc, device_descriptors: 0, other_descriptors: 0 };
        change(&mut offer);
        let word = owner.descriptor().unwrap();
        old.send(What::Offer(offer), &[word.as_fd(), file.as_fd()]).unwrap();
    }

    #[test]
    fn what_is_no_offer_is_refused_and_the_word_stays() {
        let owner = Owner::offer().unwrap();
        type Case<'a> = (&'a str, Box<dyn FnOnce(&Handover) + 'a>);
        let cases: [Case<'_>; 8] = [
            ("nothing for too long", Box::new(|_| {})),
            ("does not begin with an offer", Box::new(|old| old.send(What::Descriptors(1), &[]).unwrap())),
            ("without the word", Box::new(|old| old.send(What::Offer(Offer::default()), &[]).unwrap())),
            ("announced", Box::new(|old| send(old, &owner, &body(), |offer| offer.len += 1))),
            ("checksum is wrong", Box::new(|old| send(old, &owner, &body(), |offer| offer.crc ^= 1))),
            (
                "are taken at most",
                Box::new(|old| send(old, &owner, &body(), |offer| offer.device_descriptors = 1 << 20)),
            ),
            (
                "instead of descriptors",
                Box::new(|old| {
                    send(old, &owner, &body(), |offer| offer.device_descriptors = 1);
                    old.send(What::Taken(true), &[]).unwrap();
                }),
            ),
            (
                "no back end",
                Box::new(|old| send(old, &owner, &Body { kind: "floppy".into(), ..Body::default() }, |_| {})),
            ),
        ];
        for (expected, offer) in cases {
            let (error, told) = take(offer);
            assert!(error.to_string().contains(expected), "{error}, not {expected}");
            assert!(told.is_some_and(|told| told.contains(expected)), "{expected}");
        }
        assert!(owner.keep(), "nobody has taken it");
    }

    #[test]
    fn a_device_that_makes_no_sense_is_refused() {
        let owner = Owner::offer().unwrap();
        for state in [vec![], vec![0xff; 40], vec![0x08, 0x01]] {
            let body = Body { device: state, ..body() };
            let (error, _) = take(|old| send(old, &owner, &body, |_| {}));
            assert!(matches!(error, TakeError::Device(DeviceError::NotAdoptable(_))), "{error}");
        }
        assert!(owner.keep());
    }
}
