//! Moments in which nothing is under way: everything has ended by then, and is as the model says.

use std::sync::Arc;
use std::time::Duration;

use doorbell::{CompletionMode, ControllerState, NamespaceId, NvmeDriver};
use doorbell_device::Device;
use nvme_spec::AdminOpcode;
use nvme_spec::registers::{Csts, offset};

use crate::fault::Kind;
use crate::host::Host;
use crate::operation::{self, What};
use crate::run::{Check, Run, failure};

/// In this much, a device ends what was dropped, or is reset for it.
const LEFT: Duration = Duration::from_secs(300);

/// Where nothing interrupts, queues are looked at so often.
const LOOK: Duration = Duration::from_millis(20);

impl Run {
    /// Goes on until all operations have ended and no dropped command is left on any device.
    pub(crate) fn quiesce(&mut self) -> Check {
        self.decide_all()?;
        while !self.operations.is_empty() {
            self.go_on()?;
        }
        let deadline = self.world.now() + LEFT;
        while let Some(what) = self.busy() {
            if !self.turn()? && !self.decide_all()? {
                let next = self.next_time().unwrap_or(self.world.now() + Duration::from_millis(1));
                // Dropped commands are found by whoever looks.
                self.world.advance(next.min(self.world.now() + Duration::from_millis(10)));
            }
            if self.world.now() > deadline {
                return failure("leak", format!("nobody waits for anything, and yet {what}"));
            }
        }
        let now = self.tick();
        for disk in &mut self.disks {
            disk.model.all_ended(now);
            disk.agreements.all_ended(now);
        }
        self.copied.clear();
        for host in &mut self.hosts {
            host.free_pages.append(&mut host.quarantine);
        }
        self.notice()
    }

    /// Sees that hosts which something has struck are well again: from then on, it explains nothing any more. And that each
    /// host knows of what has changed.
    fn notice(&mut self) -> Check {
        self.settle()?;
        // The next interrupt shows what came with one that was lost.
        for host in &self.hosts {
            host.interrupt();
        }
        self.world.notice_interrupts();
        self.be_looked_at()?;
        let mut well = Vec::new();
        for host in 0..self.hosts.len() {
            well.push(self.is_well(host)?);
        }
        let deadline = self.world.now() + LEFT;
        while let Some(what) = self.unnoticed() {
            if self.world.now() > deadline {
                return failure("unnoticed", what);
            }
            self.decide_all()?;
            self.sleep(Duration::from_millis(500))?;
        }
        // Others have gone on since each was looked at, and drivers may have been saved.
        let still: Vec<bool> = (0..self.hosts.len()).map(|host| self.has_nothing_pending(host)).collect();
        let hosts = self.hosts.iter_mut().zip(well.into_iter().zip(still));
        for (host, _) in hosts.filter(|(host, (well, still))| *still && is_driven_by(host, well.as_ref())) {
            let mut to_come = host.to_come();
            // If it was a completion queue's, it is missed when that queue is full.
            to_come.extend(host.struck().into_iter().filter(|kind| *kind == Kind::DoorbellLost));
            host.blame.forget(&to_come);
        }
        Ok(())
    }

    /// Goes on until all queues have been looked at: at once, or, where nothing interrupts, with the next look.
    fn be_looked_at(&mut self) -> Check {
        let polls = self.setup.vectors == 0 || self.setup.completion == CompletionMode::Polling;
        if polls { self.sleep(LOOK) } else { self.settle() }
    }

    /// A namespace that a driver knows as it is not, though the driver works. Nobody needs to have a handle: one that was
    /// taken over is had without a command.
    fn unnoticed(&self) -> Option<String> {
        for (index, host) in self.hosts.iter().enumerate() {
            let works = |driver: &&Arc<NvmeDriver>| {
                matches!(driver.state(), ControllerState::Running | ControllerState::Recovering)
            };
            let Some(driver) = host.driver.as_ref().filter(works).filter(|_| !host.is_dead()) else { continue };
            let is_ready = host.device.read32(offset::CSTS).is_ok_and(|csts| Csts::from(csts).rdy());
            for view in driver.inspect().namespaces.iter().filter(|view| !view.removed) {
                let (namespace, known) = (view.nsid as usize - 1, disk_of(&view.id));
                // Nobody has sent anything since the controller was reset: the first command will show it (L3).
                if host.namespaces[namespace].is_none() && !is_ready {
                    continue;
                }
                let Some(disk) = self.present[namespace].filter(|disk| Some(*disk) == known) else {
                    return Some(format!(
                        "host {index} does not know that namespace {namespace} is another disk, or none"
                    ));
                };
                let (seen, is) = (view.block_count, self.disks[disk].blocks);
                if seen != is {
                    return Some(format!(
                        "host {index} knows namespace {namespace} with {seen} blocks, and not with {is}"
                    ));
                }
            }
        }
        None
    }

    /// A host's driver, if it has nothing to recover from, and its resets. What struck may show with the next command only
    /// (L3): so there is one on each queue.
    fn is_well(&mut self, index: usize) -> Check<Option<(Arc<NvmeDriver>, u64)>> {
        let host = &self.hosts[index];
        let Some(driver) = host.driver.clone().filter(|_| !host.is_dead()) else { return Ok(None) };
        let held = || host.namespaces.iter().flatten();
        let there = held().find(|(_, disk)| self.present.contains(&Some(*disk)));
        // One that is known to be removed sends nothing.
        let sends = held().find(|(handle, _)| !handle.is_removed());
        let handle = there.or(sends).or(held().next()).cloned();
        let (Some((namespace, disk)), true) = (handle, host.blame.is_any()) else { return Ok(None) };
        let resets = driver.inspect().controller.resets;
        let failed = self.failed;
        for cpu in 0..self.setup.cpus {
            let target = operation::Target { namespace: namespace.clone(), cpu, lba: 0, blocks: 1, tag: 0 };
            let data = vec![0; self.setup.block_size as usize];
            let what = What::Read { lba: 0, blocks: 1 };
            let id = self.start(index, disk, what, operation::read_slice(target, data), Vec::new(), None);
            self.wait_for(id)?;
        }
        self.be_looked_at()?;
        let well = self.failed == failed && self.has_nothing_pending(index);
        Ok(Some((driver, resets)).filter(|_| well))
    }

