//! What few commands have besides what every slot holds. Only those pay for it.

use std::time::Duration;

use super::apart::Apart;
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

/// What a command has besides.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extra {
    /// The command's number in its queue, which tells it from the slot's earlier ones.
    pub(super) sequence: u64,
    pub(super) limit: TimeLimit,
    /// Pages of the pool: the first, and how many.
    pub(super) pages: (u32, u32),
}

/// By slot; none until there is one.
#[derive(Default)]
pub(super) struct Extras(Option<Apart<Extra>>);

impl Extras {
    pub(super) fn set(&mut self, slot: u16, depth: u16, extra: Extra) {
        let extras = self.0.get_or_insert_with(|| Apart::new(depth.into(), |_| Extra::default()));
        if let Some(of_slot) = extras.get_mut(usize::from(slot)) {
            *of_slot = extra;
        }
    }

    /// What the command of this number, which has the slot now, has besides.
    pub(super) fn get(&self, slot: u16, sequence: u64) -> Extra {
        match self.0.as_ref().and_then(|extras| extras.get(usize::from(slot))) {
            Some(extra) if extra.sequence == sequence => *extra,
            _ => Extra::default(),
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
                let limit = inner.extras.get(index, sequence).limit;
                Some(InFlight { cid, opcode: slot.command().cdw0.opcode(), sequence, limit })
            }
            _ => None,
        });
        let in_flight = in_flight.collect();
        self.unlock(inner);
        in_flight
    }
}
