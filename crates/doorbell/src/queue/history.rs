//! Which commands may be sent once more after the controller was reset: only those of which it is certain that doing
//! them again, or now, changes nothing for anybody who was told of a result.
//!
//! A slot keeps its command after it ended, until the next one takes its place. So a queue knows some of what it did
//! since a moment, and by the commands' numbers it knows whether that is all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{AdminOpcode, Command, NSID_ALL, NvmOpcode};

/// How many moments are remembered.
const MOMENTS: usize = 128;

/// What a queue knows of its commands.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub(crate) queue: u16,
    /// How many commands it has sent so far: the number of the last one.
    pub(crate) submitted: u64,
    /// The last command of each slot that had one.
    pub(crate) slots: Vec<Past>,
}

/// A command that is in flight, or has ended.
#[derive(Debug, Clone)]
pub(crate) struct Past {
    pub(crate) cid: u16,
    pub(crate) in_flight: bool,
    /// Its number in its queue, from 1.
    pub(crate) sequence: u64,
    pub(crate) command: Command,
}

/// How far each queue was at some moments, so that commands of different queues can be put in order, roughly.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// Commands sent by then, by queue; the oldest first.
    moments: VecDeque<BTreeMap<u16, u64>>,
}

impl Moments {
    /// Remembers how far each queue is now.
    pub(crate) fn add(&mut self, submitted: BTreeMap<u16, u64>) {
        if self.moments.len() == MOMENTS {
            self.moments.pop_front();
        }
        self.moments.push_back(submitted);
    }

    /// How far each queue was at the latest moment before a queue's command of this number.
    fn before(&self, queue: u16, sequence: u64) -> Option<&BTreeMap<u16, u64>> {
        self.moments.iter().rev().find(|moment| moment.get(&queue).copied().unwrap_or(0) < sequence)
    }
}

/// What a command changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changes {
    Nothing,
    Blocks {
        nsid: u32,
        first: u64,
        end: u64,
    },
    /// Anything, for all that is known.
    Anything,
}

impl Changes {
    pub(crate) fn of(queue: u16, command: &Command) -> Self {
        if queue == 0 {
            return match AdminOpcode(command.cdw0.opcode()) {
                AdminOpcode::FORMAT_NVM
                | AdminOpcode::SANITIZE
                | AdminOpcode::NAMESPACE_MANAGEMENT
                | AdminOpcode::NAMESPACE_ATTACHMENT => Changes::Anything,
                AdminOpcode(opcode) if opcode >= 0xc0 => Changes::Anything,
                _ => Changes::Nothing,
            };
        }
        match NvmOpcode(command.cdw0.opcode()) {
            NvmOpcode::READ
            | NvmOpcode::COMPARE
            | NvmOpcode::VERIFY
            | NvmOpcode::FLUSH
            | NvmOpcode::RESERVATION_REGISTER
            | NvmOpcode::RESERVATION_REPORT
            | NvmOpcode::RESERVATION_ACQUIRE
            | NvmOpcode::RESERVATION_RELEASE => Changes::Nothing,
            NvmOpcode::WRITE | NvmOpcode::WRITE_ZEROES | NvmOpcode::WRITE_UNCORRECTABLE if command.nsid != NSID_ALL => {
                let first = command.cdw10_11();
                let count = u64::from(ReadWriteCdw12::from(command.cdw12).nlb()) + 1;
                Changes::Blocks { nsid: command.nsid, first, end: first.saturating_add(count) }
            }
            // Copies and deallocations name their blocks in memory that may be another's by now.
            _ => Changes::Anything,
        }
    }

    pub(crate) fn overlap(self, other: Self) -> bool {
        match (self, other) {
            (Changes::Nothing, _) | (_, Changes::Nothing) => false,
            (Changes::Anything, _) | (_, Changes::Anything) => true,
            (Changes::Blocks { nsid, first, end }, Changes::Blocks { nsid: other, first: from, end: to }) => {
                nsid == other && first < to && from < end
            }
        }
    }
}

/// Which of the commands in flight may be sent again, by queue and identifier. `may_write` says of a namespace whether
/// its blocks may be written again at all: no other host writes to it, or the caller takes that on.
pub(crate) fn replayable(
    histories: &[History],
    moments: &Moments,
    may_write: impl Fn(u32) -> bool,
) -> BTreeSet<(u16, u16)> {
    let mut found = BTreeSet::new();
    for history in histories.iter().filter(|history| history.queue != 0) {
        for past in history.slots.iter().filter(|past| past.in_flight) {
            let alone = past.command.cdw0.fuse() == 0;
            let may = match NvmOpcode(past.command.cdw0.opcode()) {
                NvmOpcode::READ | NvmOpcode::COMPARE | NvmOpcode::VERIFY => true,
                NvmOpcode::WRITE | NvmOpcode::WRITE_ZEROES | NvmOpcode::DSM => {
                    may_write(past.command.nsid) && is_last(history.queue, past, histories, moments)
                }
                _ => false,
            };
            if alone && may {
                found.insert((history.queue, past.cid));
            }
        }
    }
    found
}

/// Whether it is certain that no command which changes the same blocks was sent since this one.
fn is_last(queue: u16, past: &Past, histories: &[History], moments: &Moments) -> bool {
    let changes = Changes::of(queue, &past.command);
    let moment = moments.before(queue, past.sequence);
    histories.iter().all(|history| {
        let since = if history.queue == queue {
            past.sequence
        } else {
            match moment {
                Some(moment) => moment.get(&history.queue).copied().unwrap_or(0),
                // There was no look at the queues since: all of its life counts.
                None => 0,
            }
        };
        let later = || history.slots.iter().filter(|other| other.sequence > since);
        let known = later().count() as u64 == history.submitted.saturating_sub(since);
        known && !later().any(|other| changes.overlap(Changes::of(history.queue, &other.command)))
    })
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
