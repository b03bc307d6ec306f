//! What becomes of a namespace below becomes of the one above.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use doorbell::Runtime;
use doorbell_emulator::Subsystem;
use futures_lite::future::or;

use crate::below::Shared;

/// Follows a namespace: see [`Relay::follower`](crate::Relay::follower).
pub struct Follower {
    shared: Weak<Shared>,
}

impl Follower {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::downgrade(shared) }
    }

    /// From now on, when it is resized, `nsid` of `subsystem` is too; and when it is removed, or its controller is given
    /// up, so is that. `changed` is called after each, to wake controllers that sleep. Ends when it is no longer storage.
    pub fn follow(
        self,
        runtime: &dyn Runtime,
        subsystem: Subsystem,
        nsid: u32,
        changed: impl Fn() + Send + Sync + 'static,
    ) {
        let task = async move {
            while let Some(shared) = self.shared.upgrade() {
                let size = subsystem.block_count(nsid).unwrap_or_default();
                match shared.next_size(size).await {
                    Next::Size(blocks) => {
                        let bytes = blocks.saturating_mul(shared.namespace.block_size().into());
                        // It fails where it has changed again, which comes next.
                        if let Err(error) = subsystem.resize_namespace(nsid, bytes) {
                            tracing::debug!(nsid, %error, "the namespace above is not resized");
                        }
                    }
                    Next::Gone => {
                        tracing::info!(nsid, "the namespace below is gone, and so is the one above");
                        let _ = subsystem.remove_namespace(nsid);
                        changed();
                        return;
                    }
                    Next::Closed => return,
                }
                changed();
            }
        };
        runtime.spawn("relay", Box::pin(task));
    }
}

enum Next {
    Size(u64),
    Gone,
    Closed,
}

impl Shared {
    async fn next_size(&self, old: u64) -> Next {
        let closed = async {
            loop {
                let listener = self.closing.listen();
                if self.closed.load(Ordering::SeqCst) {
                    return Next::Closed;
                }
                listener.await;
            }
        };
        let resized = async { self.namespace.wait_resize(old).await.map_or(Next::Gone, Next::Size) };
        or(closed, resized).await
    }
}
