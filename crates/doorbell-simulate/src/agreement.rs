//! What hosts have agreed on about a namespace by reservations (NVMe Base 2.0, "Reservations"), and what it may be while
//! nobody knows whether a command was carried out.

use doorbell::ReservationReport;
use nvme_spec::Status;
use nvme_spec::reservation::ReservationType;

use crate::model::Tick;

/// What a host asks of a reservation command. Keys are those that it holds, or believes to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    Register {
        key: u64,
        persist: Option<bool>,
    },
    /// Without its own key, an existing one is ignored.
    Replace {
        own: Option<u64>,
        key: u64,
    },
    Unregister {
        own: u64,
    },
    Acquire {
        own: u64,
        kind: ReservationType,
    },
    Preempt {
        own: u64,
        other: u64,
        kind: ReservationType,
        abort: bool,
    },
    Release {
        own: u64,
        kind: ReservationType,
    },
    Clear {
        own: u64,
    },
    /// Asks who is registered.
    Report,
}

/// Which of a namespace's commands a reservation looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Read,
    Write,
}

/// A state of a namespace's reservations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Agreement {
    kind: ReservationType,
    /// Unless all registrants hold it.
    holder: Option<usize>,
    /// Hosts, each with its key, in their order.
    registrants: Vec<(usize, u64)>,
    persists: bool,
}

impl Default for Agreement {
    fn default() -> Self {
        Self { kind: ReservationType::NONE, holder: None, registrants: Vec::new(), persists: false }
    }
}

impl Agreement {
    pub(crate) fn key_of(&self, host: usize) -> Option<u64> {
        self.registrants.iter().find(|(other, _)| *other == host).map(|(_, key)| *key)
    }

    /// Somebody's key, and the type of what is held.
    pub(crate) fn somebody(&self, which: usize) -> (Option<u64>, ReservationType) {
        let key = self.registrants.get(which % self.registrants.len().max(1)).map(|(_, key)| *key);
        (key, self.kind)
    }

    fn is_for_all(&self) -> bool {
        [ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS, ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS]
            .contains(&self.kind)
    }

    fn holds(&self, host: usize) -> bool {
        if self.is_for_all() { self.key_of(host).is_some() } else { self.holder == Some(host) }
    }

    fn allows(&self, host: usize, group: Group) -> bool {
        let registered = self.key_of(host).is_some();
        match self.kind {
            ReservationType::NONE => true,
            ReservationType::WRITE_EXCLUSIVE => group == Group::Read || self.holds(host),
            ReservationType::EXCLUSIVE_ACCESS => self.holds(host),
            ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY | ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS => {
                group == Group::Read || registered
            }
            _ => registered,
        }
    }

    fn held(mut self, by: usize, kind: ReservationType) -> Self {
        self.kind = kind;
        self.holder = Some(by).filter(|_| !self.is_for_all());
        self
    }

    fn released(mut self) -> Self {
        self.kind = ReservationType::NONE;
        self.holder = None;
        self
    }

    fn without(mut self, gone: impl Fn(usize, u64) -> bool) -> Self {
        self.registrants.retain(|(host, key)| !gone(*host, *key));
        self
    }

    /// What a host's command makes of it.
    fn after(&self, host: usize, demand: Demand) -> Result<Self, Status> {
        let own = self.key_of(host);
        let is = |key| own == Some(key);
        let conflict = Err(Status::RESERVATION_CONFLICT);
        let mut new = self.clone();
        match demand {
            Demand::Report => {}
            Demand::Register { key, persist } => match own {
                Some(other) if other != key => return conflict,
                _ => {
                    new = new.without(|other, _| other == host);
                    new.registrants.push((host, key));
                    new.registrants.sort_unstable();
                    new.persists = persist.unwrap_or(new.persists);
                }
            },
            Demand::Replace { own: said, key } => match (said, own) {
                (None, _) => return new.without(|other, _| other == host).after(host, register(key)),
                (Some(said), Some(is)) if said == is => {
                    return new.without(|other, _| other == host).after(host, register(key));
                }
                _ => return conflict,
            },
            Demand::Unregister { own: said } if is(said) => {
                let held = self.holds(host);
                new = new.without(|other, _| other == host);
                if held && (!self.is_for_all() || new.registrants.is_empty()) {
                    new = new.released();
                }
            }
            Demand::Acquire { own: said, kind } if is(said) => match self.kind {
                ReservationType::NONE => new = new.held(host, kind),
                same if same == kind && self.holds(host) => {}
                _ => return conflict,
            },
            Demand::Preempt { own: said, other, kind, .. } if is(said) => {
                let of_holder = self.holder.and_then(|holder| self.key_of(holder));
                let all = self.is_for_all();
                if if all { other == 0 } else { of_holder == Some(other) } {
                    new = new.without(|whom, key| whom != host && (all || key == other)).held(host, kind);
                } else if other == 0 && self.kind != ReservationType::NONE && !all {
                    return Err(Status::INVALID_FIELD_IN_COMMAND);
                } else if self.registrants.iter().any(|(_, key)| *key == other) {
                    new = new.without(|_, key| key == other);
                    if all && new.registrants.is_empty() {
                        new = new.released();
                    }
                } else {
                    return conflict;
                }
            }
            Demand::Release { own: said, kind } if is(said) => {
                if self.holds(host) {
                    if self.kind != kind {
                        return Err(Status::INVALID_FIELD_IN_COMMAND);
                    }
                    new = new.released();
                }
            }
            Demand::Clear { own: said } if is(said) => new = new.without(|_, _| true).released(),
            _ => return conflict,
        }
        Ok(new)
    }

