//! Taking commands from submission queues, and posting their completions.

use std::time::Duration;

use doorbell_device::inprocess::Host;
use nvme_spec::command::Cdw0;
use nvme_spec::event::EventKind;
use nvme_spec::log::{ErrorEntry, LogId, ParameterErrorLocation};
use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{Command, Completion, NvmOpcode, Status, StatusField};

use super::Controller;
use super::lanes::{Finished, Waiting};
use crate::delayed::Done;
use crate::fault::{BadCompletion, Verdict};
use crate::queues::SubmissionQueue;
use crate::sync::read;

/// Commands taken from one queue before the next one has its turn.
const BURST: u32 = 32;

/// What became of a command.
pub(crate) enum Outcome {
    Done(Result<u64, Status>),
    /// It is completed when something happens.
    Waits,
}

impl Controller {
    /// Gives every submission queue its turn; true if there was something to do.
    #[inline]
    pub(super) fn serve(&mut self, host: &Host<'_>) -> bool {
        let mut worked = false;
        let mut settled = true;
        if self.backlogged {
            worked |= self.post_backlog(host);
            settled = false;
        }
        while let Some((cid, event)) = self.events.next() {
            self.post(host, done(0, cid, StatusField::new(), u64::from(event.into_bits())));
            worked = true;
            settled = false;
        }
        let mut index = 0;
        while index < self.queues.submission.len() && self.is_processing() {
            if self.serve_queue(host, index) {
                worked = true;
                // An admin command may leave anything to be done.
                settled &= index != 0 && self.queues.submission.get(index).is_some_and(SubmissionQueue::is_empty);
            }
            index = index.saturating_add(1);
        }
        self.settled = settled && self.is_processing() && !self.backlogged && self.events.is_quiet();
        worked
    }

