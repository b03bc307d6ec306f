//! From prepared to in charge.

use std::fmt;
use std::sync::Arc;

use nvme_spec::AdminOpcode;

use super::{RestoreError, Restored};
use crate::driver::NvmeDriver;
use crate::driver::core::Core;
use crate::driver::inherited::{Inherited, InheritedCommand};
use crate::driver::issuers::Attendance;
use crate::driver::options::CompletionMode;
use crate::driver::service::Watched;
use crate::error::DriverError;
use crate::exclusive::ExclusiveQueue;
use crate::memory::GuestMemory;
use crate::queue::{Adopted, QueuePair, Token};

/// A driver that could go on with another's controller at once: all that was to be made, found out or refused has been, and
/// neither the device nor its memory was touched.
#[must_use = "dropped, it takes nothing over"]
pub struct Prepared {
    pub(super) core: Arc<Core>,
    pub(super) admin_commands: Vec<Adopted>,
    pub(super) queues: Vec<PreparedQueue>,
    pub(super) admin_watch: Option<Watched>,
    pub(super) guest_memory: Vec<GuestMemory>,
    /// Dword 0 of events that were not dealt with to the end.
    pub(super) events: Vec<u32>,
    pub(super) taken: bool,
}

/// An I/O queue.
pub(super) struct PreparedQueue {
    pub(super) cpu: u32,
    pub(super) pair: Arc<QueuePair>,
    pub(super) commands: Vec<Adopted>,
    /// None if it has an owner, who looks at it.
    pub(super) attendance: Option<Attendance>,
}

impl Prepared {
    /// From here on, the device's completions are this driver's: the other must not go on any more.
    ///
    /// # Errors
    /// [`RestoreError::NotAsLeft`] if the controller is another, or does not run any more; or if the device cannot be reached.
    /// The controller can then be brought up anew ([`DriverOptions::open`](crate::DriverOptions::open)).
    pub fn take_over(mut self) -> Result<Restored, RestoreError> {
        let core = self.core.clone();
        let cap = core.registers.read_cap()?;
        if cap != core.registers.cap {
            return Err(RestoreError::NotAsLeft("its capabilities (CAP) are others".into()));
        }
        let csts = core.registers.csts().map_err(DriverError::device("reading the controller's status"))?;
        if !csts.rdy() || csts.cfs() {
            return Err(RestoreError::NotAsLeft(format!("it is not running (CSTS {:#x})", u32::from(csts))));
        }
        if core.completion == CompletionMode::Polling {
            core.start_polling().map_err(DriverError::device("setting up polling"))?;
        }
        self.taken = true;

        core.serve("admin completions", core.served_by_admin_vector.clone(), self.admin_watch.take());
        let mut inherited = Inherited::default();
        let (mut commands, mut exclusive_queues, mut issuers) = (Vec::new(), Vec::new(), Vec::new());
        for PreparedQueue { cpu, pair, commands: adopted, attendance } in std::mem::take(&mut self.queues) {
            adopted.iter().for_each(|adopted| inherited.add(&pair, adopted));
            let claimable = adopted.into_iter().filter(|adopted| !adopted.orphaned);
            match attendance {
                Some(attendance) => {
                    core.attend(pair.clone(), attendance);
                    commands.extend(claimable.map(|adopted| InheritedCommand::new(&core, &pair, adopted)));
                }
                None => exclusive_queues.push(ExclusiveQueue::inherit(core.clone(), pair.clone(), claimable)),
            }
            issuers.push((cpu, pair));
        }
        core.issuers.inherit(issuers);
        let mut requests = Vec::new();
        for adopted in std::mem::take(&mut self.admin_commands) {
            if Core::is_event_request(0, adopted.command.cdw0.opcode()) && !adopted.orphaned {
                requests.push(adopted.token);
            } else if !adopted.orphaned {
                self.expect(&adopted);
                commands.push(InheritedCommand::new(&core, &core.admin.queue, adopted));
            }
        }
        core.hold_back(inherited);
        let driver = NvmeDriver::start(core.clone());
        self.go_on_with_events(requests);
        // An interrupt may have come while nobody watched.
        core.queues().iter().for_each(|queue| while queue.drain() != 0 {});
        tracing::info!(commands = commands.len(), "took a controller over");
        Ok(Restored { driver, commands, guest_memory: std::mem::take(&mut self.guest_memory), exclusive_queues })
    }

    /// Whoever sent it kept its time; now nobody else does. Format NVM takes as long as it takes.
    fn expect(&self, adopted: &Adopted) {
        let opcode = adopted.command.cdw0.opcode();
        if opcode == AdminOpcode::FORMAT_NVM.0 {
            return;
        }
        let (token, sequence, core) = (adopted.token, adopted.sequence, self.core.clone());
        let task = async move { core.admin.expect(opcode, token, sequence).await };
        self.core.options.runtime.spawn("inherited admin command", Box::pin(task));
    }

    fn go_on_with_events(&self, requests: Vec<Token>) {
        let core = &self.core;
        let missing = core.event_requests().saturating_sub(requests.len());
        for token in requests {
            let runtime = &core.options.runtime;
            runtime.spawn("async events", Box::pin(core.clone().watch_inherited_events(token)));
        }
        core.request_events(missing);
        for dw0 in &self.events {
            core.inherit_event(*dw0);
        }
        let background = core.clone();
        core.options.runtime.spawn("rescan", Box::pin(async move { background.rescan_all().await }));
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.taken {
            // Handles that nobody has asked for would keep the driver alive.
            self.core.namespaces.close();
        }
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("queues", &self.queues.len()).finish_non_exhaustive()
    }
}
