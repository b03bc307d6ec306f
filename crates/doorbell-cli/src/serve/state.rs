//! What is served, and how it changes while it is.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use doorbell::{DriverError, ThreadRuntime};
use doorbell_emulator::{ControllerConfig, FaultPlan, NamespaceConfig, Subsystem};
use doorbell_relay::{Departing, Drives, Follower, Relay};
use doorbell_serve::{Baggage, Belongings, Endpoint, Listener, Statistics, Taken, hand_over};
use futures_lite::future::block_on;
use serde_json::{Value, json};

use super::control::{self, Order};
use super::devices::{self, Here};
use super::namespace::{DeviceSpec, Lock, NamespaceSpec};
use crate::{address, session};

/// How long devices may take to be held still, for another server to have them.
const REST: Duration = Duration::from_secs(2);

type Sleepers = Arc<Mutex<Vec<Weak<Endpoint>>>>;

/// What is served.
pub(super) struct State {
    pub(super) subsystem: Subsystem,
    endpoints: Vec<Arc<Endpoint>>,
    /// The same, for those who change namespaces from elsewhere.
    sleepers: Sleepers,
    drives: Drives,
    /// Files behind namespaces, by NSID.
    locks: Mutex<BTreeMap<u32, Lock>>,
    block_size: u32,
    stop: Sender<Stop>,
    /// Where orders are taken.
    control: OnceLock<Weak<Listener>>,
    /// Orders are carried out one beside the other, but not while another server takes over. True if one has.
    handed_over: RwLock<bool>,
}

/// Why the server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It was told to.
    Ended,
    /// Another goes on with everything.
    HandedOver,
}

impl State {
    pub(super) fn new(subsystem: Subsystem, block_size: u32, stop: Sender<Stop>) -> Self {
        let (endpoints, sleepers, drives) = (Vec::new(), Sleepers::default(), Drives::new());
        let (locks, control, handed_over) = (Mutex::default(), OnceLock::new(), RwLock::default());
        Self { subsystem, endpoints, sleepers, drives, locks, block_size, stop, control, handed_over }
    }

    /// What another server had.
    pub(super) fn taken(taken: Taken, here: Here, stop: Sender<Stop>) -> Self {
        let mut state = Self { drives: here.drives, ..Self::new(taken.subsystem, taken.block_size, stop) };
        taken.endpoints.into_iter().for_each(|endpoint| state.add_endpoint(endpoint));
        let locks = taken.locks.into_iter().map(|(nsid, fd)| (nsid, Lock::from(fd)));
        lock(&state.locks).extend(locks);
        here.followers.into_iter().for_each(|(nsid, follower)| state.follow(nsid, follower));
        state
    }

    fn add_endpoint(&mut self, endpoint: Endpoint) {
        let endpoint = Arc::new(endpoint);
        lock(&self.sleepers).push(Arc::downgrade(&endpoint));
        self.endpoints.push(endpoint);
    }

    /// Takes orders there.
    pub(super) fn listen(self: &Arc<Self>, listener: Listener) -> Result<Arc<Listener>> {
        let listener = control::listen(listener, self)?;
        // It is the only one.
        let _ = self.control.set(Arc::downgrade(&listener));
        Ok(listener)
    }

    /// Gives everything to the server at the other end of a control connection.
    pub(super) fn hand_over(&self, stream: UnixStream) {
        let mut handed_over = self.handed_over.write().unwrap_or_else(PoisonError::into_inner);
        let ready = if *handed_over { Err(anyhow!("another server has taken over")) } else { self.belongings() };
        let belongings = match ready {
            Ok(belongings) => belongings,
            Err(error) => return drop(control::tell(&stream, Err(error))),
        };
        if control::tell(&stream, Ok(json!({}))).is_err() {
            return;
        }
        let mut departing = Departing::default();
        let behind = || {
            let deadline = Instant::now().checked_add(REST).unwrap_or_else(Instant::now);
            departing = self.drives.depart(deadline)?;
            let (bytes, descriptors) = departing.parts()?;
            Ok(Baggage { bytes, descriptors })
        };
        match hand_over(stream, &self.subsystem, &self.endpoints, belongings, behind) {
            Ok(()) => {
                departing.let_go();
                *handed_over = true;
                if let Some(listener) = self.control.get().and_then(Weak::upgrade) {
                    listener.leave();
                }
                // It fails only where it is under way.
                let _ = self.stop.send(Stop::HandedOver);
            }
            Err(error) => tracing::warn!(%error, "not taken over: this server goes on"),
        }
    }