    fn without_power(&self) -> Self {
        if self.persists { self.clone() } else { Self::default() }
    }

    /// Whether a report says the same. Hosts are known by identifiers that [`host_id`] gives them.
    fn is_reported(&self, report: &ReservationReport) -> bool {
        let mut said: Vec<_> =
            report.controllers.iter().map(|entry| (entry.hostid, entry.rkey, entry.rcsts.holder())).collect();
        // A host may have several controllers.
        said.sort_unstable();
        said.dedup();
        let mut is: Vec<_> =
            self.registrants.iter().map(|(host, key)| (wide(*host), *key, self.holds(*host))).collect();
        is.sort_unstable();
        let header = &report.header;
        said == is && header.rtype == self.kind && (header.ptpls != 0) == self.persists
    }
}

fn register(key: u64) -> Demand {
    Demand::Register { key, persist: None }
}

/// The identifier by which a host is known.
pub(crate) fn host_id(host: usize) -> [u8; 8] {
    [host as u8 + 1; 8]
}

fn wide(host: usize) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..8].copy_from_slice(&host_id(host));
    wide
}

/// More possibilities than these are not told apart: somebody has to ask first.
const MOST: usize = 32;

/// What may be agreed on, from when on.
#[derive(Debug)]
pub(crate) struct Agreements {
    since: Vec<(Tick, Vec<Agreement>)>,
    pending: Option<Pending>,
    /// When commands of a preempted host were last aborted.
    aborted: Tick,
}

/// A command that is under way, or may still take effect.
#[derive(Debug)]
struct Pending {
    operation: u64,
    host: usize,
    demand: Demand,
    before: Vec<Agreement>,
    /// Something else changed meanwhile.
    shaken: bool,
}

impl Agreements {
    pub(crate) fn new() -> Self {
        Self { since: vec![(0, vec![Agreement::default()])], pending: None, aborted: 0 }
    }

    /// What may be agreed on now.
    pub(crate) fn now(&self) -> &[Agreement] {
        self.since.last().map_or(&[], |(_, all)| all)
    }

    /// Whether a command may be sent: one at a time.
    pub(crate) fn takes(&self, demand: Demand) -> bool {
        self.pending.is_none() && (demand == Demand::Report || self.now().len() <= MOST)
    }

    fn settle(&mut self, all: Vec<Agreement>, now: Tick) {
        let mut different: Vec<Agreement> = Vec::new();
        for one in all {
            if !different.contains(&one) {
                different.push(one);
            }
        }
        self.since.push((now, different));
    }

    /// A command begins. `oldest` is when the oldest operation that is under way began.
    pub(crate) fn begins(&mut self, operation: u64, host: usize, demand: Demand, now: Tick, oldest: Tick) {
        let forgotten = self.since.iter().rposition(|(since, _)| *since <= oldest).unwrap_or(0);
        self.since.drain(..forgotten);
        let before = self.now().to_vec();
        let after = before.iter().filter_map(|one| one.after(host, demand).ok());
        let all = before.iter().cloned().chain(after).collect();
        self.settle(all, now);
        if matches!(demand, Demand::Preempt { abort: true, .. }) {
            self.aborted = Tick::MAX;
        }
        self.pending = Some(Pending { operation, host, demand, before, shaken: false });
    }

    /// The command has ended in this way; whether it can have.
    pub(crate) fn ends(&mut self, operation: u64, result: Result<(), Status>, now: Tick) -> bool {
        let Some(pending) = self.pending.take_if(|pending| pending.operation == operation) else { return true };
        self.aborted = self.aborted.min(now);
        if pending.shaken {
            return true;
        }
        let Pending { host, demand, before, .. } = pending;
        let possible: Vec<Agreement> = match result {
            Ok(()) => before.iter().filter_map(|one| one.after(host, demand).ok()).collect(),
            Err(status) => before.into_iter().filter(|one| one.after(host, demand) == Err(status)).collect(),
        };
        let any = !possible.is_empty();
        if any {
            self.settle(possible, now);
        }
        any
    }

