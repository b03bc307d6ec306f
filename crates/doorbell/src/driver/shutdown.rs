//! The end of a controller's life, in order or not.

use std::sync::Arc;

use nvme_spec::AdminOpcode;

use super::core::{ControllerState, Core};
use super::events::ControllerEvent;
use super::loss;
use super::recovery::Resets;
use crate::error::{DeviceFailed, Lost};
use crate::queue::QueuePair;
use crate::runtime::timeout;

/// What is to become of the controller when its driver ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ShutdownMode {
    /// It is shut down in order (CC.SHN) and disabled.
    #[default]
    Reset,
    /// It is left enabled as it is, with its queues, for whoever comes next. Commands in flight are waited for; the
    /// queues' memory stays the device's, so it is leaked.
    LeaveEnabled,
}

/// How the device was left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// It touches no memory any more.
    Stopped,
    /// It could not be stopped.
    Running,
    /// On purpose, with its queues.
    Enabled,
}

impl Left {
    pub(crate) fn is_stopped(self) -> bool {
        self == Left::Stopped
    }
}

impl Core {
    /// Takes no more commands, lets those in flight end, and leaves the controller as asked. Whoever comes second
    /// waits for the first.
    pub(crate) async fn shut_down(self: &Arc<Self>, mode: ShutdownMode) {
        if !self.leave_running(ControllerState::ShuttingDown) {
            return self.wait_ended().await;
        }
        self.wait_not_held().await;
        if self.state() == ControllerState::HandedOver {
            return;
        }
        // Tells those who wait for queues, namespaces and events.
        self.changed.notify(usize::MAX);
        self.issuers.wake_all();
        self.namespaces.close();
        // What is being brought back comes back first, so that its commands end.
        self.wait_recovered().await;
        let queues = self.issuers.queues();
        queues.iter().for_each(|queue| queue.close(Lost::Shutdown));
        let in_flight = async {
            for queue in &queues {
                queue.retire(|_, _| true).await;
            }
        };
        let limit = self.options.shutdown_timeout;
        let ended = timeout(&*self.options.runtime, Some(limit), in_flight).await.is_some();
        if !ended {
            tracing::warn!(?limit, "commands are still in flight, shutting down all the same");
        }
        match mode {
            ShutdownMode::Reset => self.take_down(true).await,
            ShutdownMode::LeaveEnabled => {
                self.admin.queue.close(Lost::Shutdown);
                self.end(Left::Enabled, Lost::Shutdown, ControllerState::ShutDown);
            }
        }
    }

    async fn wait_ended(&self) {
        use ControllerState::{Failed, HandedOver, ShutDown};
        self.wait_until(|| matches!(self.state(), ShutDown | Failed | HandedOver)).await;
    }

    /// Disables a controller that works, after a shutdown notification if `orderly`.
    pub(crate) async fn take_down(self: &Arc<Self>, orderly: bool) {
        if orderly {
            // Deleting the queues first is what the specification wants of an orderly shutdown.
            for queue in self.issuers.queues() {
                let id = queue.id();
                let deleted = async {
                    self.delete_queue(AdminOpcode::DELETE_IO_SQ, id).await
                        && self.delete_queue(AdminOpcode::DELETE_IO_CQ, id).await
                };
                // Where nothing is answered, the admin queue may be full for good: nobody waits for room in it either.
                let limit = self.options.admin_timeout;
                if timeout(&*self.options.runtime, Some(limit), deleted).await != Some(true) {
                    tracing::warn!(queue = id, "an I/O queue could not be deleted");
                    break;
                }
            }
        }
        self.admin.queue.close(Lost::Shutdown);
        if orderly && let Err(error) = self.registers.shut_down(self.shutdown_wait()).await {
            tracing::warn!(%error, "the controller did not shut down in order");
        }
        let stopped = self.stop_device(&Lost::Shutdown).await;
        self.end(stopped, Lost::Shutdown, ControllerState::ShutDown);
    }

