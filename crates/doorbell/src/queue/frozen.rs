//! A queue pair that is held still, so that another process can take it over: nothing is sent, found or claimed, until
//! it is decided who goes on with it.

use doorbell_device::DmaMemory;

use super::pair::{Gate, Held, QueuePair, Rest};
use super::slots::{State, Token};
use crate::memory::DmaBuffer;

/// What is kept while a queue is held still.
#[derive(Default)]
pub(super) struct Frozen {
    /// Commands whose results were there, and not claimed yet.
    done: Vec<Unclaimed>,
}

struct Unclaimed {
    token: Token,
    /// Its future went meanwhile, and left this.
    left: Option<Held>,
}

impl Frozen {
    /// Whether it holds this command's result.
    pub(super) fn holds(&self, token: Token) -> bool {
        self.done.iter().any(|unclaimed| unclaimed.token == token)
    }

    /// The command's future goes. Its memory stays: it may be what was read.
    pub(super) fn forget(&mut self, token: Token, held: Held) {
        if let Some(unclaimed) = self.done.iter_mut().find(|unclaimed| unclaimed.token == token) {
            unclaimed.left = Some(held);
        }
    }
}

/// A queue pair as it is held still.
pub(crate) struct Still {
    pub(crate) sq_tail: u16,
    pub(crate) sq_head: u16,
    pub(crate) cq_head: u16,
    pub(crate) phase: bool,
    pub(crate) submitted: u64,
    /// The identifier of each slot's last command.
    pub(crate) identifiers: Vec<u16>,
    pub(crate) commands: Vec<StillCommand>,
}

/// A command that has a slot.
pub(crate) struct StillCommand {
    pub(crate) token: Token,
    pub(crate) state: Crossing,
    pub(crate) words: [u64; 8],
    pub(crate) result: [u64; 2],
    pub(crate) tag: u64,
    pub(crate) registration: u64,
    pub(crate) sequence: u64,
    /// Pages of the pool: the first, and how many.
    pub(crate) pages: (u32, u32),
    /// The buffer that its data is in, once it is known.
    pub(crate) buffer: Option<DmaBuffer>,
}

/// What becomes of a command that crosses over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crossing {
    InFlight,
    /// Nobody waits for it.
    Orphaned,
    /// Its result is there.
    Done,
}

impl QueuePair {
    /// Holds it still: who comes waits in line, and who waits for a result waits on. `None` if it is not working: it is
    /// being reset, or ended.
    pub(crate) fn freeze(&self) -> Option<Still> {
        let mut inner = self.lock.lock();
        if inner.rare.gate != Gate::Open || inner.rare.halted {
            self.unlock(inner);
            return None;
        }
        // The device knows of all there is.
        self.tell_all(&mut inner);
        inner.rare.gate = Gate::Paused;
        inner.rare.halted = true;
        let mut frozen = Frozen::default();
        let mut still = Still {
            sq_tail: inner.sq.tail(),
            sq_head: inner.sq.head(),
            cq_head: inner.cq.head(),
            phase: inner.cq.phase(),
            submitted: inner.counters.submitted,
            identifiers: Vec::with_capacity(self.depth().into()),
            commands: Vec::with_capacity(self.depth().into()),
        };
        for index in 0..self.depth() {
            let slot = self.slots.at(index);
            let (state, cid) = slot.state();
            still.identifiers.push(cid);
            let token = Token { cid };
            let state = match state {
                State::InFlight => Crossing::InFlight,
                State::Orphaned => Crossing::Orphaned,
                // Its owner claims results under the lock, and does not while it is held still.
                State::Done if self.exclusive => Crossing::Done,
                // Futures claim results without the lock. Who comes first has it.
                State::Done | State::Returned if self.free.claim(index) => {
                    frozen.done.push(Unclaimed { token, left: None });
                    Crossing::Done
                }
                _ => continue,
            };
            let sequence = slot.sequence();
            still.commands.push(StillCommand {
                token,
                state,
                words: slot.command_words(),
                result: slot.result_words(),
                tag: slot.tag(),
                registration: slot.registration(),
                sequence,
                pages: inner.extras.get(index, sequence).pages,
                buffer: None,
            });
        }
        inner.rare.frozen = Some(Box::new(frozen));
        inner.rare.stillness = inner.rare.stillness.wrapping_add(1);
        self.unlock(inner);
        Some(still)
    }

    /// Nobody takes it over: everything goes on.
    pub(crate) fn thaw(&self) {
        let mut inner = self.lock.lock();
        let Some(frozen) = inner.rare.frozen.take() else { return self.unlock(inner) };
        inner.rare.stillness = inner.rare.stillness.wrapping_add(1);
        let mut rest = inner.rare.rest.take().unwrap_or_else(|| Box::new(Rest::default()));
        for Unclaimed { token: Token { cid }, left } in frozen.done {
            let index = self.slots.of_cid(cid);
            let slot = self.slots.at(index);
            match left {
                // Whoever saw the result before it was held still may have marked the slot as free since.
                None => slot.set_state(State::Returned, cid),
                Some(held) => {
                    slot.set_state(State::Free, cid);
                    inner.taken.put_back(index);
                    rest.held.push(held);
                }
            }
            self.free.unclaim(index);
            rest.wakers.extend(inner.wakers.get_mut(usize::from(index)).and_then(Option::take));
        }
        inner.rare.halted = false;
        if inner.rare.gate == Gate::Paused {
            inner.rare.gate = Gate::Open;
        }
        rest.wakers.append(&mut inner.rare.waiting.wakers());
        inner.rare.rest = Some(rest);
        self.serve(&mut inner);
        self.unlock(inner);
        while self.drain() != 0 {}
    }

    /// A number that is odd while it is held still, and another each time that it is, and that it goes on.
    pub(crate) fn stillness(&self) -> u32 {
        let inner = self.lock.lock();
        let stillness = inner.rare.stillness;
        self.unlock(inner);
        stillness
    }

    /// Another process has it now: what it holds is not ours any more. For [`give_up`](Self::give_up).
    pub(super) fn end_frozen(&self, frozen: Frozen, rest: &mut Rest) {
        for slot in (0..self.depth()).filter(|_| self.exclusive).map(|index| self.slots.at(index)) {
            if let (State::Done, cid) = slot.state() {
                slot.set_state(State::Lost, cid);
            }
        }
        for Unclaimed { token: Token { cid }, left } in frozen.done {
            let index = self.slots.of_cid(cid);
            // It stays claimed, so that nobody who is just about to take the result does.
            self.slots.at(index).set_state(if left.is_some() { State::Free } else { State::Lost }, cid);
            rest.held.extend(left);
        }
    }

    /// The memory that the device knows, each with where in it the part begins: submission ring, completion ring, lists;
    /// and the pool.
    pub(crate) fn memory(&self) -> Option<([(&DmaMemory, usize); 3], &DmaMemory)> {
        let places = [self.submission.place()?, self.completion.place()?, self.lists.words.place()?];
        Some((places, self.pool.all_memory()))
    }
}
