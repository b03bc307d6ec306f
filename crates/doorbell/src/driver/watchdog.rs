//! Watching over commands that are not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nvme_spec::AdminOpcode;

use super::core::{ControllerState, Core};
use crate::error::DeviceFailed;

/// How often it is looked which commands are still the same.
const SWEEP: Duration = Duration::from_secs(1);

/// Since when a command was seen to be in flight, by queue and command identifier.
type Seen = BTreeMap<(u16, u16), (Duration, u8)>;

impl Core {
    /// The life of the task that notices when the device answers no more. It reads memory only, as long as commands
    /// come and go: registers may be slow, and reading them may wake a device that sleeps.
    pub(crate) async fn watch_over(self: Arc<Self>) {
        let mut seen = Seen::new();
        loop {
            self.pause(SWEEP).await;
            if self.state() != ControllerState::Running {
                return;
            }
            seen = self.sweep(&seen);
            let now = self.options.runtime.now();
            let oldest = seen.iter().min_by_key(|(_, (since, _))| *since);
            let Some((&(queue, cid), &(since, opcode))) = oldest.filter(|(_, (since, _))| *since < now) else {
                continue;
            };
            let waited = now.saturating_sub(since);
            // The interrupt may have been lost.
            self.queues().iter().for_each(|queue| {
                queue.drain();
            });
            let failed = match self.registers.csts() {
                Err(error) => match error {
                    doorbell_device::DeviceError::Gone(_) => DeviceFailed::Gone,
                    error => DeviceFailed::Unreachable(error.to_string()),
                },
                Ok(csts) if csts.cfs() => DeviceFailed::Fatal,
                Ok(_) if queue != 0 && self.options.io_timeout.is_some_and(|limit| waited >= limit) => {
                    if !self.sweep(&seen).contains_key(&(queue, cid)) {
                        continue;
                    }
                    DeviceFailed::IoTimeout { opcode, queue, cid, seconds: waited.as_secs() }
                }
                Ok(_) => continue,
            };
            tracing::error!(%failed, "giving the device up");
            return self.failure.failed(failed);
        }
    }

    /// The commands in flight, those that were so before with the time of then. Event requests are meant to wait.
    fn sweep(&self, before: &Seen) -> Seen {
        let now = self.options.runtime.now();
        let mut seen = Seen::new();
        for queue in self.queues() {
            for command in queue.inspect().commands {
                let in_flight = matches!(command.state.as_str(), "InFlight" | "Orphaned");
                let waits = queue.id() == 0 && command.opcode == AdminOpcode::ASYNC_EVENT_REQUEST.0;
                if in_flight && !waits {
                    let key = (queue.id(), command.cid);
                    let since = before.get(&key).map_or(now, |(since, _)| *since);
                    seen.insert(key, (since, command.opcode));
                }
            }
        }
        seen
    }
}
