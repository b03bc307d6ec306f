//! Completions that come later: a heap by time, and by order among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use nvme_spec::StatusField;

use crate::fault::BadCompletion;
use crate::saved::{StateError, bad, nanos, narrow, state, time};

/// Completions that wait at a time; while there are as many, no command is taken.
const MOST: usize = 1 << 16;

/// A completion to be posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Done {
    pub(crate) sqid: u16,
    pub(crate) cid: u16,
    pub(crate) nsid: u32,
    pub(crate) opcode: u8,
    pub(crate) status: u16,
    pub(crate) result: u64,
    pub(crate) twice: bool,
    pub(crate) quiet: bool,
    pub(crate) bad: Option<BadCompletion>,
}

impl Done {
    pub(crate) fn status(&self) -> StatusField {
        StatusField::from_bits(self.status)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Delayed {
    heap: BinaryHeap<Reverse<(Duration, u64, Done)>>,
    count: u64,
}

impl Delayed {
    pub(crate) fn push(&mut self, at: Duration, done: Done) {
        self.count = self.count.wrapping_add(1);
        self.heap.push(Reverse((at, self.count, done)));
    }

    /// The next that is due.
    #[inline]
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Done> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, done))| done)
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.heap.len() >= MOST
    }

    /// How many wait that fit.
    pub(crate) fn count(&self, fits: impl Fn(&Done) -> bool) -> usize {
        self.heap.iter().filter(|Reverse((_, _, done))| fits(done)).count()
    }

    /// Takes out all that fit, in the order in which they would have come.
    pub(crate) fn take(&mut self, fits: impl Fn(&Done) -> bool) -> Vec<Done> {
        let all = std::mem::take(&mut self.heap).into_vec();
        let (mut taken, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|Reverse((_, _, done))| fits(done));
        self.heap = kept.into();
        taken.sort_by(|a, b| b.cmp(a));
        taken.into_iter().map(|Reverse((_, _, done))| done).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }
}

impl Delayed {
    pub(crate) fn save(&self) -> Vec<state::Delayed> {
        let save = |Reverse((at, order, done)): &Reverse<(Duration, u64, Done)>| state::Delayed {
            at: nanos(*at),
            order: *order,
            sqid: done.sqid.into(),
            cid: done.cid.into(),
            nsid: done.nsid,
            opcode: done.opcode.into(),
            status: done.status.into(),
            result: done.result,
            twice: done.twice,
            quiet: done.quiet,
            bad: done.bad.map(|bad| state::BadCompletion {
                cid: bad.cid.map(Into::into),
                sqid: bad.sqid.map(Into::into),
                sqhd: bad.sqhd.map(Into::into),
                status_xor: bad.status_xor.into(),
                dw0: bad.dw0,
            }),
        };
        self.heap.iter().map(save).collect()
    }

    pub(crate) fn restore(saved: Vec<state::Delayed>) -> Result<Self, StateError> {
        if saved.len() > MOST {
            return bad(format!("{} completions that are due later", saved.len()));
        }
        let word = |value: Option<u32>| value.map(|value| narrow("completion", value)).transpose();
        let mut delayed = Self::default();
        for saved in saved {
            let bad = saved.bad.map(|bad| {
                Ok::<_, StateError>(BadCompletion {
                    cid: word(bad.cid)?,
                    sqid: word(bad.sqid)?,
                    sqhd: word(bad.sqhd)?,
                    status_xor: narrow("status", bad.status_xor)?,
                    dw0: bad.dw0,
                })
            });
            let done = Done {
                sqid: narrow("submission queue", saved.sqid)?,
                cid: narrow("CID", saved.cid)?,
                nsid: saved.nsid,
                opcode: narrow("opcode", saved.opcode)?,
                status: narrow("status", saved.status)?,
                result: saved.result,
                twice: saved.twice,
                quiet: saved.quiet,
                bad: bad.transpose()?,
            };
            delayed.count = delayed.count.max(saved.order);
            delayed.heap.push(Reverse((time(saved.at), saved.order, done)));
        }
        Ok(delayed)
    }
}
