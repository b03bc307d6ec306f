//! A subsystem: its namespaces, and its controllers as it sees them.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use prost::Message;

use super::{CrossingError, StateError, bad, decode, state};
use crate::backend::Backend;
use crate::port::Port;
use crate::subsystem::{Subsystem, SubsystemConfig};

impl Subsystem {
    /// Whether everything in it can cross to another process.
    ///
    /// # Errors
    /// For the first that cannot.
    pub fn check_crossing(&self) -> Result<(), CrossingError> {
        self.all().iter().try_for_each(|namespace| namespace.check_crossing())
    }

    /// The subsystem without its controllers as bytes, and the descriptors that belong to it, for
    /// [`restore`](Self::restore). No controller may run from before until it is known who goes on.
    ///
    /// # Errors
    /// If there is a namespace that cannot cross.
    pub fn save(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), CrossingError> {
        let config = self.config();
        let mut fds = Vec::new();
        let namespaces = self.all();
        let namespaces = namespaces.iter().map(|namespace| namespace.save(&mut fds)).collect::<Result<_, _>>()?;
        let (added, ports) = self.with_ports(|added, ports| (added, ports.map(Port::save).collect()));
        let saved = state::Subsystem {
            serial: config.serial.clone(),
            model: config.model.clone(),
            nqn: config.nqn.clone(),
            max_namespaces: config.max_namespaces,
            added,
            namespaces,
            ports,
        };
        Ok((saved.encode_to_vec(), fds))
    }

    /// The subsystem that [`save`](Self::save) gave, to be followed by [`Controller::restore`](crate::Controller::restore)
    /// of all its controllers. `bring` is asked for storage that is [elsewhere](crate::Crossing::Elsewhere): for which
    /// namespace, by which name, and of how many bytes.
    ///
    /// # Errors
    /// If the bytes are no such state, a descriptor is not what it should be, or nobody brings what is elsewhere.
    pub fn restore(
        bytes: &[u8],
        fds: Vec<OwnedFd>,
        mut bring: impl FnMut(u32, &str, u64) -> Option<Box<dyn Backend>>,
    ) -> Result<Self, StateError> {
        let saved: state::Subsystem = decode(bytes)?;
        let state::Subsystem { serial, model, nqn, max_namespaces, added, namespaces, ports } = saved;
        let mut fds: Vec<_> = fds.into_iter().map(Some).collect();
        let subsystem = Self::new(SubsystemConfig { serial, model, nqn, max_namespaces });
        let mut restored = BTreeMap::new();
        for namespace in namespaces {
            let most = subsystem.config().max_namespaces;
            if namespace.nsid == 0 || namespace.nsid > most {
                return bad(format!("namespace {}, 1 to {most} are possible", namespace.nsid));
            }
            let namespace = namespace.restore(&mut fds, &mut bring)?;
            restored.insert(namespace.nsid, Arc::new(namespace));
        }
        let ports = ports.into_iter().map(Port::restore).collect::<Result<Vec<_>, _>>()?;
        subsystem.adopt(added, restored, ports.into_iter().map(|port| (port.cntlid, Arc::new(port))).collect());
        Ok(subsystem)
    }
}
