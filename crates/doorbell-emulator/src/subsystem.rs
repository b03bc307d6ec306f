//! An NVM subsystem: the namespaces, and the controllers that share them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use nvme_spec::identify::{NamespaceIds, PiType};

use crate::backend::BackendError;
use crate::error::EmulatorError;
use crate::namespace::Namespace;
use crate::namespace_config::NamespaceConfig;
use crate::port::{Port, Reset};
use crate::reservation::{Effects, HostId};
use crate::sync::{lock, read, write};

/// What an NVM subsystem is.
#[derive(Debug, Clone)]
pub struct SubsystemConfig {
    /// SN, up to 20 characters. `DOORBELL0001`.
    pub serial: String,
    /// MN, up to 40 characters. `Doorbell emulated controller`.
    pub model: String,
    /// SUBNQN. Made from the serial number.
    pub nqn: Option<String>,
    /// NN: the largest NSID, and how many namespaces there can be; 1 to 65536. 4096.
    pub max_namespaces: u32,
}

impl Default for SubsystemConfig {
    fn default() -> Self {
        Self {
            serial: "DOORBELL0001".into(),
            model: "Doorbell emulated controller".into(),
            nqn: None,
            max_namespaces: 4096,
        }
    }
}

/// An NVM subsystem. Cheap to clone; all clones are the same one.
///
/// Its methods are for whoever owns the emulator, and work while controllers run: those that have the namespace attached
/// get the events of the specification. They notice when they next run; a controller with a thread of its own does
/// every [`housekeeping`](crate::ControllerConfig::housekeeping) interval, at once when asked through
/// [`InProcess::with_controller`](doorbell_device::inprocess::InProcess::with_controller).
#[derive(Debug, Clone)]
pub struct Subsystem {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: SubsystemConfig,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    namespaces: BTreeMap<u32, Arc<Namespace>>,
    ports: BTreeMap<u16, Arc<Port>>,
    /// Namespaces ever added, for identifiers.
    added: u64,
}

impl Subsystem {
    /// A subsystem without namespaces or controllers.
    pub fn new(config: SubsystemConfig) -> Self {
        let max_namespaces = config.max_namespaces.clamp(1, 1 << 16);
        let config = SubsystemConfig { max_namespaces, ..config };
        Self { shared: Arc::new(Shared { config, inner: Mutex::default() }) }
    }

    /// What it was made from.
    pub fn config(&self) -> &SubsystemConfig {
        &self.shared.config
    }

    /// Adds a namespace and gives its NSID.
    pub fn add_namespace(&self, config: NamespaceConfig) -> Result<u32, EmulatorError> {
        let mut inner = lock(&self.shared.inner);
        let most = self.shared.config.max_namespaces;
        let nsid = match config.nsid {
            Some(nsid) if nsid == 0 || nsid > most => return Err(EmulatorError::BadNsid { nsid, most }),
            Some(nsid) if inner.namespaces.contains_key(&nsid) => {
                return Err(EmulatorError::NamespaceExists { nsid });
            }
            Some(nsid) => nsid,
            None => {
                let used = (1..).zip(inner.namespaces.keys()).take_while(|(index, nsid)| index == *nsid).count();
                let free = u32::try_from(used).unwrap_or(u32::MAX).saturating_add(1);
                if free > most {
                    return Err(EmulatorError::TooManyNamespaces { most });
                }
                free
            }
        };
        self.insert(&mut inner, nsid, config)?;
        Ok(nsid)
    }

    fn insert(&self, inner: &mut Inner, nsid: u32, config: NamespaceConfig) -> Result<(), EmulatorError> {
        let ids = config.ids.unwrap_or_else(|| self.make_ids(inner.added));
        let namespace = Arc::new(Namespace::new(nsid, config, ids)?);
        inner.added = inner.added.saturating_add(1);
        inner.namespaces.insert(nsid, namespace.clone());
        inner.tell_attached(&namespace, true);
        Ok(())
    }

    /// Identifiers that no other namespace of the subsystem has had: from the serial number and a counter.
    fn make_ids(&self, count: u64) -> NamespaceIds {
        // FNV-1a: these are names, not secrets.
        let hash = |seed: u64| {
            let bytes = self.shared.config.serial.bytes();
            let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            bytes.chain(count.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325 ^ seed, step)
        };
        let eui = 0x5254_0000_0000_0000 | hash(1) & 0xffff_0000_0000 | count & 0xffff_ffff;
        let nguid = u128::from(hash(2)) << 64 | u128::from(eui);
        // A UUID of version 8, variant 10b: the rest is the maker's to choose.
        let uuid = (u128::from(hash(3)) << 64 | u128::from(hash(4))) & !(0xf << 76 | 0b11 << 62) | 8 << 76 | 0b10 << 62;
        NamespaceIds {
            eui64: Some(eui.to_be_bytes()),
            nguid: Some(nguid.to_be_bytes()),
            uuid: Some(uuid.to_be_bytes()),
            csi: Some(nvme_spec::identify::cns::csi::NVM),
        }
    }

