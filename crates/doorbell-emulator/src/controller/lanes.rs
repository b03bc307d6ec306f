//! Commands that storage finishes later: what is outstanding, and where it was handed to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use nvme_spec::{Command, Status, StatusField};

use crate::fault::Verdict;
use crate::lane::{Ended, Lane, Operation, Ticket};
use crate::namespace::Namespace;
use crate::saved::{StateError, bad, narrow, state};
use crate::sync::{read, write};

/// Operations that a controller has outstanding at a time.
const MOST: u32 = 4096;

/// A moment, for [`Controller::has_passed`](super::Controller::has_passed).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// A controller's ways into storage that finishes later, and what is outstanding there.
pub(crate) struct Lanes {
    waker: Waker,
    entries: Vec<Entry>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    outstanding: u32,
    /// The controller is asleep, and is woken.
    asleep: bool,
    next: u64,
    ended: Vec<Ended>,
    /// What has ended, for the host to be told.
    finished: VecDeque<Finished>,
    /// What another process had under way, and nobody has gone on with yet.
    left_over: VecDeque<Ticket>,
}

struct Entry {
    namespace: Arc<Namespace>,
    lane: Box<dyn Lane>,
    attached: bool,
    outstanding: u32,
}

struct Slot {
    errand: Option<Waiting>,
    /// Operations that it consists of.
    left: u32,
    status: StatusField,
    began: Mark,
    /// What can be read again once it has ended well.
    mends: Option<Box<Mends>>,
}

impl Slot {
    /// Whether all that is to be known of it is its command: what is to befall its completion, and what is to be done besides,
    /// is known here alone. Whoever waits without a command waits here.
    fn may_leave(&self) -> bool {
        let plain = |waiting: &Waiting| waiting.second.is_none() && waiting.verdict.is_none();
        self.errand.as_ref().is_some_and(plain) && self.mends.is_none()
    }
}

/// Marked blocks that are written.
struct Mends {
    namespace: Arc<Namespace>,
    blocks: Vec<(u64, u64)>,
}

/// A command whose completion is yet to come.
pub(crate) struct Waiting {
    pub(crate) sqid: u16,
    pub(crate) command: Command,
    /// The second half of a fused pair.
    pub(crate) second: Option<Command>,
    pub(crate) verdict: Option<Box<Verdict>>,
}

/// A command that has ended.
pub(crate) struct Finished {
    pub(crate) waiting: Waiting,
    pub(crate) status: StatusField,
}

impl Lanes {
    /// Of a controller of this identifier.
    pub(crate) fn new(cntlid: u16) -> Self {
        Self {
            waker: Waker::noop().clone(),
            entries: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            outstanding: 0,
            asleep: false,
            // Numbers of different controllers differ.
            next: u64::from(cntlid).saturating_add(1) << 48,
            ended: Vec::new(),
            finished: VecDeque::new(),
            left_over: VecDeque::new(),
        }
    }

    /// Whom lanes that are made from now on wake.
    pub(crate) fn set_waker(&mut self, waker: Waker) {
        self.waker = waker;
    }

    /// Makes lanes into what is attached, and lets those go that have nothing to do any more.
    pub(crate) fn follow(&mut self, table: &[Option<Arc<Namespace>>]) {
        for entry in &mut self.entries {
            entry.attached = table.iter().flatten().any(|namespace| Arc::ptr_eq(namespace, &entry.namespace));
        }
        for namespace in table.iter().flatten().filter(|namespace| namespace.has_lanes) {
            if self.position(namespace).is_none()
                && let Some(lane) = read(&namespace.state).data.lane(self.waker.clone())
            {
                let namespace = namespace.clone();
                self.entries.push(Entry { namespace, lane, attached: true, outstanding: 0 });
            }
        }
        self.entries.retain(|entry| entry.attached || entry.outstanding > 0);
    }

    fn position(&self, namespace: &Namespace) -> Option<usize> {
        self.entries.iter().position(|entry| std::ptr::eq(&*entry.namespace, namespace))
    }

    /// How many more commands may be taken.
    #[inline]
    pub(crate) fn room(&self) -> u32 {
        MOST.saturating_sub(self.outstanding)
    }

    /// Hands an operation of a command to a namespace's storage.
    pub(crate) fn submit(
        &mut self,
        namespace: &Namespace,
        ticket: Ticket,
        operation: Operation<'_>,
    ) -> Result<(), Status> {
        let index = self.position(namespace).ok_or(Status::INTERNAL_ERROR)?;
        let entry = self.entries.get_mut(index).ok_or(Status::INTERNAL_ERROR)?;
        entry.lane.submit(ticket, operation)?;
        entry.outstanding = entry.outstanding.saturating_add(1);
        if let Some(Some(slot)) = self.slots.get_mut(ticket.index as usize) {
            slot.left = slot.left.saturating_add(1);
        }
        Ok(())
    }