    /// Whether another server has taken over; if one is about to, waits for it.
    pub(super) fn is_handed_over(&self) -> bool {
        *self.handed_over.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn belongings(&self) -> Result<Belongings> {
        self.subsystem.check_crossing()?;
        self.drives.check_crossing()?;
        let control = self.control.get().and_then(Weak::upgrade);
        let control = control.map(|listener| Ok::<_, std::io::Error>((listener.path().into(), listener.try_clone()?)));
        let locks = lock(&self.locks);
        let locks = locks.iter().map(|(nsid, lock)| Ok((*nsid, lock.try_clone()?)));
        Ok(Belongings {
            control: control.transpose()?,
            block_size: self.block_size,
            locks: locks.collect::<std::io::Result<_>>()?,
        })
    }

    /// Serves another controller.
    pub(super) fn serve(&mut self, socket: &Path, config: ControllerConfig) -> Result<()> {
        ensure!(!self.endpoints.iter().any(|other| other.path() == socket), "{}: given twice", socket.display());
        self.add_endpoint(Endpoint::start(socket, &self.subsystem, config)?);
        Ok(())
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Stops serving: what is under way is finished, data is on disk, and devices are let go.
    pub(super) fn end(&self) -> Result<()> {
        self.endpoints.iter().for_each(|endpoint| endpoint.stop());
        let flushed = self.subsystem.flush().context("writing the last data to disk");
        block_on(self.drives.shut_down());
        flushed
    }

    /// Adds a namespace and gives its NSID.
    pub(super) fn add(&self, spec: &NamespaceSpec, nsid: Option<u32>) -> Result<u32> {
        // Two files of the same name cannot come at the same time.
        let mut locks = lock(&self.locks);
        let add = || -> Result<(u32, Option<Lock>)> {
            let file = spec.lock()?;
            let mut follower = None;
            let config = spec.config(self.block_size, |device| {
                let relay = self.relay(device)?;
                follower = Some(relay.follower());
                Ok(relay.config())
            })?;
            let nsid = self.subsystem.add_namespace(NamespaceConfig { nsid, ..config })?;
            if let Some(follower) = follower {
                self.follow(nsid, follower);
            }
            Ok((nsid, file))
        };
        let (nsid, lock) = add().with_context(|| format!("namespace {spec}"))?;
        locks.extend(lock.map(|lock| (nsid, lock)));
        drop(locks);
        self.wake();
        Ok(nsid)
    }

    /// What becomes of a device's namespace becomes of this one.
    fn follow(&self, nsid: u32, follower: Follower) {
        let sleepers = self.sleepers.clone();
        let wake = move || lock_all(&sleepers).iter().for_each(|endpoint| endpoint.wake());
        follower.follow(&*ThreadRuntime::global(), self.subsystem.clone(), nsid, wake);
    }

    fn wake(&self) {
        self.endpoints.iter().for_each(|endpoint| endpoint.wake());
    }

    /// A namespace of a device, which is opened unless it is open.
    fn relay(&self, spec: &DeviceSpec) -> Result<Relay> {
        let DeviceSpec { address, nsid } = spec;
        let mut refused = None;
        let open = || match address::open(address) {
            Ok(device) => Ok(devices::options(device)),
            Err(error) => {
                refused = Some(error);
                Err(DriverError::NotThere)
            }
        };
        let opened = block_on(self.drives.open(address, open));
        if let Some(error) = refused {
            return Err(error);
        }
        let drive = opened?;
        block_on(async {
            let nsid = session::nsid(drive.driver(), *nsid).await?;
            Ok(drive.namespace(nsid).await?)
        })
    }

    /// Does what comes over the control socket.
    pub(super) fn carry_out(&self, order: Order) -> Result<Value> {
        let handed_over = self.handed_over.read().unwrap_or_else(PoisonError::into_inner);
        ensure!(!*handed_over, "another server has taken over: ask again");
        match order {
            Order::Add { namespace, nsid } => {
                let spec: NamespaceSpec = namespace.parse().map_err(|error: String| anyhow!(error))?;
                Ok(json!({ "nsid": self.add(&spec, nsid)? }))
            }
            Order::Remove { nsid } => {
                self.subsystem.remove_namespace(nsid)?;
                // Others may have the file as soon as the last command that uses it is done.
                lock(&self.locks).remove(&nsid);
                self.wake();
                Ok(json!({}))
            }
            Order::Resize { nsid, size } => {
                self.subsystem.resize_namespace(nsid, size.bytes()?)?;
                self.wake();
                Ok(json!({ "blocks": self.subsystem.block_count(nsid)? }))
            }
            Order::Statistics {} => self.statistics(),
            Order::Faults { socket, plan } => self.set_faults(socket, &plan),
            Order::Shutdown {} => {
                // It fails only where it is under way.
                let _ = self.stop.send(Stop::Ended);
                Ok(json!({}))
            }
            Order::TakeOver {} => Err(anyhow!("not in this place")),
        }
    }

    fn set_faults(&self, socket: Option<PathBuf>, plan: &FaultPlan) -> Result<Value> {
        let wanted = |endpoint: &&Arc<Endpoint>| socket.as_ref().is_none_or(|socket| endpoint.path() == socket);
        let endpoints: Vec<_> = self.endpoints.iter().filter(wanted).collect();
        if let (Some(socket), true) = (&socket, endpoints.is_empty()) {
            return Err(anyhow!("{}: no controller is served there", socket.display()));
        }
        for endpoint in &endpoints {
            let plan = plan.clone();
            endpoint
                .with_controller(move |controller| controller.set_faults(plan))
                .with_context(|| format!("{}: the controller does not answer", endpoint.path().display()))?;
        }
        Ok(json!({ "controllers": endpoints.len() }))
    }

    fn statistics(&self) -> Result<Value> {
        let mut namespaces = Vec::new();
        for nsid in self.subsystem.namespaces() {
            // It may be removed in between.
            if let Ok(blocks) = self.subsystem.block_count(nsid) {
                namespaces.push(json!({ "nsid": nsid, "blocks": blocks }));
            }
        }
        let controllers: Vec<_> = self.endpoints.iter().map(controller).collect();
        Ok(json!({ "controllers": controllers, "namespaces": namespaces }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_all(sleepers: &Sleepers) -> Vec<Arc<Endpoint>> {
    lock(sleepers).iter().filter_map(Weak::upgrade).collect()
}

fn controller(endpoint: &Arc<Endpoint>) -> Value {
    let Statistics { clients, connected, turned_away, runs, sleeps, mappings, mapped_bytes, dma_faults, .. } =
        endpoint.statistics();
    let inside = endpoint.with_controller(|controller| (controller.cntlid(), controller.io_queues()));
    json!({
        "socket": endpoint.path(),
        "cntlid": inside.map(|(cntlid, _)| cntlid),
        "submission_queues": inside.map(|(_, (submission, _))| submission),
        "completion_queues": inside.map(|(_, (_, completion))| completion),
        "connected": connected,
        "clients": clients,
        "turned_away": turned_away,
        "runs": runs,
        "sleeps": sleeps,
        "mappings": mappings,
        "mapped_bytes": mapped_bytes,
        "dma_faults": dma_faults,
    })
}
