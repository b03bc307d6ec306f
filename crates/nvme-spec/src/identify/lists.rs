//! Lists of identifiers: namespaces, controllers, combinations of command sets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Namespace List (NVMe Base 2.0, "Namespace List"): up to 1,024 NSIDs, ended by a 0 where there are fewer. Identify
/// returns it (CNS 02h, 07h, 10h, 1Ah), and Get Log Page (Changed Namespace List).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct NamespaceList(pub [u32; 1024]);
assert_layout!(NamespaceList, size = 4096);

impl NamespaceList {
    /// The NSIDs before the first 0, in the order of the list.
    ///
    /// Identify's lists are ascending. Whoever asks for the rest of a full one with its last NSID has to check that it
    /// is larger than the one before, lest a wrong device make this endless.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied().take_while(|&nsid| nsid != 0)
    }

    /// Whether all 1,024 places are taken, so that there may be more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.iter().all(|&nsid| nsid != 0)
    }

    /// Whether this is a Changed Namespace List that says that more than 1,024 have changed, without saying which.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        self.0.first() == Some(&crate::NSID_ALL)
    }

    /// A Changed Namespace List that says that more than 1,024 have changed.
    #[must_use]
    pub fn overflow() -> Self {
        core::iter::once(crate::NSID_ALL).collect()
    }
}

impl Default for NamespaceList {
    /// No namespaces.
    fn default() -> Self {
        Self([0; 1024])
    }
}

impl FromIterator<u32> for NamespaceList {
    /// The first 1,024 of them; the caller gives them ascending.
    fn from_iter<I: IntoIterator<Item = u32>>(nsids: I) -> Self {
        let mut list = Self::default();
        for (to, from) in list.0.iter_mut().zip(nsids) {
            *to = from;
        }
        list
    }
}

/// Controller List (NVMe Base 2.0, "Controller List"): up to 2,047 controller identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControllerList {
    /// Number of Identifiers.
    pub count: u16,
    /// The identifiers, ascending.
    pub ids: [u16; 2047],
}
assert_layout!(ControllerList, size = 4096, ids @ 2);

impl ControllerList {
    /// The identifiers the list says it has, no more than there is room for.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.ids.iter().copied().take(usize::from(self.count))
    }
}

impl FromIterator<u16> for ControllerList {
    /// The first 2,047 of them; the caller gives them ascending.
    fn from_iter<I: IntoIterator<Item = u16>>(ids: I) -> Self {
        let mut list = Self { count: 0, ids: [0; 2047] };
        for (to, from) in list.ids.iter_mut().zip(ids) {
            *to = from;
            list.count = list.count.saturating_add(1);
        }
        list
    }
}

/// I/O Command Set data structure, CNS 1Ch: combinations of command sets that can be enabled together, a bit for each
/// [`csi`](super::cns::csi). What follows the first 0 is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct CommandSetCombinations(pub [u64; 512]);
assert_layout!(CommandSetCombinations, size = 4096);

impl CommandSetCombinations {
    /// The combinations; the position of each is what the I/O Command Set Profile feature takes.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().copied().take_while(|&sets| sets != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn namespaces() {
        let list: NamespaceList = [1, 5, 9].into_iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), [1, 5, 9]);
        assert!(!list.is_full() && !list.is_overflow());
        assert_eq!(NamespaceList::default().iter().count(), 0);
        let full: NamespaceList = (1..5000).collect();
        assert!(full.is_full());
        assert_eq!(full.iter().last(), Some(1024));
        assert!(NamespaceList::overflow().is_overflow());
    }

    #[test]
    fn controllers() {
        let list: ControllerList = [0, 7].into_iter().collect();
        assert_eq!(list.iter().collect::<Vec<_>>(), [0, 7]);
        assert_eq!(ControllerList { count: u16::MAX, ids: [0; 2047] }.iter().count(), 2047);
        assert_eq!((0..5000).collect::<ControllerList>().count, 2047);
    }
}
