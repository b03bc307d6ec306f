//! A queue pair: the caller submits in its own call, and whoever has time completes (`completions.rs`).

use std::sync::{Mutex, OnceLock};
use std::task::Waker;

use arrayvec::ArrayVec;
use doorbell_device::Doorbell;
use event_listener::Event;
use nvme_spec::Command;

use super::apart::Apart;
use super::extras::{Extra, Extras, TimeLimit};
use super::inspect::Counters;
use super::lists::{List, Lists};
use super::lock::{Guard, MarkedLock};
use super::pool::{Pool, Run};
use super::rare::Rare;
use super::rings::{self, Commands, CompletionRing, Completions, SubmissionRing};
use super::slots::{FreeSlots, SLOT_WORDS, Slots, Taken, Token};
use super::waiting::Place;
use super::words::Words;
use crate::error::{DeviceMisbehaved, Lost};
use crate::memory::DmaBuffer;
use crate::sync::{AtomicU32, AtomicU64};

/// The memory and doorbells of a queue pair.
pub(crate) struct Parts {
    pub(crate) id: u16,
    pub(crate) depth: u16,
    pub(crate) submission: Commands,
    pub(crate) completion: Completions,
    pub(crate) slots: Words<SLOT_WORDS>,
    pub(crate) lists: Lists,
    pub(crate) pool: Pool,
    pub(crate) sq_doorbell: Doorbell,
    pub(crate) cq_doorbell: Doorbell,
    /// Look for completions right after submitting.
    pub(crate) eager: bool,
    /// Whether it has an owner.
    pub(crate) exclusive: bool,
}

/// Is told how the device breaks the protocol.
pub(crate) type OnFault = Box<dyn Fn(&DeviceMisbehaved) + Send + Sync>;

/// A slot that is taken for a command, and the lock.
#[must_use = "a slot that is neither used nor put back is lost"]
pub(crate) struct Begun<'q> {
    queue: &'q QueuePair,
    inner: Guard<'q, Inner>,
    slot: u16,
    waker: Waker,
    /// Whose clone `waker` is.
    task: &'q Waker,
}

impl Begun<'_> {
    /// Submits the command and rings.
    #[inline(always)]
    pub(crate) fn submit(self, notes: Notes, command: Command) -> Started {
        let Self { queue, mut inner, slot, waker, task } = self;
        let token = queue.push(&mut inner, slot, command, notes);
        inner.set_waker(slot, waker);
        Started { token, looked: queue.ring_and_unlock(inner, task) }
    }

    /// The command does not go out after all.
    #[cold]
    #[inline(never)]
    pub(crate) fn withdraw(self) {
        let Self { queue, inner, slot, waker, .. } = self;
        queue.put_back(inner, &[slot]);
        drop(waker);
    }
}

/// What a command takes along besides itself, for those who take over, inspect or wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notes {
    /// The owner's tag.
    pub(crate) tag: u64,
    /// The memory registration its data lies in; 0 for none.
    pub(crate) registration: u64,
    /// How long it may take.
    pub(crate) limit: TimeLimit,
    /// The pages of the pool that it has: the first, and how many.
    pub(crate) pages: (u32, u32),
    /// Whether its data goes through bounce pages.
    pub(crate) bounced: bool,
}

/// Memory that outlives a dropped future, until the device is done with it.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) run: Option<Run>,
    pub(crate) buffer: Option<DmaBuffer>,
}

impl From<Option<DmaBuffer>> for Held {
    fn from(buffer: Option<DmaBuffer>) -> Self {
        Self { run: None, buffer }
    }
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.run.is_none() && self.buffer.is_none()
    }
}

/// What else is to be done once the lock is released: foreign code runs, and memory is freed, only then.
#[derive(Default)]
pub(super) struct Rest {
    pub(super) wakers: Vec<Waker>,
    /// Replaced by others: to be dropped.
    pub(super) old_wakers: Vec<Waker>,
    pub(super) held: Vec<Held>,
    /// Somebody waits in [`QueuePair::retire`], and something was completed.
    pub(super) retired: bool,
    pub(super) fault: Option<Box<DeviceMisbehaved>>,
}

