//! Many commands under one doorbell: by a batch that is held open, or because the next is waiting for the lock already.
//!
//! A command behind an unrung doorbell is somebody's to ring for, whatever becomes of who put it there:
//! * the batch, when it is closed;
//! * who submits without a batch, or waits for a slot, for pages or for a result: whoever goes on waits for nothing that
//!   the device was not told of. To make sure that somebody does, the first command behind a doorbell wakes its own task;
//! * who was waiting for the lock;
//! * at last the watchdog, for futures and batches that were leaked.

use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::task::Waker;

use super::lock::Guard;
use super::pair::{Inner, QueuePair};

/// How many commands in a row may leave their doorbell to the next in line for the lock.
const MOST_IN_A_ROW: u8 = 16;

/// There are commands that the device was not told of.
const ANY: u8 = 1;
/// A batch is open.
const HELD: u8 = 2;

/// What is known of doorbells that were not rung.
#[derive(Default)]
pub(super) struct Unrung {
    /// [`ANY`] and [`HELD`].
    state: u8,
    /// How many have left the doorbell to the next in line.
    in_a_row: u8,
    /// How many batches of the holder are open.
    batches: u32,
    holder: Option<Thread>,
    /// Counts batches that were closed by others.
    era: u64,
}

impl Unrung {
    /// Nothing of all this, as nearly always.
    #[inline(always)]
    pub(super) fn is_nothing(&self) -> bool {
        self.state == 0
    }

    /// Whether there are commands that the device was not told of.
    #[inline(always)]
    fn is_any(&self) -> bool {
        self.state & ANY != 0
    }

    fn is_own(&self) -> bool {
        self.state & HELD != 0 && self.holder == Some(Thread::current())
    }

    /// The device is told of nothing any more.
    pub(super) fn forget(&mut self) {
        self.state &= !ANY;
    }

    fn close(&mut self) {
        self.state &= !HELD;
        self.holder = None;
        self.batches = 0;
        self.era += 1;
    }
}

/// Tells threads apart; less to ask for than the standard library's.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Thread(NonZeroU64);

impl Thread {
    fn current() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};

        static LAST: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static OWN: Thread =
                Thread(NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Ordering::Relaxed)));
        }
        // A thread that is ending has no number any more: then it is nobody, and no batch is its.
        OWN.try_with(|own| *own).unwrap_or(Thread(NonZeroU64::MAX))
    }
}

/// A batch of one thread on one queue: what that thread submits there waits for its end, unless somebody waits.
pub(crate) struct Hold<'q> {
    queue: &'q QueuePair,
    era: u64,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl QueuePair {
    /// Opens a batch for this thread; `None` if another thread's is open: then commands are rung for one by one.
    pub(crate) fn hold(&self) -> Option<Hold<'_>> {
        let thread = Thread::current();
        let mut inner = self.lock.lock();
        let unrung = &mut inner.rare.unrung;
        let own = *unrung.holder.get_or_insert(thread) == thread;
        if own {
            unrung.state |= HELD;
            unrung.batches += 1;
        }
        let era = unrung.era;
        self.unlock(inner);
        own.then(|| Hold { queue: self, era, _not_send: PhantomData })
    }

    /// Tells the device of what was pushed, or leaves that to others, and unlocks. `true` if completions were looked for
    /// after.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_or_leave(&self, mut inner: Guard<'_, Inner>, waker: &Waker) -> bool {
        if self.is_first_left(&mut inner) {
            // Its task comes back, and rings if nobody has done so.
            self.unlock(inner);
            waker.wake_by_ref();
            return false;
        }
        self.unlock_eagerly(inner)
    }

    /// Tells the device of what was pushed, or leaves that to others. `true` if it is the first that was left to this
    /// thread's batch.
    fn is_first_left(&self, inner: &mut Inner) -> bool {
        inner.without_doorbell += 1;
        if inner.rare.unrung.is_own() {
            let first = !inner.rare.unrung.is_any();
            inner.rare.unrung.state |= ANY;
            return first;
        }
        if self.is_left_to_next(inner) {
            inner.rare.unrung.in_a_row += 1;
            inner.rare.unrung.state |= ANY;
        } else {
            self.ring(inner);
        }
        false
    }

    /// Whether somebody waits for the lock, who will ring.
    fn is_left_to_next(&self, inner: &Inner) -> bool {
        self.lock.is_wanted() && inner.rare.unrung.in_a_row < MOST_IN_A_ROW
    }

    /// Tells the device of all that was pushed.
    fn ring(&self, inner: &mut Inner) {
        inner.rare.unrung.state &= !ANY;
        inner.rare.unrung.in_a_row = 0;
        inner.counters.doorbells += 1;
        self.sq_doorbell.ring(inner.sq.tail().into());
    }

    /// Before unlocking: what is left neither to an open batch nor to who waits for the lock is told to the device.
    pub(super) fn ring_before_unlock(&self, inner: &mut Inner) {
        if inner.rare.unrung.state == ANY && !self.is_left_to_next(inner) {
            self.ring(inner);
        }
    }

    /// Somebody waits: the device is told of all there is, and a batch that this thread left open is closed.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_for_waiting(&self, inner: &mut Inner) {
        if inner.rare.unrung.is_own() {
            inner.rare.unrung.close();
        }
        if inner.rare.unrung.is_any() {
            self.ring(inner);
        }
    }

    /// Closes whoever's batch is open, and rings for what is behind it.
    pub(super) fn tell_all(&self, inner: &mut Inner) {
        inner.rare.unrung.close();
        if inner.rare.unrung.is_any() {
            self.ring(inner);
        }
    }

    /// As [`ring_for_waiting`](Self::ring_for_waiting), by who looks for completions: others' batches stay unrung, so
    /// that a thread that polls does not undo them.
    #[cold]
    #[inline(never)]
    pub(super) fn ring_for_looking(&self, inner: &mut Inner) {
        if inner.rare.unrung.is_own() {
            self.ring_for_waiting(inner);
        }
    }

    /// Somebody waits for something else than this queue's lock.
    #[cold]
    #[inline(never)]
    pub(crate) fn tell_device(&self) {
        self.locked(|_| {});
    }

    /// The last resort: closes whoever's batch it is that left a doorbell unrung, and rings.
    pub(crate) fn sweep_unrung(&self) {
        self.locked(|inner| {
            if inner.rare.unrung.is_any() {
                inner.rare.unrung.close();
            }
        });
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let mut inner = self.queue.lock.lock();
        // Otherwise it was closed by somebody who waited, and what is open now is another.
        if inner.rare.unrung.era == self.era && inner.rare.unrung.batches != 0 {
            inner.rare.unrung.batches -= 1;
            if inner.rare.unrung.batches == 0 {
                inner.rare.unrung.holder = None;
                inner.rare.unrung.state &= !HELD;
            }
        }
        // Which rings, if nothing is held any more.
        self.queue.unlock(inner);
    }
}
