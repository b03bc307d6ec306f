//! A queue pair: the caller submits in its own call, and whoever has time completes.

use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use arrayvec::ArrayVec;
use doorbell_device::Doorbell;
use event_listener::Event;
use nvme_spec::{Command, Completion};

use super::inspect::Counters;
use super::lists::{List, Lists};
use super::lock::{Guard, MarkedLock};
use super::pool::{Pool, Run};
use super::rings::{self, CompletionRing, SubmissionRing};
use super::slots::{FreeSlots, SLOT_WORDS, Slot, Slots, State, Taken, Token};
use super::waiting::{Place, Waiting};
use super::words::Words;
use crate::error::{DeviceMisbehaved, Lost};
use crate::memory::DmaBuffer;
use crate::sync::AtomicU64;

/// The memory and doorbells of a queue pair.
pub(crate) struct Parts {
    pub(crate) id: u16,
    pub(crate) depth: u16,
    pub(crate) submission: Words,
    pub(crate) completion: Words,
    pub(crate) slots: Words,
    pub(crate) lists: Lists,
    pub(crate) pool: Pool,
    pub(crate) sq_doorbell: Doorbell,
    pub(crate) cq_doorbell: Doorbell,
}

/// What a command takes along besides itself, for those who take over, inspect or wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notes {
    /// The owner's tag.
    pub(crate) tag: u64,
    /// The memory registration its data lies in; 0 for none.
    pub(crate) registration: u64,
    /// Whether its data goes through bounce pages.
    pub(crate) bounced: bool,
}

/// Memory that outlives a dropped future, until the device is done with it.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) run: Option<Run>,
    pub(crate) buffer: Option<DmaBuffer>,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.run.is_none() && self.buffer.is_none()
    }
}

/// The wakers of one look: woken once the lock is released. As many completions are taken from the ring at a time.
type Woken = ArrayVec<Waker, 64>;

/// What else is to be done once the lock is released: foreign code runs, and memory is freed, only then.
#[derive(Default)]
struct Rest {
    wakers: Vec<Waker>,
    /// Replaced by another: to be dropped.
    old_waker: Option<Waker>,
    held: Vec<Held>,
    /// Somebody waits in [`QueuePair::retire`], and something was completed.
    retired: bool,
    fault: bool,
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
    id: u16,
    /// Look for completions right after submitting: worth it where nobody raises an interrupt.
    eager: bool,
    submission: Words,
    completion: Words,
    pub(super) slots: Slots,
    lists: Lists,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    pool: Pool,
    free: FreeSlots,
    pub(super) lock: MarkedLock<Inner>,
    /// Interrupts that led to a look.
    pub(super) interrupts: AtomicU64,
    /// Woken at each completion while somebody waits for slots to let go of something.
    retired: Event,
    /// Set once, when the queue is given up.
    lost: OnceLock<Lost>,
    /// Set once, when the device broke the protocol on this queue.
    fault: OnceLock<DeviceMisbehaved>,
    /// Tells the controller of the fault.
    on_fault: Box<dyn Fn(&DeviceMisbehaved) + Send + Sync>,
}

/// What the lock protects.
pub(super) struct Inner {
    pub(super) sq: SubmissionRing,
    pub(super) cq: CompletionRing,
    /// Takes no more commands.
    closed: bool,
    /// Completions are no longer looked at.
    halted: bool,
    taken: Taken,
    wakers: Box<[Option<Waker>]>,
    pub(super) waiting: Waiting<ArrayVec<u16, 2>>,
    /// Memory of orphaned slots.
    held: Vec<(u16, Held)>,
    /// How many wait in [`QueuePair::retire`].
    retiring: usize,
    /// For [`QueuePair::unlock`] to do; made when needed, which is rare.
    rest: Option<Box<Rest>>,
    pub(super) counters: Counters,
}

