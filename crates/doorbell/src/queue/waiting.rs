//! Waiting in order of arrival for something that is handed out in pieces: slots, or pages of the pool.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

/// Those who wait, the longest first. `G` is what they are granted.
#[derive(Debug)]
pub(crate) struct Waiting<G> {
    last_id: u64,
    /// How many have been granted nothing yet.
    hungry: usize,
    entries: VecDeque<Entry<G>>,
}

#[derive(Debug)]
struct Entry<G> {
    id: NonZeroU64,
    wants: usize,
    waker: Option<Waker>,
    granted: Option<G>,
}

/// A place in the line. Whoever holds one must [`Waiting::take`] or [`Waiting::leave`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place(NonZeroU64);

impl<G> Waiting<G> {
    pub(crate) fn new() -> Self {
        Self { last_id: 0, hungry: 0, entries: VecDeque::new() }
    }

    /// Whether somebody still waits to be granted something.
    #[inline]
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry != 0
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Goes to the end of the line, for `wants` pieces.
    pub(crate) fn join(&mut self, wants: usize, waker: Waker) -> Place {
        self.last_id += 1;
        let id = NonZeroU64::new(self.last_id).unwrap_or(NonZeroU64::MAX);
        self.hungry += 1;
        self.entries.push_back(Entry { id, wants, waker: Some(waker), granted: None });
        Place(id)
    }

    /// How much the first in line wants.
    pub(crate) fn first_wants(&self) -> Option<usize> {
        self.entries.iter().find(|e| e.granted.is_none()).map(|e| e.wants)
    }

    /// Grants the first in line what it wants; the waker is to be woken after unlocking.
    pub(crate) fn grant_first(&mut self, grant: G) -> Option<Waker> {
        let entry = self.entries.iter_mut().find(|e| e.granted.is_none())?;
        entry.granted = Some(grant);
        self.hungry -= 1;
        entry.waker.take()
    }

    /// Takes what was granted, leaving the line; otherwise keeps the place, with this waker. What comes back besides
    /// is the old waker, to be dropped after unlocking.
    pub(crate) fn take(&mut self, place: &Place, waker: &Waker) -> (Option<G>, Option<Waker>) {
        let mut places = self.entries.iter_mut().enumerate();
        match places.find(|(_, entry)| entry.id == place.0) {
            None => (None, None),
            Some((_, entry)) if entry.granted.is_none() => (None, entry.waker.replace(waker.clone())),
            Some((index, _)) => (self.entries.remove(index).and_then(|entry| entry.granted), None),
        }
    }

    /// Keeps the place, with this waker, even if something was granted meanwhile. The old waker comes back, to be dropped
    /// after unlocking.
    pub(crate) fn keep(&mut self, place: &Place, waker: &Waker) -> Option<Waker> {
        self.entries.iter_mut().find(|e| e.id == place.0)?.waker.replace(waker.clone())
    }

    /// Leaves the line; what was granted meanwhile comes back, to be passed on.
    pub(crate) fn leave(&mut self, place: Place) -> Option<G> {
        let index = self.entries.iter().position(|e| e.id == place.0)?;
        let entry = self.entries.remove(index)?;
        if entry.granted.is_none() {
            self.hungry -= 1;
        }
        entry.granted
    }

    /// Everyone's waker, when there will be no more grants.
    pub(crate) fn wakers(&mut self) -> Vec<Waker> {
        self.entries.iter_mut().filter_map(|e| e.waker.take()).collect()
    }
}