    /// Has blocks be readable again if this ends well. Who reads them meanwhile, or marks them, comes before or after: all
    /// that is outstanding may be carried out in any order.
    pub(crate) fn mend(&mut self, ticket: Ticket, namespace: &Namespace, blocks: Vec<(u64, u64)>) {
        if let Some(entry) = self.position(namespace).and_then(|index| self.entries.get(index))
            && let Some(Some(slot)) = self.slots.get_mut(ticket.index as usize)
        {
            slot.mends = Some(Box::new(Mends { namespace: entry.namespace.clone(), blocks }));
        }
    }

    /// Begins something that consists of operations; [`seal`](Self::seal) says that these were all.
    pub(crate) fn begin(&mut self, errand: Option<Waiting>) -> Ticket {
        let number = self.next;
        self.next = number.saturating_add(1);
        self.begin_as(number, errand)
    }

    fn begin_as(&mut self, number: u64, errand: Option<Waiting>) -> Ticket {
        let began = Mark(number);
        self.outstanding = self.outstanding.saturating_add(1);
        // One for the caller, so that it is not over before all of it has begun.
        let slot = Some(Slot { errand, left: 1, status: StatusField::new(), began, mends: None });
        if let Some(free) = self.free.pop()
            && let Some(place) = self.slots.get_mut(free as usize)
        {
            *place = slot;
            return Ticket::new(free, number);
        }
        self.slots.push(slot);
        Ticket::new(self.slots.len().saturating_sub(1) as u32, number)
    }

    /// See [`begin`](Self::begin). With a status, the command fails with it however the operations go.
    pub(crate) fn seal(&mut self, ticket: Ticket, failed: Option<StatusField>) {
        self.end(Ended { ticket, status: failed.unwrap_or_default() });
    }

