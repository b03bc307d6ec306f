//! A driver that is saved: held still for a while, and then it goes on, or another one of the same process does (rules H1 to
//! H8 of the contract).

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use doorbell::{ErrorClass, InheritedCommand, InheritedResult, RequestError, Restored, Saved};
use nvme_spec::{AdminOpcode, Status};

use crate::agreement::Group;
use crate::blame::is_absent;
use crate::model::Tick;
use crate::operation::{self, Crossed, Operation, Sent, What};
use crate::rng::Rng;
use crate::run::{Check, Run, failure};

/// A driver that is held still.
pub(crate) struct Held {
    saved: Saved,
    /// After so many more steps it is decided what becomes of it.
    steps: u8,
    /// Another driver is to have the controller.
    give: bool,
}

/// Saves wherever they fall: between any two polls of futures and of background tasks, or looks at devices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Saves {
    pub(crate) first: u64,
    pub(crate) every: u64,
    pub(crate) then: Then,
}

/// What becomes of a driver that is saved so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Then {
    /// Another one goes on at once.
    HandedOver,
    /// It is held still for a few steps, and another goes on.
    HandedOverLater,
    /// It is held still for a few steps, and goes on.
    GoneOnWith,
}

impl Saves {
    /// Every so many moments, wherever that is in a step.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let every = rng.pick(&[100, 400, 1500]);
        let then = rng.pick(&[Then::HandedOver, Then::HandedOverLater, Then::GoneOnWith]);
        Self { first: rng.below(every), every, then }
    }

    /// Whether drivers are saved at this moment.
    pub(crate) fn are_due(&self, moment: u64) -> bool {
        moment.checked_sub(self.first).is_some_and(|since| since.is_multiple_of(self.every))
    }
}

impl Run {
    /// Saves the drivers that there are, in the middle of whatever they are about.
    pub(crate) fn save_between(&mut self, then: Then) -> Check {
        for host in 0..self.hosts.len() {
            if !self.save(host, 2, then != Then::GoneOnWith) {
                continue;
            }
            self.tally.outcome("save: between two polls");
            if then == Then::HandedOver {
                self.decide(host)?;
            }
        }
        Ok(())
    }

    /// Holds a host's driver still.
    pub(crate) fn save(&mut self, host: usize, steps: u8, give: bool) -> bool {
        let host = host % self.hosts.len();
        let host = &mut self.hosts[host];
        let Some(driver) = &host.driver else { return false };
        match driver.save() {
            Ok(saved) => {
                host.held = Some(Held { saved, steps, give });
                true
            }
            Err(not_yet) => {
                self.tally.outcome(&format!("save: {not_yet}"));
                false
            }
        }
    }

