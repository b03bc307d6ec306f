//! How an idle thread goes to sleep so that no wake-up is lost.
//!
//! Built on the `sync` of the module above, so that the tests put a model checker's in its place.

use std::time::Duration;

use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, PoisonError, fence};

/// One thread that sleeps while there is nothing to do, and any number that give it something to do.
///
/// Work that is given by storing something (a doorbell) costs the giver a full barrier and a load, unless the thread
/// sleeps. The protocol is Dekker's: the giver stores, then looks whether the thread sleeps; the thread says that it
/// sleeps, then looks for work. With a full barrier between the two steps on both sides, at least one sees the other.
#[derive(Debug)]
pub(super) struct Doze {
    asleep: AtomicBool,
    wake: Condvar,
}

impl Doze {
    pub(super) fn new() -> Self {
        Self { asleep: AtomicBool::new(false), wake: Condvar::new() }
    }

    /// Something was stored that the thread should look at: wakes it if it sleeps. `lock` is the lock it sleeps under.
    #[inline]
    pub(super) fn kick<T>(&self, lock: &Mutex<T>) {
        // Between the store that is to be seen and the load. Paired with the one in `sleep`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake(lock);
        }
    }

    /// Wakes the thread if it sleeps, or is about to.
    #[cold]
    pub(super) fn wake<T>(&self, lock: &Mutex<T>) {
        // A thread that has said that it sleeps has the lock until it waits: so it waits, or never will.
        drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    /// Sleeps until woken, unless `look` finds something to do: `Err`; otherwise it says how long to sleep at most.
    pub(super) fn sleep<T>(&self, mut guard: MutexGuard<'_, T>, look: impl FnOnce(&mut T) -> Result<Duration, ()>) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if let Ok(timeout) = look(&mut guard) {
            drop(self.wake.wait_timeout(guard, timeout));
        }
        // Who reads it as true for a little longer notifies nobody, and what it stored is seen by the next look.
        self.asleep.store(false, Ordering::Relaxed);
    }
}
