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
//!                       └─ future dropped ─► Orphaned ── completion drained ──────────┘
//! ```

use nvme_spec::Completion;

use super::words::Words;
use crate::sync::{AtomicBool, AtomicU64, Ordering};

/// Words of one slot: two cache lines, the command and the rest.
pub(crate) const SLOT_WORDS: usize = 16;

const STATE: usize = 8;
const RESULT: usize = 9;
const TAG: usize = 11;
const REGISTRATION: usize = 12;

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
}

/// A claim on a slot: which one, and in which of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) slot: u16,
    pub(crate) cid: u16,
}

/// The shared part of all slots.
pub(crate) struct Slots {
    words: Words,
    depth: u16,
    /// How many low bits of a CID are the slot.
    slot_bits: u32,
}

#[inline(always)]
fn pack(state: State, cid: u16) -> u64 {
    u64::from(cid) | (state as u64) << 16
}

impl Slots {
    /// Takes over zeroed memory of `depth * SLOT_WORDS` words.
    pub(crate) fn new(words: Words, depth: u16) -> Self {
        let slot_bits = u32::from(depth).next_power_of_two().trailing_zeros();
        let slots = Self { words, depth, slot_bits };
        for slot in 0..depth {
            slots.word(slot, STATE).store(pack(State::Free, slot), Ordering::Relaxed);
        }
        slots
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    #[inline(always)]
    fn slot(&self, slot: u16) -> &[AtomicU64; SLOT_WORDS] {
        self.words.array(usize::from(slot) * SLOT_WORDS)
    }

    #[inline(always)]
    fn word(&self, slot: u16, word: usize) -> &AtomicU64 {
        &self.slot(slot)[word]
    }

    /// The slot that a CID names, if there is such a slot.
    #[inline]
    pub(crate) fn of_cid(&self, cid: u16) -> Option<u16> {
        let slot = cid & ((1u32 << self.slot_bits) - 1) as u16;
        (slot < self.depth).then_some(slot)
    }

    /// Begins a new life of a free slot.
    #[inline]
    pub(crate) fn renew(&self, slot: u16) -> Token {
        let old = self.word(slot, STATE).load(Ordering::Relaxed) as u16;
        let mut cid = old.wrapping_add((1u32 << self.slot_bits) as u16);
        if cid == u16::MAX {
            // FFFFh means "no command" in the error log; its generation is left out.
            cid = slot;
        }
        Token { slot, cid }
    }

    /// Records the command of a slot that is about to be written to the ring.
    #[inline]
    pub(crate) fn start(&self, token: Token, command: &[u64; 8], tag: u64, registration: u64) {
        let slot = self.slot(token.slot);
        for (cell, word) in slot.iter().zip(command) {
            cell.store(*word, Ordering::Relaxed);
        }
        slot[TAG].store(tag, Ordering::Relaxed);
        slot[REGISTRATION].store(registration, Ordering::Relaxed);
        slot[STATE].store(pack(State::InFlight, token.cid), Ordering::Release);
    }

    /// The state of a slot and the CID of its current life.
    #[inline]
    pub(crate) fn state(&self, slot: u16) -> (State, u16) {
        let word = self.word(slot, STATE).load(Ordering::Acquire);
        let state = match word >> 16 & 0xff {
            0 => State::Free,
            1 => State::InFlight,
            2 => State::Done,
            3 => State::Orphaned,
            _ => State::Lost,
        };
        (state, word as u16)
    }

    /// Whether a slot is just in this state, in this life.
    #[inline]
    pub(crate) fn is(&self, token: Token, state: State) -> bool {
        self.word(token.slot, STATE).load(Ordering::Acquire) == pack(state, token.cid)
    }

    #[inline]
    pub(crate) fn set_state(&self, token: Token, state: State) {
        self.word(token.slot, STATE).store(pack(state, token.cid), Ordering::Release);
    }

    /// Stores a result, then says that it is there.
    #[inline]
    pub(crate) fn finish(&self, token: Token, completion: &Completion) {
        let [word0, word1] = completion.to_words();
        let slot = self.slot(token.slot);
        slot[RESULT].store(word0, Ordering::Relaxed);
        slot[RESULT + 1].store(word1, Ordering::Relaxed);
        slot[STATE].store(pack(State::Done, token.cid), Ordering::Release);
    }

    /// The stored result.
    #[inline]
    pub(crate) fn result(&self, slot: u16) -> Completion {
        let slot = self.slot(slot);
        let word = |word: usize| slot[word].load(Ordering::Relaxed);
        Completion::from_words([word(RESULT), word(RESULT + 1)])
    }

    /// The command a slot holds.
    pub(crate) fn command(&self, slot: u16) -> nvme_spec::Command {
        nvme_spec::Command::from_words(std::array::from_fn(|i| self.word(slot, i).load(Ordering::Relaxed)))
    }

    /// The memory registration that the command's data lies in; 0 for none.
    pub(crate) fn registration(&self, slot: u16) -> u64 {
        self.word(slot, REGISTRATION).load(Ordering::Relaxed)
    }

    /// What the owner tagged the command with.
    pub(crate) fn tag(&self, slot: u16) -> u64 {
        self.word(slot, TAG).load(Ordering::Relaxed)
    }
}

/// Which slots are free: given back by anybody without a lock, taken by the holder of the queue's lock.
pub(crate) struct FreeSlots {
    bits: Box<[AtomicU64]>,
    /// Somebody waits for a slot: who gives one back must see to it.
    awaited: AtomicBool,
}

/// The lock holder's share of the free slots: taken from [`FreeSlots`] a word at a time.
pub(crate) struct Taken {
    bits: Box<[u64]>,
    /// Where to look first.
    hint: usize,
}

impl FreeSlots {
    /// All of `depth` slots free.
    pub(crate) fn new(depth: u16) -> (Self, Taken) {
        let words = usize::from(depth).div_ceil(64);
        let full = |w: usize| match usize::from(depth) - w * 64 {
            64.. => u64::MAX,
            rest => (1 << rest) - 1,
        };
        let free =
            Self { bits: (0..words).map(|w| AtomicU64::new(full(w))).collect(), awaited: AtomicBool::new(false) };
        (free, Taken { bits: vec![0; words].into(), hint: 0 })
    }