/// A command that the device was told of.
pub(crate) struct Started {
    pub(crate) token: Token,
    /// Whether completions were looked for since: it may be done already.
    pub(crate) looked: bool,
}

/// Why a command did not start.
pub(crate) enum StartError<E> {
    NoSlot(NoSlot),
    /// The command could not be built.
    Build(E),
}

/// Why there is no slot.
pub(crate) enum NoSlot {
    /// The queue is full; the place in line was taken.
    Full,
    /// The queue takes no more commands.
    Closed,
}

impl<E> From<NoSlot> for StartError<E> {
    fn from(no_slot: NoSlot) -> Self {
        StartError::NoSlot(no_slot)
    }
}

/// See the module.
#[repr(align(64))]
pub(crate) struct QueuePair {
    pub(super) id: u16,
    /// Look for completions right after submitting.
    pub(super) eager: bool,
    /// Whether it has an owner (`exclusive.rs`).
    pub(super) exclusive: bool,
    pub(super) submission: Commands,
    pub(super) completion: Completions,
    pub(super) slots: Slots,
    pub(super) lists: Lists,
    pub(super) sq_doorbell: Doorbell,
    pub(super) cq_doorbell: Doorbell,
    pub(super) pool: Pool,
    pub(super) free: FreeSlots,
    pub(super) lock: MarkedLock<Inner>,
    /// Counts the looks of callers that poll this queue themselves.
    pub(super) polled: AtomicU32,
    /// Interrupts that led to a look.
    pub(super) interrupts: AtomicU64,
    /// Woken at each completion while somebody waits for slots to let go of something.
    pub(super) retired: Event,
    /// Set once, when the queue is given up.
    pub(super) lost: OnceLock<Lost>,
    /// How the device broke the protocol on this queue, in its present life.
    pub(super) fault: Mutex<Option<DeviceMisbehaved>>,
    /// Tells the controller of the fault.
    pub(super) on_fault: OnFault,
}

/// Whether a queue takes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// Whoever comes waits in line: the controller is being reset, or may be.
    Paused,
    /// No more, for good.
    Closed,
}

/// What the lock protects.
pub(super) struct Inner {
    pub(super) sq: SubmissionRing,
    pub(super) cq: CompletionRing,
    pub(super) taken: Taken,
    pub(super) wakers: Apart<Option<Waker>>,
    /// Memory of orphaned slots.
    pub(super) held: Vec<(u16, Held)>,
    pub(super) rare: Rare,
    pub(super) extras: Extras,
    /// Of doorbells, those besides one for each command.
    pub(super) counters: Counters,
    /// Commands that had no doorbell of their own, or one that is counted.
    pub(super) without_doorbell: u64,
}

impl Inner {
    /// Whom to wake when the command in a slot has ended.
    #[inline(always)]
    fn set_waker(&mut self, slot: u16, waker: Waker) {
        let Some(place) = self.wakers.get_mut(usize::from(slot)) else { return };
        let old_waker = place.replace(waker);
        // There is none, as a free slot has no waker; and none may be dropped under the lock.
        debug_assert!(old_waker.is_none());
        std::mem::forget(old_waker);
    }
}

impl QueuePair {
    pub(crate) fn new(parts: Parts, on_fault: OnFault) -> Self {
        rings::clear(&parts.submission, &parts.completion);
        Self::with_rings(parts, on_fault)
    }