    /// Removes a namespace. Its data is gone, unless a file keeps it.
    pub fn remove_namespace(&self, nsid: u32) -> Result<(), EmulatorError> {
        lock(&self.shared.inner).remove(nsid)
    }

    /// Puts another namespace in the place of one, under the same NSID, in one step.
    pub fn replace_namespace(&self, nsid: u32, config: NamespaceConfig) -> Result<(), EmulatorError> {
        let mut inner = lock(&self.shared.inner);
        let old = inner.get(nsid)?;
        self.insert(&mut inner, nsid, config)?;
        write(&old.state).removed = true;
        inner.tell_attached(&old, true);
        Ok(())
    }

    /// Changes a namespace's size to `size` bytes.
    pub fn resize_namespace(&self, nsid: u32, size: u64) -> Result<(), EmulatorError> {
        self.change(nsid, |namespace| write(&namespace.state).resize(size))
    }

    /// Formats a namespace, as Format NVM does: all data is lost.
    pub fn format_namespace(
        &self,
        nsid: u32,
        format: usize,
        inline_metadata: bool,
        protection: PiType,
    ) -> Result<(), EmulatorError> {
        self.change(nsid, |namespace| namespace.format(format, inline_metadata, protection))
    }

    /// Makes a namespace read-only, or writable again.
    pub fn set_read_only(&self, nsid: u32, read_only: bool) -> Result<(), EmulatorError> {
        self.change(nsid, |namespace| {
            write(&namespace.state).write_protected = read_only;
            Ok(())
        })
    }

    /// Attaches a namespace to a controller, or detaches it.
    pub fn set_attached(&self, nsid: u32, cntlid: u16, attached: bool) -> Result<(), EmulatorError> {
        let inner = lock(&self.shared.inner);
        let namespace = inner.get(nsid)?;
        {
            let mut state = write(&namespace.state);
            let mut list: BTreeSet<u16> = match state.config.controllers.take() {
                Some(list) => list.into_iter().collect(),
                None => inner.ports.keys().copied().collect(),
            };
            if attached {
                list.insert(cntlid);
            } else {
                list.remove(&cntlid);
            }
            state.config.controllers = Some(list.into_iter().collect());
        }
        if let Some(port) = inner.ports.get(&cntlid) {
            port.post(|mail| {
                mail.table = true;
                mail.changed.insert(nsid);
            });
        }
        Ok(())
    }

    /// The NSIDs of all namespaces.
    pub fn namespaces(&self) -> Vec<u32> {
        lock(&self.shared.inner).namespaces.keys().copied().collect()
    }

    /// NSZE: how many blocks a namespace has.
    pub fn block_count(&self, nsid: u32) -> Result<u64, EmulatorError> {
        Ok(read(&lock(&self.shared.inner).get(nsid)?.state).blocks)
    }

    /// Makes what was written to all namespaces durable. The first failure is returned, after all were tried.
    pub fn flush(&self) -> Result<(), BackendError> {
        let mut result = Ok(());
        for namespace in self.all() {
            let flushed = read(&namespace.state).data.flush();
            result = result.and(flushed);
        }
        result
    }

    /// Resets the NVM subsystem, as a write of "NVMe" to NSSR does. Reservations stay, as the specification says.
    pub fn reset(&self) {
        lock(&self.shared.inner).reset(Reset::Subsystem);
    }

    /// Takes the power away and gives it back: controllers start anew, what was saved is kept, and reservations are lost
    /// but for those that persist through power loss (PTPL). Nothing is kept beyond the life of the `Subsystem`.
    pub fn power_cycle(&self) {
        let inner = lock(&self.shared.inner);
        for namespace in inner.namespaces.values() {
            write(&namespace.state).reservations.power_loss();
        }
        inner.reset(Reset::PowerCycle);
    }

    fn change(
        &self,
        nsid: u32,
        change: impl FnOnce(&Namespace) -> Result<(), EmulatorError>,
    ) -> Result<(), EmulatorError> {
        let inner = lock(&self.shared.inner);
        let namespace = inner.get(nsid)?;
        change(&namespace)?;
        inner.tell_attached(&namespace, false);
        Ok(())
    }

    /// A controller with the lowest free identifier joins.
    pub(crate) fn join(&self) -> Arc<Port> {
        let mut inner = lock(&self.shared.inner);
        let used = (0..).zip(inner.ports.keys()).take_while(|(index, cntlid)| index == *cntlid).count();
        let cntlid = u16::try_from(used).unwrap_or(u16::MAX);
        let port = Arc::new(Port::new(cntlid));
        inner.ports.insert(cntlid, port.clone());
        port
    }

