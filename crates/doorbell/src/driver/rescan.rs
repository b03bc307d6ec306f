//! Following the namespaces as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nvme_spec::NSID_ALL;
use nvme_spec::identify::NamespaceList;
use nvme_spec::log::LogId;
use zerocopy::FromBytes;

use super::core::Core;
use super::events::ControllerEvent;
use crate::error::{NamespaceError, RequestError};
use crate::namespace::Seen;

/// The first and the longest pause before a namespace that could not be identified is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The namespaces that are there, and those that are being looked at again.
#[derive(Default)]
pub(crate) struct Rescans {
    /// By NSID; whether something happened to it since the look began. One look at a time, so that no old answer comes
    /// after a newer one.
    looking: Mutex<BTreeMap<u32, bool>>,
    /// The NSIDs that were there when last looked at: any other is a new one.
    known: Mutex<BTreeSet<u32>>,
}

impl Rescans {
    fn looking(&self) -> MutexGuard<'_, BTreeMap<u32, bool>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The NSIDs that were there when last looked at.
    pub(crate) fn listed(&self) -> Vec<u32> {
        self.known().iter().copied().collect()
    }

    /// Those that the process before knew.
    pub(crate) fn inherit(&self, nsids: &[u32]) {
        self.known().extend(nsids);
    }

    /// `false` if it is being looked at just now: then it will be looked at once more.
    fn begin(&self, nsid: u32) -> bool {
        let mut looking = self.looking();
        match looking.get_mut(&nsid) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                looking.insert(nsid, false);
                true
            }
        }
    }

    /// A look is over; `true` if there is to be another.
    fn end(&self, nsid: u32) -> bool {
        let mut looking = self.looking();
        let again = looking.get_mut(&nsid).is_some_and(std::mem::take);
        if !again {
            looking.remove(&nsid);
        }
        again
    }
}

impl Core {
    /// Learns which namespaces there are, before any event can tell of others.
    pub(crate) async fn learn_namespaces(&self) {
        match self.list_namespaces().await {
            Ok(nsids) => self.rescans.known().extend(nsids),
            // Known ones are then told of as new ones when they change.
            Err(error) => tracing::warn!(%error, "the namespaces could not be listed"),
        }
    }

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
                    self.pause(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Looks at all namespaces: those that are listed, and those that were there before.
    pub(crate) async fn rescan_all(self: &Arc<Self>) {
        let mut nsids: BTreeSet<u32> = self.namespaces.nsids().into_iter().collect();
        nsids.extend(self.rescans.known().iter());
        let mut pause = FIRST_PAUSE;
        loop {
            match self.list_namespaces().await {
                Ok(listed) => {
                    nsids.extend(listed);
                    break;
                }
                Err(_) if self.check_running().is_err() => return,
                Err(RequestError::Nvme(error)) if !error.do_not_retry => {
                    tracing::warn!(%error, "the namespaces could not be listed, trying again");
                    self.pause(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
                Err(error) => {
                    tracing::warn!(%error, "the namespaces cannot be listed, new ones are not found");
                    break;
                }
            }
        }
        for nsid in nsids {
            self.rescan(nsid);
        }
    }

    /// Looks at one namespace again, in the background, until it is known what became of it.
    pub(crate) fn rescan(self: &Arc<Self>, nsid: u32) {
        if self.rescans.begin(nsid) {
            self.options.runtime.spawn("rescan", Box::pin(self.clone().look_until_known(nsid)));
        }
    }

    async fn look_until_known(self: Arc<Self>, nsid: u32) {
        let mut pause = FIRST_PAUSE;
        while self.check_running().is_ok() {
            match self.look_at(nsid).await {
                Ok(()) if self.rescans.end(nsid) => pause = FIRST_PAUSE,
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(nsid, %error, "a namespace could not be identified, trying again");
                    self.pause(pause).await;
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Identifies a namespace again and tells its handle, or, without one, the listeners. An error is a passing one.
    pub(crate) async fn look_at(self: &Arc<Self>, nsid: u32) -> Result<(), RequestError> {
        let held = self.namespaces.get_changed(nsid);
        let seen = match self.see_namespace(nsid).await {
            Ok(seen) => Some(seen),
            // No NSID of a namespace at all is no news of one.
            Err(NamespaceError::InvalidNsid { .. }) => return Ok(()),
            Err(NamespaceError::NotFound { .. }) => None,
            Err(NamespaceError::Request(error)) => return Err(error),
            // It is there, but nothing that a handle could be for: not what it was.
            Err(error) => {
                tracing::info!(nsid, %error, "a namespace became unusable");
                Some(Seen::unusable())
            }
        };
        let was_there = match seen {
            Some(_) => !self.rescans.known().insert(nsid),
            None => self.rescans.known().remove(&nsid),
        };
        match (held, &seen) {
            // Another disk in its place: the old one is gone, and there is a new one.
            (Some(held), Some(seen)) if !held.is_removed() && !held.follow(seen) => {
                self.events.tell(&ControllerEvent::NamespaceRemoved(nsid));
                self.events.tell(&ControllerEvent::NamespaceAdded(nsid));
            }
            (_, Some(_)) if was_there => self.events.tell(&ControllerEvent::NamespaceChanged(nsid)),
            (_, Some(_)) => self.events.tell(&ControllerEvent::NamespaceAdded(nsid)),
            (held, None) => {
                if let Some(held) = held {
                    held.remove();
                }
                if was_there {
                    self.events.tell(&ControllerEvent::NamespaceRemoved(nsid));
                }
            }
        }
        Ok(())
    }
}
