//! Watching over commands that are not answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use doorbell_device::DeviceError;
use event_listener::Event;
use nvme_spec::AdminOpcode;

use super::core::{ControllerState, Core};
use super::loss;
use super::options::DriverOptions;
use crate::error::DeviceFailed;
use crate::queue::{InFlight, TimeLimit};

/// How often it is looked which commands are still the same: about every eighth of the shortest time limit.
const SLOWEST_SWEEP: Duration = Duration::from_secs(1);
const FASTEST_SWEEP: Duration = Duration::from_millis(10);

/// The commands in flight, by queue and command identifier.
type Watched = BTreeMap<(u16, u16), Watch>;

#[derive(Debug, Clone, Copy)]
struct Watch {
    opcode: u8,
    /// Its number in its queue. Identifiers come again.
    sequence: u64,
    /// Since when it was seen to be in flight.
    since: Duration,
    /// How long it may be. Of admin commands, whoever waits for them keeps the limit.
    limit: Option<Duration>,
    /// Whether the controller was asked to abort it.
    abort_asked: bool,
}

impl Watch {
    /// For how long its time has been up.
    fn overdue(&self, now: Duration) -> Option<Duration> {
        now.saturating_sub(self.since).checked_sub(self.limit?)
    }
}

/// The pause between two sweeps, in milliseconds: only ever shorter.
#[derive(Default)]
pub(crate) struct Sweeps {
    pause: AtomicU64,
    shortened: Event,
}

impl Sweeps {
    pub(crate) fn new(options: &DriverOptions) -> Self {
        let sweeps = Self { pause: AtomicU64::new(SLOWEST_SWEEP.as_millis() as u64), shortened: Event::new() };
        let limits = options.io_timeouts.values().copied().chain([options.io_timeout]);
        limits.flatten().for_each(|limit| sweeps.expect(limit));
        sweeps
    }

    fn pause(&self) -> Duration {
        Duration::from_millis(self.pause.load(Ordering::Relaxed))
    }

    /// Some command's limit is this.
    fn expect(&self, limit: Duration) {
        let pause = limit.checked_div(8).unwrap_or_default().clamp(FASTEST_SWEEP, SLOWEST_SWEEP).as_millis() as u64;
        // Many may say the same: only the first of them writes what all read.
        if pause < self.pause.load(Ordering::Relaxed) && pause < self.pause.fetch_min(pause, Ordering::SeqCst) {
            self.shortened.notify(usize::MAX);
        }
    }
}

impl Core {
    /// A command is to have a time limit of its own.
    #[cold]
    pub(crate) fn expect_limit(&self, limit: Option<Duration>) {
        if let Some(limit) = limit {
            self.sweeps.expect(limit);
        }
    }

    /// The pause before the next sweep, cut short if one becomes due earlier.
    async fn pause_sweep(&self) {
        let shortened = self.sweeps.shortened.listen();
        futures_lite::future::or(self.pause(self.sweeps.pause()), shortened).await;
    }

    /// The life of the task that notices when the device answers no more. It reads memory only, as long as commands
    /// come and go: registers may be slow, and reading them may wake a device that sleeps.
    pub(crate) async fn watch_over(self: Arc<Self>) {
        let aborting = Arc::new(AtomicU32::new(0));
        let mut watched = Watched::new();
        loop {
            self.pause_sweep().await;
            if self.state() != ControllerState::Running {
                return;
            }
            if self.is_recovering() || self.is_held_still() {
                self.wait_recovered().await;
                self.wait_not_held().await;
                watched.clear();
                continue;
            }
            // Futures and batches that were leaked leave nothing behind a doorbell.
            self.issuers.queues().iter().for_each(|queue| queue.sweep_unrung());
            self.remember_moment();
            watched = self.sweep(&watched);
            let now = self.options.runtime.now();
            if !watched.values().any(|watch| watch.since < now) {
                continue;
            }
            // The interrupt may have been lost.
            self.queues().iter().for_each(|queue| {
                queue.drain();
            });
            watched = self.sweep(&watched);
            if !watched.values().any(|watch| watch.since < now) {
                continue;
            }
            let failed = self.look_at_registers().or_else(|| stuck(&watched, now, self.sweeps.pause()));
            if let Some(failed) = failed {
                tracing::error!(%failed, "the controller failed");
                self.failure.failed(failed);
                // Whoever deals with it says so before the next look.
                self.pause(Duration::ZERO).await;
            } else {
                self.ask_to_abort(&mut watched, now, &aborting);
            }
        }
    }

