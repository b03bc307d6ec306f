//! A queue pair through a controller reset: paused, emptied once the device is stopped, and opened again.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use nvme_spec::{Command, Completion, Status, StatusField};

use super::history::{History, Past};
use super::pair::{Gate, QueuePair, Rest};
use super::rings::{self, CompletionRing, SubmissionRing};
use super::slots::State;

impl QueuePair {
    /// Whoever comes waits in line until [`resume`](Self::resume). What is in flight goes on.
    pub(crate) fn pause(&self) {
        self.locked(|inner| {
            if inner.rare.gate == Gate::Open {
                inner.rare.gate = Gate::Paused;
            }
        });
    }

    /// Counts a command that is tried again.
    pub(crate) fn count_retry(&self) {
        self.locked(|inner| inner.counters.retried += 1);
    }

    /// How many commands were sent so far.
    pub(crate) fn submitted(&self) -> u64 {
        let inner = self.lock.lock();
        let submitted = inner.counters.submitted;
        self.unlock(inner);
        submitted
    }

    /// What the queue knows of the commands it has and had.
    pub(crate) fn history(&self) -> History {
        let inner = self.lock.lock();
        let submitted = inner.counters.submitted;
        let slots = (0..self.depth()).map(|index| {
            let slot = self.slots.at(index);
            let (state, cid) = slot.state();
            Past { cid, in_flight: state == State::InFlight, sequence: slot.sequence(), command: slot.command() }
        });
        let slots = slots.filter(|past| past.sequence != 0).collect();
        self.unlock(inner);
        History { queue: self.id, submitted, slots }
    }

    /// The device is stopped, and forgot the queue: empties the rings, and ends what was in flight without a result,
    /// but for the commands named in `keep`, which wait for [`resume`](Self::resume).
    pub(crate) fn after_stop(&self, keep: &BTreeSet<u16>) {
        self.locked(|inner| {
            rings::clear(&self.submission, &self.completion);
            let entries = self.depth() + 1;
            inner.sq = SubmissionRing::new(self.id, entries);
            inner.cq = CompletionRing::new(entries);
            inner.rare.halted = false;
            // The device is told again of what is kept.
            inner.rare.unrung.forget();
            *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let mut rest = inner.rare.rest.take().unwrap_or_else(|| Box::new(Rest::default()));
            rest.retired = true;
            for index in 0..self.depth() {
                let slot = self.slots.at(index);
                match slot.state() {
                    (State::InFlight, cid) if !keep.contains(&cid) => {
                        slot.set_state(State::Interrupted, cid);
                        rest.wakers.extend(inner.wakers.get_mut(usize::from(index)).and_then(Option::take));
                    }
                    (State::Orphaned, cid) => {
                        slot.set_state(State::Free, cid);
                        inner.taken.put_back(index);
                    }
                    _ => {}
                }
            }
            rest.held.extend(inner.held.drain(..).map(|(_, held)| held));
            inner.rare.ended = self.exclusive;
            inner.rare.rest = Some(rest);
        });
    }

    /// The device has the queue again: sends once more what was kept, in its old order, and takes commands. What was
    /// kept for a namespace of which `there` says, by NSID and the command's number, that it is gone ends with Invalid Namespace or Format.
    pub(crate) fn resume(&self, there: impl Fn(u32, u64) -> bool) {
        let mut inner = self.lock.lock();
        let mut kept: Vec<(u64, u16)> = (0..self.depth())
            .filter(|index| self.slots.at(*index).state().0 == State::InFlight)
            .map(|index| (self.slots.at(index).sequence(), index))
            .collect();
        kept.sort_unstable();
        let mut wakers = inner.rare.waiting.wakers();
        let mut sent = 0;
        for (_, index) in kept {
            let slot = self.slots.at(index);
            let (_, cid) = slot.state();
            let command: Command = slot.command();
            if there(command.nsid, slot.sequence()) {
                inner.sq.push(&self.submission, &command.to_words());
                sent += 1;
            } else {
                let status = StatusField::new().with_status(Status::INVALID_NAMESPACE_OR_FORMAT).with_dnr(true);
                slot.finish(cid, Completion { cid, sqid: self.id, status, ..Completion::default() }.to_words());
                inner.rare.rest().retired = true;
                wakers.extend(inner.wakers.get_mut(usize::from(index)).and_then(Option::take));
            }
        }
        if sent != 0 {
            inner.counters.replayed += sent;
            inner.counters.doorbells += 1;
            self.sq_doorbell.ring(inner.sq.tail().into());
        }
        if inner.rare.gate == Gate::Paused {
            inner.rare.gate = Gate::Open;
        }
        inner.rare.ended = self.exclusive;
        // Also those who were granted a slot before the pause.
        inner.rare.rest().wakers.append(&mut wakers);
        self.serve(&mut inner);
        self.unlock(inner);
    }
}
