//! The slots of a queue pair: each owns one command from the moment it is written until its result is claimed.
//!
//! A slot's command, state and result lie in shareable memory, so that another process can take them over. Its
//! identifier (CID) is slot and generation in 16 bits: an answer to an earlier command of the same slot is recognised
//! as stale.
//!
//! ```text
//!          submit                 completion drained          claimed by its future
//!   Free ──────────► InFlight ─────────────────────► Done ─────────────────────────► Free
//!                       │                                                             ▲
//!                       ├─ future dropped ─► Orphaned ── completion drained ──────────┤
//!                       └─ device was reset ─► Interrupted ── claimed ────────────────┘
//! ```

use nvme_spec::Completion;

use super::apart::Apart;
use super::words::Words;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Words of one slot: two cache lines, the command and the rest.
pub(crate) const SLOT_WORDS: usize = 16;

const STATE: usize = 8;
const RESULT: usize = 9;
const TAG: usize = 11;
const REGISTRATION: usize = 12;
const SEQUENCE: usize = 13;

/// The largest queue: 12 bits of slot leave 4 for the generation.
pub(crate) const MAX_DEPTH: u16 = 4096;

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Nobody's.
    Free = 0,
    /// The device has the command, or will have it with the next doorbell.
    InFlight = 1,
    /// The result is there and waits for its future.
    Done = 2,
    /// The device has the command, but nobody waits for it.
    Orphaned = 3,
    /// The command ended without a result, because the queue did.
    Lost = 4,
    /// The controller was reset while it had the command.
    Interrupted = 5,
    /// As [`Done`](Self::Done), after it was held back for another process that did not come. To be claimed under the
    /// lock.
    Returned = 6,
}

/// A claim on a slot: the identifier of its command, which says which slot, and in which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) cid: u16,
}

/// The shared part of all slots.
pub(crate) struct Slots {
    words: Words<SLOT_WORDS>,
    depth: u16,
    /// The low bits of a CID that are the slot.
    slot_mask: u16,
}

#[inline(always)]
fn pack(state: State, cid: u16) -> u64 {
    u64::from(cid) | (state as u64) << 16
}

impl Slots {
    /// Takes over zeroed memory of `depth` slots.
    pub(crate) fn new(words: Words<SLOT_WORDS>, depth: u16) -> Self {
        let slots = Self { words, depth, slot_mask: depth.next_power_of_two() - 1 };
        for slot in 0..depth {
            slots.at(slot).set_state(State::Free, slot);
        }
        slots
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    /// All slots, for [`Slot::new`].
    #[inline(always)]
    pub(crate) fn all(&self) -> &[[AtomicU64; SLOT_WORDS]] {
        self.words.all()
    }

    /// One slot, which must be one of [`depth`](Self::depth).
    #[inline(always)]
    pub(crate) fn at(&self, slot: u16) -> Slot<'_> {
        Slot::new(self.words.at(slot))
    }

    /// The slot that a CID names. There need not be such a slot.
    #[inline(always)]
    pub(crate) fn of_cid(&self, cid: u16) -> u16 {
        cid & self.slot_mask
    }

    /// The memory registration that a slot's data lies in; 0 for none.
    pub(crate) fn registration(&self, slot: u16) -> u64 {
        self.at(slot).registration()
    }

    /// The claim on the next life of a free slot.
    #[inline(always)]
    pub(crate) fn renew(&self, slot: Slot<'_>, index: u16) -> Token {
        let (_, old) = slot.state();
        let mut cid = old.wrapping_add(self.slot_mask.wrapping_add(1));
        if cid == u16::MAX {
            // FFFFh means "no command" in the error log; its generation is left out.
            cid = index;
        }
        Token { cid }
    }
}

/// The shared part of one slot. Looked up once for all that is to be done with it.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    words: &'a [AtomicU64; SLOT_WORDS],
}

