//! Bringing a controller back that failed: reset, set up as before, its namespaces looked at again, its commands sent
//! once more where that can do no harm.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bringup::{self, Found};
use super::core::{ControllerState, Core, FeatureSet};
use super::events::ControllerEvent;
use super::loss;
use crate::error::{DeviceFailed, Lost, RequestError};
use crate::queue::{QueuePair, replayable};

/// How often a namespace that cannot be identified for a passing reason is tried, ever more slowly.
const LOOKS: u32 = 6;

/// How often it is looked whether a device has come back.
const LOOK_FOR_DEVICE: Duration = Duration::from_millis(20);

/// The resets of late, for a limit on them.
#[derive(Default)]
pub(crate) struct Resets {
    at: Vec<Duration>,
}

impl Core {
    /// Whether a failure is one after which the controller may be used again, and there is a try left. Of one that broke
    /// the protocol nothing is believed until it was stopped; one that is gone has no second life, unless it says so.
    pub(crate) fn is_recoverable(&self, lost: &Lost, resets: &mut Resets) -> bool {
        if matches!(lost, Lost::Failed(DeviceFailed::ResetAsked | DeviceFailed::SubsystemResetAsked)) {
            return true;
        }
        let passing = match lost {
            Lost::Misbehaved(_) => true,
            Lost::Failed(DeviceFailed::Lost(_) | DeviceFailed::Gone | DeviceFailed::Unreachable(_)) => {
                self.device.may_return()
            }
            Lost::Failed(failed) => matches!(
                failed,
                DeviceFailed::Fatal
                    | DeviceFailed::NotReady { .. }
                    | DeviceFailed::AdminTimeout { .. }
                    | DeviceFailed::IoTimeout { .. }
            ),
            Lost::Shutdown | Lost::HandedOver | Lost::Interrupted => false,
        };
        let (now, policy) = (self.options.runtime.now(), self.options.recovery);
        resets.at.retain(|at| now.saturating_sub(*at) < policy.period);
        let room = resets.at.len() < policy.resets as usize;
        if passing && room {
            resets.at.push(now);
        }
        passing && room
    }

    /// A reset that nothing but the caller's wish calls for.
    pub(crate) async fn reset_controller(&self) -> Result<(), RequestError> {
        self.reset_as(DeviceFailed::ResetAsked).await
    }

    /// The same, by a reset of all that the NVM subsystem is.
    pub(crate) async fn reset_subsystem(&self) -> Result<(), RequestError> {
        if !self.registers.cap.nssrs() {
            return Err(RequestError::Unsupported("NVM Subsystem Reset"));
        }
        self.reset_as(DeviceFailed::SubsystemResetAsked).await
    }

    async fn reset_as(&self, asked: DeviceFailed) -> Result<(), RequestError> {
        self.check_running()?;
        let before = self.resets.load(Ordering::SeqCst);
        self.failure.failed(asked);
        let was_reset = || self.resets.load(Ordering::SeqCst) != before && !self.is_recovering();
        self.wait_until(|| self.check_running().is_err() || was_reset()).await;
        self.check_running()
    }

    /// Resets the controller and brings it back. I/O waits meanwhile.
    ///
    /// # Errors
    /// Why it is to be given up: it cannot be stopped, or it failed again, which may be tried once more.
    pub(crate) async fn recover(self: &Arc<Self>, failed: &Lost) -> Result<(), Lost> {
        self.failure.clear();
        self.queues().iter().for_each(|queue| queue.pause());
        self.await_return().await?;
        let not_recovered = |reason: String| Lost::Failed(DeviceFailed::NotRecovered(reason));
        if !self.stop_device(failed).await.is_stopped() {
            return Err(not_recovered("it can be stopped neither by CC.EN nor by a function reset".into()));
        }
        self.after_stop();
        // What is wrong with the new life ends this one, whoever notices.
        let failed = async { Err(self.failure.wait().await) };
        let back = async {
            self.bring_back().await.map_err(|error| match error {
                // Why it was given up is told once.
                RequestError::Failed(DeviceFailed::NotRecovered(reason)) => not_recovered(reason),
                RequestError::Failed(failed) => not_recovered(failed.to_string()),
                RequestError::Misbehaved(misbehaved) => not_recovered(misbehaved.to_string()),
                error => not_recovered(error.to_string()),
            })
        };
        futures_lite::future::or(failed, back).await?;
        for queue in self.issuers.queues() {
            queue.resume(|nsid, sequence| self.namespaces.is_there(nsid, queue.id(), sequence));
        }
        Ok(())
    }

