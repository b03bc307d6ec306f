//! A controller as bytes, and back.

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::Command;
use nvme_spec::nvm::ReadWriteCdw12;
use prost::Message;

use super::{Controller, Lanes, Mark, Outcome, Plight, Scratch, Waiting};
use crate::admin::changed::ChangedNamespaces;
use crate::admin::features::Features;
use crate::admin::reservation_log::ReservationLog;
use crate::delayed::Delayed;
use crate::events::Events;
use crate::fault::Judge;
use crate::health::Health;
use crate::lane::Ticket;
use crate::queues::Queues;
use crate::registers::Registers;
use crate::saved::{CrossingError, StateError, bad, decode, nanos, narrow, state, time};
use crate::subsystem::Subsystem;
use crate::sync::read;

impl Controller {
    /// Takes no commands, and tells the host of those that have ended. True once nothing is outstanding that could not be
    /// [gone on with](crate::Lane::may_leave) elsewhere: then it can be [saved](Self::save).
    pub fn come_to_rest(&mut self, host: &Host<'_>, now: Duration) -> bool {
        self.now = now;
        self.lanes.poll();
        if self.port.has_mail() {
            self.read_mail();
        }
        self.post_finished(host);
        self.raise_interrupts(host);
        self.lanes.may_leave()
    }

    /// The controller as bytes, for [`restore`](Self::restore). Commands that it has not taken are in the host's memory.
    ///
    /// # Errors
    /// If storage has something outstanding that has to end here: see [`come_to_rest`](Self::come_to_rest).
    pub fn save(&self) -> Result<Vec<u8>, CrossingError> {
        if !self.lanes.may_leave() {
            return Err(CrossingError::Outstanding { outstanding: self.lanes.outstanding() });
        }
        let (outstanding, next) = self.lanes.save();
        let (faults, faults_matched, faults_applied) = self.judge.save();
        let (changed, more_changed) = self.changed.save();
        let gathering = self.gathering.map_or(0, |gathering| gathering.queues);
        let mut saved = state::Controller {
            cntlid: self.port.cntlid.into(),
            config: Some(state::Config::save(&self.config)),
            registers: Some(self.registers.save()),
            features: Some(self.features.save()),
            events: Some(self.events.save()),
            changed,
            more_changed,
            reservation_log: Some(self.reservation_log.save()),
            health: Some(self.health.save()),
            delayed: self.delayed.save(),
            now: nanos(self.now),
            powered_on: self.powered_on.map(nanos),
            faults,
            faults_matched,
            faults_applied,
            epoch: self.epoch,
            // What waits for more completions comes at once.
            raise: (0..128).filter(|cqid| (self.raise | gathering) >> cqid & 1 != 0).collect(),
            plight: match self.plight {
                Plight::None => 0,
                Plight::Stuck => 1,
                Plight::Gone => 2,
            },
            deletions: self.deletions.iter().flat_map(|(_, command)| command.to_words()).collect(),
            flushing: self.flushing,
            outstanding,
            next,
            ..state::Controller::default()
        };
        self.queues.save(&mut saved);
        Ok(saved.encode_to_vec())
    }

    /// The controller of a [restored](Subsystem::restore) subsystem that [`save`](Self::save) gave. Nothing of the host is
    /// touched; its doorbells are looked at when the controller next runs. Before that, it has to [resume](Self::resume) what
    /// was outstanding.
    ///
    /// # Errors
    /// If the bytes are no such state.
    pub fn restore(subsystem: &Subsystem, bytes: &[u8]) -> Result<Self, StateError> {
        let mut saved: state::Controller = decode(bytes)?;
        let cntlid = narrow("CNTLID", saved.cntlid)?;
        let Some(port) = subsystem.port(cntlid) else {
            return bad(format!("controller {cntlid}, which the subsystem does not have"));
        };
        let config = saved.config.take().unwrap_or_default().restore()?;
        let queues = Queues::restore(&mut saved, config.dstrd)?;
        let (commands, rest) = saved.deletions.as_chunks::<8>();
        if !rest.is_empty() || commands.len() > queues.submission.len() {
            return bad(format!("{} words of deletions", saved.deletions.len()));
        }
        let deletions = commands.iter().map(|words| {
            let command = Command::from_words(*words);
            (nvme_spec::admin::DeleteQueueCdw10::from(command.cdw10).qid(), command)
        });
        Ok(Self {
            registers: Registers::restore(&config, saved.registers.unwrap_or_default()),
            host: port.host(),
            judge: Judge::restore(&saved.faults, &saved.faults_matched, &saved.faults_applied)?,
            subsystem: subsystem.clone(),
            port,
            table: Vec::new(),
            backlogged: queues.completion.iter().flatten().any(|queue| !queue.backlog.is_empty()),
            settled: false,
            queues,
            features: Features::restore(&saved.features.unwrap_or_default())?,
            events: Events::restore(&saved.events.unwrap_or_default())?,
            changed: ChangedNamespaces::restore(&saved.changed, saved.more_changed),
            reservation_log: ReservationLog::restore(&saved.reservation_log.unwrap_or_default())?,
            health: Health::restore(saved.health.unwrap_or_default())?,
            delayed: Delayed::restore(saved.delayed)?,
            scratch: Scratch::default(),
            now: time(saved.now),
            powered_on: saved.powered_on.map(time),
            epoch: saved.epoch,
            raise: saved.raise.iter().fold(0, |raise, cqid| raise | 1u128 << (cqid & 127)),
            gathering: None,
            plight: match saved.plight {
                0 => Plight::None,
                1 => Plight::Stuck,
                2 => Plight::Gone,
                other => return bad(format!("plight {other}")),
            },
            lanes: Lanes::restore(cntlid, &saved.outstanding, saved.next)?,
            reset_at: Mark::default(),
            deletions: deletions.collect(),
            flushing: saved.flushing,
            config,
        })
    }

    /// Goes on with what was outstanding when it was [saved](Self::save), once its storage is there and before anything else
    /// becomes of a [restored](Self::restore) controller.
    pub fn resume(&mut self, host: &Host<'_>, now: Duration) {
        self.now = now;
        self.table = self.subsystem.table(self.port.cntlid);
        self.lanes.follow(&self.table);
        while let Some((ticket, command)) = self.lanes.next_left_over() {
            if self.is_resumed(ticket, &command) {
                continue;
            }
            let Some(Waiting { sqid, command, .. }) = self.lanes.take_back(ticket) else { continue };
            if let Outcome::Done(result) = self.io(host, sqid, &command, None) {
                self.finish(host, sqid, &command, result, None);
            }
        }
    }

    fn is_resumed(&mut self, ticket: Ticket, command: &Command) -> bool {
        let Some(namespace) = self.namespace(command.nsid).cloned() else { return false };
        let layout = read(&namespace.state).layout;
        let blocks = ReadWriteCdw12::from(command.cdw12).block_count();
        let (offset, len) = (layout.bytes(command.cdw10_11()), layout.bytes(blocks.into()));
        self.lanes.resume(&namespace, ticket, offset, len)
    }
}