impl<'a> Slot<'a> {
    #[inline(always)]
    pub(crate) fn new(words: &'a [AtomicU64; SLOT_WORDS]) -> Self {
        Self { words }
    }

    /// Records the command that is about to be written to the ring.
    #[inline(always)]
    pub(crate) fn start(self, cid: u16, command: &[u64; 8], tag: u64, registration: u64, sequence: u64) {
        for (cell, word) in self.words.iter().zip(command) {
            cell.store(*word, Ordering::Relaxed);
        }
        self.words[TAG].store(tag, Ordering::Relaxed);
        self.words[REGISTRATION].store(registration, Ordering::Relaxed);
        self.words[SEQUENCE].store(sequence, Ordering::Relaxed);
        self.set_state(State::InFlight, cid);
    }

    /// The state, and the CID of the current life.
    #[inline]
    pub(crate) fn state(self) -> (State, u16) {
        let word = self.words[STATE].load(Ordering::Acquire);
        let state = match word >> 16 & 0xff {
            0 => State::Free,
            1 => State::InFlight,
            2 => State::Done,
            3 => State::Orphaned,
            5 => State::Interrupted,
            6 => State::Returned,
            _ => State::Lost,
        };
        (state, word as u16)
    }

    /// Whether it is just in this state, in this life.
    #[inline(always)]
    pub(crate) fn is(self, state: State, cid: u16) -> bool {
        self.words[STATE].load(Ordering::Acquire) == pack(state, cid)
    }

    #[inline(always)]
    pub(crate) fn set_state(self, state: State, cid: u16) {
        self.words[STATE].store(pack(state, cid), Ordering::Release);
    }

    /// Stores a result, then says that it is there.
    #[inline(always)]
    pub(crate) fn finish(self, cid: u16, completion: [u64; 2]) {
        self.words[RESULT].store(completion[0], Ordering::Relaxed);
        self.words[RESULT + 1].store(completion[1], Ordering::Relaxed);
        self.set_state(State::Done, cid);
    }

    /// The stored result, as it came.
    #[inline(always)]
    pub(crate) fn result_words(self) -> [u64; 2] {
        [self.words[RESULT].load(Ordering::Relaxed), self.words[RESULT + 1].load(Ordering::Relaxed)]
    }

    /// The command it holds, as it went out.
    pub(crate) fn command_words(self) -> [u64; 8] {
        std::array::from_fn(|i| self.words.get(i).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    /// Whether the stored result is a success, and its status says nothing more.
    #[inline(always)]
    pub(crate) fn is_plain_success(self) -> bool {
        // The last 15 bits, behind the phase.
        self.words[RESULT + 1].load(Ordering::Relaxed) >> 49 == 0
    }

    /// The stored result.
    #[inline(always)]
    pub(crate) fn result(self) -> Completion {
        Completion::from_words(self.result_words())
    }

    /// The command it holds.
    pub(crate) fn command(self) -> nvme_spec::Command {
        nvme_spec::Command::from_words(self.command_words())
    }

    /// The memory registration that the command's data lies in; 0 for none.
    pub(crate) fn registration(self) -> u64 {
        self.words[REGISTRATION].load(Ordering::Relaxed)
    }

    /// The how-manieth command of its queue it is, from 1; 0 where there was none yet.
    pub(crate) fn sequence(self) -> u64 {
        self.words[SEQUENCE].load(Ordering::Relaxed)
    }

    /// What the owner tagged the command with.
    pub(crate) fn tag(self) -> u64 {
        self.words[TAG].load(Ordering::Relaxed)
    }
}

/// Which slots are free: given back by anybody without a lock, taken by the holder of the queue's lock.
pub(crate) struct FreeSlots {
    bits: Apart<AtomicU64>,
    /// Somebody waits for a slot: who gives one back must see to it.
    awaited: AtomicBool,
}

/// What became of a slot that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Returned {
    Free,
    /// It is free, and somebody waits for one.
    Awaited,
    /// The result in it was claimed by another before.
    TooLate,
}

/// The lock holder's share of the free slots: taken from [`FreeSlots`] a word at a time.
pub(crate) struct Taken {
    /// The word looked at first, the slot of its first bit, and which one it is of all.
    word: u64,
    first: u16,
    hint: usize,
    /// The others. What is in use as `word` is 0 here.
    bits: Apart<u64>,
}

impl FreeSlots {
    /// All of `depth` slots free.
    pub(crate) fn new(depth: u16) -> (Self, Taken) {
        let words = usize::from(depth).div_ceil(64);
        let full = |w: usize| match usize::from(depth).saturating_sub(w * 64) {
            64.. => u64::MAX,
            rest => (1 << rest) - 1,
        };
        let free = Self { bits: Apart::new(words, |w| AtomicU64::new(full(w))), awaited: AtomicBool::new(false) };
        (free, Taken { word: 0, first: 0, hint: 0, bits: Apart::new(words, |_| 0) })
    }

