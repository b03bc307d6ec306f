use std::sync::Arc;
use std::sync::atomic::Ordering;

use nvme_spec::registers::{Aqa, Cc};
use nvme_spec::{AdminOpcode, Command, Status};

use super::device::Shared;
use super::identify;
use super::queue::{CompletionQueue, Queue, Ring, SubmissionQueue};
use crate::Access;

/// Bytes of the largest data structure or log page that is answered.
const PAGE: usize = 4096;
/// Asynchronous Event Requests held at a time; there are no events.
pub(super) const EVENT_REQUESTS: usize = 4;
/// Feature Identifiers (NVMe Base 2.0, "Set Features").
const NUMBER_OF_QUEUES: u32 = 0x07;
const ASYNC_EVENT_CONFIGURATION: u32 = 0x0b;

/// What a command comes to: a result, an error, or (an Asynchronous Event Request) nothing yet.
type Outcome = Result<Option<u32>, Status>;

/// Registers, queues and admin commands.
#[derive(Debug, Default)]
pub(super) struct Controller {
    pub(super) cc: Cc,
    pub(super) aqa: Aqa,
    pub(super) asq: u64,
    pub(super) acq: u64,
    admin: Option<Arc<SubmissionQueue>>,
    /// By queue identifier; 0 stays empty.
    submission: Vec<Option<Arc<SubmissionQueue>>>,
    completion: Vec<Option<Arc<CompletionQueue>>>,
    events_held: usize,
    event_configuration: u32,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.forget_queues();
    }
}

impl Controller {
    pub(super) fn queue(&self, qid: u16) -> Option<Arc<SubmissionQueue>> {
        self.submission.get(usize::from(qid))?.clone()
    }

    /// All submission queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = Queue> {
        self.submission.iter().flatten().cloned().map(Queue::new)
    }

    /// CC is written.
    pub(super) fn configure(&mut self, shared: &Shared, cc: Cc) {
        let was = std::mem::replace(&mut self.cc, cc);
        if was.en() != cc.en() {
            self.forget_queues();
            shared.clear_doorbells();
            shared.fatal.store(false, Ordering::Relaxed);
        }
        if cc.en() && !was.en() {
            self.enable(shared);
        }
    }

    fn enable(&mut self, shared: &Shared) {
        let Some((sq, cq)) = ring(shared, self.asq, self.aqa.asqs(), 64, Access::Read).zip(ring(
            shared,
            self.acq,
            self.aqa.acqs(),
            16,
            Access::Write,
        )) else {
            tracing::error!(asq = self.asq, acq = self.acq, "the admin queue is not in mapped memory");
            shared.fatal.store(true, Ordering::Relaxed);
            return;
        };
        let interrupt = shared.interrupts.first().cloned();
        let cq = CompletionQueue::new(cq, shared.doorbell_of(0, true), interrupt);
        let sq = (0, sq, shared.doorbell_of(0, false));
        self.admin = Some(Arc::new(SubmissionQueue::new(sq, (0, Arc::new(cq)), shared.fatal.clone())));
        let slots = usize::from(shared.options.queues) + 1;
        self.submission = vec![None; slots];
        self.completion = vec![None; slots];
    }

    fn forget_queues(&mut self) {
        for queue in self.admin.take().into_iter().chain(self.submission.drain(..).flatten()) {
            queue.delete();
        }
        self.completion.clear();
        self.events_held = 0;
        self.event_configuration = 0;
    }

    /// Carries out what is in the admin queue.
    pub(super) fn run_admin(&mut self, shared: &Shared) {
        let Some(admin) = self.admin.clone() else { return };
        while let Some(command) = admin.take() {
            let (status, result) = match self.execute(shared, &command) {
                Ok(None) => continue,
                Ok(Some(result)) => (Status::SUCCESS, result),
                Err(status) => (status, 0),
            };
            if !admin.post(command.cdw0.cid(), status, result) {
                tracing::error!("the admin completion queue is full");
                shared.fatal.store(true, Ordering::Relaxed);
            }
        }
    }

    fn execute(&mut self, shared: &Shared, command: &Command) -> Outcome {
        match AdminOpcode(command.cdw0.opcode()) {
            AdminOpcode::IDENTIFY => {
                let data = identify::answer(&shared.options, command)?;
                write(shared, self.cc, command, &data).map(|()| Some(0))
            }
            AdminOpcode::GET_LOG_PAGE => {
                // Every log is empty: no errors, no changed namespaces.
                let dwords = (command.cdw10 >> 16 | command.cdw11 << 16) as usize;
                let zeroes = [0; PAGE];
                let data = zeroes.get(..(dwords + 1) * 4).ok_or(Status::INVALID_FIELD_IN_COMMAND)?;
                write(shared, self.cc, command, data).map(|()| Some(0))
            }
            AdminOpcode::SET_FEATURES => self.set_feature(shared, command),
            AdminOpcode::GET_FEATURES => match command.cdw10 & 0xff {
                NUMBER_OF_QUEUES => Ok(Some(queue_counts(shared))),
                ASYNC_EVENT_CONFIGURATION => Ok(Some(self.event_configuration)),
                _ => Err(Status::INVALID_FIELD_IN_COMMAND),
            },
            AdminOpcode::CREATE_IO_CQ => self.create_cq(shared, command),
            AdminOpcode::CREATE_IO_SQ => self.create_sq(shared, command),
            AdminOpcode::DELETE_IO_SQ => self.delete_sq(command),
            AdminOpcode::DELETE_IO_CQ => self.delete_cq(command),
            AdminOpcode::ASYNC_EVENT_REQUEST if self.events_held < EVENT_REQUESTS => {
                self.events_held += 1;
                Ok(None)
            }
            AdminOpcode::ASYNC_EVENT_REQUEST => Err(Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED),
            // 1: the command was not aborted.
            AdminOpcode::ABORT => Ok(Some(1)),
            _ => Err(Status::INVALID_COMMAND_OPCODE),
        }
    }

    fn set_feature(&mut self, shared: &Shared, command: &Command) -> Outcome {
        match command.cdw10 & 0xff {
            NUMBER_OF_QUEUES if command.cdw11 & 0xffff == 0xffff || command.cdw11 >> 16 == 0xffff => {
                Err(Status::INVALID_FIELD_IN_COMMAND)
            }
            NUMBER_OF_QUEUES => Ok(Some(queue_counts(shared))),
            ASYNC_EVENT_CONFIGURATION => {
                self.event_configuration = command.cdw11;
                Ok(Some(0))
            }
            _ => Err(Status::INVALID_FIELD_IN_COMMAND),
        }
    }

    fn create_cq(&mut self, shared: &Shared, command: &Command) -> Outcome {
        let qid = command.cdw10 as u16;
        let slot = self.completion.get_mut(usize::from(qid)).filter(|slot| qid != 0 && slot.is_none());
        let slot = slot.ok_or(Status::INVALID_QUEUE_IDENTIFIER)?;
        let ring = io_ring(shared, command, 16, Access::Write)?;
        let enabled = command.cdw11 & 2 != 0;
        let interrupt = shared.interrupts.get((command.cdw11 >> 16) as usize).filter(|_| enabled).cloned();
        if enabled && interrupt.is_none() && !shared.interrupts.is_empty() {
            return Err(Status::INVALID_INTERRUPT_VECTOR);
        }
        let head = shared.doorbell_of(qid, true);
        head.clear();
        *slot = Some(Arc::new(CompletionQueue::new(ring, head, interrupt)));
        Ok(Some(0))
    }

    fn create_sq(&mut self, shared: &Shared, command: &Command) -> Outcome {
        let (qid, cqid) = (command.cdw10 as u16, (command.cdw11 >> 16) as u16);
        let slot = self.submission.get_mut(usize::from(qid)).filter(|slot| qid != 0 && slot.is_none());
        let slot = slot.ok_or(Status::INVALID_QUEUE_IDENTIFIER)?;
        let cq = self.completion.get(usize::from(cqid)).cloned().flatten().ok_or(Status::COMPLETION_QUEUE_INVALID)?;
        let ring = io_ring(shared, command, 64, Access::Read)?;
        let tail = shared.doorbell_of(qid, false);
        tail.clear();
        *slot = Some(Arc::new(SubmissionQueue::new((qid, ring, tail), (cqid, cq), shared.fatal.clone())));
        Ok(Some(0))
    }

    fn delete_sq(&mut self, command: &Command) -> Outcome {
        let slot = self.submission.get_mut(command.cdw10 as u16 as usize).and_then(Option::take);
        slot.ok_or(Status::INVALID_QUEUE_IDENTIFIER)?.delete();
        Ok(Some(0))
    }

    fn delete_cq(&mut self, command: &Command) -> Outcome {
        let qid = command.cdw10 as u16;
        if self.submission.iter().flatten().any(|sq| sq.cqid == qid) {
            return Err(Status::INVALID_QUEUE_DELETION);
        }
        let slot = self.completion.get_mut(usize::from(qid)).and_then(Option::take);
        slot.map(|_| Some(0)).ok_or(Status::INVALID_QUEUE_IDENTIFIER)
    }
}

