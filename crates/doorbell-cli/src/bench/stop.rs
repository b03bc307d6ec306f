//! Ending before the time: Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

/// Whether to end, and whom to wake for that.
#[derive(Default)]
pub(super) struct Stop {
    stopped: AtomicBool,
    threads: Mutex<Vec<Thread>>,
}

impl Stop {
    /// One that the first Ctrl-C sets. The second ends the process.
    pub(super) fn on_interrupt() -> anyhow::Result<Arc<Self>> {
        let stop = Arc::new(Self::default());
        let handler = stop.clone();
        ctrlc::set_handler(move || {
            if handler.stopped.swap(true, Ordering::SeqCst) {
                // As a shell reports a process that SIGINT killed.
                std::process::exit(130);
            }
            handler.wake_all();
        })?;
        Ok(stop)
    }

    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Has all threads look up.
    pub(super) fn wake_all(&self) {
        for thread in &*self.threads.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }

    #[cfg(test)]
    pub(super) fn set(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Has the calling thread woken when it is set.
    pub(super) fn wake_me(&self) {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread::current());
    }
}
