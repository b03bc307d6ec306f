//! Following the namespaces as they change.

use std::sync::Arc;
use std::time::Duration;

use nvme_spec::identify::NamespaceList;
use nvme_spec::log::LogId;
use nvme_spec::{NSID_ALL, Status};
use zerocopy::FromBytes;

use super::core::Core;
use super::events::ControllerEvent;
use crate::error::{NamespaceError, RequestError};
use crate::namespace::Seen;
use crate::runtime::sleep;

/// The first and the longest pause before a namespace that could not be identified is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Core {
    /// A namespace-changed event: reads which ones, and looks at them.
    pub(crate) async fn namespaces_changed(self: &Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut bytes = vec![0; 4096];
            match self.admin.log_page(LogId::CHANGED_NAMESPACES, NSID_ALL, false, 0, &mut bytes).await {
                Ok(()) => {
                    let list = NamespaceList::read_from_bytes(&bytes).unwrap_or_default();
                    if list.is_overflow() {
                        self.rescan_all().await;
                    } else {
                        for nsid in list.iter() {
                            self.rescan(nsid);
                        }
                    }
                    return;
                }
                Err(_) if self.check_running().is_err() => return,
                Err(RequestError::Nvme(error)) if error.do_not_retry => {
                    // The list cannot be had, so anything may have changed.
                    tracing::warn!(%error, "the changed namespace list cannot be read, looking at all");
                    return self.rescan_all().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the changed namespace list could not be read, trying again");
                    sleep(&*self.options.runtime, pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Looks at all namespaces: those with a handle, and those that are listed.
    pub(crate) async fn rescan_all(self: &Arc<Self>) {
        let mut nsids = self.namespaces.nsids();
        match self.list_namespaces().await {
            Ok(listed) => nsids.extend(listed),
            Err(error) => tracing::warn!(%error, "the namespaces could not be listed"),
        }
        nsids.sort_unstable();
        nsids.dedup();
        for nsid in nsids {
            self.rescan(nsid);
        }
    }

    /// Looks at one namespace again, in the background, until it is known what became of it.
    pub(crate) fn rescan(self: &Arc<Self>, nsid: u32) {
        let core = self.clone();
        self.options.runtime.spawn(
            "rescan",
            Box::pin(async move {
                let mut pause = FIRST_PAUSE;
                while let Err(error) = core.look_at(nsid).await {
                    if core.check_running().is_err() {
                        return;
                    }
                    tracing::warn!(nsid, %error, "a namespace could not be identified, trying again");
                    sleep(&*core.options.runtime, pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }),
        );
    }

    /// Identifies a namespace again and tells its handle, or, without one, the listeners. An error is a passing one.
    async fn look_at(self: &Arc<Self>, nsid: u32) -> Result<(), RequestError> {
        let held = self.namespaces.get_changed(nsid);
        let seen = match self.see_namespace(nsid).await {
            Ok(seen) => Some(seen),
            Err(NamespaceError::NotFound { .. }) => None,
            Err(NamespaceError::Request(RequestError::Nvme(error)))
                if error.status == Status::INVALID_NAMESPACE_OR_FORMAT && error.do_not_retry =>
            {
                None
            }
            Err(NamespaceError::Request(error)) => return Err(error),
            // It is there, but nothing that a handle could be for: not what it was.
            Err(error) => {
                tracing::info!(nsid, %error, "a namespace became unusable");
                Some(Seen::unusable())
            }
        };
        let event = match (&held, seen) {
            (Some(held), Some(seen)) => {
                if held.follow(seen) {
                    ControllerEvent::NamespaceChanged(nsid)
                } else {
                    ControllerEvent::NamespaceRemoved(nsid)
                }
            }
            (Some(held), None) => {
                held.remove();
                ControllerEvent::NamespaceRemoved(nsid)
            }
            (None, Some(_)) => ControllerEvent::NamespaceAdded(nsid),
            (None, None) => ControllerEvent::NamespaceRemoved(nsid),
        };
        self.events.tell(&event);
        Ok(())
    }
}