    /// With rings that are as they are.
    pub(super) fn with_rings(parts: Parts, on_fault: OnFault) -> Self {
        let depth = parts.depth;
        let (free, taken) = FreeSlots::new(depth);
        // One entry more than slots: a full ring is then impossible, and never looks like an empty one.
        let entries = depth + 1;
        let inner = Inner {
            sq: SubmissionRing::new(parts.id, entries),
            cq: CompletionRing::new(entries),
            taken,
            wakers: Apart::new(depth.into(), |_| None),
            held: Vec::new(),
            rare: Rare::new(),
            extras: Extras::default(),
            counters: Counters::default(),
            without_doorbell: 0,
        };
        Self {
            id: parts.id,
            eager: parts.eager,
            exclusive: parts.exclusive,
            submission: parts.submission,
            completion: parts.completion,
            slots: Slots::new(parts.slots, depth),
            lists: parts.lists,
            sq_doorbell: parts.sq_doorbell,
            cq_doorbell: parts.cq_doorbell,
            pool: parts.pool,
            free,
            lock: MarkedLock::new(inner),
            polled: AtomicU32::new(0),
            interrupts: AtomicU64::new(0),
            retired: Event::new(),
            lost: OnceLock::new(),
            fault: Mutex::new(None),
            on_fault,
        }
    }

    /// The slot of a command.
    pub(crate) fn slot_of(&self, token: Token) -> u16 {
        self.slots.of_cid(token.cid)
    }

