//! The Changed Namespace List.

use std::collections::BTreeSet;

use nvme_spec::identify::NamespaceList;

/// Entries of the list.
const MOST: usize = 1024;

/// Which namespaces changed since the host last asked.
#[derive(Debug, Default)]
pub(crate) struct ChangedNamespaces {
    nsids: BTreeSet<u32>,
    more: bool,
}

impl ChangedNamespaces {
    pub(crate) fn add(&mut self, nsid: u32) {
        if self.nsids.len() < MOST || self.nsids.contains(&nsid) {
            self.nsids.insert(nsid);
        } else {
            self.more = true;
        }
    }

    pub(crate) fn list(&self) -> NamespaceList {
        if self.more { NamespaceList::overflow() } else { self.nsids.iter().copied().collect() }
    }

    /// The list, and whether there were more.
    pub(crate) fn save(&self) -> (Vec<u32>, bool) {
        (self.nsids.iter().copied().collect(), self.more)
    }

    pub(crate) fn restore(nsids: &[u32], more: bool) -> Self {
        let nsids: BTreeSet<u32> = nsids.iter().copied().take(MOST).collect();
        Self { nsids, more }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
