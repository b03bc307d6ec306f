//! Creating and deleting I/O queues.

use doorbell_device::inprocess::Host;
use nvme_spec::admin::{CreateCqCdw11, CreateQueueCdw10, CreateSqCdw11, DeleteQueueCdw10};
use nvme_spec::{Status, StatusField};

use super::Call;
use crate::controller::Controller;
use crate::delayed::Done;
use crate::queues::{CompletionQueue, DoorbellSlot, SubmissionQueue};

/// Entry sizes of the NVM command set, as CC.IOSQES and CC.IOCQES.
const IOSQES: u8 = 6;
const IOCQES: u8 = 4;

impl Controller {
    pub(super) fn create_completion_queue(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = CreateQueueCdw10::from(call.command.cdw10);
        let cdw11 = CreateCqCdw11::from(call.command.cdw11);
        let qid = cdw10.qid();
        if !self.is_io_queue(qid) || self.queues.completion(qid).is_some() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let size = self.queue_size(cdw10, self.registers.cc.iocqes() == IOCQES)?;
        if !self.is_possible_vector(cdw11.iv()) {
            return Err(Status::INVALID_INTERRUPT_VECTOR);
        }
        let base = self.queue_base(call, cdw11.pc())?;
        let vector = (cdw11.ien() && self.config.vectors > 0).then(|| cdw11.iv());
        let dstrd = self.config.dstrd;
        let queue = CompletionQueue::new(call.host, base, size, vector, DoorbellSlot::head(qid, dstrd));
        let added = self.queues.add_completion(call.host.dma, dstrd, qid, queue);
        added.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(0)
    }

    pub(super) fn create_submission_queue(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = CreateQueueCdw10::from(call.command.cdw10);
        let cdw11 = CreateSqCdw11::from(call.command.cdw11);
        let (qid, cqid) = (cdw10.qid(), cdw11.cqid());
        // The order follows from what each mistake is called: an identifier that cannot be, and one that is not there.
        if cqid == 0 || !self.is_io_queue(cqid) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        if self.queues.completion(cqid).is_none() {
            return Err(Status::COMPLETION_QUEUE_INVALID);
        }
        if !self.is_io_queue(qid) || self.queues.find_submission(qid).is_some() {
            return Err(Status::INVALID_QUEUE_IDENTIFIER);
        }
        let size = self.queue_size(cdw10, self.registers.cc.iosqes() == IOSQES)?;
        let base = self.queue_base(call, cdw11.pc())?;
        let dstrd = self.config.dstrd;
        let queue = SubmissionQueue::new(call.host, qid, cqid, base, size, DoorbellSlot::tail(qid, dstrd));
        let added = self.queues.add_submission(call.host.dma, dstrd, queue);
        added.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(0)
    }

    /// `None` if the deletion waits for commands that storage has not finished.
    pub(super) fn delete_submission_queue(&mut self, call: &Call<'_>) -> Option<Result<u64, Status>> {
        let qid = DeleteQueueCdw10::from(call.command.cdw10).qid();
        let index = self.queues.find_submission(qid).filter(|_| qid != 0);
        let queue = index.and_then(|index| self.queues.submission.get_mut(index)).filter(|queue| !queue.is_closed());
        let Some(queue) = queue else { return Some(Err(Status::INVALID_QUEUE_IDENTIFIER)) };
        if self.lanes.of_queue(qid) > 0 {
            // Their memory is the host's again when they are completed, and not before.
            queue.take_no_more();
            self.deletions.push((qid, *call.command));
            return None;
        }
        self.remove_submission_queue(call.host, qid);
        Some(Ok(0))
    }

    /// Ends the deletions that have waited for long enough.
    #[cold]
    pub(crate) fn finish_deletions(&mut self, host: &Host<'_>) -> bool {
        let all = std::mem::take(&mut self.deletions);
        let (over, waiting): (Vec<_>, Vec<_>) = all.into_iter().partition(|(qid, _)| self.lanes.of_queue(*qid) == 0);
        self.deletions = waiting;
        for (qid, command) in &over {
            self.remove_submission_queue(host, *qid);
            self.finish(host, 0, command, Ok(0), None);
        }
        !over.is_empty()
    }

    fn remove_submission_queue(&mut self, host: &Host<'_>, qid: u16) {
        // What was taken and is not completed is completed now.
        let aborted = StatusField::new().with_status(Status::ABORTED_SQ_DELETION);
        for done in self.delayed.take(|done| done.sqid == qid) {
            self.post(host, Done { status: aborted.into_bits(), result: 0, ..done });
        }
        let Some(index) = self.queues.find_submission(qid) else { return };
        let queue = self.queues.submission.remove(index);
        if let Some(completion) = self.queues.completion(queue.cqid) {
            completion.users = completion.users.saturating_sub(1);
        }
    }

    pub(super) fn delete_completion_queue(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let qid = DeleteQueueCdw10::from(call.command.cdw10).qid();
        match self.queues.completion(qid) {
            Some(_) if qid == 0 => Err(Status::INVALID_QUEUE_IDENTIFIER),
            Some(queue) if queue.users > 0 => Err(Status::INVALID_QUEUE_DELETION),
            Some(_) => {
                if let Some(slot) = self.queues.completion.get_mut(usize::from(qid)) {
                    *slot = None;
                }
                Ok(0)
            }
            None => Err(Status::INVALID_QUEUE_IDENTIFIER),
        }
    }

    /// Whether an I/O queue can have this identifier.
    fn is_io_queue(&self, qid: u16) -> bool {
        qid != 0 && qid <= self.config.queue_pairs
    }

    fn is_possible_vector(&self, vector: u16) -> bool {
        vector == 0 || vector < self.config.vectors
    }

    /// How many entries a queue is to have.
    fn queue_size(&self, cdw10: CreateQueueCdw10, entry_size_is_right: bool) -> Result<u32, Status> {
        let size = cdw10.qsize();
        if size == 0 || size > self.config.mqes || !entry_size_is_right {
            return Err(Status::INVALID_QUEUE_SIZE);
        }
        Ok(u32::from(size).saturating_add(1))
    }

    /// Where a queue is to be.
    fn queue_base(&self, call: &Call<'_>, contiguous: bool) -> Result<u64, Status> {
        // CAP.CQR: queues are physically contiguous.
        if !contiguous {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let base = call.command.dptr.prp1();
        if !base.is_multiple_of(u64::from(self.page_size())) {
            return Err(Status::PRP_OFFSET_INVALID);
        }
        if base == 0 {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        Ok(base)
    }
}