fn queue_counts(shared: &Shared) -> u32 {
    let last = u32::from(shared.options.queues) - 1;
    last | last << 16
}

/// The ring that a Create command describes.
fn io_ring(shared: &Shared, command: &Command, entry: usize, access: Access) -> Result<Ring, Status> {
    let last = (command.cdw10 >> 16) as u16;
    if last == 0 || last >= shared.options.queue_entries {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    if command.cdw11 & 1 == 0 {
        // CAP.CQR: queues are contiguous.
        return Err(Status::INVALID_FIELD_IN_COMMAND);
    }
    ring(shared, command.dptr.prp1(), last, entry, access).ok_or(Status::PRP_OFFSET_INVALID)
}

/// A ring of `last + 1` entries in one mapping, on a page boundary.
fn ring(shared: &Shared, iova: u64, last: u16, entry: usize, access: Access) -> Option<Ring> {
    let entries = u32::from(last) + 1;
    let view = shared.space.view();
    let (memory, offset) = view.resolve(iova, entries as usize * entry, access).ok()?;
    (entries >= 2 && offset.is_multiple_of(PAGE) && !memory.words().is_empty()).then(|| Ring {
        memory: memory.clone(),
        first: offset / 8,
        entries,
    })
}

/// Writes a command's data, of at most 4096 bytes, to where its two PRPs point.
fn write(shared: &Shared, cc: Cc, command: &Command, data: &[u8]) -> Result<(), Status> {
    let (prp1, prp2) = (command.dptr.prp1(), command.dptr.prp2());
    let page = cc.page_size() as u64;
    let in_first = (page - prp1 % page).min(data.len() as u64) as usize;
    let (first, second) = data.split_at(in_first);
    let view = shared.space.view();
    view.write(prp1, first).and_then(|()| view.write(prp2, second)).map_err(|_| Status::DATA_TRANSFER_ERROR)
}
