//! The kinds of faults, and how they are put into a device.

use std::time::Duration;

use doorbell_device::wrap::{Fault as Wrapped, FaultInjector, MapFailure, Rule};
use doorbell_emulator::{CommandMatch, Fault, FaultRule, QueueMatch, When};
use nvme_spec::Status;
use nvme_spec::registers::offset;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Dropped,
    DelayedABit,
    DelayedForLong,
    Duplicate,
    FailsForNow,
    FailsWithDelay,
    FailsForGood,
    Medium,
    StatusLie,
    UnknownIdentifier,
    WrongQueue,
    WrongHead,
    InterruptLost,
    Fatal,
    Stuck,
    NotReady,
    Gone,
    AdminDropped,
    AdminFails,
    AllOnesOnce,
    DoorbellLost,
    InterruptLostOutside,
    MapFails,
    ResetFails,
    AskedBack,
}

/// Where a fault is put.
pub(crate) enum Place {
    Controller(FaultRule),
    Around(Rule),
    /// The device is asked back.
    Loss,
}

impl Kind {
    pub(crate) const ALL: &[Self] = &[
        Self::Dropped,
        Self::DelayedABit,
        Self::DelayedForLong,
        Self::Duplicate,
        Self::FailsForNow,
        Self::FailsWithDelay,
        Self::FailsForGood,
        Self::Medium,
        Self::StatusLie,
        Self::UnknownIdentifier,
        Self::WrongQueue,
        Self::WrongHead,
        Self::InterruptLost,
        Self::Fatal,
        Self::Stuck,
        Self::NotReady,
        Self::Gone,
        Self::AdminDropped,
        Self::AdminFails,
        Self::AllOnesOnce,
        Self::DoorbellLost,
        Self::InterruptLostOutside,
        Self::MapFails,
        Self::ResetFails,
        Self::AskedBack,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dropped => "command never answered",
            Self::DelayedABit => "completion late",
            Self::DelayedForLong => "completion later than the time limit",
            Self::Duplicate => "completed twice",
            Self::FailsForNow => "fails for a passing reason",
            Self::FailsWithDelay => "fails, retry delay named",
            Self::FailsForGood => "fails, do not retry",
            Self::Medium => "medium error",
            Self::StatusLie => "done, and said to have failed",
            Self::UnknownIdentifier => "unknown command identifier",
            Self::WrongQueue => "wrong queue identifier",
            Self::WrongHead => "head past the queue",
            Self::InterruptLost => "interrupt never raised",
            Self::Fatal => "fatal status",
            Self::Stuck => "controller stuck",
            Self::NotReady => "never ready after a reset",
            Self::Gone => "all ones for good",
            Self::AdminDropped => "admin command never answered",
            Self::AdminFails => "admin command fails",
            Self::AllOnesOnce => "CSTS read as all ones once",
            Self::DoorbellLost => "doorbell lost",
            Self::InterruptLostOutside => "interrupt lost on its way",
            Self::MapFails => "mapping memory fails",
            Self::ResetFails => "function reset fails",
            Self::AskedBack => "device asked back",
        }
    }

    /// Whether the controller may be reset or given up for it, and commands time out.
    pub(crate) fn disturbs(self) -> bool {
        !matches!(
            self,
            Self::DelayedABit
                | Self::FailsForNow
                | Self::FailsWithDelay
                | Self::FailsForGood
                | Self::Medium
                | Self::StatusLie
                | Self::MapFails
        )
    }

    /// The device works no more, whatever is done.
    pub(crate) fn is_for_good(self) -> bool {
        matches!(self, Self::Gone | Self::AskedBack)
    }

    /// The status that commands may end with because of it.
    pub(crate) fn status(self) -> Option<Status> {
        match self {
            Self::FailsForNow => Some(Status::NAMESPACE_NOT_READY),
            Self::FailsWithDelay => Some(Status::COMMAND_INTERRUPTED),
            Self::FailsForGood | Self::StatusLie | Self::AdminFails => Some(Status::INTERNAL_ERROR),
            Self::Medium => Some(Status::UNRECOVERED_READ_ERROR),
            _ => None,
        }
    }

    /// The fault, to strike once after `skip` chances.
    pub(crate) fn place(self, skip: u64, timeout: Duration) -> Place {
        let io = |then| Place::Controller(rule(QueueMatch::Io, skip, then));
        let admin = |then| Place::Controller(rule(QueueMatch::Admin, skip % 8, then));
        let completion = Fault::CorruptCompletion { cid: None, sqid: None, sqhd: None, status_xor: 0, dw0: None };
        let fail = |status: Status, dnr, crd| Fault::Fail { sct: status.sct(), sc: status.sc(), dnr, crd, more: false };
        let Fault::CorruptCompletion { cid, sqid, sqhd, status_xor, dw0 } = completion else { return Place::Loss };
        match self {
            Self::Dropped => io(Fault::Drop),
            Self::DelayedABit => io(Fault::delay(timeout / 4)),
            Self::DelayedForLong => io(Fault::delay(timeout * 3)),
            Self::Duplicate => io(Fault::Duplicate),
            Self::FailsForNow => io(fail(Status::NAMESPACE_NOT_READY, false, 0)),
            Self::FailsWithDelay => io(fail(Status::COMMAND_INTERRUPTED, false, 1)),
            Self::FailsForGood => io(fail(Status::INTERNAL_ERROR, true, 0)),
            Self::Medium => io(fail(Status::UNRECOVERED_READ_ERROR, true, 0)),
            // Success becomes Internal Error, do not retry.
            Self::StatusLie => io(Fault::CorruptCompletion { cid, sqid, sqhd, status_xor: 1 << 15 | 0x06 << 1, dw0 }),
            Self::UnknownIdentifier => io(Fault::CorruptCompletion { cid: Some(0xffff), sqid, sqhd, status_xor, dw0 }),
            Self::WrongQueue => io(Fault::CorruptCompletion { cid, sqid: Some(0x7777), sqhd, status_xor, dw0 }),
            Self::WrongHead => io(Fault::CorruptCompletion { cid, sqid, sqhd: Some(0xfff0), status_xor, dw0 }),
            Self::InterruptLost => io(Fault::LoseInterrupt),
            Self::Fatal => io(Fault::Fatal),
            Self::Stuck => io(Fault::Stuck),
            Self::NotReady => {
                Place::Controller(FaultRule { when: When::Enabled { skip: 0, count: Some(1) }, then: Fault::NotReady })
            }
            Self::Gone => io(Fault::Gone),
            Self::AdminDropped => admin(Fault::Drop),
            Self::AdminFails => admin(fail(Status::INTERNAL_ERROR, false, 0)),
            Self::AllOnesOnce => {
                Place::Around(Wrapped::ReadAs { register: Some(offset::CSTS), value: u64::MAX }.times(1))
            }
            Self::DoorbellLost => Place::Around(Wrapped::DoorbellLost { doorbell: None }.after(skip).times(1)),
            Self::InterruptLostOutside => Place::Around(Wrapped::InterruptLost { vector: None }.after(skip).times(1)),
            Self::MapFails => Place::Around(Wrapped::MapFails(MapFailure::Limit).after(skip % 4).times(1)),
            Self::ResetFails => Place::Around(Wrapped::ResetFails.times(1)),
            Self::AskedBack => Place::Loss,
        }
    }
}

