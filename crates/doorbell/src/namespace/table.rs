//! The namespaces of a driver that have a handle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Inner, NamespaceView};

#[derive(Default)]
pub(crate) struct Table {
    entries: Mutex<BTreeMap<u32, Entry>>,
}

enum Entry {
    /// Somebody is making a handle.
    Reserved,
    Held(Arc<Inner>),
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
            Some(Entry::Reserved) => return None,
            Some(Entry::Held(held)) if !held.is_removed() => return None,
            Some(Entry::Held(_)) | None => {}
        }
        entries.insert(nsid, Entry::Reserved);
        Some(Reservation { table: self, nsid: Some(nsid) })
    }

    /// The live handle's inner of an NSID.
    pub(crate) fn get(&self, nsid: u32) -> Option<Arc<Inner>> {
        match self.lock().get(&nsid) {
            Some(Entry::Held(held)) => Some(held.clone()),
            _ => None,
        }
    }

    /// The NSIDs that have a handle.
    pub(crate) fn nsids(&self) -> Vec<u32> {
        self.lock().keys().copied().collect()
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
        for entry in self.lock().values() {
            if let Entry::Held(held) = entry {
                held.changed.notify(usize::MAX);
            }
        }
    }

    pub(crate) fn views(&self) -> Vec<NamespaceView> {
        let entries = self.lock();
        let held = entries.values().filter_map(|entry| match entry {
            Entry::Held(held) => Some(held.view()),
            Entry::Reserved => None,
        });
        held.collect()
    }
}

impl Reservation<'_> {
    pub(crate) fn fulfil(mut self, inner: Arc<Inner>) {
        if let Some(nsid) = self.nsid.take() {
            self.table.lock().insert(nsid, Entry::Held(inner));
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(nsid) = self.nsid {
            self.table.lock().remove(&nsid);
        }
    }
}
