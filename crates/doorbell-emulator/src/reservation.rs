//! Reservations of one namespace (NVMe Base 2.0, "Reservations"): who is registered, who holds what, and whom a command
//! of whom has to be kept from. A state of its own, without controllers and commands around it.

use nvme_spec::Status;
use nvme_spec::reservation::{AcquireAction, ChangePtpl, RegisterAction, ReleaseAction, ReservationType};

use crate::saved::{StateError, bad, narrow, state};

/// Registrants that a namespace keeps; hosts that have not said who they are could otherwise add more without end.
const MAX_REGISTRANTS: usize = 512;

/// Who a host is, to reservations: controllers with the same host identifier belong to the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HostId {
    /// No identifier was set: a host that is nobody else, until the controller is reset.
    Unset {
        /// The controller.
        cntlid: u16,
        /// How often that was reset.
        epoch: u32,
    },
    /// A 64-bit identifier.
    Short(u64),
    /// A 128-bit identifier.
    Long([u8; 16]),
}

/// A host with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registrant {
    pub(crate) host: HostId,
    pub(crate) key: u64,
}

/// What is told to hosts other than the one that caused it (log page 80h, "Reservation Notification Log Page Type").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    RegistrationPreempted = 1,
    ReservationReleased = 2,
    ReservationPreempted = 3,
}

/// What a reservation command caused elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) notices: Vec<(HostId, Notice)>,
    /// Hosts whose outstanding commands are aborted.
    pub(crate) aborted: Vec<HostId>,
}

/// Which of a namespace's commands a reservation looks at (figure "Command Behavior in the Presence of a Reservation").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    Read,
    Write,
}

/// The state.
#[derive(Debug, Clone)]
pub(crate) struct Reservations {
    pub(crate) generation: u32,
    pub(crate) kind: ReservationType,
    pub(crate) registrants: Vec<Registrant>,
    /// Who holds the reservation, unless all registrants do.
    holder: Option<HostId>,
    /// Persist Through Power Loss.
    pub(crate) ptpl: bool,
}

impl Default for Reservations {
    fn default() -> Self {
        Self { generation: 0, kind: ReservationType::NONE, registrants: Vec::new(), holder: None, ptpl: false }
    }
}

impl Reservations {
    /// Whether a command of a host may go ahead.
    #[inline]
    pub(crate) fn check(&self, host: HostId, group: Group) -> Result<(), Status> {
        if self.kind == ReservationType::NONE || self.allows(host, group) {
            Ok(())
        } else {
            Err(Status::RESERVATION_CONFLICT)
        }
    }

    #[cold]
    fn allows(&self, host: HostId, group: Group) -> bool {
        match self.kind {
            ReservationType::WRITE_EXCLUSIVE => group == Group::Read || self.holds(host),
            ReservationType::EXCLUSIVE_ACCESS => self.holds(host),
            ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY | ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS => {
                group == Group::Read || self.find(host).is_some()
            }
            _ => self.find(host).is_some(),
        }
    }

    /// Whether a host holds the reservation.
    pub(crate) fn holds(&self, host: HostId) -> bool {
        if self.is_for_all() { self.find(host).is_some() } else { self.holder == Some(host) }
    }

    fn find(&self, host: HostId) -> Option<&Registrant> {
        self.registrants.iter().find(|registrant| registrant.host == host)
    }

    fn is_for_all(&self) -> bool {
        matches!(
            self.kind,
            ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS | ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS
        )
    }

