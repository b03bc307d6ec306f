//! The lock of a queue pair: a mutex that who fails to get it can leave a mark on.
//!
//! Whoever wants to look for completions and finds the lock taken need not wait: it marks the lock, and the holder
//! learns of the mark when it unlocks, and looks itself. Lock, mark and unlock are one atomic word, so that no order
//! of events loses a mark: a mark is set either before the unlock, which returns it, or after, and then it finds the
//! lock free and takes it.
//!
//! This is the one module of the crate with unsafe code: what the standard mutex costs on top (a second word for the
//! mark, and its own full barrier to make the two agree) is a tenth of the I/O budget.
#![expect(unsafe_code, reason = "a lock hands out exclusive references from shared ones")]

use std::ops::{Deref, DerefMut};

use crate::sync::{AtomicU32, Ordering, UnsafeCell};

const FREE: u32 = 0;
const LOCKED: u32 = 1;
/// Somebody wanted a look while the lock was taken.
const MARKED: u32 = 2;
/// Somebody sleeps until the lock is free.
const SLEEPER: u32 = 4;

/// How often a taken lock is looked at before sleeping: about as long as it is ever held.
const SPINS: u32 = 100;

/// See the module.
#[repr(align(64))]
pub(crate) struct MarkedLock<T> {
    state: AtomicU32,
    /// How many are about to get it by [`lock_in_line`](Self::lock_in_line), and do not sleep.
    wanted: AtomicU32,
    value: UnsafeCell<T>,
    #[cfg(not(doorbell_loom))]
    unlocked: event_listener::Event,
}

// SAFETY: the lock gives out the value to one thread at a time, so sharing it needs no more than sending the value.
unsafe impl<T: Send> Sync for MarkedLock<T> {}

/// The right to use the value. Give it back with [`release`](Self::release).
pub(crate) struct Guard<'a, T> {
    lock: &'a MarkedLock<T>,
}

impl<T> MarkedLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            state: AtomicU32::new(FREE),
            wanted: AtomicU32::new(0),
            value: UnsafeCell::new(value),
            #[cfg(not(doorbell_loom))]
            unlocked: event_listener::Event::new(),
        }
    }

    /// Waits for the lock.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if self.state.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended();
        }
        Guard { lock: self }
    }

    /// Waits for the lock, and lets its holder know that somebody does who has the same to do.
    #[inline(always)]
    pub(crate) fn lock_in_line(&self) -> Guard<'_, T> {
        if self.state.compare_exchange(FREE, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_contended_in_line();
        }
        Guard { lock: self }
    }

    #[cold]
    fn lock_contended_in_line(&self) {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        #[cfg(not(doorbell_loom))]
        let locked = (0..SPINS).any(|_| {
            std::hint::spin_loop();
            self.try_lock()
        });
        #[cfg(doorbell_loom)]
        let locked = {
            self.lock_contended();
            true
        };
        // Who sleeps takes too long for others to rely on it.
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        if !locked {
            self.lock_contended();
        }
    }

    /// Whether somebody is about to get the lock after the one who asks, its holder.
    #[inline(always)]
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    /// Takes the lock if it is free; if not, leaves a mark that the holder's [`Guard::release`] returns.
    #[inline]
    pub(crate) fn try_lock_or_mark(&self) -> Option<Guard<'_, T>> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let next = if state & LOCKED == 0 { state | LOCKED } else { state | MARKED };
            // The mark must be seen after what led to it, hence release too.
            match self.state.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if state & LOCKED == 0 => return Some(Guard { lock: self }),
                Ok(_) => return None,
                Err(now) => state = now,
            }
        }
    }

    /// Takes the lock unless it is held; a `bool` for the model checker's and the slow path's use.
    fn try_lock(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & LOCKED == 0 {
            match self.state.compare_exchange_weak(state, state | LOCKED, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[cold]
    #[cfg(not(doorbell_loom))]
    fn lock_contended(&self) {
        use event_listener::Listener;

        for _ in 0..SPINS {
            if self.try_lock() {
                return;
            }
            std::hint::spin_loop();
        }
        loop {
            event_listener::listener!(self.unlocked => listener);
            // Says that it sleeps before its last try: who unlocks after wakes it.
            self.state.fetch_or(SLEEPER, Ordering::AcqRel);
            if self.try_lock() {
                // Others may sleep too: the bit stays, and costs the next unlock one idle notification.
                return;
            }
            listener.wait();
        }
    }

    #[cfg(doorbell_loom)]
    fn lock_contended(&self) {
        let _ = (SPINS, SLEEPER);
        while !self.try_lock() {
            loom::thread::yield_now();
        }
    }

    #[inline(always)]
    fn unlock(&self) -> bool {
        let state = self.state.swap(FREE, Ordering::AcqRel);
        state != LOCKED && self.unlocked_from(state)
    }

    /// Somebody wanted something while it was locked; `true` if that is a look.
    #[cold]
    #[inline(never)]
    fn unlocked_from(&self, state: u32) -> bool {
        #[cfg(not(doorbell_loom))]
        if state & SLEEPER != 0 {
            // All of them: the bit that told of them is gone, and each sets it again before it sleeps again.
            self.unlocked.notify(usize::MAX);
        }
        state & MARKED != 0
    }
}

impl<T> Guard<'_, T> {
    /// Unlocks. `true` means that somebody wanted a look meanwhile: the caller owes it.
    #[inline(always)]
    #[must_use = "a mark means that completions are to be looked for"]
    pub(crate) fn release(self) -> bool {
        let marked = self.lock.unlock();
        std::mem::forget(self);
        marked
    }
}

impl<T> Drop for Guard<'_, T> {
    /// For unwinding only: a mark is lost here.
    fn drop(&mut self) {
        self.lock.unlock();
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        let pointer = self.lock.value.get_mut();
        // SAFETY: this guard exists only between taking and releasing the lock, so nobody else has a reference; the
        // shared borrow of the guard keeps `deref_mut` away.
        let value: *const T = unsafe { pointer.deref() };
        // SAFETY: as above, and the cell outlives the guard's borrow of the lock.
        unsafe { &*value }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        let pointer = self.lock.value.get_mut();
        // SAFETY: as for `deref`; the exclusive borrow of the guard makes this the only reference.
        let value: *mut T = unsafe { pointer.deref() };
        // SAFETY: as above, and the cell outlives the guard's borrow of the lock.
        unsafe { &mut *value }
    }
}

