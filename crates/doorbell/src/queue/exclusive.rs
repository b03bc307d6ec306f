//! A queue pair with one owner, who submits and looks for completions alone: no wakers, and a slot is free as soon as
//! its completion is found. Everything rare is done by others all the same, so the lock stays; nobody is ever in its way.

use arrayvec::ArrayVec;
use nvme_spec::{Command, Completion};

use super::lists::List;
use super::pair::{Gate, Held, Inner, Notes, QueuePair};
use super::slots::State;
use crate::error::{Lost, NvmeError, RequestError};
use crate::memory::DmaBuffer;

/// Completions that the owner takes at a time.
pub(crate) const AT_ONCE: usize = 64;

/// A command that has ended. Its slot is another's already.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) slot: u16,
    /// The owner's name for it.
    pub(crate) tag: u64,
    state: State,
    words: [u64; 2],
}

/// Those of one look.
pub(crate) type Found = ArrayVec<Ended, AT_ONCE>;

impl QueuePair {
    /// Submits a command of the owner's and rings; its slot. `build` gets the slot's list memory, and may fail before
    /// anything is sent.
    #[inline(always)]
    pub(crate) fn submit_own(
        &self,
        notes: Notes,
        build: impl FnOnce(List<'_>) -> Result<Command, RequestError>,
    ) -> Result<u16, RequestError> {
        let mut inner = self.lock.lock();
        let Some(slot) = self.free_slot(&mut inner) else {
            let error = self.no_slot(&inner);
            self.unlock(inner);
            return Err(error);
        };
        match build(self.lists.of(slot)) {
            Ok(command) => {
                self.push(&mut inner, slot, command, notes);
                // Counted by the commands.
                self.sq_doorbell.ring(inner.sq.tail().into());
                self.unlock(inner);
                Ok(slot)
            }
            Err(error) => {
                self.put_back(inner, &[slot]);
                Err(error)
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn no_slot(&self, inner: &Inner) -> RequestError {
        if inner.rare.gate == Gate::Closed { self.lost().into() } else { RequestError::WouldWait }
    }

    /// Takes what has ended, as much as `found` has room for.
    #[inline]
    pub(crate) fn look_own(&self, found: &mut Found) {
        let mut inner = self.lock.lock();
        if !inner.rare.is_quiet() {
            self.take_ended(&mut inner, found);
        }
        let room = found.remaining_capacity();
        self.take_completions(&mut inner, room, |inner, index, slot, cid, words| {
            found.push(Ended { slot: index, tag: slot.tag(), state: State::Done, words });
            slot.set_state(State::Free, cid);
            inner.taken.put_back(index);
        });
        self.unlock(inner);
    }

    /// Takes what has ended without the owner's doing: somebody else looked, or the queue was reset or given up.
    #[cold]
    #[inline(never)]
    fn take_ended(&self, inner: &mut Inner, found: &mut Found) {
        // While it is held still, it is not decided whose they are.
        if !inner.rare.ended || inner.rare.frozen.is_some() {
            return;
        }
        for index in 0..self.depth() {
            let slot = self.slots.at(index);
            let (state @ (State::Done | State::Lost | State::Interrupted), cid) = slot.state() else { continue };
            if found.is_full() {
                // There is more, for the next look.
                return;
            }
            found.push(Ended { slot: index, tag: slot.tag(), state, words: slot.result().to_words() });
            slot.set_state(State::Free, cid);
            inner.taken.put_back(index);
        }
        inner.rare.ended = false;
    }

    /// What came of a command.
    #[inline]
    pub(crate) fn result_of(&self, ended: &Ended) -> Result<(), Box<RequestError>> {
        match ended.state {
            State::Done if Completion::from_words(ended.words).status.is_success() => Ok(()),
            _ => Err(Box::new(self.error_of(ended))),
        }
    }

    #[cold]
    #[inline(never)]
    fn error_of(&self, ended: &Ended) -> RequestError {
        match ended.state {
            State::Done => NvmeError::new(&Completion::from_words(ended.words)).into(),
            State::Interrupted => Lost::Interrupted.into(),
            _ => self.lost().into(),
        }
    }

    /// The owner goes away: what the device still works on stays, the buffers with it, until the device is done.
    pub(crate) fn disown(&self, mut buffer_of: impl FnMut(u16) -> Option<DmaBuffer>) {
        self.locked(|inner| {
            for index in 0..self.depth() {
                let slot = self.slots.at(index);
                match slot.state() {
                    (State::InFlight, cid) => {
                        slot.set_state(State::Orphaned, cid);
                        inner.counters.orphaned += 1;
                        if let Some(buffer) = buffer_of(index) {
                            inner.held.push((index, Held::from(Some(buffer))));
                        }
                    }
                    (State::Done | State::Returned | State::Lost | State::Interrupted, cid) => {
                        slot.set_state(State::Free, cid);
                        inner.taken.put_back(index);
                    }
                    (State::Free | State::Orphaned, _) => {}
                }
            }
        });
    }
}