    /// A controller that comes from elsewhere takes the place that it had.
    pub(crate) fn port(&self, cntlid: u16) -> Option<Arc<Port>> {
        lock(&self.shared.inner).ports.get(&cntlid).cloned()
    }

    /// How many namespaces were ever added, and the controllers.
    pub(crate) fn with_ports<R>(&self, f: impl FnOnce(u64, &mut dyn Iterator<Item = &Port>) -> R) -> R {
        let inner = lock(&self.shared.inner);
        f(inner.added, &mut inner.ports.values().map(|port| &**port))
    }

    /// Has what another subsystem had.
    pub(crate) fn adopt(&self, added: u64, namespaces: BTreeMap<u32, Arc<Namespace>>, ports: BTreeMap<u16, Arc<Port>>) {
        *lock(&self.shared.inner) = Inner { namespaces, ports, added };
    }

    /// A controller leaves.
    pub(crate) fn leave(&self, cntlid: u16) {
        lock(&self.shared.inner).ports.remove(&cntlid);
    }

    /// The namespaces that a controller has attached, by NSID less one.
    pub(crate) fn table(&self, cntlid: u16) -> Vec<Option<Arc<Namespace>>> {
        let inner = lock(&self.shared.inner);
        let mut table = Vec::new();
        for (nsid, namespace) in &inner.namespaces {
            if attached(namespace, cntlid) {
                table.resize(nsid.saturating_sub(1) as usize, None);
                table.push(Some(namespace.clone()));
            }
        }
        table
    }

    /// A namespace, whether attached or not.
    pub(crate) fn find(&self, nsid: u32) -> Option<Arc<Namespace>> {
        lock(&self.shared.inner).namespaces.get(&nsid).cloned()
    }

    /// The controllers, and the hosts behind them.
    pub(crate) fn hosts(&self) -> Vec<(u16, HostId)> {
        let inner = lock(&self.shared.inner);
        inner.ports.values().map(|port| (port.cntlid, port.host())).collect()
    }

    /// A controller changed a namespace; those that have it attached are told, itself too if `by` is none.
    pub(crate) fn announce(&self, nsid: u32, by: Option<u16>) {
        let inner = lock(&self.shared.inner);
        let Some(namespace) = inner.namespaces.get(&nsid) else { return };
        for port in inner.ports.values().filter(|port| Some(port.cntlid) != by && attached(namespace, port.cntlid)) {
            port.post(|mail| {
                mail.changed.insert(nsid);
            });
        }
    }

    /// Passes on what a reservation command caused.
    pub(crate) fn deliver(&self, nsid: u32, effects: &Effects) {
        if effects.notices.is_empty() && effects.aborted.is_empty() {
            return;
        }
        let inner = lock(&self.shared.inner);
        for port in inner.ports.values() {
            let host = port.host();
            let notices = effects.notices.iter().filter(|(to, _)| *to == host).map(|(_, notice)| *notice);
            port.notify(nsid, notices, effects.aborted.contains(&host));
        }
    }

    /// A controller was reset: a host without an identifier is nobody any more.
    pub(crate) fn forget_host(&self, host: HostId) {
        let inner = lock(&self.shared.inner);
        for namespace in inner.namespaces.values() {
            let registered = read(&namespace.state).reservations.registrants.iter().any(|r| r.host == host);
            if registered {
                write(&namespace.state).reservations.forget(host);
            }
        }
    }

    /// All namespaces.
    pub(crate) fn all(&self) -> Vec<Arc<Namespace>> {
        lock(&self.shared.inner).namespaces.values().cloned().collect()
    }
}

impl Default for Subsystem {
    fn default() -> Self {
        Self::new(SubsystemConfig::default())
    }
}

fn attached(namespace: &Namespace, cntlid: u16) -> bool {
    read(&namespace.state).config.controllers.as_ref().is_none_or(|list| list.contains(&cntlid))
}

impl Inner {
    fn get(&self, nsid: u32) -> Result<Arc<Namespace>, EmulatorError> {
        self.namespaces.get(&nsid).cloned().ok_or(EmulatorError::NoSuchNamespace { nsid })
    }

    fn remove(&mut self, nsid: u32) -> Result<(), EmulatorError> {
        let namespace = self.namespaces.remove(&nsid).ok_or(EmulatorError::NoSuchNamespace { nsid })?;
        write(&namespace.state).removed = true;
        self.tell_attached(&namespace, true);
        Ok(())
    }

    /// Tells the controllers that have a namespace attached that it changed, came or went.
    fn tell_attached(&self, namespace: &Namespace, table: bool) {
        for port in self.ports.values().filter(|port| attached(namespace, port.cntlid)) {
            port.post(|mail| {
                mail.table |= table;
                mail.changed.insert(namespace.nsid);
            });
        }
    }

    fn reset(&self, kind: Reset) {
        for port in self.ports.values() {
            port.post(|mail| mail.reset = mail.reset.max(Some(kind)));
        }
    }
}
