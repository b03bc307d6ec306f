//! Enabling, disabling, shutting down, resetting (NVMe Base 2.0, "Controller Initialization", "Controller Level Reset",
//! "Shutdown"); and what time brings.

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::event::EventKind;
use nvme_spec::feature::AsyncEventConfiguration;
use nvme_spec::log::LogId;
use nvme_spec::registers::{Cc, Csts};

use super::{Controller, Plight};
use crate::fault::Trouble;
use crate::lane::Operation;
use crate::port::{Mail, Reset};
use crate::queues::{CompletionQueue, DoorbellSlot, SubmissionQueue};
use crate::registers::{Change, Due};
use crate::reservation::HostId;
use crate::sync::read;

impl Controller {
    /// Whether commands are taken.
    #[inline]
    pub(super) fn is_processing(&self) -> bool {
        self.registers.take_commands() && self.plight == Plight::None
    }

    /// The host writes CC.
    pub(super) fn write_cc(&mut self, host: &Host<'_>, cc: Cc) {
        let before = std::mem::replace(&mut self.registers.cc, cc);
        if before.en() && !cc.en() {
            self.reset_controller();
            self.registers.change = Some(Change::Disabling(Due::after(self.config.disable_after)));
        }
        if !before.en() && cc.en() {
            self.enable(host);
        }
        if cc.shn() != before.shn() && cc.shn() != Cc::SHN_NONE && self.registers.csts.shst() == Csts::SHST_NONE {
            self.registers.csts.set_shst(Csts::SHST_OCCURRING);
            self.registers.shutdown = Some(Due::after(self.config.shutdown_after));
        }
        // What takes no time is done by the time the write is.
        self.pass_register_time(None);
    }

    fn enable(&mut self, host: &Host<'_>) {
        // What changed before is for the host to find out by itself.
        self.events.reset();
        self.changed.clear();
        // A host that did not wait for RDY to be 0 waits for it to be 1 again.
        self.registers.csts = self.registers.csts.with_rdy(false).with_shst(Csts::SHST_NONE);
        self.registers.shutdown = None;
        if let Some(trouble) = self.judge.enabled() {
            self.befall(trouble);
            if trouble != Trouble::Stuck {
                return;
            }
        }
        if !self.registers.enable_is_valid() {
            self.fail();
            return;
        }
        let dstrd = self.config.dstrd;
        let registers = &self.registers;
        let entries = |zeroes_based: u16| u32::from(zeroes_based).saturating_add(1);
        let (sqes, cqes) = (entries(registers.aqa.asqs()), entries(registers.aqa.acqs()));
        let vector = (self.config.vectors > 0).then_some(0);
        let completion = CompletionQueue::new(host, registers.acq, cqes, vector, DoorbellSlot::head(0, dstrd));
        let submission = SubmissionQueue::new(host, 0, 0, registers.asq, sqes, DoorbellSlot::tail(0, dstrd));
        // Without shadow doorbells, which the admin queue has none of, adding touches no memory.
        let _ = self.queues.add_completion(host.dma, dstrd, 0, completion);
        let _ = self.queues.add_submission(host.dma, dstrd, submission);
        self.registers.change = Some(Change::Enabling(Due::after(self.config.ready_after)));
    }

    /// CSTS.CFS: the controller cannot go on.
    pub(crate) fn fail(&mut self) {
        tracing::warn!(cntlid = self.port.cntlid, "controller fatal status");
        self.registers.csts.set_cfs(true);
    }