impl Inner {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

impl QueuePair {
    pub(crate) fn new(parts: Parts, eager: bool, on_fault: Box<dyn Fn(&DeviceMisbehaved) + Send + Sync>) -> Self {
        let depth = parts.depth;
        let (free, taken) = FreeSlots::new(depth);
        // One entry more than slots: a full ring is then impossible, and never looks like an empty one.
        let entries = depth + 1;
        let inner = Inner {
            sq: SubmissionRing::new(entries),
            cq: CompletionRing::new(entries),
            closed: false,
            halted: false,
            taken,
            wakers: (0..depth).map(|_| None).collect(),
            waiting: Waiting::new(),
            held: Vec::new(),
            retiring: 0,
            rest: None,
            counters: Counters::default(),
        };
        rings::clear(&parts.submission, &parts.completion);
        Self {
            id: parts.id,
            eager,
            submission: parts.submission,
            completion: parts.completion,
            slots: Slots::new(parts.slots, depth),
            lists: parts.lists,
            sq_doorbell: parts.sq_doorbell,
            cq_doorbell: parts.cq_doorbell,
            pool: parts.pool,
            free,
            lock: MarkedLock::new(inner),
            interrupts: AtomicU64::new(0),
            retired: Event::new(),
            lost: OnceLock::new(),
            fault: OnceLock::new(),
            on_fault,
        }
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
        let mut inner = self.lock.lock();
        let slot = if place.is_none() && !inner.closed && !inner.waiting.is_hungry() {
            self.free.take(&mut inner.taken)
        } else {
            None
        };
        let slot = match slot {
            Some(slot) => slot,
            None => match self.wait_for_slots(&mut inner, place, waker, 1) {
                Ok(slots) => slots[0],
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
        let (token, old_waker) = self.push(&mut inner, slot, command, notes, own_waker);
        let looked = self.ring_and_unlock(inner);
        // There is none: a free slot has no waker.
        drop(old_waker);
        Ok(Started { token, looked })
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
        let mut inner = self.lock.lock();
        let slots = match self.wait_for_slots(&mut inner, place, waker, 2) {
            Ok(slots) => [slots[0], slots[1]],
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
        let (first, old_one) = self.push(&mut inner, slots[0], one, notes[0], waker_one);
        let (second, old_two) = self.push(&mut inner, slots[1], two, notes[1], waker_two);
        self.ring_and_unlock(inner);
        drop((old_one, old_two));
        Ok([first, second])
    }

    /// Records a command with its slot and writes it to the ring. What comes back is dropped after unlocking.
    #[inline(always)]
    fn push(
        &self,
        inner: &mut Inner,
        slot: u16,
        mut command: Command,
        notes: Notes,
        waker: Waker,
    ) -> (Token, Option<Waker>) {
        let shared = self.slots.at(slot);
        let token = self.slots.renew(shared, slot);
        command.cdw0.set_cid(token.cid);
        let words = command.to_words();
        shared.start(token.cid, &words, notes.tag, notes.registration);
        inner.sq.push(&self.submission, &words);
        inner.counters.submitted += 1;
        inner.counters.bounced += u64::from(notes.bounced);
        (token, inner.wakers[usize::from(slot)].replace(waker))
    }

    /// Tells the device of what was pushed. `true` if completions were looked for after.
    #[inline(always)]
    fn ring_and_unlock(&self, mut inner: Guard<'_, Inner>) -> bool {
        inner.counters.doorbells += 1;
        self.sq_doorbell.ring(inner.sq.tail().into());
        let found = self.eager && inner.cq.is_posted(&self.completion);
        let look = self.release(inner) | found;
        if look {
            self.look_again();
        }
        look
    }

    /// Slots that were taken go unused.
    #[cold]
    fn put_back(&self, mut inner: Guard<'_, Inner>, slots: &[u16]) {
        slots.iter().for_each(|slot| inner.taken.put_back(*slot));
        self.serve(&mut inner);
        self.unlock(inner);
    }

    /// Takes `count` slots, or a place in line for them.
    #[cold]
    #[inline(never)]
    fn wait_for_slots(
        &self,
        inner: &mut Inner,
        place: &mut Option<Place>,
        waker: &Waker,
        count: usize,
    ) -> Result<ArrayVec<u16, 2>, NoSlot> {
        if inner.closed {
            if let Some(place) = place.take() {
                self.leave_locked(inner, place);
            }
            return Err(NoSlot::Closed);
        }
        if count > usize::from(self.depth()) {
            return Err(NoSlot::Full);
        }
        let joined = match place.take() {
            Some(joined) => joined,
            None => {
                // In line even when there may be free slots: `serve` finds what is free, and for whom. Others are
                // told that somebody waits before it looks.
                let joined = inner.waiting.join(count, waker.clone());
                self.free.set_awaited(true);
                self.serve(inner);
                joined
            }
        };
        let (granted, old_waker) = inner.waiting.take(&joined, waker);
        if old_waker.is_some() {
            inner.rest().old_waker = old_waker;
        }
        granted.ok_or_else(|| {
            inner.counters.waited += 1;
            *place = Some(joined);
            NoSlot::Full
        })
    }

    /// Grants free slots to those first in line.
    fn serve(&self, inner: &mut Inner) {
        while let Some(wants) = inner.waiting.first_wants() {
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
            let waker = inner.waiting.grant_first(slots);
            inner.rest().wakers.extend(waker);
        }
        self.free.set_awaited(false);
    }

    /// Gives up a place in line; what was granted to it is passed on.
    pub(crate) fn leave(&self, place: Place) {
        self.locked(|inner| self.leave_locked(inner, place));
    }

    fn leave_locked(&self, inner: &mut Inner, place: Place) {
        if let Some(slots) = inner.waiting.leave(place) {
            slots.into_iter().for_each(|slot| inner.taken.put_back(slot));
        }
        self.serve(inner);
    }

    /// The result of a command, if it is there. The slot is free after.
    pub(crate) fn poll(&self, token: Token, context: &mut Context<'_>) -> Poll<Result<Completion, Lost>> {
        let slot = self.slots.at(token.slot);
        if !slot.is(State::Done, token.cid) {
            match self.poll_again(token, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let completion = slot.result();
        slot.set_state(State::Free, token.cid);
        self.give_back(token.slot);
        Poll::Ready(Ok(completion))
    }

    /// Claims the result of a command if it is there, without a look for it, and a success. The slot is free then.
    #[inline(always)]
    pub(crate) fn claim_success(&self, token: Token) -> bool {
        let slot = self.slots.at(token.slot);
        let success = slot.is(State::Done, token.cid) && slot.result().status.is_success();
        if success {
            slot.set_state(State::Free, token.cid);
            self.give_back(token.slot);
        }
        success
    }

    /// Not there at the first look: look for completions, leave the waker.
    #[cold]
    #[inline(never)]
    fn poll_again(&self, token: Token, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut own_waker = Some(context.waker().clone());
        let mut woken = Woken::new();
        let mut inner = self.lock.lock();
        self.drain_locked(&mut inner, &mut woken);
        let slot = self.slots.at(token.slot);
        let result = match slot.state().0 {
            State::Done => Poll::Ready(Ok(())),
            State::Lost => Poll::Ready(Err(())),
            State::Free | State::InFlight | State::Orphaned => {
                // The old one is dropped with `own_waker`, after unlocking.
                std::mem::swap(&mut inner.wakers[usize::from(token.slot)], &mut own_waker);
                Poll::Pending
            }
        };
        let marked = self.release(inner);
        woken.drain(..).for_each(Waker::wake);
        if marked {
            self.look_again();
        }
        drop(own_waker);
        result.map_err(|()| {
            slot.set_state(State::Free, token.cid);
            self.give_back(token.slot);
            self.lost()
        })
    }

    #[inline(always)]
    fn give_back(&self, slot: u16) {
        if self.free.give_back(slot) {
            self.serve_waiting();
        }
    }

    #[cold]
    fn serve_waiting(&self) {
        self.locked(|inner| self.serve(inner));
    }

    /// The future of a command goes away: what it holds stays until the device is done with it.
    pub(crate) fn forget(&self, token: Token, held: Held) {
        self.locked(|inner| {
            let old_waker = inner.wakers[usize::from(token.slot)].take();
            inner.rest().old_waker = old_waker;
            let slot = self.slots.at(token.slot);
            if slot.is(State::InFlight, token.cid) {
                slot.set_state(State::Orphaned, token.cid);
                inner.counters.orphaned += 1;
                if !held.is_empty() {
                    inner.held.push((token.slot, held));
                }
            } else {
                // Done or lost: the device is done with it.
                slot.set_state(State::Free, token.cid);
                inner.taken.put_back(token.slot);
                self.serve(inner);
                inner.rest().held.push(held);
            }
        });
    }

    fn let_go(&self, held: Held) {
        if let Some(run) = held.run {
            self.pool.give_back(run);
        }
        drop(held.buffer);
    }

    /// Looks for completions and wakes who waits for them. If somebody else looks just now, that somebody looks again.
    /// Returns how many were found.
    pub(crate) fn drain(&self) -> usize {
        let mut total = 0;
        while let Some(mut inner) = self.lock.try_lock_or_mark() {
            let mut woken = Woken::new();
            let found = self.drain_locked(&mut inner, &mut woken);
            let marked = self.release(inner);
            woken.drain(..).for_each(Waker::wake);
            total += found;
            // One drain takes at most one queue's worth: what was posted since it began is another's to find, who was
            // told of it by its own interrupt or polls anyway.
            if !marked && (found < woken.capacity() || total >= usize::from(self.depth())) {
                break;
            }
        }
        total
    }

    /// As [`drain`](Self::drain), because of an interrupt.
    pub(crate) fn interrupted(&self) -> usize {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.drain()
    }

    /// Something rare under the lock.
    fn locked(&self, act: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock.lock();
        act(&mut inner);
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
    fn release(&self, mut inner: Guard<'_, Inner>) -> bool {
        let rest = inner.rest.take();
        let marked = inner.release();
        if let Some(rest) = rest {
            rest.run(self);
        }
        marked
    }

    #[cold]
    #[inline(never)]
    fn look_again(&self) {
        self.drain();
    }

    /// Takes completions from the ring, as many as `woken` has room for.
    #[inline(always)]
    fn drain_locked(&self, inner: &mut Inner, woken: &mut Woken) -> usize {
        inner.counters.polls += 1;
        if inner.halted {
            return 0;
        }
        // Copies, which no store to shared memory makes the compiler read again.
        let (mut cq, ring, slots) = (inner.cq, self.completion.groups(), self.slots.all());
        let mut found = 0;
        while !woken.is_full()
            && let Some(words) = cq.peek(ring)
        {
            match self.complete(inner, slots, words) {
                Ok(Some(waker)) => woken.push(waker),
                Ok(None) => {}
                Err(fault) => {
                    self.halt(inner, fault);
                    break;
                }
            }
            cq.pop();
            found += 1;
        }
        inner.cq = cq;
        if found != 0 {
            inner.counters.polls_found += 1;
            inner.counters.completed += found as u64;
            inner.counters.doorbells += 1;
            self.cq_doorbell.ring(cq.head().into());
            if inner.retiring != 0 {
                inner.rest().retired = true;
            }
        }
        found
    }

    /// Checks a completion and stores it with its slot. Nothing in it is believed.
    #[inline(always)]
    fn complete(
        &self,
        inner: &mut Inner,
        slots: &[[AtomicU64; SLOT_WORDS]],
        words: [u64; 2],
    ) -> Result<Option<Waker>, Box<DeviceMisbehaved>> {
        let Completion { cid, sqid, sqhd, .. } = Completion::from_words(words);
        if sqid == self.id
            && inner.sq.set_head(sqhd)
            && let Some(index) = self.slots.of_cid(cid)
            && let Some(slot) = slots.get(usize::from(index)).map(Slot::new)
            && slot.is(State::InFlight, cid)
        {
            slot.finish(cid, words);
            return Ok(inner.wakers.get_mut(usize::from(index)).and_then(Option::take));
        }
        self.complete_orphan(inner, sqid, sqhd, cid).map(|()| None)
    }

    /// A completion that nobody waits for, or that is wrong.
    #[cold]
    #[inline(never)]
    fn complete_orphan(&self, inner: &mut Inner, sqid: u16, sqhd: u16, cid: u16) -> Result<(), Box<DeviceMisbehaved>> {
        let (queue, entries) = (self.id, self.depth() + 1);
        if sqid != queue {
            return Err(Box::new(DeviceMisbehaved::WrongQueue { queue, sqid }));
        }
        if sqhd >= entries {
            return Err(Box::new(DeviceMisbehaved::HeadOutOfRange { queue, sqhd, entries }));
        }
        let Some(index) = self.slots.of_cid(cid) else {
            return Err(Box::new(DeviceMisbehaved::UnknownCommand { queue, cid }));
        };
        let slot = self.slots.at(index);
        match slot.state() {
            (State::Orphaned, current) if current == cid => {}
            (_, current) if current == cid => return Err(Box::new(DeviceMisbehaved::CompletedTwice { queue, cid })),
            _ => return Err(Box::new(DeviceMisbehaved::StaleCommand { queue, cid })),
        }
        slot.set_state(State::Free, cid);
        inner.taken.put_back(index);
        if let Some(held) = inner.held.iter().position(|(of, _)| *of == index) {
            let (_, held) = inner.held.swap_remove(held);
            inner.rest().held.push(held);
        }
        // Nobody else will look for who waits for a slot.
        self.serve(inner);
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn halt(&self, inner: &mut Inner, fault: Box<DeviceMisbehaved>) {
        tracing::error!(queue = self.id, %fault, "the device broke the protocol");
        inner.halted = true;
        inner.closed = true;
        let _ = self.fault.set(*fault);
        let mut wakers = inner.waiting.wakers();
        inner.rest().wakers.append(&mut wakers);
        inner.rest().fault = true;
    }

    /// How the device broke the protocol on this queue, if it did.
    pub(crate) fn fault(&self) -> Option<&DeviceMisbehaved> {
        self.fault.get()
    }

    /// Takes no more commands; what is in flight goes on.
    pub(crate) fn close(&self) {
        self.locked(|inner| {
            inner.closed = true;
            let wakers = inner.waiting.wakers();
            inner.rest().wakers = wakers;
        });
        self.pool.close();
    }

    /// Ends every command without a result. Only when the device can no longer touch any of their memory, or that
    /// memory is leaked.
    pub(crate) fn give_up(&self, lost: Lost) {
        let _ = self.lost.set(lost);
        self.locked(|inner| {
            inner.closed = true;
            inner.halted = true;
            let mut rest = Rest { wakers: inner.waiting.wakers(), retired: true, ..Rest::default() };
            for index in 0..self.depth() {
                let slot = self.slots.at(index);
                let (state, cid) = slot.state();
                match state {
                    State::InFlight => {
                        slot.set_state(State::Lost, cid);
                        rest.wakers.extend(inner.wakers[usize::from(index)].take());
                    }
                    State::Orphaned => {
                        slot.set_state(State::Free, cid);
                        inner.taken.put_back(index);
                    }
                    State::Free | State::Done | State::Lost => {}
                }
            }
            rest.held.extend(inner.held.drain(..).map(|(_, held)| held));
            inner.rest = Some(Box::new(rest));
        });
        self.pool.close();
    }

    /// Keeps its memory for the rest of the process's life: the device goes on using it.
    pub(crate) fn leak(self: std::sync::Arc<Self>) {
        std::mem::forget(self);
    }

    /// Why commands ended without a result.
    pub(crate) fn lost(&self) -> Lost {
        self.lost.get().cloned().unwrap_or(Lost::Shutdown)
    }

    /// Waits until the device is done with every command for which `names` holds.
    pub(crate) async fn retire(&self, names: impl Fn(&Slots, u16) -> bool) {
        /// One of those who wait, also if its future is dropped meanwhile.
        struct Retiring<'a>(&'a QueuePair);

        impl Drop for Retiring<'_> {
            fn drop(&mut self) {
                self.0.locked(|inner| inner.retiring -= 1);
            }
        }

        self.locked(|inner| inner.retiring += 1);
        let _retiring = Retiring(self);
        loop {
            let listener = self.retired.listen();
            let busy = (0..self.depth()).any(|slot| {
                let (state, _) = self.slots.at(slot).state();
                matches!(state, State::InFlight | State::Orphaned) && names(&self.slots, slot)
            });
            if !busy {
                break;
            }
            listener.await;
        }
    }
}

impl Rest {
    #[cold]
    #[inline(never)]
    fn run(self, queue: &QueuePair) {
        self.held.into_iter().for_each(|held| queue.let_go(held));
        drop(self.old_waker);
        if self.retired {
            queue.retired.notify(usize::MAX);
        }
        if self.fault
            && let Some(fault) = queue.fault.get()
        {
            queue.pool.close();
            (queue.on_fault)(fault);
        }
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(all(test, doorbell_loom))]
mod models;