    #[inline]
    fn serve_queue(&mut self, host: &Host<'_>, index: usize) -> bool {
        let Some(queue) = self.queues.submission.get_mut(index) else { return false };
        match queue.refresh(host) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => {
                self.invalid_doorbell();
                return true;
            }
            Err(_) => self.fail(),
        }
        let Some(queue) = self.queues.submission.get_mut(index) else { return false };
        if queue.is_empty() {
            return false;
        }
        let (sqid, cqid) = (queue.id, queue.cqid);
        match self.queues.completion(cqid).map(|queue| queue.refresh(host)) {
            Some(Ok(Ok(()))) | None => {}
            Some(Ok(Err(_))) => {
                self.invalid_doorbell();
                return true;
            }
            Some(Err(_)) => self.fail(),
        }
        self.queues.served = index;
        let mut served = 0u32;
        let most = BURST.min(self.lanes.room());
        let opened = self.open_queues(host, index, cqid);
        while served < most && self.is_processing() && !self.delayed.is_full() {
            if !self.queues.completion(cqid).is_some_and(|queue| queue.has_room()) {
                break;
            }
            let Some(command) = self.take(host, index) else { break };
            served = served.saturating_add(1);
            self.carry_out(host, index, sqid, &command);
        }
        if opened {
            self.close_queues(index, cqid);
        }
        served > 0
    }

    /// Looks up the memory of a pair of queues, if there is enough to do for that to pay.
    #[inline]
    fn open_queues(&mut self, host: &Host<'_>, index: usize, cqid: u16) -> bool {
        let opened = self.queues.submission.get_mut(index).is_some_and(|queue| queue.open(host.dma));
        if opened && let Some(queue) = self.queues.completion(cqid) {
            queue.open(host.dma);
        }
        opened
    }

    fn close_queues(&mut self, index: usize, cqid: u16) {
        if let Some(queue) = self.queues.submission.get_mut(index) {
            queue.close();
        }
        if let Some(queue) = self.queues.completion(cqid) {
            queue.close();
        }
    }

    /// The next command of a queue, if there is one.
    #[inline(always)]
    fn take(&mut self, host: &Host<'_>, index: usize) -> Option<Command> {
        let queue = self.queues.submission.get_mut(index)?;
        if queue.is_empty() {
            return None;
        }
        match queue.peek(host.dma) {
            Ok(command) => {
                queue.advance();
                Some(command)
            }
            Err(_) => {
                self.fail();
                None
            }
        }
    }

    #[inline(always)]
    fn carry_out(&mut self, host: &Host<'_>, index: usize, sqid: u16, command: &Command) {
        let verdict = if self.judge.is_idle() { None } else { self.judge.command(sqid, command) };
        if verdict.is_none() && sqid != 0 && command.cdw0.fuse() == Cdw0::FUSE_NONE {
            if let Outcome::Done(result) = self.io(host, sqid, command, None) {
                self.finish(host, sqid, command, result, None);
            }
            return;
        }
        self.carry_out_oddity(host, index, sqid, command, verdict);
    }

    /// Admin commands, fused commands, and commands that something befalls.
    #[cold]
    fn carry_out_oddity(
        &mut self,
        host: &Host<'_>,
        index: usize,
        sqid: u16,
        command: &Command,
        verdict: Option<Verdict>,
    ) {
        if let Some(verdict) = &verdict {
            if let Some(trouble) = verdict.controller {
                self.befall(trouble);
                return;
            }
            if verdict.dropped {
                return;
            }
            if let Some(status) = verdict.fail {
                let failed = done(sqid, command.cdw0.cid(), status, 0);
                self.log_error(sqid, command, status);
                self.dispatch(
                    host,
                    Done { nsid: command.nsid, opcode: command.cdw0.opcode(), ..failed },
                    Some(verdict),
                );
                return;
            }
        }
        let patch = verdict.as_ref().and_then(|verdict| verdict.patch.as_ref());
        let outcome = match (sqid, command.cdw0.fuse()) {
            (0, Cdw0::FUSE_NONE) => self.admin(host, command, patch),
            (0, _) => Outcome::Done(Err(Status::INVALID_FIELD_IN_COMMAND)),
            (_, Cdw0::FUSE_NONE) => self.io(host, sqid, command, verdict.as_ref()),
            (_, Cdw0::FUSE_FIRST) => {
                self.carry_out_pair(host, index, sqid, command, verdict.as_ref());
                return;
            }
            _ => Outcome::Done(Err(Status::ABORTED_MISSING_FUSED)),
        };
        if let Outcome::Done(result) = outcome {
            self.finish(host, sqid, command, result, verdict.as_ref());
        }
    }

    /// The first half of a fused pair, and the second with it.
    fn carry_out_pair(&mut self, host: &Host<'_>, index: usize, sqid: u16, first: &Command, verdict: Option<&Verdict>) {
        let next = self.queues.submission.get(index).filter(|queue| !queue.is_empty());
        let follows = match next.map(|queue| queue.peek(host.dma)) {
            Some(Err(_)) => return self.fail(),
            Some(Ok(next)) => next.cdw0.fuse() == Cdw0::FUSE_SECOND,
            None => false,
        };
        if !follows {
            return self.finish(host, sqid, first, Err(Status::ABORTED_MISSING_FUSED), verdict);
        }
        // What is peeked at may change before it is taken: what counts is what is taken.
        let Some(second) = self.take(host, index) else { return };
        let ended = self.compare_and_write(host, sqid, first, &second, verdict);
        let Some((compared, written)) = ended else { return };
        self.finish(host, sqid, first, compared, verdict);
        self.finish(host, sqid, &second, written, None);
    }

    /// Completes a command.
    #[inline]
    pub(crate) fn finish(
        &mut self,
        host: &Host<'_>,
        sqid: u16,
        command: &Command,
        result: Result<u64, Status>,
        verdict: Option<&Verdict>,
    ) {
        let (status, result) = match result {
            Ok(result) => (StatusField::new(), result),
            Err(status) => {
                let field = StatusField::new().with_status(status).with_dnr(is_final(status)).with_more(true);
                self.log_error(sqid, command, field);
                (field, 0)
            }
        };
        self.complete(host, sqid, command, status, result, verdict);
    }

    #[inline]
    fn complete(
        &mut self,
        host: &Host<'_>,
        sqid: u16,
        command: &Command,
        status: StatusField,
        result: u64,
        verdict: Option<&Verdict>,
    ) {
        let done = Done {
            nsid: command.nsid,
            opcode: command.cdw0.opcode(),
            ..done(sqid, command.cdw0.cid(), status, result)
        };
        if verdict.is_none() && self.config.latency.is_none() {
            self.post(host, done);
        } else {
            self.dispatch(host, done, verdict);
        }
    }

    /// Tells the host of what storage has finished.
    #[inline]
    pub(super) fn post_finished(&mut self, host: &Host<'_>) -> bool {
        let mut worked = false;
        while let Some(finished) = self.lanes.next_finished() {
            self.finish_waiting(host, finished);
            worked = true;
        }
        if !self.deletions.is_empty() {
            worked |= self.finish_deletions(host);
        }
        worked
    }

    #[inline(never)]
    fn finish_waiting(&mut self, host: &Host<'_>, Finished { waiting, status }: Finished) {
        let Waiting { sqid, command, second, verdict } = waiting;
        let verdict = verdict.as_deref();
        if status.is_success() {
            self.count(&command);
            self.complete(host, sqid, &command, status, 0, verdict);
            if let Some(second) = second {
                self.count(&second);
                self.complete(host, sqid, &second, status, 0, None);
            }
            return;
        }
        let status = status.with_more(true);
        self.log_error(sqid, &command, status);
        self.complete(host, sqid, &command, status, 0, verdict);
        if let Some(second) = second {
            self.finish(host, sqid, &second, Err(Status::ABORTED_FAILED_FUSED), None);
        }
    }

    /// Counts what a command moved.
    fn count(&mut self, command: &Command) {
        let Some(namespace) = self.namespace(command.nsid) else { return };
        let blocks = ReadWriteCdw12::from(command.cdw12).block_count();
        let bytes = read(&namespace.state).layout.bytes(blocks.into());
        match NvmOpcode(command.cdw0.opcode()) {
            NvmOpcode::READ | NvmOpcode::COMPARE | NvmOpcode::VERIFY => {
                self.health.reads = self.health.reads.wrapping_add(1);
                self.health.bytes_read = self.health.bytes_read.wrapping_add(bytes);
            }
            NvmOpcode::WRITE => {
                self.health.writes = self.health.writes.wrapping_add(1);
                self.health.bytes_written = self.health.bytes_written.wrapping_add(bytes);
            }
            _ => {}
        }
    }

    /// Posts a completion now or later, as it should be or not.
    fn dispatch(&mut self, host: &Host<'_>, done: Done, verdict: Option<&Verdict>) {
        let latency = self.config.latency.filter(|_| done.sqid != 0).unwrap_or_default();
        let delay = verdict.map_or(Duration::ZERO, |verdict| verdict.delay).saturating_add(latency);
        let done = Done {
            twice: verdict.is_some_and(|verdict| verdict.duplicate),
            quiet: verdict.is_some_and(|verdict| verdict.lose_interrupt),
            bad: verdict.and_then(|verdict| verdict.completion),
            ..done
        };
        if delay.is_zero() {
            self.post(host, done);
        } else {
            self.delayed.push(self.now.saturating_add(delay), done);
        }
    }

    /// Posts a completion; one whose queue is gone is forgotten.
    #[inline]
    pub(crate) fn post(&mut self, host: &Host<'_>, done: Done) {
        let Some(queue) = self.queues.submission_of(done.sqid) else { return };
        let (head, cqid) = (queue.head(), queue.cqid);
        let mut completion = Completion {
            dw0: done.result as u32,
            dw1: (done.result >> 32) as u32,
            sqhd: head,
            sqid: done.sqid,
            cid: done.cid,
            status: done.status(),
        };
        if let Some(bad) = done.bad {
            completion = spoil(completion, bad);
        }
        let Some(queue) = self.queues.completion(cqid) else { return };
        let interrupts = queue.interrupts && !done.quiet;
        let times = if done.twice { 2 } else { 1 };
        for _ in 0..times {
            let Some(queue) = self.queues.completion(cqid) else { return };
            if !queue.has_room() {
                queue.backlog.push_back(completion);
                self.backlogged = true;
            } else if queue.post(host.dma, completion).is_err() {
                self.fail();
            }
        }
        if interrupts {
            self.raise |= 1 << (cqid & 127);
        }
    }

    /// Posts what found its queue full.
    #[cold]
    fn post_backlog(&mut self, host: &Host<'_>) -> bool {
        let mut worked = false;
        let mut failed = false;
        let mut left = false;
        for (cqid, queue) in (0u32..).zip(&mut self.queues.completion) {
            let Some(queue) = queue else { continue };
            if queue.backlog.is_empty() {
                continue;
            }
            failed |= queue.refresh(host).is_err();
            while !queue.is_full()
                && let Some(completion) = queue.backlog.pop_front()
            {
                failed |= queue.post(host.dma, completion).is_err();
                worked = true;
                if queue.interrupts {
                    self.raise |= 1 << (cqid & 127);
                }
            }
            left |= !queue.backlog.is_empty();
        }
        self.backlogged = left;
        if failed {
            self.fail();
        }
        worked
    }

    fn log_error(&mut self, sqid: u16, command: &Command, status: StatusField) {
        let entry = ErrorEntry {
            sqid,
            cid: command.cdw0.cid(),
            status,
            parameter_error_location: ParameterErrorLocation::from(u16::MAX),
            lba: if sqid == 0 { 0 } else { command.cdw10_11() },
            nsid: command.nsid,
            ..ErrorEntry::default()
        };
        let most = usize::from(self.config.elpe).saturating_add(1);
        self.health.log_error(most, entry);
        if status.sct() == nvme_spec::status::sct::MEDIA && status.status() != Status::COMPARE_FAILURE {
            self.health.media_errors = self.health.media_errors.saturating_add(1);
        }
    }

    /// A doorbell was written with a value that its queue cannot have.
    #[cold]
    fn invalid_doorbell(&mut self) {
        let entry = ErrorEntry {
            sqid: u16::MAX,
            cid: u16::MAX,
            parameter_error_location: ParameterErrorLocation::from(u16::MAX),
            ..ErrorEntry::default()
        };
        self.health.log_error(usize::from(self.config.elpe).saturating_add(1), entry);
        self.events.raise(EventKind::INVALID_DOORBELL_VALUE, LogId::ERROR);
    }
}

