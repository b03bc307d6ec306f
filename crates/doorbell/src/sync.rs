//! Atomics and cells, swapped for the model checker's under `cfg(doorbell_loom)`. Not plain `loom`: crates that we
//! depend on listen to that.

#[cfg(doorbell_loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(doorbell_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

#[cfg(not(doorbell_loom))]
pub(crate) use self::cell::UnsafeCell;
#[cfg(not(doorbell_loom))]
pub(crate) use doorbell_device::mb;
#[cfg(not(doorbell_loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// The full barrier, as the model checker knows it.
#[cfg(doorbell_loom)]
pub(crate) fn mb() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// The standard cell behind the model checker's interface.
#[cfg(not(doorbell_loom))]
mod cell {
    #[derive(Debug)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn get_mut(&self) -> MutPtr<T> {
            MutPtr(self.0.get())
        }
    }

    pub(crate) struct MutPtr<T>(*mut T);

    impl<T> MutPtr<T> {
        /// # Safety
        /// Nobody else may access the value while the reference lives.
        #[inline(always)]
        #[expect(unsafe_code, reason = "the same signature as the model checker's")]
        #[expect(clippy::mut_from_ref, reason = "the same signature as the model checker's")]
        pub(crate) unsafe fn deref(&self) -> &mut T {
            // SAFETY: the pointer comes from a live cell, and the caller vouches for exclusive access.
            unsafe { &mut *self.0 }
        }
    }
}
