//! The namespaces of a driver that have a handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Inner, NamespaceView};

#[derive(Default)]
pub(crate) struct Table {
    entries: Mutex<BTreeMap<u32, Entry>>,
}

enum Entry {
    /// Somebody is making a handle. `changed`: the namespace changed meanwhile, so that what was read may be old.
    Reserved {
        changed: bool,
    },
    Held(Arc<Inner>),
    /// Held by the process that was taken over, and nobody has asked for it here.
    Inherited(Arc<Inner>),
}

impl Entry {
    fn inner(&self) -> Option<&Arc<Inner>> {
        match self {
            Entry::Held(inner) | Entry::Inherited(inner) => Some(inner),
            Entry::Reserved { .. } => None,
        }
    }
}

/// An NSID that is being opened. Given back when dropped, unless it became a handle.
pub(crate) struct Reservation<'a> {
    table: &'a Table,
    nsid: Option<u32>,
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves an NSID; `None` if a live handle has it. A removed namespace's handle makes way.
    pub(crate) fn reserve(&self, nsid: u32) -> Option<Reservation<'_>> {
        let mut entries = self.lock();
        match entries.get(&nsid) {
            Some(Entry::Reserved { .. }) => return None,
            Some(Entry::Held(held)) if !held.is_removed() => return None,
            Some(Entry::Held(_) | Entry::Inherited(_)) | None => {}
        }
        entries.insert(nsid, Entry::Reserved { changed: false });
        Some(Reservation { table: self, nsid: Some(nsid) })
    }

    /// The handle's inner of an NSID that is about to be looked at again. If the handle is just being made, it is told
    /// that the namespace changed.
    pub(crate) fn get_changed(&self, nsid: u32) -> Option<Arc<Inner>> {
        match self.lock().get_mut(&nsid) {
            Some(Entry::Held(held) | Entry::Inherited(held)) => Some(held.clone()),
            Some(Entry::Reserved { changed }) => {
                *changed = true;
                None
            }
            None => None,
        }
    }

    /// A handle that the process before had is kept for who asks for it.
    pub(super) fn bequeath(&self, inner: Arc<Inner>) {
        self.lock().insert(inner.nsid, Entry::Inherited(inner));
    }

    /// The handle that the process before had, for the first who asks for it in the same way: the same disk, or
    /// removed.
    pub(super) fn inherit(&self, nsid: u32, carry_metadata: bool) -> Option<Arc<Inner>> {
        let mut entries = self.lock();
        let Some(Entry::Inherited(inner)) = entries.get(&nsid) else { return None };
        let inner = inner.clone();
        if inner.carry_metadata != carry_metadata {
            return None;
        }
        entries.insert(nsid, Entry::Held(inner.clone()));
        Some(inner)
    }

    /// The handles there are, also those that nobody has asked for.
    pub(crate) fn held(&self) -> Vec<Arc<Inner>> {
        self.lock().values().filter_map(Entry::inner).cloned().collect()
    }

    /// The NSIDs that have a handle.
    pub(crate) fn nsids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
    }

    /// Whether the namespace is still there that a queue's command of this number was sent for. Of one without a handle, or
    /// with one that is just being made, nobody knows: another disk may have its NSID.
    pub(crate) fn is_there(&self, nsid: u32, queue: u16, sequence: u64) -> bool {
        let entries = self.lock();
        match entries.get(&nsid) {
            Some(Entry::Held(held) | Entry::Inherited(held)) => !held.is_removed() && held.has_sent(queue, sequence),
            Some(Entry::Reserved { .. }) | None => false,
        }
    }

    /// Whether no other host writes to a namespace, for all that is known.
    pub(crate) fn is_exclusive(&self, nsid: u32) -> bool {
        self.lock().get(&nsid).and_then(Entry::inner).is_some_and(|held| !held.is_shared())
    }

    /// The handle goes.
    pub(crate) fn release(&self, inner: &Arc<Inner>) {
        let mut entries = self.lock();
        if let Some(Entry::Held(held)) = entries.get(&inner.nsid)
            && Arc::ptr_eq(held, inner)
        {
            entries.remove(&inner.nsid);
        }
    }

    /// Wakes everybody who waits for something of a namespace: the controller takes no more commands.
    pub(crate) fn close(&self) {
        self.lock().retain(|_, entry| {
            if let Entry::Held(held) = entry {
                held.changed.notify(usize::MAX);
            }
            // What nobody asked for keeps the driver alive no longer.
            !matches!(entry, Entry::Inherited(_))
        });
    }

    pub(crate) fn views(&self) -> Vec<NamespaceView> {
        let entries = self.lock();
        entries.values().filter_map(Entry::inner).map(|held| held.view()).collect()
    }
}

impl Reservation<'_> {
    /// Makes it a handle. `true` if the namespace changed since the reservation: it must be looked at again.
    pub(crate) fn fulfil(mut self, inner: Arc<Inner>) -> bool {
        let Some(nsid) = self.nsid.take() else { return false };
        let before = self.table.lock().insert(nsid, Entry::Held(inner));
        matches!(before, Some(Entry::Reserved { changed: true }))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(nsid) = self.nsid {
            self.table.lock().remove(&nsid);
        }
    }
}