pub(crate) fn done(sqid: u16, cid: u16, status: StatusField, result: u64) -> Done {
    Done { sqid, cid, nsid: 0, opcode: 0, status: status.into_bits(), result, twice: false, quiet: false, bad: None }
}

fn spoil(completion: Completion, bad: BadCompletion) -> Completion {
    Completion {
        dw0: bad.dw0.unwrap_or(completion.dw0),
        sqhd: bad.sqhd.unwrap_or(completion.sqhd),
        sqid: bad.sqid.unwrap_or(completion.sqid),
        cid: bad.cid.unwrap_or(completion.cid),
        status: StatusField::from_bits(completion.status.into_bits() ^ bad.status_xor),
        ..completion
    }
}

/// Do Not Retry: whether the same command would fail again.
fn is_final(status: Status) -> bool {
    !matches!(
        status,
        Status::DATA_TRANSFER_ERROR
            | Status::INTERNAL_ERROR
            | Status::ABORT_REQUESTED
            | Status::ABORTED_SQ_DELETION
            | Status::ABORTED_FAILED_FUSED
            | Status::ABORTED_PREEMPT_AND_ABORT
            | Status::NAMESPACE_NOT_READY
            | Status::COMMAND_INTERRUPTED
            | Status::COMPARE_FAILURE
    )
}