    /// Whether nothing is under way on a host. An admin command that is never answered shows when its time is up.
    fn has_nothing_pending(&self, index: usize) -> bool {
        let Some(driver) = &self.hosts[index].driver else { return false };
        let pending = driver.inspect().admin.pending;
        pending.iter().all(|command| command.opcode == AdminOpcode::ASYNC_EVENT_REQUEST.0)
            && self.operations.iter().all(|operation| operation.host != index)
            && self.busy().is_none()
    }

    /// What is still under way on some device, or kept for it.
    fn busy(&self) -> Option<String> {
        for (index, driver) in self.hosts.iter().enumerate().filter_map(|(i, host)| Some((i, host.driver.as_ref()?))) {
            let view = driver.inspect();
            if matches!(view.controller.state, ControllerState::Recovering | ControllerState::ShuttingDown) {
                return Some(format!("host {index} is {:?}", view.controller.state));
            }
            if view.controller.state != ControllerState::Running {
                continue;
            }
            for queue in &view.queues {
                if !queue.commands.is_empty() || queue.waiting > 0 || queue.pool_in_use > 0 {
                    return Some(format!("host {index} has\n{queue}"));
                }
            }
        }
        None
    }

    /// Goes on until a driver that was dropped has let go of its device: one device has one driver at a time.
    pub(crate) fn wait_until_left(&mut self, index: usize) -> Check {
        self.quiesce()?;
        let deadline = self.world.now() + LEFT;
        self.hosts[index].leaving = false;
        // One that is still coming up has no memory yet.
        let is_there = |host: &Host| Arc::strong_count(&host.injector) > 1 || !host.ledger.live_ranges().is_empty();
        while self.hosts[index].driver.is_none() && is_there(&self.hosts[index]) {
            if self.world.now() > deadline {
                let live = self.hosts[index].ledger.live_ranges();
                return failure(
                    "leak",
                    format!("host {index}: the driver was dropped, and the device still reaches {live:x?}"),
                );
            }
            self.sleep(Duration::from_millis(10))?;
        }
        Ok(())
    }

    /// Ends everything in order, and sees that nothing is left.
    pub(crate) fn finish(&mut self) -> Check {
        self.saves = None;
        self.quiesce()?;
        self.check_disks()?;
        // A device that cannot be stopped loses its memory, and is none the wiser.
        let mut unstoppable = Vec::new();
        for index in 0..self.hosts.len() {
            let host = &mut self.hosts[index];
            for kind in host.struck() {
                if kind == Kind::ResetFails {
                    unstoppable.push(index);
                }
                *self.tally.faults.entry(kind.name()).or_default() += 1;
            }
            host.injector.clear();
            host.namespaces.clear();
            host.registered = None;
            host.blame.ended = true;
            if let Some(driver) = host.driver.take() {
                self.count(&driver);
                let id = self.start(index, 0, What::Shutdown, operation::shutdown(driver), Vec::new(), None);
                self.wait_for(id)?;
            }
        }
        self.sleep(Duration::from_secs(60))?;
        for (index, host) in self.hosts.iter().enumerate() {
            let live = host.ledger.live_ranges();
            if !live.is_empty() {
                return failure("leak", format!("host {index}: the device still reaches {live:x?}"));
            }
            let faults = host.device.dma_space().faults();
            if !faults.is_empty() && !unstoppable.contains(&index) {
                return failure("dma", format!("host {index}: the device used memory that was not its: {faults:x?}"));
            }
        }
        let tasks = self.world.runtime().task_count();
        if tasks > 0 {
            return failure("leak", format!("{tasks} background tasks are left of drivers that have ended"));
        }
        Ok(())
    }

    /// Holds what is in storage against the model.
    fn check_disks(&mut self) -> Check {
        let now = self.tick();
        for (index, disk) in self.disks.iter().enumerate() {
            for lba in 0..disk.blocks {
                let Some(block) = disk.storage.block(lba) else { continue };
                let stamp = crate::model::stamp_of(&block);
                if !stamp.is_some_and(|stamp| disk.model.may_be(lba, stamp, now)) {
                    let text = format!(
                        "disk {index}, block {lba}: storage holds {stamp:x?} at {now}; the model knows{}",
                        disk.model.told(lba)
                    );
                    return failure("lost", text);
                }
            }
        }
        Ok(())
    }
}

/// Whether this driver still has the host's device, and has not reset it since.
fn is_driven_by(host: &Host, well: Option<&(Arc<NvmeDriver>, u64)>) -> bool {
    let (Some(driver), Some((seen, resets))) = (&host.driver, well) else { return false };
    let same = Arc::ptr_eq(driver, seen) && driver.state() == ControllerState::Running;
    same && driver.inspect().controller.resets == *resets
}

/// The disk that has this identity, if there is one.
pub(crate) fn disk_of(id: &NamespaceId) -> Option<usize> {
    (u128::from_be_bytes(id.nguid?) as usize).checked_sub(1)
}
