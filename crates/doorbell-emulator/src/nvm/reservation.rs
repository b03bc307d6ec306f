//! The reservation commands: what they say, for [`Reservations`](crate::reservation::Reservations) to do.

use nvme_spec::Status;
use nvme_spec::identify::Rescap;
use nvme_spec::reservation::{
    AcquireCdw10, ChangePtpl, RegisterCdw10, RegisteredController, RegisteredControllerExtended, RegistrantStatus,
    ReleaseCdw10, ReportCdw11, ReportHeader, ReportHeaderExtended, ReservationType,
};
use zerocopy::IntoBytes;

use super::Io;
use crate::namespace::State;
use crate::reservation::{Effects, HostId};
use crate::sync;

/// What a registrant is reported to be registered through when no controller of it is there.
const NO_CONTROLLER: u16 = 0xffff;

impl Io<'_> {
    pub(super) fn reservation_register(&mut self) -> Result<u64, Status> {
        let cdw10 = RegisterCdw10::from(self.command.cdw10);
        let [current, new] = self.keys::<2>()?;
        self.check_formats()?;
        let host = self.host;
        self.change(|state| {
            let ptpl = cdw10.cptpl();
            if ptpl == ChangePtpl::SET && !state.config.rescap.persist_through_power_loss() {
                return Err(Status::INVALID_FIELD_IN_COMMAND);
            }
            if ptpl.name().is_none() {
                return Err(Status::INVALID_FIELD_IN_COMMAND);
            }
            state.reservations.register(host, cdw10.rrega(), cdw10.iekey(), current, new, ptpl)
        })
    }

    pub(super) fn reservation_acquire(&mut self) -> Result<u64, Status> {
        let cdw10 = AcquireCdw10::from(self.command.cdw10);
        let [current, preempted] = self.keys::<2>()?;
        self.check_formats()?;
        if cdw10.iekey() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let host = self.host;
        self.change(|state| {
            if !supports(state.config.rescap, cdw10.rtype()) {
                return Err(Status::INVALID_FIELD_IN_COMMAND);
            }
            state.reservations.acquire(host, cdw10.racqa(), cdw10.rtype(), current, preempted)
        })
    }

    pub(super) fn reservation_release(&mut self) -> Result<u64, Status> {
        let cdw10 = ReleaseCdw10::from(self.command.cdw10);
        let [current] = self.keys::<1>()?;
        self.check_formats()?;
        if cdw10.iekey() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let host = self.host;
        self.change(|state| state.reservations.release_or_clear(host, cdw10.rrela(), cdw10.rtype(), current))
    }

    /// Changes the reservations, and tells whom it concerns.
    fn change(&mut self, change: impl FnOnce(&mut State) -> Result<Effects, Status>) -> Result<u64, Status> {
        let effects = {
            let mut state = sync::write(&self.namespace.state);
            if state.removed {
                return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
            }
            change(&mut state)?
        };
        self.subsystem.deliver(self.namespace.nsid, &effects);
        Ok(0)
    }

    /// The keys that the command carries.
    fn keys<const N: usize>(&mut self) -> Result<[u64; N], Status> {
        self.receive(N.saturating_mul(8))?;
        let mut keys = [0; N];
        for (key, bytes) in keys.iter_mut().zip(self.scratch.bytes.as_chunks::<8>().0) {
            *key = u64::from_le_bytes(*bytes);
        }
        Ok(keys)
    }

    /// Hosts of one subsystem use identifiers of one length.
    fn check_formats(&self) -> Result<(), Status> {
        let mixed = |(_, other): &(u16, HostId)| {
            matches!((self.host, other), (HostId::Short(_), HostId::Long(_)) | (HostId::Long(_), HostId::Short(_)))
        };
        if self.subsystem.hosts().iter().any(mixed) {
            return Err(Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT);
        }
        Ok(())
    }

    pub(super) fn reservation_report(&mut self) -> Result<u64, Status> {
        let extended = ReportCdw11::from(self.command.cdw11).eds();
        let fits = match self.host {
            HostId::Unset { .. } => !extended || self.config.host_id_128,
            HostId::Short(_) => !extended,
            HostId::Long(_) => extended,
        };
        if !fits {
            return Err(Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT);
        }
        let len = u64::from(self.command.cdw10).saturating_add(1).saturating_mul(4);
        // An unlimited MDTS would let a host ask for 16 GiB of zeroes.
        if len > MOST_REPORTED {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        let hosts = self.subsystem.hosts();
        let report = {
            let state = sync::read(&self.namespace.state);
            if state.removed {
                return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
            }
            report(&state, &hosts, extended)
        };
        self.send_padded(&report, len)?;
        Ok(0)
    }
}

/// Bytes of the longest report that can be asked for.
const MOST_REPORTED: u64 = 1 << 20;

fn supports(rescap: Rescap, kind: ReservationType) -> bool {
    match kind {
        ReservationType::WRITE_EXCLUSIVE => rescap.write_exclusive(),
        ReservationType::EXCLUSIVE_ACCESS => rescap.exclusive_access(),
        ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY => rescap.write_exclusive_registrants_only(),
        ReservationType::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY => rescap.exclusive_access_registrants_only(),
        ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS => rescap.write_exclusive_all_registrants(),
        ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS => rescap.exclusive_access_all_registrants(),
        _ => false,
    }
}

/// The report: an entry for each controller of each registered host, or one without a controller.
fn report(state: &State, controllers: &[(u16, HostId)], extended: bool) -> Vec<u8> {
    let mut entries = Vec::new();
    let mut count = 0u16;
    let reservations = &state.reservations;
    for registrant in &reservations.registrants {
        let rcsts = RegistrantStatus::new().with_holder(reservations.holds(registrant.host));
        let mut cntlids: Vec<u16> =
            controllers.iter().filter(|(_, host)| *host == registrant.host).map(|(cntlid, _)| *cntlid).collect();
        if cntlids.is_empty() {
            cntlids.push(NO_CONTROLLER);
        }
        for cntlid in cntlids {
            count = count.saturating_add(1);
            let rkey = registrant.key;
            let hostid = match registrant.host {
                HostId::Unset { .. } => [0; 16],
                HostId::Short(id) => u128::from(id).to_le_bytes(),
                HostId::Long(id) => id,
            };
            if extended {
                let entry = RegisteredControllerExtended { cntlid, rcsts, rkey, hostid, ..Default::default() };
                entries.extend_from_slice(entry.as_bytes());
            } else {
                let hostid = u128::from_le_bytes(hostid) as u64;
                let entry = RegisteredController { cntlid, rcsts, rkey, hostid, ..Default::default() };
                entries.extend_from_slice(entry.as_bytes());
            }
        }
    }
    let mut header = ReportHeader {
        generation: reservations.generation,
        rtype: reservations.kind,
        ptpls: reservations.ptpl.into(),
        ..ReportHeader::default()
    };
    header.set_regctl(count);
    let mut report = if extended {
        ReportHeaderExtended { header, ..ReportHeaderExtended::default() }.as_bytes().to_vec()
    } else {
        header.as_bytes().to_vec()
    };
    report.append(&mut entries);
    report
}
