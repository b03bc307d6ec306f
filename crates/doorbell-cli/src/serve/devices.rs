//! Devices behind namespaces that another server had.

use std::sync::Arc;

use doorbell::DriverOptions;
use doorbell_device::Device;
use doorbell_emulator::{Backend, Subsystem};
use doorbell_relay::{Arriving, Drives, Follower};
use doorbell_serve::{Baggage, Behind, BehindError};

/// Queues of a device, at most: each controller that uses a namespace of it has one, as far as they go.
const QUEUES: u32 = 32;

/// How a device is driven.
pub(super) fn options(device: Arc<dyn Device>) -> DriverOptions {
    DriverOptions::new(device).cpus(QUEUES)
}

/// On their way here.
pub(super) struct Devices(Arriving);

/// Here.
pub(super) struct Here {
    pub(super) drives: Drives,
    /// By NSID.
    pub(super) followers: Vec<(u32, Follower)>,
}

impl Devices {
    pub(super) fn arrive(Baggage { bytes, descriptors, .. }: Baggage) -> Result<Self, BehindError> {
        Ok(Self(Arriving::new(&bytes, descriptors, options)?))
    }
}

impl Behind for Devices {
    type Here = Here;

    fn bring(&mut self, nsid: u32, name: &str, size: u64) -> Option<Box<dyn Backend>> {
        self.0.bring(nsid, name, size)
    }

    fn begin(self, subsystem: &Subsystem) -> Here {
        let (drives, found) = self.0.begin();
        let mut followers = Vec::new();
        for (nsid, follower) in found {
            match follower {
                Some(follower) => followers.push((nsid, follower)),
                // To clients it is a removal, as when a device is given up. It fails only where it is gone already.
                None => drop(subsystem.remove_namespace(nsid)),
            }
        }
        Here { drives, followers }
    }
}
