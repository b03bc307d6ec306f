//! A queue pair: the caller submits in its own call, and whoever has time completes.

use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

use arrayvec::ArrayVec;
use doorbell_device::Doorbell;
use event_listener::Event;
use nvme_spec::{Command, Completion};

use super::lock::{Guard, MarkedLock};
use super::pool::{Pool, Run};
use super::rings::{self, CompletionRing, SubmissionRing};
use super::slots::{FreeSlots, Slots, State, Taken, Token};
use super::waiting::{Place, Waiting};
use super::words::Words;
use crate::error::{DeviceMisbehaved, Lost};
use crate::memory::DmaBuffer;

/// How many completions are taken from the ring before their futures are woken.
const BATCH: usize = 64;

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

/// The PRP list (or SGL segment) memory of all slots, an equal part each that crosses no page.
pub(crate) struct Lists {
    pub(crate) words: Words,
    pub(crate) words_per_slot: usize,
}

/// The list memory of one slot.
#[derive(Clone, Copy)]
pub(crate) struct List<'a> {
    lists: &'a Lists,
    slot: usize,
}

impl List<'_> {
    /// How many words it holds.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.lists.words_per_slot
    }

    /// Writes a word; beyond the end nothing is written.
    #[inline]
    pub(crate) fn set(&self, index: usize, value: u64) {
        if index < self.lists.words_per_slot {
            let word = self.lists.words.at(self.slot * self.lists.words_per_slot + index);
            word.store(value, crate::sync::Ordering::Relaxed);
        }
    }

    /// Where the device finds it.
    #[inline]
    pub(crate) fn iova(&self) -> u64 {
        self.lists.words.iova() + (self.slot * self.lists.words_per_slot * 8) as u64
    }
}

/// What a command takes along besides itself, for those who take over, inspect or wait for it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Notes {
    /// The owner's tag.
    pub(crate) tag: u64,
    /// The memory registration its data lies in; 0 for none.
    pub(crate) registration: u64,
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

/// What is to be done once the lock is released: foreign code runs, and memory is freed, only then.
#[derive(Default)]
struct After {
    wakers: ArrayVec<Waker, BATCH>,
    /// What is rare; made when needed, since looking at it costs as much as a good part of an I/O.
    rest: Option<Box<Rest>>,
}

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

/// Why a command did not start.
pub(crate) enum StartError<E> {
    /// The queue is full; the place in line was taken.
    Full,
    /// The queue takes no more commands.
    Closed,
    /// The command could not be built.
    Build(E),
}

/// See the module.
#[repr(align(64))]
pub(crate) struct QueuePair {
    id: u16,
    submission: Words,
    completion: Words,
    slots: Slots,
    lists: Lists,
    sq_doorbell: Doorbell,
    cq_doorbell: Doorbell,
    pool: Pool,
    /// Look for completions right after submitting: worth it where nobody raises an interrupt.
    eager: bool,
    free: FreeSlots,
    lock: MarkedLock<Inner>,
    /// Woken at each completion while somebody waits for slots to let go of something.
    retired: Event,
    /// Set once, when the queue is given up.
    lost: OnceLock<Lost>,
    /// Set once, when the device broke the protocol on this queue.
    fault: OnceLock<DeviceMisbehaved>,
    /// Tells the controller of the fault.
    on_fault: Box<dyn Fn(&DeviceMisbehaved) + Send + Sync>,
}

struct Inner {
    sq: SubmissionRing,
    cq: CompletionRing,
    taken: Taken,
    wakers: Box<[Option<Waker>]>,
    waiting: Waiting<ArrayVec<u16, 2>>,
    /// Memory of orphaned slots.
    held: Vec<(u16, Held)>,
    /// Somebody waits in [`QueuePair::retired`].
    retiring: usize,
    closed: bool,
    halted: bool,
    counters: Counters,
}