    /// Takes back what was begun and had no operation.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) {
        if let Some(place) = self.slots.get_mut(ticket.index as usize)
            && place.take().is_some()
        {
            self.free.push(ticket.index);
            self.outstanding = self.outstanding.saturating_sub(1);
        }
    }

    fn end(&mut self, Ended { ticket, status }: Ended) {
        let Some(place) = self.slots.get_mut(ticket.index as usize) else { return };
        let Some(slot) = place else { return };
        if slot.status.is_success() {
            slot.status = status;
        }
        slot.left = slot.left.saturating_sub(1);
        if slot.left > 0 {
            return;
        }
        let Some(Slot { errand, status, mends, .. }) = place.take() else { return };
        self.free.push(ticket.index);
        self.outstanding = self.outstanding.saturating_sub(1);
        if status.is_success()
            && let Some(mends) = mends
        {
            let mut state = write(&mends.namespace.state);
            mends.blocks.iter().for_each(|(slba, blocks)| state.uncorrectable.remove(*slba, *blocks));
        }
        self.finished.extend(errand.map(|waiting| Finished { waiting, status }));
    }

    /// Hears from storage; whether anything has ended.
    #[inline]
    pub(crate) fn poll(&mut self) -> bool {
        self.outstanding > 0 && self.poll_all()
    }

    /// The controller falls asleep. Says whether something has ended, so that it should not.
    pub(crate) fn sleep(&mut self) -> bool {
        if self.outstanding == 0 {
            return false;
        }
        self.asleep = true;
        let mut any = false;
        for entry in &mut self.entries {
            any |= entry.lane.sleep(true);
        }
        any
    }

    #[inline(never)]
    fn poll_all(&mut self) -> bool {
        let mut any = false;
        if self.asleep {
            self.asleep = false;
            for entry in &mut self.entries {
                entry.lane.sleep(false);
            }
        }
        let mut gone = false;
        let mut ended = std::mem::take(&mut self.ended);
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get_mut(index).filter(|entry| entry.outstanding > 0) else { continue };
            entry.lane.poll(&mut ended);
            entry.outstanding = entry.outstanding.saturating_sub(ended.len() as u32);
            gone |= entry.outstanding == 0 && !entry.attached;
            any |= !ended.is_empty();
            for ended in ended.drain(..) {
                self.end(ended);
            }
        }
        self.ended = ended;
        if gone {
            self.entries.retain(|entry| entry.attached || entry.outstanding > 0);
        }
        any
    }

    /// The next command that has ended.
    #[inline]
    pub(crate) fn next_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// Forgets the commands, not what works for them: nobody is to be told of them.
    pub(crate) fn orphan(&mut self) -> Mark {
        self.finished.clear();
        for ticket in std::mem::take(&mut self.left_over) {
            self.withdraw(ticket);
        }
        for slot in self.slots.iter_mut().flatten() {
            slot.errand = None;
        }
        Mark(self.next)
    }

    /// Commands of a queue that have not ended or were not told.
    pub(crate) fn of_queue(&self, sqid: u16) -> usize {
        let waiting = self.slots.iter().flatten().filter_map(|slot| slot.errand.as_ref());
        let finished = self.finished.iter().map(|finished| &finished.waiting);
        waiting.chain(finished).filter(|waiting| waiting.sqid == sqid).count()
    }

    /// Whether another process can go on with all that is outstanding.
    pub(crate) fn may_leave(&self) -> bool {
        let entries = self.entries.iter().filter(|entry| entry.outstanding > 0);
        self.finished.is_empty()
            && self.slots.iter().flatten().all(Slot::may_leave)
            && entries.into_iter().all(|entry| entry.attached && entry.lane.may_leave())
    }

    /// The commands that [may leave](Self::may_leave), in the order in which they were taken, and the number of the next.
    pub(crate) fn save(&self) -> (Vec<state::Outstanding>, u64) {
        let mut slots: Vec<_> = self.slots.iter().flatten().collect();
        slots.sort_unstable_by_key(|slot| slot.began);
        let save = |slot: &Slot| {
            let Waiting { sqid, command, .. } = slot.errand.as_ref()?;
            let (sqid, command) = (u32::from(*sqid), command.to_words().to_vec());
            Some(state::Outstanding { number: slot.began.0, sqid, command })
        };
        (slots.into_iter().filter_map(save).collect(), self.next)
    }

    /// Of what was [saved](Self::save). The commands are [left over](Self::next_left_over) until they are gone on with.
    pub(crate) fn restore(cntlid: u16, saved: &[state::Outstanding], next: u64) -> Result<Self, StateError> {
        let mut lanes = Self::new(cntlid);
        if saved.len() > MOST as usize {
            return bad(format!("{} commands under way", saved.len()));
        }
        lanes.next = lanes.next.max(next);
        for one in saved {
            let Ok(words) = <[u64; 8]>::try_from(&*one.command) else {
                return bad(format!("a command of {} words", one.command.len()));
            };
            if one.number >= lanes.next {
                return bad(format!("command {} under way before command {next}", one.number));
            }
            let (sqid, command) = (narrow("submission queue", one.sqid)?, Command::from_words(words));
            let ticket = lanes.begin_as(one.number, Some(Waiting { sqid, command, second: None, verdict: None }));
            lanes.left_over.push_back(ticket);
        }
        Ok(lanes)
    }

    /// The next command that another process had under way: to be [resumed](Self::resume), or else [begun
    /// anew](Self::take_back).
    pub(crate) fn next_left_over(&mut self) -> Option<(Ticket, Command)> {
        let ticket = self.left_over.pop_front()?;
        let slot = self.slots.get(ticket.index as usize)?.as_ref()?;
        Some((ticket, slot.errand.as_ref()?.command))
    }

    /// Has a namespace's storage go on with an operation, if it finds it.
    pub(crate) fn resume(&mut self, namespace: &Namespace, ticket: Ticket, offset: u64, len: u64) -> bool {
        let Some(entry) = self.position(namespace).and_then(|index| self.entries.get_mut(index)) else { return false };
        // The one operation that there was is the one that `begin` counts.
        let resumed = entry.lane.resume(ticket, offset, len);
        entry.outstanding = entry.outstanding.saturating_add(u32::from(resumed));
        resumed
    }

    /// Gives a command back that is not under way.
    pub(crate) fn take_back(&mut self, ticket: Ticket) -> Option<Waiting> {
        let errand = self.slots.get_mut(ticket.index as usize)?.as_mut()?.errand.take();
        self.withdraw(ticket);
        errand
    }

    /// Has all storage give up memory.
    pub(crate) fn forget(&mut self, iova: u64, len: u64) -> Mark {
        if self.entries.is_empty() {
            return self.mark();
        }
        let ticket = self.begin(None);
        for entry in &mut self.entries {
            if !entry.lane.forget(ticket, iova, len) {
                entry.outstanding = entry.outstanding.saturating_add(1);
                if let Some(Some(slot)) = self.slots.get_mut(ticket.index as usize) {
                    slot.left = slot.left.saturating_add(1);
                }
            }
        }
        self.seal(ticket, None);
        Mark(self.next)
    }

    /// Whether everything that was begun before has ended.
    pub(crate) fn has_passed(&self, mark: Mark) -> bool {
        self.outstanding == 0 || !self.slots.iter().flatten().any(|slot| slot.began < mark)
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.next)
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("outstanding", &self.outstanding).finish_non_exhaustive()
    }
}
