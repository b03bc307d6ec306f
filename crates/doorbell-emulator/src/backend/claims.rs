//! Who works on which bytes: operations that touch each other take turns, in the order in which they came.

use std::sync::Mutex;
use std::task::Waker;

use crate::sync::lock;

/// Ranges that are worked on, or are to be.
#[derive(Default)]
pub(super) struct Claims {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    last: u64,
    /// In the order in which they came.
    list: Vec<Claim>,
}

struct Claim {
    id: u64,
    start: u64,
    end: u64,
    writes: bool,
    /// Whom to wake when it is granted; none if it is.
    waits: Option<Waker>,
}

impl Claim {
    fn conflicts(&self, other: &Claim) -> bool {
        (self.writes || other.writes) && self.start < other.end && other.start < self.end
    }
}

impl Claims {
    /// Claims bytes, to read or to write them; whether they may be used now. If not, the waker tells.
    pub(super) fn add(&self, start: u64, end: u64, writes: bool, waker: &Waker) -> (u64, bool) {
        let mut inner = lock(&self.inner);
        inner.last = inner.last.wrapping_add(1);
        let id = inner.last;
        let mut claim = Claim { id, start, end, writes, waits: None };
        // Not past one that waits: it would wait for ever while others come and go.
        let granted = !inner.list.iter().any(|other| other.conflicts(&claim));
        if !granted {
            claim.waits = Some(waker.clone());
        }
        inner.list.push(claim);
        (id, granted)
    }

    /// Whether nobody works on anything, or is to.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.inner).list.is_empty()
    }

    /// Whether a claim may be used by now.
    pub(super) fn is_granted(&self, id: u64) -> bool {
        lock(&self.inner).list.iter().any(|claim| claim.id == id && claim.waits.is_none())
    }

    /// Gives a claim up, whether it was granted or not.
    pub(super) fn remove(&self, id: u64) {
        let mut woken = Vec::new();
        {
            let mut inner = lock(&self.inner);
            inner.list.retain(|claim| claim.id != id);
            for index in 0..inner.list.len() {
                let Some((before, rest)) = inner.list.split_at_mut_checked(index) else { break };
                let Some(claim) = rest.first_mut().filter(|claim| claim.waits.is_some()) else { continue };
                if !before.iter().any(|other| other.conflicts(claim)) {
                    woken.extend(claim.waits.take());
                }
            }
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_takes_turns_in_order() {
        let claims = Claims::default();
        let add = |start, end, writes| claims.add(start, end, writes, Waker::noop());
        let (read, granted) = add(0, 10, false);
        assert!(granted && add(5, 15, false).1, "two may read");
        let (write, granted) = add(9, 12, true);
        assert!(!granted);
        let (late, granted) = add(10, 11, false);
        assert!(!granted, "a read does not overtake a write that waits");
        assert!(add(20, 30, true).1, "others do not matter");
        claims.remove(read);
        assert!(!claims.is_granted(write), "the second read is there still");
        claims.remove(2);
        assert!(claims.is_granted(write) && !claims.is_granted(late));
        claims.remove(write);
        assert!(claims.is_granted(late));
    }
}
