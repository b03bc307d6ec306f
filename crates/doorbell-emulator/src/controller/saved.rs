//! A controller as bytes, and back.

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::Command;
use prost::Message;

use super::{Controller, Lanes, Mark, Plight, Scratch};
use crate::admin::changed::ChangedNamespaces;
use crate::admin::features::Features;
use crate::admin::reservation_log::ReservationLog;
use crate::delayed::Delayed;
use crate::events::Events;
use crate::fault::Judge;
use crate::health::Health;
use crate::queues::Queues;
use crate::registers::Registers;
use crate::saved::{CrossingError, StateError, bad, decode, nanos, narrow, state, time};
use crate::subsystem::Subsystem;

impl Controller {
    /// Takes no commands, and tells the host of those that have ended. True once nothing is outstanding: then it can be
    /// [saved](Self::save).
    pub fn come_to_rest(&mut self, host: &Host<'_>, now: Duration) -> bool {
        self.now = now;
        self.lanes.poll();
        if self.port.has_mail() {
            self.read_mail();
        }
        self.post_finished(host);
        self.raise_interrupts(host);
        self.lanes.outstanding() == 0
    }

    /// The controller as bytes, for [`restore`](Self::restore). Commands that it has not taken are in the host's memory.
    ///
    /// # Errors
    /// If storage has something outstanding: see [`come_to_rest`](Self::come_to_rest).
    pub fn save(&self) -> Result<Vec<u8>, CrossingError> {
        let outstanding = self.lanes.outstanding();
        if outstanding > 0 {
            return Err(CrossingError::Outstanding { outstanding });
        }
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
            ..state::Controller::default()
        };
        self.queues.save(&mut saved);
        Ok(saved.encode_to_vec())
    }

    /// The controller of a [restored](Subsystem::restore) subsystem that [`save`](Self::save) gave. Nothing of the host is
    /// touched; its doorbells are looked at when the controller next runs.
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
            lanes: Lanes::default(),
            reset_at: Mark::default(),
            deletions: deletions.collect(),
            flushing: saved.flushing,
            config,
        })
    }
}
