//! A controller's way to a namespace below.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use doorbell_emulator::{Data, Ended, Lane, Operation, Ticket};
use nvme_spec::Status;

use crate::below::Shared;
use crate::memory::{Place, Share, locate, touches};
use crate::status::status;
use crate::work::{Source, Way, Work};

/// One controller's share of a drive: a queue of it, and what is outstanding there.
pub(crate) struct RelayLane {
    way: Way,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// To be polled for the first time.
    new: Vec<usize>,
    woken: Arc<Woken>,
    shares: Vec<Arc<Share>>,
}

struct Slot {
    work: Option<Outstanding>,
    waker: Waker,
}

struct Outstanding {
    ticket: Ticket,
    work: Work,
    /// Another process can go on with it, by what the drive's driver takes there: one command with the ticket's number, or
    /// commands that may as well be sent once more, and that the drive does not carry out in the client's memory.
    may_leave: bool,
}

/// The slots whose work can go on.
struct Woken {
    slots: Mutex<Vec<usize>>,
    /// The controller's thread.
    controller: Waker,
}

/// Wakes one slot.
struct Bell {
    slot: usize,
    woken: Arc<Woken>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let first = {
            let mut slots = self.woken.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.push(self.slot);
            slots.len() == 1
        };
        if first {
            self.woken.controller.wake_by_ref();
        }
    }
}

impl RelayLane {
    pub(crate) fn new(shared: Arc<Shared>, controller: Waker) -> Self {
        let cpu = shared.drive.next_cpu();
        let woken = Arc::new(Woken { slots: Mutex::default(), controller });
        let (slots, free, new, shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { way: Way { shared, cpu }, slots, free, new, woken, shares }
    }

    fn begin(&mut self, ticket: Ticket, work: Work, may_leave: bool) {
        let index = self.free.pop().unwrap_or(self.slots.len());
        if index == self.slots.len() {
            let bell = Arc::new(Bell { slot: index, woken: self.woken.clone() });
            self.slots.push(Slot { work: None, waker: bell.into() });
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.work = Some(Outstanding { ticket, work, may_leave });
            self.new.push(index);
        }
    }

    fn locate(&mut self, data: &Data<'_>) -> Result<Place, Status> {
        locate(&self.way.shared.drive, &mut self.shares, data)
    }

    fn poll_slot(&mut self, index: usize, ended: &mut Vec<Ended>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(Outstanding { ticket, work, .. }) = &mut slot.work else { return };
        let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&slot.waker)) else { return };
        ended.push(Ended { ticket: *ticket, status: status(result) });
        slot.work = None;
        self.free.push(index);
    }
}

impl Lane for RelayLane {
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status> {
        let (way, tag) = (self.way.clone(), ticket.number());
        let may_leave = match &operation {
            Operation::Read { to, fua, .. } => way.is_one_command(to.len()) && !way.flushes_after(*fua),
            Operation::Write { from, .. } => way.is_one_command(from.len()),
            Operation::Compare { .. } | Operation::Verify { .. } | Operation::Flush => true,
            _ => false,
        };
        let work: Work = match operation {
            Operation::Read { offset, to, fua } => Box::pin(way.read(offset, self.locate(&to)?, fua, tag)),
            Operation::Write { offset, from, fua } => {
                let source = match self.locate(&from)? {
                    Place::Pages(pages) => Source::Pages(pages),
                    Place::Pieces(_) => Source::Bytes(from.copy()?),
                };
                Box::pin(way.write(offset, source, fua, tag))
            }
            Operation::Compare { offset, with } => Box::pin(way.compare(offset, with.copy()?)),
            Operation::CompareAndWrite { offset, compare, write, fua } => {
                Box::pin(way.compare_and_write(offset, compare.copy()?, write.copy()?, fua))
            }
            Operation::Copy { from, to, fua } => Box::pin(way.copy(to, from.to_vec(), fua)),
            Operation::Verify { offset, len } => Box::pin(way.verify(offset, len)),
            Operation::WriteZeroes { offset, len, deallocate, fua } => {
                Box::pin(way.write_zeroes(offset, len, deallocate, fua))
            }
            Operation::WriteUncorrectable { offset, len } => Box::pin(way.write_uncorrectable(offset, len)),
            Operation::Deallocate { ranges } => Box::pin(way.deallocate(ranges.to_vec())),
            Operation::Flush => Box::pin(way.flush()),
            _ => return Err(Status::INVALID_COMMAND_OPCODE),
        };
        self.begin(ticket, work, may_leave);
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        let Way { shared, cpu } = self.way.clone();
        // A busy controller finds completions itself; one that sleeps is woken by the drive's interrupt.
        shared.drive.driver.poll_cpu(cpu);
        let _batch = shared.namespace.batch(cpu);
        let woken = std::mem::take(&mut *self.woken.slots.lock().unwrap_or_else(PoisonError::into_inner));
        let new = std::mem::take(&mut self.new);
        for index in new.into_iter().chain(woken) {
            self.poll_slot(index, ended);
        }
    }

    fn forget(&mut self, ticket: Ticket, iova: u64, len: u64) -> bool {
        let (gone, kept) = self.shares.drain(..).partition(|share| touches(&share.memory, iova, len));
        self.shares = kept;
        // Other lanes of the controller have shares of it too: the last one takes it from the drive.
        let gone = Vec::into_iter(gone).filter_map(Arc::into_inner).map(|share: Share| share.memory);
        // Whoever's it was: who needs it still has it registered anew.
        let unused = self.way.shared.drive.inherit(|memory| touches(memory, iova, len));
        let gone: Vec<_> = gone.chain(unused).collect();
        if gone.is_empty() {
            return true;
        }
        let way = self.way.clone();
        let work = async move {
            for memory in gone {
                way.shared.drive.driver.unregister_memory(&memory).await;
            }
            Ok(())
        };
        self.begin(ticket, Box::pin(work), false);
        false
    }

    fn may_leave(&self) -> bool {
        self.slots.iter().filter_map(|slot| slot.work.as_ref()).all(|outstanding| outstanding.may_leave)
    }

    fn resume(&mut self, ticket: Ticket, offset: u64, len: u64) -> bool {
        let Some(work) = self.way.resume(ticket.number(), offset, len) else { return false };
        self.begin(ticket, Box::pin(work), true);
        true
    }
}