    /// Gives a slot back. `true` if somebody waits for one.
    #[inline]
    #[must_use = "a waiter is to be served"]
    pub(crate) fn give_back(&self, slot: u16) -> bool {
        // Sequentially consistent, as is the look at `awaited` after it: whoever sets `awaited` and then finds no
        // slot is seen here. On x86 the load costs nothing extra.
        if let Some(word) = self.bits.get(usize::from(slot) / 64) {
            word.fetch_or(1 << (slot % 64), Ordering::SeqCst);
        }
        self.awaited.load(Ordering::SeqCst)
    }

    /// Takes a free slot.
    #[inline]
    pub(crate) fn take(&self, taken: &mut Taken) -> Option<u16> {
        for _ in 0..=self.bits.len() {
            let w = taken.hint;
            let (mine, shared) = (taken.bits.get_mut(w)?, self.bits.get(w)?);
            if *mine == 0 {
                *mine = shared.swap(0, Ordering::SeqCst);
            }
            if *mine != 0 {
                let bit = mine.trailing_zeros();
                *mine &= *mine - 1;
                return Some(w as u16 * 64 + bit as u16);
            }
            taken.hint = if w + 1 == self.bits.len() { 0 } else { w + 1 };
        }
        None
    }

    /// Says whether somebody waits. After saying so, look again before waiting.
    pub(crate) fn set_awaited(&self, awaited: bool) {
        self.awaited.store(awaited, Ordering::SeqCst);
    }
}

impl Taken {
    /// Puts back a slot that was taken but not used.
    pub(crate) fn put_back(&mut self, slot: u16) {
        if let Some(word) = self.bits.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }
}
