//! An executor for one thread and a fixed number of futures: who is woken sets a bit.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::thread::{self, Thread};
use std::time::Duration;

use doorbell_device::{StaticWake, static_waker};

/// Which futures have been woken, a bit each.
pub(super) struct Ready {
    /// Different for each.
    id: u64,
    /// By the thread that polls them, which needs no atomic operation for that.
    own: Box<[AtomicU64]>,
    /// By others.
    words: Box<[AtomicU64]>,
    thread: Thread,
    parked: AtomicBool,
}

static IDS: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Whose futures this thread polls.
    static POLLED: Cell<u64> = const { Cell::new(0) };
}

/// One of the futures. Never freed, so that its wakers need no count.
struct SlotWaker {
    own: &'static AtomicU64,
    word: &'static AtomicU64,
    bit: u64,
    ready: &'static Ready,
}

impl StaticWake for SlotWaker {
    #[inline]
    fn wake(&'static self) {
        if POLLED.get() == self.ready.id {
            self.own.store(self.own.load(Ordering::Relaxed) | self.bit, Ordering::Relaxed);
            return;
        }
        // Either the thread sees the bit before it sleeps, or we see that it sleeps.
        self.word.fetch_or(self.bit, Ordering::SeqCst);
        if self.ready.parked.load(Ordering::SeqCst) {
            self.ready.thread.unpark();
        }
    }
}

impl Ready {
    /// For `slots` futures, polled by the calling thread; and a waker for each. They stay for the rest of the process's life:
    /// a bench makes few.
    pub(super) fn new(slots: usize) -> (&'static Self, Vec<Waker>) {
        let words = || (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let id = IDS.fetch_add(1, Ordering::Relaxed);
        POLLED.set(id);
        let (thread, parked) = (thread::current(), AtomicBool::new(false));
        let ready: &'static Self = Box::leak(Box::new(Self { id, own: words(), words: words(), thread, parked }));
        let waker = |slot: usize| {
            let (own, word) = (&ready.own[slot / 64], &ready.words[slot / 64]);
            SlotWaker { own, word, bit: 1 << (slot % 64), ready }
        };
        let slots: &'static [SlotWaker] = (0..slots).map(waker).collect::<Vec<_>>().leak();
        (ready, slots.iter().map(static_waker).collect())
    }

    /// Calls `each` for every slot that was woken since the last time; whether there was one.
    #[inline]
    pub(super) fn drain(&self, mut each: impl FnMut(usize)) -> bool {
        let mut any = false;
        for (index, (own, word)) in self.own.iter().zip(&self.words).enumerate() {
            let mut bits = own.load(Ordering::Relaxed);
            own.store(0, Ordering::Relaxed);
            if word.load(Ordering::Relaxed) != 0 {
                bits |= word.swap(0, Ordering::SeqCst);
            }
            while bits != 0 {
                any = true;
                each(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
        any
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.own.iter().chain(&self.words).all(|word| word.load(Ordering::SeqCst) == 0)
    }

    /// Sleeps until a slot is woken, or until the time is over.
    pub(super) fn park(&self, limit: Duration) {
        self.parked.store(true, Ordering::SeqCst);
        if self.is_empty() {
            thread::park_timeout(limit);
        }
        self.parked.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn woken_slots_are_drained_once() {
        let (ready, wakers) = Ready::new(130);
        for slot in [0, 64, 129, 129] {
            wakers[slot].wake_by_ref();
        }
        thread::scope(|scope| drop(scope.spawn(|| [0, 63].map(|slot| wakers[slot].wake_by_ref()))));
        let mut seen = Vec::new();
        assert!(ready.drain(|slot| seen.push(slot)));
        assert_eq!(seen, [0, 63, 64, 129]);
        assert!(!ready.drain(|_| {}));
    }

    #[test]
    fn a_wake_ends_the_sleep() {
        let (ready, wakers) = Ready::new(1);
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(20));
                wakers[0].wake_by_ref();
            });
            let start = std::time::Instant::now();
            while ready.is_empty() {
                ready.park(Duration::from_secs(60));
            }
            assert!(start.elapsed() < Duration::from_secs(30));
        });
    }
}