    /// Gives a slot back. Says whether somebody waits for one, unless it was claimed by another before.
    #[inline(always)]
    #[must_use = "a waiter is to be served"]
    pub(crate) fn give_back(&self, slot: u16) -> Returned {
        // Sequentially consistent, as is the look at `awaited` after it: whoever sets `awaited` and then finds no
        // slot is seen here. On x86 the load costs nothing extra.
        let bit = 1 << (slot % 64);
        let word = self.bits.get(usize::from(slot) / 64);
        if word.is_some_and(|word| word.fetch_or(bit, Ordering::SeqCst) & bit != 0) {
            return Returned::TooLate;
        }
        if self.awaited.load(Ordering::SeqCst) { Returned::Awaited } else { Returned::Free }
    }

    /// Claims the result in a slot, for the holder of the lock: whoever would give the slot back is too late then.
    /// `false` if somebody was faster.
    pub(crate) fn claim(&self, slot: u16) -> bool {
        self.give_back(slot) != Returned::TooLate
    }

    /// Undoes [`claim`](Self::claim).
    pub(crate) fn unclaim(&self, slot: u16) {
        if let Some(word) = self.bits.get(usize::from(slot) / 64) {
            word.fetch_and(!(1 << (slot % 64)), Ordering::SeqCst);
        }
    }

    /// Takes a free slot.
    #[inline(always)]
    pub(crate) fn take(&self, taken: &mut Taken) -> Option<u16> {
        match taken.next() {
            None => self.take_more(taken),
            slot => slot,
        }
    }

    #[inline(never)]
    fn take_more(&self, taken: &mut Taken) -> Option<u16> {
        // The same word first: the memory of its slots was touched last.
        for _ in 0..=self.bits.len() {
            let (mine, shared) = (taken.bits.get_mut(taken.hint)?, self.bits.get(taken.hint)?);
            taken.first = taken.hint as u16 * 64;
            taken.word = match std::mem::take(mine) {
                0 => shared.swap(0, Ordering::SeqCst),
                word => word,
            };
            if let slot @ Some(_) = taken.next() {
                return slot;
            }
            taken.hint = if taken.hint + 1 == self.bits.len() { 0 } else { taken.hint + 1 };
        }
        None
    }

    /// Says whether somebody waits. After saying so, look again before waiting.
    pub(crate) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }
}

impl Taken {
    /// A slot of the word looked at first.
    #[inline(always)]
    fn next(&mut self) -> Option<u16> {
        if self.word == 0 {
            return None;
        }
        let bit = self.word.trailing_zeros();
        self.word &= self.word - 1;
        Some(self.first | bit as u16)
    }

    /// Puts back a slot that was taken but not used.
    pub(crate) fn put_back(&mut self, slot: u16) {
        let (index, bit) = (usize::from(slot) / 64, 1 << (slot % 64));
        if index == self.hint {
            self.word |= bit;
        } else if let Some(word) = self.bits.get_mut(index) {
            *word |= bit;
        }
    }
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