    /// A fault plan strikes.
    pub(super) fn befall(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Fatal => self.fail(),
            Trouble::Stuck => self.plight = Plight::Stuck,
            Trouble::NotReady => self.registers.change = None,
            Trouble::Gone => self.plight = Plight::Gone,
        }
    }

    /// What a reset of any kind does.
    fn reset_controller(&mut self) {
        self.queues.clear();
        self.delayed.clear();
        self.deletions.clear();
        self.reset_at = self.lanes.orphan();
        self.flushing = false;
        self.events.reset();
        self.changed.clear();
        self.reservation_log.clear();
        self.features.reset();
        self.registers.reset();
        self.raise = 0;
        self.gathering = None;
        self.backlogged = false;
        if self.plight == Plight::Stuck {
            self.plight = Plight::None;
        }
        if matches!(self.host, HostId::Unset { .. }) {
            self.subsystem.forget_host(self.host);
        }
        self.epoch = self.epoch.wrapping_add(1);
        self.set_host(HostId::Unset { cntlid: self.port.cntlid, epoch: self.epoch });
    }

    pub(crate) fn set_host(&mut self, host: HostId) {
        self.host = host;
        self.port.set_host(host);
    }

    /// What a reset of the function does: all registers are as after power-on.
    pub(super) fn reset_function(&mut self) {
        self.reset_controller();
        self.registers = crate::registers::Registers::new(&self.config);
        if !self.lanes.has_passed(self.reset_at) {
            // Until nothing of before touches the host's memory any more, the reset is not over.
            self.registers.csts.set_rdy(true);
            self.registers.change = Some(Change::Disabling(Due::after(Duration::ZERO)));
        }
    }

    /// Notices what the subsystem has left for this controller.
    #[cold]
    pub(super) fn read_mail(&mut self) {
        let Mail { table, changed, notices, abort, reset } = self.port.collect();
        if let Some(reset) = reset {
            self.reset_all(reset);
        }
        if table || !changed.is_empty() {
            self.table = self.subsystem.table(self.port.cntlid);
            self.lanes.follow(&self.table);
        }
        let wanted = AsyncEventConfiguration::from(self.features.async_events(&self.config)).namespace_attribute();
        for nsid in changed {
            self.changed.add(nsid);
            if wanted {
                self.events.raise(EventKind::NAMESPACE_ATTRIBUTE_CHANGED, LogId::CHANGED_NAMESPACES);
            }
        }
        for (nsid, notice) in notices {
            let mask = self.features.notification_mask(nsid);
            if mask & 1 << notice as u32 == 0 {
                self.reservation_log.add(nsid, notice);
                self.events.raise(EventKind::RESERVATION_LOG_PAGE_AVAILABLE, LogId::RESERVATION_NOTIFICATION);
            }
        }
        for nsid in abort {
            self.abort_namespace(nsid);
        }
    }

    fn reset_all(&mut self, reset: Reset) {
        if reset == Reset::PowerCycle {
            let clean = !self.registers.cc.en() || self.registers.csts.shst() == Csts::SHST_COMPLETE;
            self.health.unsafe_shutdowns = self.health.unsafe_shutdowns.saturating_add(u64::from(!clean));
            self.health.power_cycles = self.health.power_cycles.saturating_add(1);
            self.powered_on = Some(self.now);
        }
        self.reset_function();
        self.registers.csts.set_nssro(reset == Reset::Subsystem && self.config.nssrs);
    }

    /// Does what is due; true if there was something.
    #[inline]
    pub(super) fn pass_time(&mut self, host: &Host<'_>) -> bool {
        let mut worked = false;
        if self.registers.will_change() {
            worked |= self.pass_register_time(Some(self.now));
        }
        if !self.judge.is_idle()
            && let Some(trouble) = self.judge.time(self.now)
        {
            self.befall(trouble);
            worked = true;
        }
        if !self.delayed.is_empty() && self.is_processing() {
            while let Some(done) = self.delayed.pop(self.now) {
                self.post(host, done);
                worked = true;
            }
        }
        worked
    }

    fn pass_register_time(&mut self, now: Option<Duration>) -> bool {
        let mut worked = false;
        let is_at_rest = self.lanes.has_passed(self.reset_at);
        let ready = match &mut self.registers.change {
            Some(Change::Enabling(due)) => due.is_over(now).then_some(true),
            Some(Change::Disabling(due)) => due.is_over(now).then_some(false),
            None => None,
        };
        if let Some(ready) = ready.filter(|_| is_at_rest) {
            self.registers.change = None;
            self.registers.csts.set_rdy(ready);
            worked = true;
        }
        if self.registers.shutdown.as_mut().is_some_and(|due| due.is_over(now)) {
            if self.registers.cc.shn() == Cc::SHN_NORMAL && !std::mem::replace(&mut self.flushing, true) {
                self.flush_all();
            }
            if self.lanes.outstanding() == 0 {
                self.flushing = false;
                self.registers.shutdown = None;
                self.registers.csts.set_shst(Csts::SHST_COMPLETE);
                worked = true;
            }
        }
        worked
    }

    /// Makes everything durable; what fails now fails silently, as on a shutdown nobody is there to be told.
    fn flush_all(&mut self) {
        let ticket = self.lanes.begin(None);
        for namespace in self.table.iter().flatten() {
            if namespace.finishes_later() {
                let _ = self.lanes.submit(namespace, ticket, Operation::Flush);
            } else if let Err(error) = read(&namespace.state).data.flush() {
                tracing::warn!(nsid = namespace.nsid, %error, "flush on shutdown failed");
            }
        }
        self.lanes.seal(ticket, None);
    }
}