#[cfg(all(test, doorbell_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::MarkedLock;
    use crate::sync::{AtomicU32, Ordering};

    /// What was posted before a try is found, by whoever holds the lock.
    #[test]
    fn loom_lock_no_look_is_lost() {
        loom::model(|| {
            let lock = Arc::new(MarkedLock::new(0));
            let posted = Arc::new(AtomicU32::new(0));
            let look = |lock: &MarkedLock<u32>, posted: &AtomicU32| {
                posted.fetch_add(1, Ordering::Release);
                while let Some(mut found) = lock.try_lock_or_mark() {
                    *found += posted.swap(0, Ordering::Acquire);
                    if !found.release() {
                        break;
                    }
                }
            };
            let threads = [(); 2].map(|()| {
                let (lock, posted) = (lock.clone(), posted.clone());
                thread::spawn(move || look(&lock, &posted))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let found = lock.lock();
            assert_eq!((*found, posted.load(Ordering::Relaxed)), (2, 0));
            assert!(!found.release(), "nobody looks any more");
        });
    }

    /// Who waits for the lock gets it, alone, and the mark that another left meanwhile is told to its holder.
    #[test]
    fn loom_lock_excludes_and_keeps_marks() {
        loom::model(|| {
            let lock = Arc::new(MarkedLock::new(0));
            let other = lock.clone();
            let thread = thread::spawn(move || {
                let mut value = other.lock();
                *value += 1;
                value.release()
            });
            let marked = match lock.try_lock_or_mark() {
                Some(mut value) => {
                    *value += 1;
                    assert!(!value.release(), "who waits leaves no mark");
                    false
                }
                None => true,
            };
            let told = thread.join().unwrap();
            assert_eq!(told, marked, "a mark is told once, and only if it was left");
            let value = lock.lock();
            assert_eq!(*value, if marked { 1 } else { 2 });
            assert!(!value.release());
        });
    }
}
