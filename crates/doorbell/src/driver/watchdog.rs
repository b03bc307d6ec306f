//! Watching over commands that are not answered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use doorbell_device::DeviceError;
use nvme_spec::AdminOpcode;

use super::core::{ControllerState, Core};
use super::loss;
use crate::error::DeviceFailed;

/// How often it is looked which commands are still the same, where their time limit is long.
const SLOWEST_SWEEP: Duration = Duration::from_secs(1);
const FASTEST_SWEEP: Duration = Duration::from_millis(10);

/// The commands in flight, by queue and command identifier.
type Watched = BTreeMap<(u16, u16), Watch>;

#[derive(Debug, Clone, Copy)]
struct Watch {
    opcode: u8,
    /// Since when it was seen to be in flight.
    since: Duration,
    /// Whether the controller was asked to abort it.
    abort_asked: bool,
}

/// What the clock, and the registers, say about a command that has been there for a while.
enum Verdict {
    Wait,
    Abort,
    Failed(DeviceFailed),
}

impl Core {
    /// The life of the task that notices when the device answers no more. It reads memory only, as long as commands
    /// come and go: registers may be slow, and reading them may wake a device that sleeps.
    pub(crate) async fn watch_over(self: Arc<Self>) {
        let aborting = Arc::new(AtomicU32::new(0));
        let limit = self.options.io_timeout.unwrap_or(SLOWEST_SWEEP);
        let pause = (limit / 8).clamp(FASTEST_SWEEP, SLOWEST_SWEEP);
        let mut watched = Watched::new();
        loop {
            self.pause(pause).await;
            if self.state() != ControllerState::Running {
                return;
            }
            if self.is_recovering() {
                self.wait_recovered().await;
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
            let Some((&(queue, cid), watch)) = watched.iter_mut().min_by_key(|(_, watch)| watch.since) else {
                continue;
            };
            if watch.since >= now {
                continue;
            }
            match self.judge(queue, cid, watch, now, pause) {
                Verdict::Wait => {}
                Verdict::Abort => self.ask_to_abort(&mut watched, now, &aborting),
                Verdict::Failed(failed) => {
                    tracing::error!(%failed, "the controller failed");
                    self.failure.failed(failed);
                    // Whoever deals with it says so before the next look.
                    self.pause(Duration::ZERO).await;
                }
            }
        }
    }

    /// What is to be done about the command that has been there longest.
    fn judge(&self, queue: u16, cid: u16, watch: &Watch, now: Duration, pause: Duration) -> Verdict {
        match self.registers.csts() {
            Err(DeviceError::Gone(_)) => {
                // A back end may know more than that the registers read all ones.
                let known = self.device.check_present().err().map(loss::failure);
                return Verdict::Failed(known.unwrap_or(DeviceFailed::Gone));
            }
            Err(error) => return Verdict::Failed(DeviceFailed::Unreachable(error.to_string())),
            Ok(csts) if csts.cfs() => return Verdict::Failed(DeviceFailed::Fatal),
            Ok(csts) if !csts.rdy() && self.is_up() => {
                return Verdict::Failed(DeviceFailed::NotReady { csts: csts.into() });
            }
            Ok(_) => {}
        }
        let waited = now.saturating_sub(watch.since);
        match self.options.io_timeout {
            Some(limit) if queue != 0 && waited >= limit => {
                // An abort that helps does so at once, or the device is stuck.
                if watch.abort_asked && waited >= limit + pause {
                    let (opcode, seconds) = (watch.opcode, waited.as_secs());
                    Verdict::Failed(DeviceFailed::IoTimeout { opcode, queue, cid, seconds })
                } else {
                    Verdict::Abort
                }
            }
            _ => Verdict::Wait,
        }
    }

    /// Whether nobody is about to disable it, or to bring it up.
    fn is_up(&self) -> bool {
        self.state() == ControllerState::Running && !self.is_recovering()
    }

    /// Asks the controller to abort the commands whose time is up, as many at once as it takes (ACL). An Abort frees
    /// nothing: the command's own completion does.
    fn ask_to_abort(self: &Arc<Self>, watched: &mut Watched, now: Duration, aborting: &Arc<AtomicU32>) {
        let Some(limit) = self.options.io_timeout else { return };
        for (&(queue, cid), watch) in watched.iter_mut() {
            if queue == 0 || watch.abort_asked || now.saturating_sub(watch.since) < limit {
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
            for (cid, opcode) in queue.in_flight() {
                if queue.id() != 0 || opcode != AdminOpcode::ASYNC_EVENT_REQUEST.0 {
                    let key = (queue.id(), cid);
                    let new = Watch { opcode, since: now, abort_asked: false };
                    watched.insert(key, before.get(&key).copied().unwrap_or(new));
                }
            }
        }
        watched
    }
}