    /// Reservation Register.
    pub(crate) fn register(
        &mut self,
        host: HostId,
        action: RegisterAction,
        ignore_key: bool,
        current: u64,
        new: u64,
        ptpl: ChangePtpl,
    ) -> Result<Effects, Status> {
        let mut effects = Effects::default();
        let known = self.find(host).map(|registrant| registrant.key);
        match (action, known) {
            (RegisterAction::REGISTER, None) => self.add(host, new)?,
            (RegisterAction::REGISTER, Some(key)) if key == new => {}
            (RegisterAction::UNREGISTER, Some(key)) if ignore_key || key == current => {
                self.unregister(host, &mut effects);
            }
            (RegisterAction::REPLACE, Some(key)) if ignore_key || key == current => {
                if let Some(registrant) = self.registrants.iter_mut().find(|registrant| registrant.host == host) {
                    registrant.key = new;
                }
            }
            // With the key ignored, whether the host was registered is of no matter either.
            (RegisterAction::REPLACE, None) if ignore_key => self.add(host, new)?,
            (RegisterAction::REGISTER | RegisterAction::UNREGISTER | RegisterAction::REPLACE, _) => {
                return Err(Status::RESERVATION_CONFLICT);
            }
            _ => return Err(Status::INVALID_FIELD_IN_COMMAND),
        }
        match ptpl {
            ChangePtpl::SET => self.ptpl = true,
            ChangePtpl::CLEAR => self.ptpl = false,
            _ => {}
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn add(&mut self, host: HostId, key: u64) -> Result<(), Status> {
        if self.registrants.len() >= MAX_REGISTRANTS {
            return Err(Status::INTERNAL_ERROR);
        }
        self.registrants.push(Registrant { host, key });
        Ok(())
    }

    fn unregister(&mut self, host: HostId, effects: &mut Effects) {
        let held = self.holds(host);
        self.registrants.retain(|registrant| registrant.host != host);
        let was_last = self.registrants.is_empty();
        if held && (!self.is_for_all() || was_last) {
            self.release(host, effects);
        }
    }

    /// Ends the reservation, and tells those who had a share in it.
    fn release(&mut self, by: HostId, effects: &mut Effects) {
        let alone = matches!(
            self.kind,
            ReservationType::NONE | ReservationType::WRITE_EXCLUSIVE | ReservationType::EXCLUSIVE_ACCESS
        );
        if !alone {
            self.tell_others(by, Notice::ReservationReleased, effects);
        }
        self.kind = ReservationType::NONE;
        self.holder = None;
    }

    fn tell_others(&self, by: HostId, notice: Notice, effects: &mut Effects) {
        let others = self.registrants.iter().filter(|registrant| registrant.host != by);
        effects.notices.extend(others.map(|registrant| (registrant.host, notice)));
    }

    fn take(&mut self, host: HostId, kind: ReservationType) {
        self.kind = kind;
        self.holder = if self.is_for_all() { None } else { Some(host) };
    }

    /// Reservation Acquire.
    pub(crate) fn acquire(
        &mut self,
        host: HostId,
        action: AcquireAction,
        kind: ReservationType,
        current: u64,
        preempted: u64,
    ) -> Result<Effects, Status> {
        if kind == ReservationType::NONE || kind.name().is_none() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        self.check_key(host, current)?;
        match action {
            AcquireAction::ACQUIRE if self.kind == ReservationType::NONE => {
                self.take(host, kind);
                Ok(Effects::default())
            }
            AcquireAction::ACQUIRE if self.holds(host) && self.kind == kind => Ok(Effects::default()),
            AcquireAction::ACQUIRE => Err(Status::RESERVATION_CONFLICT),
            AcquireAction::PREEMPT | AcquireAction::PREEMPT_AND_ABORT => {
                let mut effects = Effects::default();
                self.preempt(host, kind, preempted, &mut effects)?;
                self.generation = self.generation.wrapping_add(1);
                if action == AcquireAction::PREEMPT_AND_ABORT {
                    let preempted =
                        |(host, notice): &(HostId, Notice)| (*notice == Notice::RegistrationPreempted).then_some(*host);
                    effects.aborted = effects.notices.iter().filter_map(preempted).collect();
                }
                Ok(effects)
            }
            _ => Err(Status::INVALID_FIELD_IN_COMMAND),
        }
    }

    /// "Preempting a Reservation or Registration".
    fn preempt(&mut self, host: HostId, kind: ReservationType, key: u64, effects: &mut Effects) -> Result<(), Status> {
        let holder_key = self.holder.and_then(|holder| self.find(holder)).map(|registrant| registrant.key);
        let takes_over = if self.kind == ReservationType::NONE {
            false
        } else if self.is_for_all() {
            key == 0
        } else if holder_key == Some(key) {
            true
        } else if key == 0 {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        } else {
            false
        };
        if takes_over {
            let all = self.is_for_all();
            self.expel(|registrant| registrant.host != host && (all || registrant.key == key), host, effects);
            if self.kind != kind {
                self.release(host, effects);
            }
            self.take(host, kind);
            return Ok(());
        }
        if !self.registrants.iter().any(|registrant| registrant.key == key) {
            return Err(Status::RESERVATION_CONFLICT);
        }
        self.expel(|registrant| registrant.key == key, host, effects);
        if self.is_for_all() && self.registrants.is_empty() {
            self.release(host, effects);
        }
        Ok(())
    }

    /// Removes registrants, and tells them unless it is `by` itself.
    fn expel(&mut self, whom: impl Fn(&Registrant) -> bool, by: HostId, effects: &mut Effects) {
        self.registrants.retain(|registrant| {
            let goes = whom(registrant);
            if goes && registrant.host != by {
                effects.notices.push((registrant.host, Notice::RegistrationPreempted));
            }
            !goes
        });
    }

    fn check_key(&self, host: HostId, key: u64) -> Result<(), Status> {
        match self.find(host) {
            Some(registrant) if registrant.key == key => Ok(()),
            _ => Err(Status::RESERVATION_CONFLICT),
        }
    }

    /// Reservation Release.
    pub(crate) fn release_or_clear(
        &mut self,
        host: HostId,
        action: ReleaseAction,
        kind: ReservationType,
        current: u64,
    ) -> Result<Effects, Status> {
        self.check_key(host, current)?;
        let mut effects = Effects::default();
        match action {
            ReleaseAction::RELEASE if !self.holds(host) => {}
            ReleaseAction::RELEASE if self.kind == kind => self.release(host, &mut effects),
            ReleaseAction::CLEAR => {
                self.tell_others(host, Notice::ReservationPreempted, &mut effects);
                self.registrants.clear();
                self.kind = ReservationType::NONE;
                self.holder = None;
                self.generation = self.generation.wrapping_add(1);
            }
            _ => return Err(Status::INVALID_FIELD_IN_COMMAND),
        }
        Ok(effects)
    }

    /// What a power loss leaves.
    pub(crate) fn power_loss(&mut self) {
        if !self.ptpl {
            *self = Self::default();
        }
    }

    /// A host without an identifier is gone for good when its controller is reset.
    pub(crate) fn forget(&mut self, host: HostId) {
        if self.find(host).is_some() {
            self.unregister(host, &mut Effects::default());
        }
    }
}

impl Reservations {
    pub(crate) fn save(&self) -> state::Reservations {
        let registrant = |r: &Registrant| state::Registrant { host: Some(r.host.into()), key: r.key };
        state::Reservations {
            generation: self.generation,
            kind: self.kind.0.into(),
            registrants: self.registrants.iter().map(registrant).collect(),
            holder: self.holder.map(Into::into),
            ptpl: self.ptpl,
        }
    }

    pub(crate) fn restore(saved: state::Reservations) -> Result<Self, StateError> {
        let state::Reservations { generation, kind, registrants, holder, ptpl } = saved;
        if registrants.len() > MAX_REGISTRANTS {
            return bad(format!("{} registrants, {MAX_REGISTRANTS} are possible", registrants.len()));
        }
        let registrants = registrants
            .into_iter()
            .map(|saved| Ok(Registrant { host: saved.host.unwrap_or_default().restore()?, key: saved.key }));
        Ok(Self {
            generation,
            kind: ReservationType(narrow("reservation type", kind)?),
            registrants: registrants.collect::<Result<_, StateError>>()?,
            holder: holder.map(|holder| holder.restore()).transpose()?,
            ptpl,
        })
    }
}