/// What a queue pair counts.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Commands submitted.
    pub submitted: u64,
    /// Completions taken from the ring.
    pub completed: u64,
    /// Doorbells rung, of both rings.
    pub doorbells: u64,
    /// Times somebody looked for completions.
    pub polls: u64,
    /// Looks that found some.
    pub polls_found: u64,
    /// Interrupts that led to a look.
    pub interrupts: u64,
    /// Commands whose data went through bounce pages.
    pub bounced: u64,
    /// Commands that had to wait for a slot.
    pub waited: u64,
    /// Commands whose future was dropped while they were in flight.
    pub orphaned: u64,
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
            taken,
            wakers: (0..depth).map(|_| None).collect(),
            waiting: Waiting::new(),
            held: Vec::new(),
            retiring: 0,
            closed: false,
            halted: false,
            counters: Counters::default(),
        };
        rings::clear(&parts.submission, &parts.completion);
        Self {
            id: parts.id,
            submission: parts.submission,
            completion: parts.completion,
            slots: Slots::new(parts.slots, depth),
            lists: parts.lists,
            sq_doorbell: parts.sq_doorbell,
            cq_doorbell: parts.cq_doorbell,
            pool: parts.pool,
            eager,
            free,
            lock: MarkedLock::new(inner),
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
    #[inline]
    pub(crate) fn start<E>(
        &self,
        waker: &Waker,
        place: &mut Option<Place>,
        notes: Notes,
        build: impl FnOnce(List<'_>) -> Result<Command, E>,
    ) -> Result<Token, StartError<E>> {
        // Cloned before the lock; a clone may run foreign code.
        let own_waker = waker.clone();
        let mut after = After::default();
        let mut inner = self.lock.lock();
        let slot = if place.is_none() && !inner.closed && !inner.waiting.is_hungry() {
            self.free.take(&mut inner.taken)
        } else {
            None
        };
        let slot = match slot {
            Some(slot) => slot,
            None => match self.wait_for_slots(&mut inner, &mut after, place, waker, 1) {
                Ok(slots) => slots[0],
                Err(error) => {
                    self.unlock(inner, &mut after);
                    return Err(error);
                }
            },
        };
        let list = List { lists: &self.lists, slot: slot.into() };
        let command = match build(list) {
            Ok(command) => command,
            Err(error) => {
                inner.taken.put_back(slot);
                self.serve(&mut inner, &mut after);
                self.unlock(inner, &mut after);
                return Err(StartError::Build(error));
            }
        };
        let token = self.push(&mut inner, slot, command, notes);
        inner.wakers[usize::from(slot)] = Some(own_waker);
        inner.counters.doorbells += 1;
        self.sq_doorbell.ring(inner.sq.tail().into());
        if self.eager {
            self.drain_locked(&mut inner, &mut after);
        }
        self.unlock(inner, &mut after);
        Ok(token)
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
        let mut after = After::default();
        let mut inner = self.lock.lock();
        let slots = match self.wait_for_slots(&mut inner, &mut after, place, waker, 2) {
            Ok(slots) => [slots[0], slots[1]],
            Err(error) => {
                self.unlock(inner, &mut after);
                return Err(error);
            }
        };
        let commands = match build(slots.map(|slot| List { lists: &self.lists, slot: slot.into() })) {
            Ok(commands) => commands,
            Err(error) => {
                slots.into_iter().for_each(|slot| inner.taken.put_back(slot));
                self.serve(&mut inner, &mut after);
                self.unlock(inner, &mut after);
                return Err(StartError::Build(error));
            }
        };
        let mut tokens = [Token { slot: 0, cid: 0 }; 2];
        for (i, (command, own_waker)) in commands.into_iter().zip(own_wakers).enumerate() {
            tokens[i] = self.push(&mut inner, slots[i], command, notes[i]);
            inner.wakers[usize::from(slots[i])] = Some(own_waker);
        }
        inner.counters.doorbells += 1;
        self.sq_doorbell.ring(inner.sq.tail().into());
        if self.eager {
            self.drain_locked(&mut inner, &mut after);
        }
        self.unlock(inner, &mut after);
        Ok(tokens)
    }

    #[inline]
    fn push(&self, inner: &mut Inner, slot: u16, mut command: Command, notes: Notes) -> Token {
        let token = self.slots.renew(slot);
        command.cdw0.set_cid(token.cid);
        let words = command.to_words();
        self.slots.start(token, &words, notes.tag, notes.registration);
        inner.sq.push(&self.submission, &words);
        inner.counters.submitted += 1;
        token
    }

    /// Takes `count` slots, or a place in line for them.
    #[cold]
    fn wait_for_slots<E>(
        &self,
        inner: &mut Inner,
        after: &mut After,
        place: &mut Option<Place>,
        waker: &Waker,
        count: usize,
    ) -> Result<ArrayVec<u16, 2>, StartError<E>> {
        if inner.closed {
            if let Some(place) = place.take() {
                self.leave_locked(inner, after, place);
            }
            return Err(StartError::Closed);
        }
        if count > usize::from(self.depth()) {
            return Err(StartError::Full);
        }
        let joined = match place.take() {
            Some(joined) => joined,
            None => {
                // In line even when there may be free slots: `serve` finds what is free, and for whom. Others are
                // told that somebody waits before it looks.
                let joined = inner.waiting.join(count, waker.clone());
                self.free.set_awaited(true);
                self.serve(inner, after);
                joined
            }
        };
        let (granted, old_waker) = inner.waiting.take(&joined, waker);
        after.rest().old_waker = old_waker;
        granted.ok_or_else(|| {
            inner.counters.waited += 1;
            *place = Some(joined);
            StartError::Full
        })
    }

    /// Grants free slots to those first in line.
    fn serve(&self, inner: &mut Inner, after: &mut After) {
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
            after.rest().wakers.extend(inner.waiting.grant_first(slots));
        }
        self.free.set_awaited(false);
    }

    /// Gives up a place in line; what was granted to it is passed on.
    pub(crate) fn leave(&self, place: Place) {
        let mut after = After::default();
        let mut inner = self.lock.lock();
        self.leave_locked(&mut inner, &mut after, place);
        self.unlock(inner, &mut after);
    }

    fn leave_locked(&self, inner: &mut Inner, after: &mut After, place: Place) {
        if let Some(slots) = inner.waiting.leave(place) {
            slots.into_iter().for_each(|slot| inner.taken.put_back(slot));
        }
        self.serve(inner, after);
    }

    /// The result of a command, if it is there. The slot is free after.
    #[inline]
    pub(crate) fn poll(&self, token: Token, context: &mut Context<'_>) -> Poll<Result<Completion, Lost>> {
        if !self.slots.is(token, State::Done) {
            match self.poll_again(token, context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
                Poll::Pending => return Poll::Pending,
            }
        }
        let completion = self.slots.result(token.slot);
        self.slots.set_state(token, State::Free);
        self.give_back(token.slot);
        Poll::Ready(Ok(completion))
    }

    /// Whether a result is there; without looking for it.
    #[inline]
    pub(crate) fn is_done(&self, token: Token) -> bool {
        self.slots.is(token, State::Done)
    }

    /// Not there at the first look: look for completions, leave the waker.
    #[cold]
    fn poll_again(&self, token: Token, context: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let mut own_waker = Some(context.waker().clone());
        let mut after = After::default();
        let mut inner = self.lock.lock();
        self.drain_locked(&mut inner, &mut after);
        let result = match self.slots.state(token.slot).0 {
            State::Done => Poll::Ready(Ok(())),
            State::Lost => Poll::Ready(Err(())),
            State::Free | State::InFlight | State::Orphaned => {
                // The old one is dropped with `own_waker`, after unlocking.
                std::mem::swap(&mut inner.wakers[usize::from(token.slot)], &mut own_waker);
                Poll::Pending
            }
        };
        self.unlock(inner, &mut after);
        drop(own_waker);
        result.map_err(|()| {
            self.slots.set_state(token, State::Free);
            self.give_back(token.slot);
            self.lost()
        })
    }

    #[inline]
    fn give_back(&self, slot: u16) {
        if self.free.give_back(slot) {
            self.serve_waiting();
        }
    }

    #[cold]
    fn serve_waiting(&self) {
        let mut after = After::default();
        let mut inner = self.lock.lock();
        self.serve(&mut inner, &mut after);
        self.unlock(inner, &mut after);
    }

    /// The future of a command goes away: what it holds stays until the device is done with it.
    pub(crate) fn forget(&self, token: Token, held: Held) {
        let mut after = After::default();
        let mut inner = self.lock.lock();
        after.rest().old_waker = inner.wakers[usize::from(token.slot)].take();
        if self.slots.is(token, State::InFlight) {
            self.slots.set_state(token, State::Orphaned);
            inner.counters.orphaned += 1;
            if !held.is_empty() {
                inner.held.push((token.slot, held));
            }
        } else {
            // Done or lost: the device is done with it.
            self.slots.set_state(token, State::Free);
            inner.taken.put_back(token.slot);
            self.serve(&mut inner, &mut after);
            after.rest().held.push(held);
        }
        self.unlock(inner, &mut after);
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
            let mut after = After::default();
            let found = self.drain_locked(&mut inner, &mut after);
            let marked = inner.release();
            after.run(self);
            total += found;
            // One drain takes at most one queue's worth: what was posted since it began is another's to find, who was
            // told of it by its own interrupt or polls anyway.
            if !marked && (found < BATCH || total >= usize::from(self.depth())) {
                break;
            }
        }
        total
    }

    /// As [`drain`](Self::drain), because of an interrupt.
    pub(crate) fn interrupted(&self) -> usize {
        self.count(|inner| inner.counters.interrupts += 1);
        self.drain()
    }

    /// Unlocks, does what is to be done after, and looks for completions if somebody asked for it meanwhile.
    #[inline]
    fn unlock(&self, inner: Guard<'_, Inner>, after: &mut After) {
        let marked = inner.release();
        after.run(self);
        if marked {
            self.look_again();
        }
    }

    #[cold]
    fn look_again(&self) {
        self.drain();
    }

    /// Takes completions from the ring, at most a batch.
    #[inline]
    fn drain_locked(&self, inner: &mut Inner, after: &mut After) -> usize {
        inner.counters.polls += 1;
        if inner.halted {
            return 0;
        }
        let mut found = 0;
        while !after.wakers.is_full()
            && let Some(completion) = inner.cq.peek(&self.completion)
        {
            if let Err(fault) = self.complete(inner, &completion, after) {
                self.halt(inner, after, fault);
                break;
            }
            inner.cq.pop();
            found += 1;
        }
        if found != 0 {
            inner.counters.polls_found += 1;
            inner.counters.completed += found as u64;
            inner.counters.doorbells += 1;
            self.cq_doorbell.ring(inner.cq.head().into());
            if inner.retiring != 0 {
                after.rest().retired = true;
            }
        }
        found
    }

    /// Checks a completion and stores it with its slot. Nothing in it is believed.
    #[inline]
    fn complete(&self, inner: &mut Inner, completion: &Completion, after: &mut After) -> Result<(), DeviceMisbehaved> {
        let Completion { cid, sqid, sqhd, .. } = *completion;
        if sqid != self.id {
            return Err(DeviceMisbehaved::WrongQueue { queue: self.id, sqid });
        }
        if !inner.sq.set_head(sqhd) {
            return Err(DeviceMisbehaved::HeadOutOfRange { queue: self.id, sqhd, entries: self.depth() + 1 });
        }
        let Some(slot) = self.slots.of_cid(cid) else {
            return Err(DeviceMisbehaved::UnknownCommand { queue: self.id, cid });
        };
        let token = Token { slot, cid };
        if !self.slots.is(token, State::InFlight) {
            return self.complete_orphan(inner, token, after);
        }
        self.slots.finish(token, completion);
        if let Some(waker) = inner.wakers[usize::from(slot)].take() {
            after.wakers.push(waker);
        }
        Ok(())
    }

    #[cold]
    fn complete_orphan(&self, inner: &mut Inner, token: Token, after: &mut After) -> Result<(), DeviceMisbehaved> {
        let Token { slot, cid } = token;
        match self.slots.state(slot) {
            (State::Orphaned, current) if current == cid => {}
            (_, current) if current == cid => return Err(DeviceMisbehaved::CompletedTwice { queue: self.id, cid }),
            _ => return Err(DeviceMisbehaved::StaleCommand { queue: self.id, cid }),
        }
        self.slots.set_state(token, State::Free);
        inner.taken.put_back(slot);
        if let Some(index) = inner.held.iter().position(|(of, _)| *of == slot) {
            after.rest().held.push(inner.held.swap_remove(index).1);
        }
        // Nobody else will look for who waits for a slot.
        self.serve(inner, after);
        Ok(())
    }

    #[cold]
    fn halt(&self, inner: &mut Inner, after: &mut After, fault: DeviceMisbehaved) {
        tracing::error!(queue = self.id, %fault, "the device broke the protocol");
        inner.halted = true;
        inner.closed = true;
        let _ = self.fault.set(fault);
        after.rest().wakers.append(&mut inner.waiting.wakers());
        after.rest().fault = true;
    }

    /// How the device broke the protocol on this queue, if it did.
    pub(crate) fn fault(&self) -> Option<&DeviceMisbehaved> {
        self.fault.get()
    }

    /// Takes no more commands; what is in flight goes on.
    pub(crate) fn close(&self) {
        let mut after = After::default();
        let mut inner = self.lock.lock();
        inner.closed = true;
        after.rest().wakers = inner.waiting.wakers();
        self.unlock(inner, &mut after);
    }

    /// Ends every command without a result. Only when the device can no longer touch any of their memory, or that
    /// memory is leaked.
    pub(crate) fn give_up(&self, lost: Lost) {
        let _ = self.lost.set(lost);
        let mut after = After::default();
        let mut inner = self.lock.lock();
        inner.closed = true;
        inner.halted = true;
        after.rest().wakers = inner.waiting.wakers();
        for slot in 0..self.depth() {
            let (state, cid) = self.slots.state(slot);
            let token = Token { slot, cid };
            match state {
                State::InFlight => {
                    self.slots.set_state(token, State::Lost);
                    after.rest().wakers.extend(inner.wakers[usize::from(slot)].take());
                }
                State::Orphaned => {
                    self.slots.set_state(token, State::Free);
                    inner.taken.put_back(slot);
                }
                State::Free | State::Done | State::Lost => {}
            }
        }
        after.rest().held.extend(inner.held.drain(..).map(|(_, held)| held));
        after.rest().retired = true;
        self.unlock(inner, &mut after);
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
        self.count(|inner| inner.retiring += 1);
        loop {
            let listener = self.retired.listen();
            let busy = (0..self.depth()).any(|slot| {
                let (state, _) = self.slots.state(slot);
                matches!(state, State::InFlight | State::Orphaned) && names(&self.slots, slot)
            });
            if !busy {
                break;
            }
            listener.await;
        }
        self.count(|inner| inner.retiring -= 1);
    }

    /// Counts a command whose data goes through bounce pages.
    pub(crate) fn count_bounce(&self) {
        self.count(|inner| inner.counters.bounced += 1);
    }

    fn count(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock.lock();
        change(&mut inner);
        self.unlock(inner, &mut After::default());
    }

    /// A look at the queue as it is.
    pub(crate) fn inspect(&self) -> QueueState {
        let inner = self.lock.lock();
        let (sq_tail, sq_head, cq_head) = (inner.sq.tail(), inner.sq.head(), inner.cq.head());
        let (phase, counters, waiting) = (inner.cq.phase(), inner.counters, inner.waiting.len());
        self.unlock(inner, &mut After::default());
        let commands = (0..self.depth()).filter_map(|slot| match self.slots.state(slot) {
            (State::Free, _) => None,
            (state, cid) => Some(CommandState {
                cid,
                state: format!("{state:?}"),
                opcode: self.slots.command(slot).cdw0.opcode(),
                nsid: self.slots.command(slot).nsid,
                lba: self.slots.command(slot).cdw10_11(),
                tag: self.slots.tag(slot),
            }),
        });
        let (pool_pages, pool_in_use) = self.pool.usage();
        QueueState {
            id: self.id,
            depth: self.depth(),
            sq_tail,
            sq_head,
            cq_head,
            phase,
            counters,
            waiting,
            commands: commands.collect(),
            pool_pages,
            pool_in_use,
            fault: self.fault().map(ToString::to_string),
        }
    }
}