fn rule(queue: QueueMatch, skip: u64, then: Fault) -> FaultRule {
    let command = CommandMatch { queue: Some(queue), skip, count: Some(1), ..CommandMatch::default() };
    FaultRule { when: When::Command(command), then }
}

/// The faults that were put into a device, and how often each has struck.
pub(crate) struct Planted {
    in_controller: Vec<Kind>,
    around: Vec<Kind>,
}

impl Planted {
    pub(crate) fn new() -> Self {
        Self { in_controller: Vec::new(), around: Vec::new() }
    }

    pub(crate) fn in_controller(&mut self, kind: Kind) {
        self.in_controller.push(kind);
    }

    pub(crate) fn around(&mut self, kind: Kind) {
        self.around.push(kind);
    }

    /// What has struck, of what was put in.
    pub(crate) fn struck(&self, applied: &[u64], injector: &FaultInjector) -> Vec<Kind> {
        self.of(applied, injector, true)
    }

    /// What has not struck yet.
    pub(crate) fn to_come(&self, applied: &[u64], injector: &FaultInjector) -> Vec<Kind> {
        self.of(applied, injector, false)
    }

    fn of(&self, applied: &[u64], injector: &FaultInjector, struck: bool) -> Vec<Kind> {
        let plan = injector.plan();
        let times = applied.iter().copied().chain(plan.iter().map(|(_, times)| *times));
        let kinds = self.in_controller.iter().chain(&self.around);
        kinds.zip(times).filter(|(_, times)| (*times > 0) == struck).map(|(kind, _)| *kind).collect()
    }
}