    /// Waits for a device that is lost and may come back, as long as it says that it may.
    async fn await_return(&self) -> Result<(), Lost> {
        while let Err(error) = self.device.check_present() {
            if !self.device.may_return() || self.state() != ControllerState::Running {
                return Err(Lost::Failed(loss::failure(error)));
            }
            crate::runtime::sleep(&*self.options.runtime, LOOK_FOR_DEVICE).await;
        }
        Ok(())
    }

    /// The controller is back: tells so, and finds what happened while nobody looked.
    pub(crate) fn came_back(self: &Arc<Self>) {
        tracing::info!("the controller is back");
        self.events.tell(&ControllerEvent::Recovered);
        // Not awaited: if the controller fails meanwhile, only the guard, whose call this is, has that come to an end.
        let core = self.clone();
        self.options.runtime.spawn("rescan", Box::pin(async move { core.rescan_all().await }));
    }

    /// The device is stopped: nothing of its old life can come any more.
    fn after_stop(&self) {
        // From here on, a queue that was made for the old life is not one (`Core::make_queue`).
        let queues = self.issuers.forget_life(|| self.resets.fetch_add(1, Ordering::SeqCst));
        self.condemned().clear();
        let mut all = vec![self.admin.queue.clone()];
        all.extend(queues);
        for queue in &all {
            queue.pause();
            // What the device completed before it stopped has been completed.
            while queue.drain() != 0 {}
        }
        let keep = if self.options.recovery.replay { self.replayable(&all) } else { BTreeSet::new() };
        for queue in &all {
            let kept = keep.range((queue.id(), 0)..=(queue.id(), u16::MAX)).map(|(_, cid)| *cid).collect();
            queue.after_stop(&kept);
        }
        // The rings are empty: those who wait for the admin queue go first when the controller is ready.
        tracing::info!(kept = keep.len(), "the controller is stopped");
    }

    fn replayable(&self, queues: &[Arc<QueuePair>]) -> BTreeSet<(u16, u16)> {
        let histories: Vec<_> = queues.iter().map(|queue| queue.history()).collect();
        let moments = self.moments.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let may_write = |nsid| self.options.recovery.replay_shared || self.namespaces.is_exclusive(nsid);
        replayable(&histories, &moments, may_write)
    }

    /// From RDY = 0 to a controller that is as it was.
    async fn bring_back(self: &Arc<Self>) -> Result<(), RequestError> {
        let changed = |what: &str| RequestError::Failed(DeviceFailed::NotRecovered(what.into()));
        let set_up = bringup::enable_and_identify(&self.options, &self.registers, &self.admin, self.page_size);
        let found = set_up.await.map_err(|error| changed(&error.to_string()))?;
        self.check_same(&found)?;
        if let Some(shadows) = &self.shadows {
            shadows.announce(&self.admin).await?;
        }
        self.set_features_again().await?;
        for queue in self.issuers.queues() {
            self.announce_queue(&queue, self.resets.load(Ordering::SeqCst)).await?;
        }
        // No I/O before it is certain that it goes to the same disks.
        let nsids = self.namespaces.nsids();
        for nsid in nsids {
            self.look_again(nsid).await?;
        }
        Ok(())
    }

    /// Another controller in its place, or limits that its queues were not made for, is no recovery.
    fn check_same(&self, found: &Found) -> Result<(), RequestError> {
        let (old, new) = (&self.identify, &found.identify);
        let what = if (old.sn, old.mn, old.subnqn, old.cntlid) != (new.sn, new.mn, new.subnqn, new.cntlid) {
            "another controller answers in its place"
        } else if old.mdts != new.mdts || old.sgls.into_bits() != new.sgls.into_bits() {
            "its transfer limits are not what they were"
        } else if usize::from(found.queues) < self.issuers.queues().len() {
            "it has fewer I/O queues than it had"
        } else {
            return Ok(());
        };
        Err(RequestError::Failed(DeviceFailed::NotRecovered(what.into())))
    }

    async fn set_features_again(&self) -> Result<(), RequestError> {
        let features = self.features.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        for FeatureSet { fid, nsid, cdw11, data } in features {
            match self.admin.set_features(fid, false, nsid, cdw11, &data).await {
                Ok(_) => {}
                Err(RequestError::Nvme(error)) => tracing::warn!(%fid, %error, "a feature could not be set again"),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at a namespace before its I/O goes on. One that cannot be identified is not trusted to be the same.
    async fn look_again(self: &Arc<Self>, nsid: u32) -> Result<(), RequestError> {
        let mut pause = Duration::from_millis(50);
        let mut last = None;
        for _ in 0..LOOKS {
            match self.look_at(nsid).await {
                Ok(()) => return Ok(()),
                Err(error @ RequestError::Nvme(_)) => last = Some(error),
                Err(error) => return Err(error),
            }
            crate::runtime::sleep(&*self.options.runtime, pause).await;
            pause = pause.saturating_mul(2);
        }
        last.map_or(Ok(()), Err)
    }
}
