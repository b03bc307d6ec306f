//! A job that goes on where another process stopped.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use super::{Job, Run, Slot, Ticks};
use crate::bench::pause::{Busy, Snapshot, instant, monotonic};
use crate::bench::relay::Inherited;

/// Until the first I/O ends here.
pub(super) struct Resumed {
    last: u64,
    pauses: Arc<Mutex<Vec<u64>>>,
}

impl Job<'_> {
    /// What marks the I/O of a slot, for whoever inherits it.
    #[inline]
    pub(super) fn tag(&self, slot: usize) -> u64 {
        u64::from(self.cpu) << 32 | slot as u64
    }

    /// The job and the slot of a tag.
    pub(in crate::bench) fn of_tag(tag: u64) -> (usize, usize) {
        ((tag >> 32) as usize, tag as u32 as usize)
    }
}

impl<const VERIFY: bool> Run<'_, VERIFY> {
    /// What is under way.
    pub(super) fn snapshot(&self) -> Snapshot {
        let busy = |slot: &super::Slot<'_>| {
            let in_flight = slot.transfer.is_some() || slot.inherited.is_some();
            in_flight.then(|| Busy {
                unit: slot.unit,
                write: slot.write,
                started: monotonic(self.watch.instant(slot.started)),
            })
        };
        Snapshot {
            slots: self.slots.iter().map(busy).collect(),
            next: self.phase.order.position(),
            last: self.last().map(monotonic),
        }
    }

    /// Goes on with what another process had under way, and begins the rest.
    pub(super) fn go_on(&mut self, inherited: Inherited) {
        let Inherited { snapshot, commands, found, pauses } = inherited;
        let now = self.begin();
        self.resumed = snapshot.last.map(|last| Resumed { last, pauses });
        let (mut lost, mut repeated, count) = (0, 0, commands.len() as u64);
        for (slot, busy) in self.slots.iter_mut().zip(&snapshot.slots) {
            if let Some(Busy { unit, write, started }) = *busy {
                (slot.unit, slot.write, slot.started) = (unit, write, self.watch.before_now(instant(started)));
                if VERIFY {
                    self.ledger.go_on(unit, write);
                }
            }
        }
        for command in commands {
            let (_, slot) = Job::of_tag(command.tag());
            let busy = snapshot.slots.get(slot).copied().flatten();
            let expected = busy.map(|busy| self.job.region.lba(busy.unit));
            let same = expected.is_some() && expected == command.blocks().map(|(first, _)| first);
            match self.slots.get_mut(slot) {
                Some(place) if same && place.inherited.is_none() => place.inherited = Some(command),
                _ => repeated += 1,
            }
        }
        for slot in 0..self.slots.len() {
            let was_busy = snapshot.slots.get(slot).copied().flatten();
            if self.slots.get(slot).is_some_and(|slot| slot.inherited.is_some()) {
                self.in_flight += 1;
                // It may have ended already.
                self.advance_inherited(slot);
                continue;
            }
            if let Some(Busy { unit, write, .. }) = was_busy {
                lost += 1;
                if VERIFY {
                    self.ledger.end(unit, write, false);
                }
            }
            self.issue_anew(slot, now);
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.inherited += count;
        found.lost += lost;
        found.repeated += repeated;
    }

    /// Looks after the I/O of another process in a slot.
    #[cold]
    pub(super) fn advance_inherited(&mut self, slot: usize) {
        let Slot { inherited: Some(command), waker, .. } = &mut self.slots[slot] else { return };
        let Poll::Ready(result) = Pin::new(command).poll(&mut Context::from_waker(waker)) else { return };
        let now = self.watch.now();
        self.slots[slot].inherited = None;
        self.in_flight -= 1;
        if let Some(data) = result.data
            && let Err(error) =
                self.job.payload.host.write_at(slot * self.job.stride, &data[..self.job.io_bytes.min(data.len())])
        {
            self.outcome.error(|| error.to_string());
        }
        self.finish(slot, result.completion.map(drop), now);
        self.issue_anew(slot, now);
    }

    /// The first I/O has ended here.
    #[cold]
    pub(super) fn resume(&mut self, now: Ticks) {
        if let Some(Resumed { last, pauses }) = self.resumed.take() {
            let pause = monotonic(self.watch.instant(now)).saturating_sub(last);
            pauses.lock().unwrap_or_else(PoisonError::into_inner).push(pause);
        }
    }
}
