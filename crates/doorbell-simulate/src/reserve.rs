//! Reservation commands of several hosts: what each sends, and what may come of it.

use doorbell::{RequestError, ReservationReport};
use nvme_spec::Status;
use nvme_spec::reservation::ReservationType;

use crate::agreement::{Demand, Group};
use crate::model::Tick;
use crate::operation::{self, What};
use crate::run::{Check, Run, failure};
use crate::scenario::{At, Dropped};

/// What is asked for, before it is known which keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Register,
    Replace,
    Unregister,
    Acquire,
    Preempt,
    PreemptAndAbort,
    Release,
    Clear,
    Report,
}

impl Wish {
    pub(crate) const ALL: &[Self] = &[
        Self::Register,
        Self::Register,
        Self::Replace,
        Self::Unregister,
        Self::Acquire,
        Self::Acquire,
        Self::Preempt,
        Self::PreemptAndAbort,
        Self::Release,
        Self::Release,
        Self::Clear,
        Self::Report,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Register => "reservation: register",
            Self::Replace => "reservation: replace the key",
            Self::Unregister => "reservation: unregister",
            Self::Acquire => "reservation: acquire",
            Self::Preempt => "reservation: preempt",
            Self::PreemptAndAbort => "reservation: preempt and abort",
            Self::Release => "reservation: release",
            Self::Clear => "reservation: clear",
            Self::Report => "reservation: report",
        }
    }
}

const KINDS: [ReservationType; 6] = [
    ReservationType::WRITE_EXCLUSIVE,
    ReservationType::EXCLUSIVE_ACCESS,
    ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ReservationType::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
];

impl Run {
    /// A host sends a reservation command. `which` decides what the wish leaves open.
    pub(crate) fn reserve(&mut self, at: At, wish: Wish, which: u16, dropped: Option<Dropped>) -> Check {
        if !self.setup.reservations {
            return Ok(());
        }
        let Some((host, disk, target)) = self.target(at)? else { return Ok(()) };
        let demand = self.demand(host, disk, wish, which);
        let name = operation::reservation(demand);
        let oldest = self.oldest();
        if !self.disks[disk].agreements.takes(demand) {
            return Ok(());
        }
        let id = self.start(host, disk, What::Reserve(demand), operation::reserve(target, demand), Vec::new(), dropped);
        self.disks[disk].agreements.begins(id, host, demand, id, oldest.min(id));
        self.tally.action(name);
        Ok(())
    }

    /// A command for a wish: mostly one that can be granted.
    fn demand(&self, host: usize, disk: usize, wish: Wish, which: u16) -> Demand {
        let (pick, wrong) = (usize::from(which >> 4), which.is_multiple_of(16));
        let believed = self.disks[disk].agreements.now().first().cloned().unwrap_or_default();
        let registered = believed.key_of(host);
        // Two hosts may have the same key.
        let fresh = 1 + pick as u64 % 4;
        let own = registered.filter(|_| !wrong).unwrap_or(fresh + 4);
        let (somebodys, held) = believed.somebody(pick);
        let kind = KINDS[pick % KINDS.len()];
        match wish {
            Wish::Report => Demand::Report,
            Wish::Register => Demand::Register { key: fresh, persist: [None, Some(false), Some(true)][pick % 3] },
            _ if registered.is_none() && !wrong => Demand::Register { key: fresh, persist: None },
            Wish::Replace => Demand::Replace { own: Some(own).filter(|_| pick % 2 == 0), key: fresh },
            Wish::Unregister => Demand::Unregister { own },
            Wish::Acquire => Demand::Acquire { own, kind },
            Wish::Preempt | Wish::PreemptAndAbort => {
                let other = if pick % 5 == 0 { 0 } else { somebodys.unwrap_or(fresh) };
                Demand::Preempt { own, other, kind, abort: wish == Wish::PreemptAndAbort }
            }
            Wish::Release if held == ReservationType::NONE || wrong => Demand::Release { own, kind },
            Wish::Release => Demand::Release { own, kind: held },
            Wish::Clear => Demand::Clear { own },
        }
    }

    /// A reservation command has ended: whether what came of it was possible.
    pub(crate) fn reserved(
        &mut self,
        id: u64,
        disk: usize,
        demand: Demand,
        result: &Result<Option<ReservationReport>, RequestError>,
    ) -> Check<bool> {
        let now = self.tick();
        let agreements = &mut self.disks[disk].agreements;
        let settled = match result {
            Ok(Some(report)) => agreements.reported(id, report, now).then_some(()),
            Ok(None) => agreements.ends(id, Ok(()), now).then_some(()),
            Err(RequestError::Nvme(error)) if is_answer(error.status) && demand != Demand::Report => {
                if agreements.ends(id, Err(error.status), now) {
                    return Ok(true);
                }
                // Something else may have made it fail.
                return Ok(false);
            }
            Err(_) => {
                agreements.fails(id, now);
                return Ok(false);
            }
        };
        match settled {
            Some(()) => Ok(true),
            None => failure(
                "reservation",
                format!("disk {disk}: {demand:?} gave {result:?}, which cannot be; the model knows {agreements:#?}"),
            ),
        }
    }

    /// A command was let through: whether a reservation allowed that.
    pub(crate) fn was_allowed(&self, host: usize, disk: usize, group: Group, start: Tick) -> Check {
        if self.disks[disk].agreements.may_allow(host, group, start) {
            return Ok(());
        }
        let agreements = &self.disks[disk].agreements;
        failure(
            "reservation",
            format!(
                "host {host}, disk {disk}: a {group:?} was done that a reservation keeps out; the model knows {agreements:#?}"
            ),
        )
    }

    /// Whether a reservation explains that a command failed.
    pub(crate) fn is_kept_out(
        &self,
        host: usize,
        disk: usize,
        group: Group,
        start: Tick,
        error: &RequestError,
    ) -> bool {
        let agreements = &self.disks[disk].agreements;
        match error.status() {
            Some(Status::RESERVATION_CONFLICT) => agreements.may_refuse(host, group, start),
            Some(Status::ABORTED_PREEMPT_AND_ABORT) => agreements.may_abort(start),
            _ => false,
        }
    }
}

/// What a controller answers to a reservation command that cannot be granted.
fn is_answer(status: Status) -> bool {
    [Status::RESERVATION_CONFLICT, Status::INVALID_FIELD_IN_COMMAND].contains(&status)
}
