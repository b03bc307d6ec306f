use std::sync::OnceLock;

use event_listener::Event;

use crate::error::{DeviceFailed, DeviceMisbehaved, Lost};

/// Why the device is to be given up: set once, by whoever finds out first.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    reason: OnceLock<Lost>,
    happened: Event,
}

impl Failure {
    pub(crate) fn misbehaved(&self, how: DeviceMisbehaved) {
        self.set(Lost::Misbehaved(how));
    }

    pub(crate) fn failed(&self, how: DeviceFailed) {
        self.set(Lost::Failed(how));
    }

    fn set(&self, reason: Lost) {
        if self.reason.set(reason).is_ok() {
            self.happened.notify(usize::MAX);
        }
    }

    pub(crate) fn reason(&self) -> Option<&Lost> {
        self.reason.get()
    }

    /// Waits until there is a reason.
    pub(crate) async fn wait(&self) -> Lost {
        loop {
            let listener = self.happened.listen();
            if let Some(reason) = self.reason.get() {
                return reason.clone();
            }
            listener.await;
        }
    }
}
