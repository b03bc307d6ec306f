use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::error::{DeviceFailed, DeviceMisbehaved, Lost};

/// Why the device is to be reset or given up: set by whoever finds out first.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    reason: Mutex<Option<Lost>>,
    happened: Event,
}

impl Failure {
    pub(crate) fn misbehaved(&self, how: DeviceMisbehaved) {
        self.set(Lost::Misbehaved(how));
    }

    pub(crate) fn failed(&self, how: DeviceFailed) {
        self.set(Lost::Failed(how));
    }

    pub(crate) fn set(&self, reason: Lost) {
        let mut known = self.lock();
        if known.is_none() {
            *known = Some(reason);
            drop(known);
            self.happened.notify(usize::MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lost>> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reason(&self) -> Option<Lost> {
        self.lock().clone()
    }

    /// Another failure may follow: this one is being dealt with.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    /// Waits until there is a reason.
    pub(crate) async fn wait(&self) -> Lost {
        loop {
            let listener = self.happened.listen();
            if let Some(reason) = self.reason() {
                return reason;
            }
            listener.await;
        }
    }
}
