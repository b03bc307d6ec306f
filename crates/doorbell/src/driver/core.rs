use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use doorbell_device::Device;
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm};

use super::adaptive::Adaptive;
use super::admin::Admin;
use super::events::Events;
use super::failure::Failure;
use super::inherited::Inherited;
use super::issuers::Issuers;
use super::options::{CompletionMode, DriverOptions};
use super::registers::Registers;
use super::rescan::Rescans;
use super::service::{Served, Stop};
use super::shadow::Shadows;
use super::watchdog::Sweeps;
use crate::error::{Lost, RequestError};
use crate::memory::{Buffers, Layout};
use crate::namespace::Table;
use crate::queue::{Moments, QueuePair};
use crate::registrations::Registrations;
use crate::runtime::sleep;

/// Where a controller is in its life.
///
/// ```text
///   Recovering
///      │ ▲
///      ▼ │
///   Running ──► ShuttingDown ──► ShutDown
///      └──────► Failed
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub enum ControllerState {
    /// Takes commands.
    Running,
    /// Takes no new commands; those in flight may still end.
    ShuttingDown,
    /// Disabled, in order.
    ShutDown,
    /// Given up: it failed, or broke the protocol.
    Failed,
    /// It failed, and is being reset: commands wait.
    Recovering,
    /// Another process has it now, enabled as it was.
    HandedOver,
}

/// A feature that was set.
#[derive(Clone)]
pub(crate) struct FeatureSet {
    pub(crate) fid: FeatureId,
    pub(crate) nsid: u32,
    pub(crate) cdw11: u32,
    pub(crate) data: Vec<u8>,
}

impl FeatureSet {
    /// Whether it is of just the value that the other is of: of the same namespace, vector, threshold.
    fn replaces(&self, other: &FeatureSet) -> bool {
        let value = |set: &FeatureSet| (set.fid, set.nsid, set.cdw11 & set.fid.selector());
        value(self) == value(other)
    }
}

/// All of a driver that outlives a single call. Background tasks and namespace handles share it; it does no work of
/// its own once the [`NvmeDriver`](super::NvmeDriver) in front of it is gone.
pub(crate) struct Core {
    made: Made,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) namespaces: Table,
    pub(crate) rescans: Rescans,
    pub(crate) registrations: Registrations,
    pub(crate) events: Events,
    /// Commands of the process before that new I/O may have to wait for.
    pub(crate) inherited: Inherited,
    /// The queues that are polled.
    pub(crate) polled: Arc<Served>,
    /// The thread that polls and sleeps by turns, once there is one.
    pub(crate) adaptive: OnceLock<Arc<Adaptive>>,
    state: AtomicU8,
    /// Whether the controller is being reset. It counts as running meanwhile: commands wait.
    recovering: AtomicBool,
    /// Whether it is held still, to be handed over. It counts as running meanwhile: commands wait.
    held_still: AtomicBool,
    /// How often the controller was reset. Changes only while it is stopped.
    pub(crate) resets: AtomicU64,
    pub(crate) sweeps: Sweeps,
    /// How far the queues were, time and again.
    pub(crate) moments: Mutex<Moments>,
    /// What was set by the caller, to be set again after a reset.
    /// In the order in which they were set: one may be of all namespaces, or all thresholds.
    pub(crate) features: Mutex<Vec<FeatureSet>>,
    /// Its state changed, or whether it is recovering or held still.
    pub(crate) changed: event_listener::Event,
    /// Memory that the device may still use: queues of a controller that could not be stopped.
    pub(crate) condemned: Mutex<Vec<Arc<QueuePair>>>,
}

/// What it is made of, at bring-up or from a saved state. A core has all of it for its own.
pub(crate) struct Made {
    /// Tells drivers of one process apart.
    pub(crate) id: u64,
    pub(crate) options: DriverOptions,
    pub(crate) registers: Registers,
    pub(crate) page_size: usize,
    pub(crate) layout: Layout,
    pub(crate) admin: Admin,
    pub(crate) failure: Arc<Failure>,
    pub(crate) identify: Box<IdentifyController>,
    /// CNS 06h of the NVM command set; zeroes where the controller refuses it.
    pub(crate) nvm: Box<IdentifyControllerNvm>,
    pub(crate) completion: CompletionMode,
    /// Where shadow doorbells are used.
    pub(crate) shadows: Option<Arc<Shadows>>,
    pub(crate) issuers: Issuers,
    /// Ends the tasks and threads that find completions.
    pub(crate) stop: Arc<Stop>,
    /// The queues whose interrupt is vector 0.
    pub(crate) served_by_admin_vector: Arc<Served>,
    /// Buffers handed out.
    pub(crate) buffers: Arc<Buffers>,
}

impl Deref for Core {
    type Target = Made;

