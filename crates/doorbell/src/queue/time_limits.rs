//! How long commands may take. Few say so for themselves, and only those cost anything.

use std::time::Duration;

use super::pair::QueuePair;
use super::slots::State;

/// How long a command may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TimeLimit {
    /// As long as commands of its kind.
    #[default]
    Usual,
    /// As long as it likes.
    None,
    After(Duration),
}

/// The limits of commands that have their own, by slot. A command's number tells it from those before it.
#[derive(Default)]
pub(super) struct TimeLimits(Box<[(u64, TimeLimit)]>);

impl TimeLimits {
    #[cold]
    pub(super) fn set(&mut self, slot: u16, depth: u16, sequence: u64, limit: TimeLimit) {
        if self.0.is_empty() {
            self.0 = vec![(0, TimeLimit::Usual); depth.into()].into();
        }
        if let Some(of_slot) = self.0.get_mut(usize::from(slot)) {
            *of_slot = (sequence, limit);
        }
    }

    fn get(&self, slot: u16, sequence: u64) -> TimeLimit {
        match self.0.get(usize::from(slot)) {
            Some((of, limit)) if *of == sequence => *limit,
            _ => TimeLimit::Usual,
        }
    }
}

/// A command that the device has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) cid: u16,
    pub(crate) opcode: u8,
    /// Its number in its queue.
    pub(crate) sequence: u64,
    pub(crate) limit: TimeLimit,
}

impl QueuePair {
    /// The commands that the device has.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        let inner = self.lock.lock();
        let slots = (0..self.depth()).map(|index| (index, self.slots.at(index)));
        let in_flight = slots.filter_map(|(index, slot)| match slot.state() {
            (State::InFlight | State::Orphaned, cid) => {
                let sequence = slot.sequence();
                let limit = inner.limits.get(index, sequence);
                Some(InFlight { cid, opcode: slot.command().cdw0.opcode(), sequence, limit })
            }
            _ => None,
        });
        let in_flight = in_flight.collect();
        self.unlock(inner);
        in_flight
    }
}