    /// The life of the task that resets the device when it fails, or gives it up.
    pub(crate) async fn guard(self: Arc<Self>) {
        let mut resets = Resets::default();
        let lost = loop {
            let failed = self.failure.wait();
            let stopped = async {
                self.wait_not_running().await;
                Lost::Shutdown
            };
            // A failure that is known counts, even if somebody shuts down at the same time.
            let mut lost = futures_lite::future::or(failed, stopped).await;
            if matches!(lost, Lost::Shutdown) || self.state() != ControllerState::Running {
                return;
            }
            self.set_recovering(true);
            while self.is_held_still() {
                self.set_recovering(false);
                self.wait_not_held().await;
                if self.state() != ControllerState::Running {
                    return;
                }
                self.set_recovering(true);
            }
            let recovered = loop {
                // Perhaps it was lost while it was being brought back, or failed because it was.
                if let Err(error) = self.device.check_present() {
                    lost = Lost::Failed(loss::failure(error));
                }
                if !self.is_recoverable(&lost, &mut resets) {
                    break Err(lost);
                }
                tracing::warn!(reason = %crate::RequestError::from(lost.clone()), "resetting the controller");
                match self.recover(&lost).await {
                    Ok(()) if self.device.check_present().is_ok() => break Ok(()),
                    Ok(()) => lost = Lost::Failed(DeviceFailed::Gone),
                    Err(again) => lost = again,
                }
            };
            self.set_recovering(false);
            match recovered {
                Ok(()) => self.came_back(),
                Err(lost) => break lost,
            }
        };
        self.failure.clear();
        self.failure.set(lost.clone());
        if !self.leave_running(ControllerState::Failed) {
            // Somebody shuts down, and must not wait for queues that do not come back.
            for queue in self.queues() {
                queue.close(lost.clone());
            }
            return;
        }
        tracing::error!(error = %crate::RequestError::from(lost.clone()), "the controller is given up");
        self.changed.notify(usize::MAX);
        self.issuers.wake_all();
        self.namespaces.close();
        self.queues().iter().for_each(|queue| queue.close(lost.clone()));
        let mut stopped = self.stop_device(&lost).await;
        if self.device.check_present().is_err() {
            match self.device.release() {
                Ok(()) => stopped = Left::Stopped,
                Err(error) => tracing::error!(%error, "the device could not be let go"),
            }
        }
        self.end(stopped, lost, ControllerState::Failed);
    }

    /// Makes sure that the device touches no memory any more: by disabling it, or by a function reset.
    pub(crate) async fn stop_device(&self, lost: &Lost) -> Left {
        if matches!(lost, Lost::Failed(DeviceFailed::NotReady { .. })) {
            // It says that it is disabled already. Registers that read as zeroes say so too, so it is not believed.
            tracing::warn!("resetting the function");
        } else {
            if matches!(lost, Lost::Failed(DeviceFailed::SubsystemResetAsked))
                && let Err(error) = self.registers.reset_subsystem()
            {
                tracing::warn!(%error, "the NVM subsystem could not be reset, resetting the controller alone");
            }
            match self.registers.disable().await {
                Ok(()) => return Left::Stopped,
                Err(error) => tracing::warn!(%error, "the controller could not be disabled, resetting the function"),
            }
        }
        match self.device.reset() {
            Ok(()) => Left::Stopped,
            Err(error) => {
                tracing::error!(%error, "the function could not be reset either, its memory is unmapped");
                Left::Running
            }
        }
    }

    /// Ends everything that is pending.
    fn end(&self, device: Left, lost: Lost, state: ControllerState) {
        match device {
            Left::Stopped => {}
            // What it is not mapped any more it cannot touch: guest memory now, the queues when their last user goes.
            Left::Running => self.registrations.unmap_all(),
            Left::Enabled => {
                self.queues().into_iter().for_each(QueuePair::leak);
                std::mem::forget(self.shadows.clone());
            }
        }
        for queue in self.queues() {
            queue.give_up(lost.clone());
        }
        self.condemned().clear();
        self.set_state(state);
        self.stop.stop();
        self.events.tell(&ControllerEvent::Gone);
    }
}