    /// A step has been made: those that were held still long enough are not any more.
    pub(crate) fn count_down(&mut self) -> Check {
        for index in 0..self.hosts.len() {
            match &mut self.hosts[index].held {
                Some(held) if held.steps > 0 => held.steps -= 1,
                Some(_) => self.decide(index)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Nothing is held still any more; whether something was.
    pub(crate) fn decide_all(&mut self) -> Check<bool> {
        let held: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].held.is_some()).collect();
        for index in &held {
            self.decide(*index)?;
        }
        Ok(!held.is_empty())
    }

    fn decide(&mut self, index: usize) -> Check {
        let Some(Held { saved, give, .. }) = self.hosts[index].held.take() else { return Ok(()) };
        let options = self.hosts[index].options(&self.world, &self.setup, index);
        if !give {
            // Somebody who could have gone on with it, and does not.
            let prepared = options.prepare_restore(saved.state(), saved.memory().to_vec());
            return match prepared {
                Ok(_) => {
                    self.tally.outcome("save: gone on with");
                    Ok(())
                }
                Err(_) if self.hosts[index].blame.disturbed => Ok(()),
                Err(error) => {
                    failure("restore", format!("host {index}: nobody can go on with the controller: {error}"))
                }
            };
        }
        let restored =
            pin!(options.restore(saved.state(), saved.memory().to_vec())).poll(&mut Context::from_waker(Waker::noop()));
        match restored {
            Poll::Ready(Ok(restored)) => {
                saved.hand_over();
                self.tally.outcome("save: handed over");
                self.go_on_with(index, restored);
                Ok(())
            }
            Poll::Ready(Err(error)) => {
                self.tally.outcome("save: not restored");
                if self.hosts[index].blame.disturbed {
                    return Ok(());
                }
                failure("restore", format!("host {index}: the controller is not gone on with: {error}"))
            }
            Poll::Pending => failure("restore", "a driver waits before it goes on with a controller"),
        }
    }

    fn go_on_with(&mut self, index: usize, restored: Restored) {
        let host = &mut self.hosts[index];
        let old = host.driver.take();
        host.blame.handed_over = true;
        host.namespaces.iter_mut().for_each(|namespace| *namespace = None);
        host.registered = restored.guest_memory.into_iter().next();
        host.leaving = false;
        host.driver = Some(Arc::new(restored.driver));
        if let Some(old) = old {
            self.count(&old);
        }
        let of_host = self.operations.iter().filter(|operation| operation.host == index);
        let mut crossing: BTreeMap<Tick, Crossed> = of_host.filter_map(Operation::crossed).collect();
        for command in restored.commands {
            // Nobody asks what became of some.
            if self.rng.one_in(3) {
                continue;
            }
            let crossed = crossing.remove(&command.tag()).filter(|crossed| crossed.is(&command));
            let start = crossed.as_ref().map(|crossed| crossed.start);
            let sent = Sent { queue: command.queue(), command: *command.command() };
            let (disk, what) = (crossed.as_ref().map_or(0, |crossed| crossed.disk), What::Claimed(sent, crossed));
            let id = self.start(index, disk, what, operation::claim(command), Vec::new(), None);
            if let Some(operation) = self.operations.iter_mut().find(|operation| operation.id == id) {
                operation.start = start.unwrap_or(operation.start);
            }
        }
    }

    /// The old driver knows nothing more of it. It may take effect until all has ended.
    pub(crate) fn crossed_over(&mut self, operation: Operation) -> Check {
        self.tally.outcome(&format!("{}: handed over", operation.what.name()));
        self.hosts[operation.host].quarantine.extend(operation.pages);
        if self.hosts[operation.host].blame.handed_over {
            return Ok(());
        }
        failure("error", "a command ended as handed over, and nothing was")
    }

    /// What was in flight then has ended, and its new owner hears of it.
    pub(crate) fn claimed(
        &mut self,
        host: usize,
        sent: Sent,
        crossed: Option<Crossed>,
        result: InheritedResult,
    ) -> Check {
        let outcome = match (&result.completion, &crossed) {
            (Ok(_), Some(_)) => "done",
            (Ok(_), None) => "done, of what is not known",
            (Err(_), _) => "failed",
        };
        self.tally.outcome(&format!("claimed: {outcome}"));
        if let (Ok(_), Some(crossed)) = (&result.completion, &crossed) {
            self.was_allowed(host, crossed.disk, crossed.group(), crossed.start)?;
        }
        let kept_out = |error: &RequestError, crossed: &Option<Crossed>| match crossed {
            Some(crossed) => self.is_kept_out(host, crossed.disk, crossed.group(), crossed.start, error),
            None => self.setup.reservations && is_of_reservations(error),
        };
        match (result.completion, crossed) {
            // Nobody knows what it was to compare.
            (Err(error), None) if differs(&error) => Ok(()),
            (Err(error), crossed) if kept_out(&error, &crossed) => Ok(()),
            // Drivers look again at namespaces that are long gone.
            (Err(error), _) if sent.is_identify() && error.status().is_some_and(is_absent) => Ok(()),
            // Nobody held its namespace any more when the controller was reset, so it was not sent again.
            (Err(error), _)
                if self.hosts[host].blame.disturbed && error.status() == Some(Status::INVALID_NAMESPACE_OR_FORMAT) =>
            {
                Ok(())
            }
            (Err(error), _) if !self.hosts[host].permits(&error) => failure(
                "error",
                format!(
                    "host {host}: {sent:?}, which was handed over, failed with `{error}`, for which there is no reason: {:?}",
                    self.hosts[host].blame
                ),
            ),
            (Err(_), _) | (Ok(_), None) => Ok(()),
            (Ok(_), Some(crossed)) if crossed.writes => {
                let now = self.tick();
                for lba in crossed.lba..crossed.lba + crossed.blocks {
                    self.disks[crossed.disk].model.write_ends(crossed.id, lba, true, crossed.fua, now);
                }
                Ok(())
            }
            (Ok(_), Some(crossed)) => {
                let data = match (result.data, result.buffer) {
                    (Some(data), _) => data,
                    (None, Some(buffer)) => buffer.to_vec(),
                    (None, None) => self.guest_data(host, crossed.blocks, &crossed.pages)?,
                };
                self.was_read(host, crossed.disk, crossed.lba, crossed.blocks, crossed.start, &data)
            }
        }
    }
}

/// What only who knows the command can judge.
fn is_of_reservations(error: &RequestError) -> bool {
    let any = [
        Status::RESERVATION_CONFLICT,
        Status::ABORTED_PREEMPT_AND_ABORT,
        // A report in the form that this host is not known by.
        Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT,
        // A key that means something else, or nothing.
        Status::INVALID_FIELD_IN_COMMAND,
    ];
    error.status().is_some_and(|status| any.contains(&status))
}

fn differs(error: &RequestError) -> bool {
    let halves = [Status::ABORTED_MISSING_FUSED, Status::ABORTED_FAILED_FUSED];
    error.class() == ErrorClass::Miscompare || error.status().is_some_and(|status| halves.contains(&status))
}

impl Sent {
    fn is_identify(&self) -> bool {
        self.queue == 0 && self.command.cdw0.opcode() == AdminOpcode::IDENTIFY.0
    }
}

impl Crossed {
    fn group(&self) -> Group {
        if self.writes { Group::Write } else { Group::Read }
    }

    /// Whether this command is all of the operation.
    fn is(&self, command: &InheritedCommand) -> bool {
        command.blocks() == Some((self.lba, self.blocks as u32))
    }
}
