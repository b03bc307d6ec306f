//! What is served, and how it changes while it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, ensure};
use doorbell_emulator::{ControllerConfig, FaultPlan, Subsystem};
use doorbell_serve::{Endpoint, Statistics};
use serde_json::{Value, json};

use super::control::Order;
use super::namespace::{Lock, NamespaceSpec};

/// What is served.
pub(super) struct State {
    pub(super) subsystem: Subsystem,
    endpoints: Vec<Endpoint>,
    /// Files behind namespaces, by NSID.
    locks: Mutex<BTreeMap<u32, Lock>>,
    block_size: u32,
    stop: Sender<()>,
}

impl State {
    pub(super) fn new(subsystem: Subsystem, block_size: u32, stop: Sender<()>) -> Self {
        Self { subsystem, endpoints: Vec::new(), locks: Mutex::default(), block_size, stop }
    }

    /// Serves another controller.
    pub(super) fn serve(&mut self, socket: &Path, config: ControllerConfig) -> Result<()> {
        ensure!(!self.endpoints.iter().any(|other| other.path() == socket), "{}: given twice", socket.display());
        self.endpoints.push(Endpoint::start(socket, &self.subsystem, config)?);
        Ok(())
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Adds a namespace and gives its NSID.
    pub(super) fn add(&self, spec: &NamespaceSpec, nsid: Option<u32>) -> Result<u32> {
        // Two files of the same name cannot come at the same time.
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let add = || -> Result<(u32, Option<Lock>)> {
            let lock = spec.lock()?;
            let config = spec.config(self.block_size);
            Ok((self.subsystem.add_namespace(doorbell_emulator::NamespaceConfig { nsid, ..config })?, lock))
        };
        let (nsid, lock) = add().with_context(|| format!("namespace {spec}"))?;
        locks.extend(lock.map(|lock| (nsid, lock)));
        drop(locks);
        self.wake();
        Ok(nsid)
    }

    fn wake(&self) {
        self.endpoints.iter().for_each(Endpoint::wake);
    }

    /// Does what comes over the control socket.
    pub(super) fn carry_out(&self, order: Order) -> Result<Value> {
        match order {
            Order::Add { namespace, nsid } => {
                let spec: NamespaceSpec = namespace.parse().map_err(|error: String| anyhow!(error))?;
                Ok(json!({ "nsid": self.add(&spec, nsid)? }))
            }
            Order::Remove { nsid } => {
                self.subsystem.remove_namespace(nsid)?;
                // Others may have the file as soon as the last command that uses it is done.
                self.locks.lock().unwrap_or_else(PoisonError::into_inner).remove(&nsid);
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
                let _ = self.stop.send(());
                Ok(json!({}))
            }
        }
    }

    fn set_faults(&self, socket: Option<PathBuf>, plan: &FaultPlan) -> Result<Value> {
        let wanted = |endpoint: &&Endpoint| socket.as_ref().is_none_or(|socket| endpoint.path() == socket);
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

fn controller(endpoint: &Endpoint) -> Value {
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