impl After {
    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    // By reference: the array of wakers is a kilobyte, not to be moved around.
    #[inline]
    fn run(&mut self, queue: &QueuePair) {
        self.wakers.drain(..).for_each(Waker::wake);
        if let Some(rest) = self.rest.take() {
            rest.run(queue);
        }
    }
}

impl Rest {
    #[cold]
    fn run(self: Box<Self>, queue: &QueuePair) {
        self.held.into_iter().for_each(|held| queue.let_go(held));
        drop(self.old_waker);
        if self.retired {
            queue.retired.notify(usize::MAX);
        }
        if self.fault
            && let Some(fault) = queue.fault.get()
        {
            (queue.on_fault)(fault);
        }
        self.wakers.into_iter().for_each(Waker::wake);
    }
}

/// What a queue pair looks like at a moment.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct QueueState {
    /// Queue identifier; 0 is the admin queue.
    pub id: u16,
    /// Commands that can be in flight.
    pub depth: u16,
    /// Submission queue tail.
    pub sq_tail: u16,
    /// Submission queue head, as the device last reported it.
    pub sq_head: u16,
    /// Completion queue head.
    pub cq_head: u16,
    /// The phase that a new completion will carry.
    pub phase: bool,
    /// What was counted.
    pub counters: Counters,
    /// Commands that wait for a slot.
    pub waiting: usize,
    /// Commands that have a slot.
    pub commands: Vec<CommandState>,
    /// Pages of the bounce pool.
    pub pool_pages: usize,
    /// Pages of the bounce pool in use.
    pub pool_in_use: usize,
    /// How the device broke the protocol here, if it did.
    pub fault: Option<String>,
}

/// A command that has a slot.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct CommandState {
    /// Command identifier.
    pub cid: u16,
    /// In flight, done and not yet claimed, orphaned or lost.
    pub state: String,
    /// Opcode.
    pub opcode: u8,
    /// Namespace identifier.
    pub nsid: u32,
    /// Command dwords 10 and 11: the first LBA, of commands that have one.
    pub lba: u64,
    /// The owner's tag.
    pub tag: u64,
}