    /// What the registers say is wrong, while commands wait.
    fn look_at_registers(&self) -> Option<DeviceFailed> {
        match self.registers.csts() {
            Err(DeviceError::Gone(_)) => {
                // A back end may know more than that the registers read all ones.
                let known = self.device.check_present().err().map(loss::failure);
                Some(known.unwrap_or(DeviceFailed::Gone))
            }
            Err(error) => Some(DeviceFailed::Unreachable(error.to_string())),
            Ok(csts) if csts.cfs() => Some(DeviceFailed::Fatal),
            Ok(csts) if !csts.rdy() && self.is_up() => Some(DeviceFailed::NotReady { csts: csts.into() }),
            Ok(_) => None,
        }
    }

    /// Whether nobody is about to disable it, or to bring it up.
    fn is_up(&self) -> bool {
        self.state() == ControllerState::Running && !self.is_recovering()
    }

    /// Asks the controller to abort the commands whose time is up, as many at once as it takes (ACL). An Abort frees
    /// nothing: the command's own completion does.
    fn ask_to_abort(self: &Arc<Self>, watched: &mut Watched, now: Duration, aborting: &Arc<AtomicU32>) {
        for (&(queue, cid), watch) in watched.iter_mut() {
            if watch.abort_asked || watch.overdue(now).is_none() {
                continue;
            }
            // Also those for which there is no room: their time is as much up.
            watch.abort_asked = true;
            if aborting.fetch_add(1, Ordering::SeqCst) > u32::from(self.identify.acl) {
                aborting.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            tracing::warn!(queue, cid, opcode = watch.opcode, "not answered in time, asking to abort it");
            let (core, aborting) = (self.clone(), aborting.clone());
            let task = async move {
                if let Err(error) = core.admin.abort(queue, cid).await {
                    tracing::warn!(queue, cid, %error, "the abort failed");
                }
                aborting.fetch_sub(1, Ordering::SeqCst);
            };
            self.options.runtime.spawn("abort", Box::pin(task));
        }
    }

    /// For putting commands of different queues in order later, roughly.
    fn remember_moment(&self) {
        let submitted = self.queues().iter().map(|queue| (queue.id(), queue.submitted())).collect();
        self.moments.lock().unwrap_or_else(PoisonError::into_inner).add(submitted);
    }

    /// The commands in flight, those that were so before with the time of then. Event requests are meant to wait.
    fn sweep(&self, before: &Watched) -> Watched {
        let now = self.options.runtime.now();
        let mut watched = Watched::new();
        for queue in self.queues() {
            for InFlight { cid, opcode, sequence, limit } in queue.in_flight() {
                let key = (queue.id(), cid);
                if queue.id() == 0 && opcode == AdminOpcode::ASYNC_EVENT_REQUEST.0 {
                    continue;
                }
                let limit = match limit {
                    TimeLimit::Usual if queue.id() != 0 => self.options.timeout_of(opcode),
                    TimeLimit::Usual | TimeLimit::None => None,
                    TimeLimit::After(limit) => Some(limit),
                };
                let same = before.get(&key).filter(|watch| watch.sequence == sequence);
                let new = Watch { opcode, sequence, since: now, limit, abort_asked: false };
                watched.insert(key, same.copied().unwrap_or(new));
            }
        }
        watched
    }
}

/// A command whose abort did not help: one that does so at once, or the device is stuck.
fn stuck(watched: &Watched, now: Duration, pause: Duration) -> Option<DeviceFailed> {
    let overdue = watched.iter().filter(|(_, watch)| watch.abort_asked);
    let (&(queue, cid), watch) = overdue.max_by_key(|(_, watch)| watch.overdue(now))?;
    let (opcode, seconds) = (watch.opcode, now.saturating_sub(watch.since).as_secs());
    (watch.overdue(now)? >= pause).then_some(DeviceFailed::IoTimeout { opcode, queue, cid, seconds })
}