    #[inline(always)]
    fn deref(&self) -> &Made {
        &self.made
    }
}

/// A number no other driver of this process has.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Core {
    pub(crate) fn new(made: Made) -> Arc<Self> {
        Arc::new(Self {
            device: made.options.device.clone(),
            namespaces: Table::default(),
            rescans: Rescans::default(),
            registrations: Registrations::default(),
            events: Events::default(),
            inherited: Inherited::default(),
            polled: Arc::default(),
            adaptive: OnceLock::new(),
            state: AtomicU8::new(ControllerState::Running as u8),
            recovering: AtomicBool::new(false),
            held_still: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            sweeps: Sweeps::new(&made.options),
            moments: Mutex::default(),
            features: Mutex::default(),
            changed: event_listener::Event::new(),
            condemned: Mutex::default(),
            made,
        })
    }

    pub(crate) fn state(&self) -> ControllerState {
        match self.state.load(Ordering::SeqCst) {
            0 => ControllerState::Running,
            1 => ControllerState::ShuttingDown,
            2 => ControllerState::ShutDown,
            5 => ControllerState::HandedOver,
            _ => ControllerState::Failed,
        }
    }

    /// As users see it.
    pub(crate) fn shown_state(&self) -> ControllerState {
        match self.state() {
            ControllerState::Running if self.is_recovering() => ControllerState::Recovering,
            state => state,
        }
    }

    /// Keeps what a caller has set, to set it again after a reset.
    pub(crate) fn remember_feature(&self, set: FeatureSet) {
        // How many queues there are is the driver's own affair.
        if set.fid != FeatureId::NUMBER_OF_QUEUES {
            let mut features = self.features.lock().unwrap_or_else(PoisonError::into_inner);
            features.retain(|other| !set.replaces(other));
            features.push(set);
        }
    }

    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::SeqCst)
    }

    pub(crate) fn set_recovering(&self, recovering: bool) {
        self.recovering.store(recovering, Ordering::SeqCst);
        if !recovering {
            self.changed.notify(usize::MAX);
        }
    }

    pub(crate) fn is_held_still(&self) -> bool {
        self.held_still.load(Ordering::SeqCst)
    }

    /// Holds it still, or lets it go on. What must not happen meanwhile first says that it is about to, then looks here;
    /// who holds it still does so the other way round. `false` if it is so already.
    pub(crate) fn set_held_still(&self, held: bool) -> bool {
        let changed = self.held_still.swap(held, Ordering::SeqCst) != held;
        if !held {
            self.changed.notify(usize::MAX);
        }
        changed
    }

    /// Waits until it is not held still.
    pub(crate) async fn wait_not_held(&self) {
        self.wait_until(|| !self.is_held_still()).await;
    }

    /// Waits until the controller is not being reset.
    pub(crate) async fn wait_recovered(&self) {
        self.wait_until(|| !self.is_recovering()).await;
    }

    /// Waits until the controller takes no more commands, for whatever reason.
    pub(crate) async fn wait_not_running(&self) {
        self.wait_until(|| self.state() != ControllerState::Running).await;
    }

    pub(super) async fn wait_until(&self, is_so: impl Fn() -> bool) {
        loop {
            let listener = self.changed.listen();
            if is_so() {
                return;
            }
            listener.await;
        }
    }

    /// Goes from running to another state; `false` if somebody was faster.
    pub(crate) fn leave_running(&self, to: ControllerState) -> bool {
        let running = ControllerState::Running as u8;
        self.state.compare_exchange(running, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(crate) fn set_state(&self, to: ControllerState) {
        self.state.store(to as u8, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    /// Waits for `delay`, or until the controller takes no more commands: whatever waits longer keeps all of this alive.
    pub(crate) async fn pause(&self, delay: Duration) {
        futures_lite::future::or(sleep(&*self.options.runtime, delay), self.wait_not_running()).await;
    }

    /// Why commands fail now that the controller is not running.
    pub(crate) fn lost(&self) -> Lost {
        match self.state() {
            ControllerState::Failed => self.failure.reason().unwrap_or(Lost::Shutdown),
            ControllerState::HandedOver => Lost::HandedOver,
            _ => Lost::Shutdown,
        }
    }

    /// An error if the controller takes no more commands.
    pub(crate) fn check_running(&self) -> Result<(), RequestError> {
        match self.state() {
            ControllerState::Running => Ok(()),
            _ => Err(self.lost().into()),
        }
    }

    pub(crate) fn condemned(&self) -> MutexGuard<'_, Vec<Arc<QueuePair>>> {
        self.condemned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every queue there is, the admin queue first.
    pub(crate) fn queues(&self) -> Vec<Arc<QueuePair>> {
        std::iter::once(self.admin.queue.clone()).chain(self.issuers.queues()).collect()
    }
}
