//! Wakers without a reference count.

use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

/// What a [`static_waker`] wakes: from any thread, at any time.
pub trait StaticWake: Sync + 'static {
    /// As [`Wake::wake`](std::task::Wake::wake).
    fn wake(&'static self);
}

/// A waker of what lives as long as the process, such as an executor's slot that is never freed. Cloning and dropping it
/// cost nothing: an `Arc`'s count is two atomic operations an I/O, some 10 ns.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering};
/// use doorbell_device::{StaticWake, static_waker};
///
/// struct Slot(AtomicU32);
///
/// impl StaticWake for Slot {
///     fn wake(&'static self) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// static SLOT: Slot = Slot(AtomicU32::new(0));
/// let waker = static_waker(&SLOT);
/// waker.clone().wake();
/// waker.wake_by_ref();
/// assert_eq!(SLOT.0.load(Ordering::Relaxed), 2);
/// ```
pub fn static_waker<W: StaticWake>(woken: &'static W) -> Waker {
    // SAFETY: the contract of `RawWakerVTable` asks for functions that may be called from any thread, with the pointer of
    // this waker or of a clone, as long as one of them lives. All of them have the one pointer that is made here, of a
    // reference that is valid for ever; `W` is `Sync`, so any thread may have that reference; and dropping frees nothing,
    // so no order of these calls matters.
    unsafe { Waker::from_raw(raw(woken)) }
}

fn raw<W: StaticWake>(woken: &'static W) -> RawWaker {
    RawWaker::new(ptr::from_ref(woken).cast(), &RawWakerVTable::new(again::<W>, wake::<W>, wake::<W>, |_| {}))
}

/// # Safety
/// The pointer is one that `raw::<W>` has made.
unsafe fn again<W: StaticWake>(woken: *const ()) -> RawWaker {
    // SAFETY: it was made of a `&'static W`.
    raw(unsafe { &*woken.cast::<W>() })
}

/// # Safety
/// As for `again`.
unsafe fn wake<W: StaticWake>(woken: *const ()) {
    // SAFETY: as in `again`.
    W::wake(unsafe { &*woken.cast::<W>() });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Slot(AtomicU32);

    impl StaticWake for Slot {
        fn wake(&'static self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_clone_wakes_from_any_thread_and_knows_its_kin() {
        static ONE: Slot = Slot(AtomicU32::new(0));
        static TWO: Slot = Slot(AtomicU32::new(0));
        let (one, two) = (static_waker(&ONE), static_waker(&TWO));
        assert!(one.will_wake(&one.clone()) && !one.will_wake(&two));
        let threads = [one.clone(), one.clone(), two].map(|waker| std::thread::spawn(move || waker.wake()));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(one);
        assert_eq!((ONE.0.load(Ordering::Relaxed), TWO.0.load(Ordering::Relaxed)), (2, 1));
    }
}