    /// Whether it has an owner, and no CPU.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn depth(&self) -> u16 {
        self.slots.depth()
    }

    /// Words of list memory that each slot has.
    pub(crate) fn list_words(&self) -> usize {
        self.lists.words_per_slot
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Where the device finds the submission and the completion ring.
    pub(crate) fn ring_iovas(&self) -> (u64, u64) {
        (self.submission.iova(), self.completion.iova())
    }

    /// Builds a command and rings the doorbell, in this call. `place` is the caller's place in line, kept from poll to
    /// poll while the queue is full. `build` gets the slot's list memory, and may fail before anything is sent.
    #[inline(always)]
    pub(crate) fn start<E>(
        &self,
        waker: &Waker,
        place: &mut Option<Place>,
        notes: Notes,
        build: impl FnOnce(List<'_>) -> Result<Command, E>,
    ) -> Result<Started, StartError<E>> {
        // Cloned before the lock; a clone may run foreign code.
        let own_waker = waker.clone();
        let mut inner = self.lock.lock_in_line();
        let slot = if place.is_none() { self.free_slot(&mut inner) } else { None };
        let slot = match slot {
            Some(slot) => slot,
            None => match self.wait_for_slots(&mut inner, place, waker) {
                Ok([slot]) => slot,
                Err(error) => {
                    self.unlock(inner);
                    return Err(error.into());
                }
            },
        };
        let command = match build(self.lists.of(slot)) {
            Ok(command) => command,
            Err(error) => {
                self.put_back(inner, &[slot]);
                return Err(StartError::Build(error));
            }
        };
        let token = self.push(&mut inner, slot, command, notes);
        inner.set_waker(slot, own_waker);
        let looked = self.ring_and_unlock(inner, waker);
        Ok(Started { token, looked })
    }

    /// Takes lock and slot for a command that is ready, if there is a free slot that nobody waits for. Otherwise
    /// [`start`](Self::start) says why.
    #[inline(always)]
    pub(crate) fn begin<'q>(&'q self, task: &'q Waker) -> Option<Begun<'q>> {
        // Cloned before the lock; a clone may run foreign code.
        let waker = task.clone();
        let mut inner = self.lock.lock_in_line();
        match self.free_slot(&mut inner) {
            Some(slot) => Some(Begun { queue: self, inner, slot, waker, task }),
            None => {
                self.not_now(inner, waker);
                None
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn not_now(&self, inner: Guard<'_, Inner>, waker: Waker) {
        self.unlock(inner);
        drop(waker);
    }

    /// A slot, if one is free and nobody waits for it.
    #[inline(always)]
    pub(super) fn free_slot(&self, inner: &mut Inner) -> Option<u16> {
        if inner.rare.is_quiet() || Self::is_open(inner) { self.free.take(&mut inner.taken) } else { None }
    }

    #[cold]
    #[inline(never)]
    fn is_open(inner: &Inner) -> bool {
        inner.rare.gate == Gate::Open && !inner.rare.waiting.is_hungry()
    }

    /// Submits two commands in adjacent entries under one doorbell, both or neither: the halves of a fused operation.
    pub(crate) fn start_pair<E>(
        &self,
        waker: &Waker,
        place: &mut Option<Place>,
        notes: [Notes; 2],
        build: impl FnOnce([List<'_>; 2]) -> Result<[Command; 2], E>,
    ) -> Result<[Token; 2], StartError<E>> {
        let own_wakers = [waker.clone(), waker.clone()];
        let mut inner = self.lock.lock_in_line();
        let slots = match self.wait_for_slots(&mut inner, place, waker) {
            Ok(slots) => slots,
            Err(error) => {
                self.unlock(inner);
                return Err(error.into());
            }
        };
        let commands = match build(slots.map(|slot| self.lists.of(slot))) {
            Ok(commands) => commands,
            Err(error) => {
                self.put_back(inner, &slots);
                return Err(StartError::Build(error));
            }
        };
        let ([one, two], [waker_one, waker_two]) = (commands, own_wakers);
        let first = self.push(&mut inner, slots[0], one, notes[0]);
        inner.set_waker(slots[0], waker_one);
        inner.without_doorbell += 1;
        let second = self.push(&mut inner, slots[1], two, notes[1]);
        inner.set_waker(slots[1], waker_two);
        self.ring_and_unlock(inner, waker);
        Ok([first, second])
    }

    /// Records a command with its slot and writes it to the ring.
    #[inline(always)]
    pub(super) fn push(&self, inner: &mut Inner, slot: u16, mut command: Command, notes: Notes) -> Token {
        let shared = self.slots.at(slot);
        let token = self.slots.renew(shared, slot);
        command.cdw0.set_cid(token.cid);
        let words = command.to_words();
        inner.counters.submitted += 1;
        shared.start(token.cid, &words, notes.tag, notes.registration, inner.counters.submitted);
        inner.sq.push(&self.submission, &words);
        if notes.bounced {
            inner.counters.bounced += 1;
        }
        if notes.limit != TimeLimit::Usual || notes.pages != (0, 0) {
            let extra = Extra { sequence: inner.counters.submitted, limit: notes.limit, pages: notes.pages };
            inner.extras.set(slot, self.depth(), extra);
        }
        token
    }

    /// Tells the device of what was pushed, or leaves it behind the doorbell (`batch.rs`). `true` if completions were
    /// looked for after.
    #[inline(always)]
    fn ring_and_unlock(&self, inner: Guard<'_, Inner>, waker: &Waker) -> bool {
        if !inner.rare.is_quiet() || self.lock.is_wanted() {
            return self.ring_or_leave(inner, waker);
        }
        // Counted by the commands.
        self.sq_doorbell.ring(inner.sq.tail().into());
        if self.eager {
            return self.unlock_eagerly(inner);
        }
        // Quiet as it was, there is nothing to do after unlocking.
        let marked = inner.release();
        if marked {
            self.look_again();
        }
        marked
    }

    /// Unlocks, and looks for completions if there seem to be some or somebody asked for it. `true` if it did.
    #[inline(never)]
    pub(super) fn unlock_eagerly(&self, inner: Guard<'_, Inner>) -> bool {
        let found = self.eager && inner.cq.is_posted(&self.completion);
        let look = self.release(inner) | found;
        if look {
            self.look_again();
        }
        look
    }

    /// Slots that were taken go unused.
    #[cold]
    pub(super) fn put_back(&self, mut inner: Guard<'_, Inner>, slots: &[u16]) {
        slots.iter().for_each(|slot| inner.taken.put_back(*slot));
        self.serve(&mut inner);
        self.unlock(inner);
    }

    /// Takes `count` slots, or a place in line for them.
    #[cold]
    #[inline(never)]
    fn wait_for_slots<const N: usize>(
        &self,
        inner: &mut Inner,
        place: &mut Option<Place>,
        waker: &Waker,
    ) -> Result<[u16; N], NoSlot> {
        if inner.rare.gate == Gate::Closed {
            if let Some(place) = place.take() {
                self.leave_locked(inner, place);
            }
            return Err(NoSlot::Closed);
        }
        if N > usize::from(self.depth()) {
            return Err(NoSlot::Full);
        }
        if inner.rare.gate == Gate::Paused {
            // What was granted before stays granted.
            match place {
                Some(joined) => {
                    let old_waker = inner.rare.waiting.keep(joined, waker);
                    inner.rare.rest().old_wakers.extend(old_waker);
                }
                None => {
                    *place = Some(inner.rare.waiting.join(N, waker.clone()));
                    self.free.set_awaited(true);
                }
            }
            inner.counters.waited += 1;
            return Err(NoSlot::Full);
        }
        let joined = match place.take() {
            Some(joined) => joined,
            None => {
                // In line even when there may be free slots: `serve` finds what is free, and for whom. Others are
                // told that somebody waits before it looks.
                let joined = inner.rare.waiting.join(N, waker.clone());
                self.free.set_awaited(true);
                self.serve(inner);
                joined
            }
        };
        let (granted, old_waker) = inner.rare.waiting.take(&joined, waker);
        if let Some(old_waker) = old_waker {
            inner.rare.rest().old_wakers.push(old_waker);
        }
        granted.and_then(|slots| slots.as_slice().try_into().ok()).ok_or_else(|| {
            // What holds the slots may be behind the doorbell.
            self.ring_for_waiting(inner);
            inner.counters.waited += 1;
            *place = Some(joined);
            NoSlot::Full
        })
    }

    /// Grants free slots to those first in line.
    pub(super) fn serve(&self, inner: &mut Inner) {
        if inner.rare.gate == Gate::Paused {
            return;
        }
        while let Some(wants) = inner.rare.waiting.first_wants() {
            let mut slots = ArrayVec::<u16, 2>::new();
            while slots.len() < wants.min(2) {
                match self.free.take(&mut inner.taken) {
                    Some(slot) => slots.push(slot),
                    None => break,
                }
            }
            if slots.len() < wants {
                slots.into_iter().for_each(|slot| inner.taken.put_back(slot));
                return;
            }
            let waker = inner.rare.waiting.grant_first(slots);
            inner.rare.rest().wakers.extend(waker);
        }
        self.free.set_awaited(false);
    }

    /// Gives up a place in line; what was granted to it is passed on.
    pub(crate) fn leave(&self, place: Place) {
        self.locked(|inner| self.leave_locked(inner, place));
    }

    fn leave_locked(&self, inner: &mut Inner, place: Place) {
        if let Some(slots) = inner.rare.waiting.leave(place) {
            slots.into_iter().for_each(|slot| inner.taken.put_back(slot));
        }
        self.serve(inner);
    }

    /// Something rare under the lock.
    pub(super) fn locked(&self, act: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock.lock();
        act(&mut inner);
        self.ring_for_waiting(&mut inner);
        self.unlock(inner);
    }

    /// Unlocks, does what is to be done after, and looks for completions if somebody asked for it meanwhile.
    #[inline(always)]
    pub(super) fn unlock(&self, inner: Guard<'_, Inner>) {
        if self.release(inner) {
            self.look_again();
        }
    }

    /// As [`unlock`](Self::unlock), but `true` means that the look is the caller's to take.
    #[inline(always)]
    #[must_use]
    pub(super) fn release(&self, inner: Guard<'_, Inner>) -> bool {
        if inner.rare.is_quiet() { inner.release() } else { self.release_with_rest(inner) }
    }

    #[cold]
    #[inline(never)]
    fn release_with_rest(&self, mut inner: Guard<'_, Inner>) -> bool {
        self.ring_before_unlock(&mut inner);
        let rest = inner.rare.rest.take();
        inner.rare.settle();
        let marked = inner.release();
        if let Some(rest) = rest {
            rest.run(self);
        }
        marked
    }

    #[cold]
    #[inline(never)]
    pub(super) fn look_again(&self) {
        self.look(false);
    }
}

impl Rest {
    fn run(self, queue: &QueuePair) {
        self.held.into_iter().for_each(|held| queue.let_go(held));
        drop(self.old_wakers);
        if self.retired {
            queue.retired.notify(usize::MAX);
        }
        if let Some(fault) = self.fault {
            (queue.on_fault)(&fault);
        }
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(all(test, doorbell_loom))]
mod models;
