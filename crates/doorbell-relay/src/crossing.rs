//! Drives that go to another process, with what is shared out of them.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell::{DriverOptions, NotYet};
use doorbell_device::Device;
use doorbell_emulator::Backend;
use doorbell_handover::{Arrival, Departure, GiveError, TakeError};
use futures_lite::future::block_on;
use prost::Message;

use crate::Follower;
use crate::below::{Below, Place};
use crate::drive::{Drive, Drives};

/// How long is waited between two looks at a driver that cannot be saved yet.
const LOOK: Duration = Duration::from_millis(1);

/// Drives that are held still. Dropped, they go on here.
#[derive(Debug, Default)]
#[must_use = "dropped, it lets the drives go on"]
pub struct Departing(Vec<(String, Departure)>);

/// Drives of another process, of which everything is there, and nothing has been used. Dropped, they are still the other's.
#[must_use = "dropped, they stay the other process's"]
pub struct Arriving {
    drives: Vec<(String, Arrival)>,
    awaited: Vec<Awaited>,
}

/// Why a drive does not cross. It is where it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrossingError {
    /// It cannot be given to another process.
    #[error("{address}: {error}")]
    Give {
        /// The controller.
        address: String,
        /// Why not.
        error: GiveError,
    },
    /// It cannot be gone on with here.
    #[error("{address}: {error}")]
    Take {
        /// The controller.
        address: String,
        /// Why not.
        error: TakeError,
    },
    /// What came is not what was sent.
    #[error("the state of the drives is damaged: {0}")]
    Damaged(String),
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(message, repeated, tag = "1")]
    drives: Vec<SavedDrive>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedDrive {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(bytes = "vec", tag = "2")]
    state: Vec<u8>,
    #[prost(uint32, tag = "3")]
    descriptors: u32,
}

impl Drives {
    /// Whether all of them can be had by another process, before anything is held still.
    ///
    /// # Errors
    /// For the first that cannot.
    pub fn check_crossing(&self) -> Result<(), CrossingError> {
        self.each(|address, drive| {
            let give = |error| CrossingError::Give { address: address.into(), error };
            Departure::check(&drive.driver).map_err(give)
        })
        .map(drop)
    }

    /// Holds them all still, as soon as each can be, but not after `deadline`. No [lane](doorbell_emulator::Lane) of theirs may
    /// be used any more, and what is under way there has to be what [may leave](doorbell_emulator::Lane::may_leave).
    ///
    /// # Errors
    /// For the first that cannot. Then all of them go on.
    pub fn depart(&self, deadline: Instant) -> Result<Departing, CrossingError> {
        let departing = self.each(|address, drive| {
            let give = |error| CrossingError::Give { address: address.into(), error };
            drive.give_up_inherited();
            let saved = loop {
                match drive.driver.save() {
                    Ok(saved) => break saved,
                    // There is nothing to go on with, here or there.
                    Err(NotYet::Ended) => return Ok(None),
                    Err(not_yet) if Instant::now() >= deadline => return Err(give(not_yet.into())),
                    Err(_) => std::thread::sleep(LOOK),
                }
            };
            let departure = Departure::new(&drive.driver, saved).map_err(give)?;
            Ok(Some((address.to_owned(), departure)))
        })?;
        Ok(Departing(departing.into_iter().flatten().collect()))
    }
}

impl Departing {
    /// What the other process has to know, and descriptors that have to be there.
    ///
    /// # Errors
    /// If this process may have no more descriptors.
    pub fn parts(&self) -> std::io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let saved = |(address, departure): &(String, Departure)| SavedDrive {
            address: address.clone(),
            state: departure.state(),
            descriptors: departure.descriptors().len() as u32,
        };
        let bytes = Saved { drives: self.0.iter().map(saved).collect() }.encode_to_vec();
        let descriptors = self.0.iter().flat_map(|(_, departure)| departure.descriptors());
        Ok((bytes, descriptors.map(OwnedFd::try_clone).collect::<Result<_, _>>()?))
    }

    /// They are another process's.
    pub fn let_go(self) {
        self.0.into_iter().for_each(|(_, departure)| departure.let_go());
    }
}

impl Arriving {
    /// Of the [parts](Departing::parts) of those that departed. `options` says how a device is to be driven.
    ///
    /// # Errors
    /// [`CrossingError`]
    pub fn new(
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        options: impl Fn(Arc<dyn Device>) -> DriverOptions,
    ) -> Result<Self, CrossingError> {
        let saved = Saved::decode(bytes).map_err(|error| CrossingError::Damaged(error.to_string()))?;
        let mut descriptors = descriptors.into_iter();
        let mut drives = Vec::new();
        for SavedDrive { address, state, descriptors: count } in saved.drives {
            let own = descriptors.by_ref().take(count as usize).collect();
            match Arrival::new(&state, own, &options) {
                Ok(arrival) => drives.push((address, arrival)),
                Err(error) => return Err(CrossingError::Take { address, error }),
            }
        }
        Ok(Self { drives, awaited: Vec::new() })
    }

    /// The storage of namespace `nsid` above, by the [name](doorbell_emulator::Crossing::Elsewhere) that it had, if its drive
    /// is among these. It is to be used once they have [begun](Self::begin).
    pub fn bring(&mut self, nsid: u32, name: &str, size: u64) -> Option<Box<dyn Backend>> {
        let (_, address) = parse(name)?;
        if !self.drives.iter().any(|(known, _)| known == address) {
            return None;
        }
        let below = Below::awaited(name.into(), size);
        self.awaited.push(Awaited { nsid, name: name.into(), place: below.place.clone() });
        Some(Box::new(below))
    }

    /// The drives are this process's from now on. Gives those, and who follows each namespace that was brought, by its NSID
    /// above. Where there is nobody, its drive cannot be used, or has lost the namespace: so has the subsystem above, then.
    #[must_use]
    pub fn begin(self) -> (Drives, Vec<(u32, Option<Follower>)>) {
        let here = Drives::new();
        for (address, arrival) in self.drives {
            let begun = arrival.begin().map(|restored| here.insert(&address, restored));
            if let Err(error) = begun {
                tracing::error!(address, %error, "a drive is lost");
            }
        }
        let follow = |awaited: Awaited| (awaited.nsid, awaited.come(&here));
        let followers = self.awaited.into_iter().map(follow).collect();
        (here, followers)
    }
}

/// Storage that is there once its drive is.
struct Awaited {
    /// Above.
    nsid: u32,
    name: String,
    place: Place,
}

impl Awaited {
    fn come(self, drives: &Drives) -> Option<Follower> {
        let (nsid, address) = parse(&self.name)?;
        let drive = drives.get(address)?;
        let shared = match block_on(drive.shared(nsid)) {
            Ok(shared) => shared,
            Err(error) => {
                tracing::error!(address, nsid, %error, "a namespace is lost");
                // Its clients are about to be told, and have their memory back then.
                block_on(drive.finish_inherited(nsid));
                return None;
            }
        };
        let follower = Follower::new(&shared);
        self.place.set(shared).ok()?;
        Some(follower)
    }
}

/// What a namespace of a drive is called by whoever serves it.
pub(crate) fn name(drive: &Drive, nsid: u32) -> String {
    format!("{nsid} {}", drive.address)
}

fn parse(name: &str) -> Option<(u32, &str)> {
    let (nsid, address) = name.split_once(' ')?;
    Some((nsid.parse().ok()?, address))
}
