//! Abort: of requests for events, and of commands whose completion is delayed. All others are completed by the time that
//! an Abort can be looked at.

use nvme_spec::admin::{AbortCdw10, AbortResult};
use nvme_spec::{AdminOpcode, Status, StatusField};

use super::Call;
use crate::controller::{Controller, done};
use crate::delayed::Done;

impl Controller {
    pub(super) fn abort(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = AbortCdw10::from(call.command.cdw10);
        let (sqid, cid) = (cdw10.sqid(), cdw10.cid());
        if self.queues.find_submission(sqid).is_none() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        // An Abort is outstanding only while a fault plan delays it.
        let abort = AdminOpcode::ABORT.0;
        if self.delayed.count(|done| done.sqid == 0 && done.opcode == abort) > usize::from(self.config.acl) {
            return Err(Status::ABORT_COMMAND_LIMIT_EXCEEDED);
        }
        let status = StatusField::new().with_status(Status::ABORT_REQUESTED);
        let mut aborted = false;
        if sqid == 0
            && let Some(index) = self.events.requests.iter().position(|request| *request == cid)
        {
            self.events.requests.remove(index);
            self.post(call.host, done(0, cid, status, 0));
            aborted = true;
        }
        for delayed in self.delayed.take(|done| done.sqid == sqid && done.cid == cid) {
            self.post(call.host, Done { status: status.into_bits(), result: 0, ..delayed });
            aborted = true;
        }
        Ok(u64::from(AbortResult::new().with_not_aborted(!aborted).into_bits()))
    }

    /// Preempt and Abort of a reservation: what this host has outstanding to a namespace is aborted.
    pub(crate) fn abort_namespace(&mut self, nsid: u32) {
        let status = StatusField::new().with_status(Status::ABORTED_PREEMPT_AND_ABORT);
        for delayed in self.delayed.take(|done| done.sqid != 0 && done.nsid == nsid) {
            self.delayed.push(self.now, Done { status: status.into_bits(), result: 0, ..delayed });
        }
    }
}