    /// The command has failed, whether before or after it was carried out.
    pub(crate) fn fails(&mut self, operation: u64, now: Tick) {
        if self.pending.take_if(|pending| pending.operation == operation).is_some() {
            self.aborted = self.aborted.min(now);
        }
    }

    /// A report was given; whether it can be.
    pub(crate) fn reported(&mut self, operation: u64, report: &ReservationReport, now: Tick) -> bool {
        let shaken = self.pending.as_ref().is_some_and(|pending| pending.operation == operation && pending.shaken);
        self.fails(operation, now);
        if shaken {
            return true;
        }
        let possible: Vec<Agreement> = self.now().iter().filter(|one| one.is_reported(report)).cloned().collect();
        let any = !possible.is_empty();
        if any {
            self.settle(possible, now);
        }
        any
    }

    /// The power is lost, and what does not persist with it.
    pub(crate) fn power_lost(&mut self, now: Tick) {
        self.change(now, Agreement::without_power);
    }

    /// The namespace is another one now.
    pub(crate) fn begin_anew(&mut self, now: Tick) {
        self.change(now, |_| Agreement::default());
    }

    /// What is under way may take effect before or after.
    fn change(&mut self, now: Tick, change: impl Fn(&Agreement) -> Agreement) {
        let mut all: Vec<Agreement> = self.now().iter().map(change).collect();
        if let Some(pending) = &mut self.pending {
            pending.shaken = true;
            let late: Vec<_> = all.iter().filter_map(|one| one.after(pending.host, pending.demand).ok()).collect();
            all.extend(late);
        }
        self.settle(all, now);
    }

    /// Nothing is under way any more.
    pub(crate) fn all_ended(&mut self, now: Tick) {
        self.pending = None;
        self.aborted = self.aborted.min(now);
    }

    fn from(&self, start: Tick) -> impl Iterator<Item = &Agreement> {
        let first = self.since.iter().rposition(|(since, _)| *since <= start).unwrap_or(0);
        self.since.iter().skip(first).flat_map(|(_, all)| all)
    }

    /// Whether a command of a host that began at `start` may have been let through by now.
    pub(crate) fn may_allow(&self, host: usize, group: Group, start: Tick) -> bool {
        self.from(start).any(|one| one.allows(host, group))
    }

    /// Whether it may have been kept out.
    pub(crate) fn may_refuse(&self, host: usize, group: Group, start: Tick) -> bool {
        self.from(start).any(|one| !one.allows(host, group))
    }

    /// Whether it may have been aborted because its host was preempted.
    pub(crate) fn may_abort(&self, start: Tick) -> bool {
        self.aborted >= start
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    const KIND: ReservationType = ReservationType::WRITE_EXCLUSIVE;

    #[test]
    fn what_is_not_known_is_told_apart_by_what_is_seen() {
        let mut all = Agreements::new();
        all.begins(1, 0, register(7), 1, 1);
        assert!(all.ends(1, Ok(()), 2));
        all.begins(3, 0, Demand::Acquire { own: 7, kind: KIND }, 3, 3);
        all.fails(3, 4);
        assert!(all.may_allow(1, Group::Write, 5) && all.may_refuse(1, Group::Write, 5));
        assert!(!all.may_refuse(1, Group::Read, 5) && !all.may_refuse(0, Group::Write, 5));
        all.begins(6, 0, Demand::Release { own: 7, kind: ReservationType::EXCLUSIVE_ACCESS }, 6, 6);
        assert!(all.ends(6, Err(Status::INVALID_FIELD_IN_COMMAND), 7), "only if it was acquired");
        assert!(!all.may_allow(1, Group::Write, 8));
        all.begins(9, 1, Demand::Clear { own: 7 }, 9, 9);
        assert!(!all.ends(9, Ok(()), 10), "it is not registered");
    }

    #[test]
    fn a_preempted_host_is_one_no_more() {
        let mut all = Agreements::new();
        for (host, now) in [(0, 1), (1, 3)] {
            all.begins(now, host, register(host as u64 + 1), now, now);
            assert!(all.ends(now, Ok(()), now + 1));
        }
        for (now, host, own, other) in [(5, 0, 1, 2), (7, 1, 2, 1)] {
            let demand = Demand::Preempt { own, other, kind: KIND, abort: false };
            all.begins(now, host, demand, now, now);
            let expected = if host == 0 { Ok(()) } else { Err(Status::RESERVATION_CONFLICT) };
            assert!(all.ends(now, expected, now + 1));
        }
        assert_eq!(all.now().iter().map(|one| one.key_of(1)).collect::<Vec<_>>(), [None]);
        all.power_lost(9);
        assert_eq!(all.now(), [Agreement::default()]);
    }
}
