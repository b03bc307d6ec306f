//! Completions of a queue pair: found in the ring by whoever has time, checked, and claimed from their slots.

use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use arrayvec::ArrayVec;
use nvme_spec::Completion;

use super::pair::{Gate, Held, Inner, QueuePair};
use super::slots::{Returned, Slot, State, Token};
use crate::error::{DeviceMisbehaved, Lost};

/// Completions that are taken from the ring at a time.
const AT_A_TIME: usize = 64;

/// The wakers of one look: woken once the lock is released.
type Woken = ArrayVec<Waker, AT_A_TIME>;

impl QueuePair {
    /// The result of a command, if it is there. The slot is free after.
    pub(crate) fn poll(&self, token: Token, context: &mut Context<'_>) -> Poll<Result<Completion, Lost>> {
        let index = self.slots.of_cid(token.cid);
        let slot = self.slots.at(index);
        if !slot.is(State::Done, token.cid) {
            match self.poll_again(token, context, false) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
                Poll::Pending => return Poll::Pending,
            }
        }
        loop {
            let completion = slot.result();
            slot.set_state(State::Free, token.cid);
            if self.give_back(index) {
                return Poll::Ready(Ok(completion));
            }
            // It is about to cross over to another process.
            match self.poll_again(token, context, true) {
                // It did not.
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => return Poll::Ready(Err(lost)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Claims the result of a command if it is there, without a look for it, and just a success. The slot is free then.
    #[inline(always)]
    pub(crate) fn claim_success(&self, token: Token) -> bool {
        let index = self.slots.of_cid(token.cid);
        let slot = self.slots.at(index);
        let success = slot.is(State::Done, token.cid) && slot.is_plain_success();
        if success {
            slot.set_state(State::Free, token.cid);
            return self.give_back(index);
        }
        false
    }

    /// Not there at the first look: look for completions, leave the waker. `late` is who saw the result, but when it was
    /// another's.
    #[cold]
    #[inline(never)]
    fn poll_again(&self, token: Token, context: &mut Context<'_>, late: bool) -> Poll<Result<(), Lost>> {
        let mut own_waker = Some(context.waker().clone());
        let mut woken = Woken::new();
        let mut inner = self.lock.lock();
        if !inner.rare.is_quiet() {
            self.ring_for_waiting(&mut inner);
        }
        self.drain_locked(&mut inner, &mut woken);
        let index = self.slots.of_cid(token.cid);
        let slot = self.slots.at(index);
        let result = match slot.state().0 {
            State::Done | State::Returned => Poll::Ready(Ok(())),
            // It was decided meanwhile whose it is.
            State::Free if late && inner.rare.frozen.is_none() => Poll::Ready(match inner.rare.gate {
                Gate::Closed => Err(self.lost()),
                Gate::Open | Gate::Paused => Ok(()),
            }),
            State::Lost => Poll::Ready(Err(self.lost())),
            State::Interrupted => Poll::Ready(Err(Lost::Interrupted)),
            State::Free | State::InFlight | State::Orphaned => {
                // The old one is dropped with `own_waker`, after unlocking.
                if let Some(waker) = inner.wakers.get_mut(usize::from(index)) {
                    std::mem::swap(waker, &mut own_waker);
                }
                Poll::Pending
            }
        };
        let marked = self.release(inner);
        woken.drain(..).for_each(Waker::wake);
        if marked {
            self.look_again();
        }
        drop(own_waker);
        result.map_err(|lost| {
            slot.set_state(State::Free, token.cid);
            self.give_back(index);
            lost
        })
    }

    /// `false` if the result in the slot is another's.
    #[inline(always)]
    fn give_back(&self, slot: u16) -> bool {
        match self.free.give_back(slot) {
            Returned::Free => true,
            Returned::Awaited => {
                self.serve_waiting();
                true
            }
            Returned::TooLate => false,
        }
    }

    #[cold]
    fn serve_waiting(&self) {
        self.locked(|inner| self.serve(inner));
    }

    /// The future of a command goes away: what it holds stays until the device is done with it.
    pub(crate) fn forget(&self, token: Token, held: Held) {
        let index = self.slots.of_cid(token.cid);
        self.locked(|inner| {
            if let Some(old_waker) = inner.wakers.get_mut(usize::from(index)).and_then(Option::take) {
                inner.rare.rest().old_wakers.push(old_waker);
            }
            let slot = self.slots.at(index);
            if inner.rare.frozen.as_ref().is_some_and(|frozen| frozen.holds(token)) {
                if let Some(frozen) = &mut inner.rare.frozen {
                    frozen.forget(token, held);
                }
            } else if slot.is(State::InFlight, token.cid) {
                slot.set_state(State::Orphaned, token.cid);
                inner.counters.orphaned += 1;
                if !held.is_empty() {
                    inner.held.push((index, held));
                }
            } else {
                // Done or lost: the device is done with it.
                slot.set_state(State::Free, token.cid);
                inner.taken.put_back(index);
                self.serve(inner);
                inner.rare.rest().held.push(held);
            }
        });
    }

    pub(super) fn let_go(&self, held: Held) {
        if let Some(run) = held.run {
            self.pool.give_back(run);
        }
        drop(held.buffer);
    }

    /// Looks for completions and wakes who waits for them. If somebody else looks just now, that somebody looks again.
    /// Returns how many were found.
    pub(crate) fn drain(&self) -> usize {
        self.look(true)
    }

    /// As [`drain`](Self::drain). `waits` says that it is not just a look besides.
    #[inline(always)]
    pub(super) fn look(&self, waits: bool) -> usize {
        let mut total = 0;
        while let Some(mut inner) = self.lock.try_lock_or_mark() {
            if waits && !inner.rare.is_quiet() {
                self.ring_for_looking(&mut inner);
            }
            let mut woken = Woken::new();
            let found = self.drain_locked(&mut inner, &mut woken);
            let marked = self.release(inner);
            woken.drain(..).for_each(Waker::wake);
            total += found;
            // One drain takes at most one queue's worth: what was posted since it began is another's to find, who was
            // told of it by its own interrupt or polls anyway.
            if !marked && (found < AT_A_TIME || total >= usize::from(self.depth())) {
                break;
            }
        }
        total
    }

    /// As [`drain`](Self::drain), for a caller that polls.
    #[inline]
    pub(crate) fn poll_for_caller(&self) -> usize {
        // Nobody needs the exact number, so callers on several CPUs may overwrite each other's.
        self.polled.store(self.polled.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.drain()
    }

    /// Changes while callers poll this queue themselves.
    pub(crate) fn polled_by_callers(&self) -> u32 {
        self.polled.load(Ordering::Relaxed)
    }

    /// As [`drain`](Self::drain), because of an interrupt.
    pub(crate) fn interrupted(&self) -> usize {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
        self.drain()
    }

    /// Takes completions from the ring, as many as `woken` has room for.
    #[inline(always)]
    fn drain_locked(&self, inner: &mut Inner, woken: &mut Woken) -> usize {
        let room = woken.remaining_capacity();
        let found = self.take_completions(inner, room, |inner, index, slot, cid, words| {
            slot.finish(cid, words);
            if let Some(waker) = inner.wakers.get_mut(usize::from(index)).and_then(Option::take) {
                woken.push(waker);
            }
        });
        if self.exclusive && found != 0 {
            inner.rare.ended = true;
        }
        found
    }

    /// Takes at most `max` completions from the ring, and does with each whose command somebody waits for as told: there
    /// are its slot and that one's number, its identifier and the completion's words. How many it were.
    #[inline(always)]
    pub(super) fn take_completions(
        &self,
        inner: &mut Inner,
        max: usize,
        mut end: impl FnMut(&mut Inner, u16, Slot<'_>, u16, [u64; 2]),
    ) -> usize {
        inner.counters.polls += 1;
        if !inner.rare.is_quiet() && inner.rare.halted {
            return 0;
        }
        // Copies, which no store to shared memory makes the compiler read again.
        let (mut cq, ring, slots) = (inner.cq, self.completion.all(), self.slots.all());
        let mut found = 0;
        loop {
            let entries = cq.ahead(ring, max - found);
            let mut taken = 0;
            for entry in entries {
                let Some(words) = cq.posted(entry) else { break };
                let Completion { cid, sqid, sqhd, .. } = Completion::from_words(words);
                let index = self.slots.of_cid(cid);
                // Nothing in it is believed.
                if inner.sq.is_named_by(words)
                    && let Some(slot) = slots.get(usize::from(index)).map(Slot::new)
                    && slot.is(State::InFlight, cid)
                {
                    inner.sq.set_head(sqhd);
                    end(inner, index, slot, cid, words);
                } else if let Err(fault) = self.complete_orphan(inner, sqid, sqhd, cid) {
                    self.halt(inner, fault);
                    break;
                }
                taken += 1;
            }
            cq.pop(taken);
            found += taken;
            if taken < entries.len() || found == max {
                break;
            }
        }
        inner.cq = cq;
        if found != 0 {
            inner.counters.polls_found += 1;
            inner.counters.completed += found as u64;
            inner.counters.doorbells += 1;
            self.cq_doorbell.ring(cq.head().into());
            if !inner.rare.is_quiet() && inner.rare.retiring != 0 {
                inner.rare.rest().retired = true;
            }
        }
        found
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
        let index = self.slots.of_cid(cid);
        let Some(slot) = self.slots.all().get(usize::from(index)).map(Slot::new) else {
            return Err(Box::new(DeviceMisbehaved::UnknownCommand { queue, cid }));
        };
        match slot.state() {
            (State::Orphaned, current) if current == cid => {}
            (_, current) if current == cid => return Err(Box::new(DeviceMisbehaved::CompletedTwice { queue, cid })),
            _ => return Err(Box::new(DeviceMisbehaved::StaleCommand { queue, cid })),
        }
        inner.sq.set_head(sqhd);
        slot.set_state(State::Free, cid);
        inner.taken.put_back(index);
        if let Some(held) = inner.held.iter().position(|(of, _)| *of == index) {
            let (_, held) = inner.held.swap_remove(held);
            inner.rare.rest().held.push(held);
        }
        // Nobody else will look for who waits for a slot.
        self.serve(inner);
        Ok(())
    }
}
