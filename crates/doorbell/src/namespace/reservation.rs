//! Sharing a namespace with other hosts: reservations (NVMe Base 2.0, Reservations).

use nvme_spec::identify::Rescap;
use nvme_spec::reservation::{
    AcquireAction, AcquireCdw10, AcquireData, ChangePtpl, RegisterAction, RegisterCdw10, RegisterData,
    RegisteredController, RegisteredControllerExtended, ReleaseAction, ReleaseCdw10, ReleaseData, ReportCdw11,
    ReportHeader, ReportHeaderExtended, ReservationType,
};
use nvme_spec::{NvmOpcode, Status};
use zerocopy::{FromBytes, IntoBytes};

use super::Namespace;
use crate::error::{DeviceMisbehaved, RequestError};
use crate::queue::pooled::Data;

/// What a namespace can do about reservations (RESCAP).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[non_exhaustive]
pub struct ReservationCapabilities {
    /// Registrations and reservations can outlive a loss of power.
    pub persist_through_power_loss: bool,
    /// Write Exclusive.
    pub write_exclusive: bool,
    /// Exclusive Access.
    pub exclusive_access: bool,
    /// Write Exclusive, Registrants Only.
    pub write_exclusive_registrants_only: bool,
    /// Exclusive Access, Registrants Only.
    pub exclusive_access_registrants_only: bool,
    /// Write Exclusive, All Registrants.
    pub write_exclusive_all_registrants: bool,
    /// Exclusive Access, All Registrants.
    pub exclusive_access_all_registrants: bool,
}

impl ReservationCapabilities {
    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl From<Rescap> for ReservationCapabilities {
    fn from(rescap: Rescap) -> Self {
        Self {
            persist_through_power_loss: rescap.persist_through_power_loss(),
            write_exclusive: rescap.write_exclusive(),
            exclusive_access: rescap.exclusive_access(),
            write_exclusive_registrants_only: rescap.write_exclusive_registrants_only(),
            exclusive_access_registrants_only: rescap.exclusive_access_registrants_only(),
            write_exclusive_all_registrants: rescap.write_exclusive_all_registrants(),
            exclusive_access_all_registrants: rescap.exclusive_access_all_registrants(),
        }
    }
}

/// Who is registered, and who holds the reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservationReport {
    /// The header: generation, type, and whether registrations persist through power loss.
    pub header: ReportHeader,
    /// Every registered controller, in the extended form; a 64-bit host identifier is widened with zeroes.
    pub controllers: Vec<RegisteredControllerExtended>,
    /// Whether the device gave the extended form itself.
    pub extended: bool,
}

/// The first request; most reports fit.
const FIRST_LEN: usize = 4096;
/// How often a report may have grown since it was asked for.
const MOST_GROWTHS: u32 = 8;

impl Namespace {
    /// Who is registered, and who holds the reservation (Reservation Report). Where the host identifier has 64 bits,
    /// the short form is asked for and widened.
    ///
    /// # Errors
    /// [`RequestError`]: among others, a report that is larger than the largest transfer, or that grows each time it
    /// is asked for.
    pub async fn reservation_report_extended(&self, target_cpu: u32) -> Result<ReservationReport, RequestError> {
        match self.report(target_cpu, true).await {
            // The controller knows this host by a 64-bit identifier only.
            Err(RequestError::Nvme(error)) if error.status == Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT => {
                self.report(target_cpu, false).await
            }
            result => result,
        }
    }

    async fn report(&self, target_cpu: u32, extended: bool) -> Result<ReservationReport, RequestError> {
        let inner = self.inner();
        self.check_reservations()?;
        let max = inner.core.max_transfer_bytes().min(inner.queue(target_cpu).await?.pool().capacity()) & !3;
        let mut len = FIRST_LEN.min(max);
        for _ in 0..MOST_GROWTHS {
            let mut bytes = vec![0; len];
            let mut command = inner.command(NvmOpcode::RESERVATION_REPORT);
            command.cdw10 = (len / 4).saturating_sub(1) as u32;
            command.cdw11 = ReportCdw11::new().with_eds(extended).into();
            inner.execute(target_cpu, command, Data::In(&mut bytes)).await?;
            let Ok((header, _)) = ReportHeader::read_from_prefix(&bytes) else { break };
            let needed = header.report_len(extended);
            if needed <= len {
                return Ok(parse(&bytes, header, extended));
            }
            if needed > max {
                return Err(RequestError::TooLarge { len: needed as u64, max: max as u64, unit: "bytes" });
            }
            // With room for a few that register meanwhile.
            len = needed.saturating_add(512).min(max);
        }
        Err(RequestError::Misbehaved(DeviceMisbehaved::BadData {
            what: "the length of a reservation report",
            value: len as u64,
            why: "it is larger each time it is asked for",
        }))
    }

    /// Registers, unregisters or replaces a key. No current key `crkey` means that an existing one is ignored
    /// (IEKEY = 1). `ptpl`: `None` leaves persistence through power loss as it is, otherwise it is cleared or set.
    ///
    /// # Errors
    /// [`RequestError`]; a conflict is [`ErrorClass::Conflict`](crate::ErrorClass::Conflict).
    pub async fn reservation_register(
        &self,
        target_cpu: u32,
        action: RegisterAction,
        crkey: Option<u64>,
        nrkey: u64,
        ptpl: Option<bool>,
    ) -> Result<(), RequestError> {
        self.check_reservations()?;
        let cptpl = match ptpl {
            None => ChangePtpl::NO_CHANGE,
            Some(false) => ChangePtpl::CLEAR,
            Some(true) => ChangePtpl::SET,
        };
        let mut command = self.inner().command(NvmOpcode::RESERVATION_REGISTER);
        command.cdw10 = RegisterCdw10::new().with_rrega(action).with_iekey(crkey.is_none()).with_cptpl(cptpl).into();
        let data = RegisterData { crkey: crkey.unwrap_or(0), nrkey };
        self.inner().execute(target_cpu, command, Data::Out(data.as_bytes())).await?;
        Ok(())
    }

    /// Acquires a reservation, or preempts another's.
    ///
    /// # Errors
    /// As [`reservation_register`](Self::reservation_register).
    pub async fn reservation_acquire(
        &self,
        target_cpu: u32,
        action: AcquireAction,
        crkey: u64,
        prkey: u64,
        rtype: ReservationType,
    ) -> Result<(), RequestError> {
        self.check_reservations()?;
        let mut command = self.inner().command(NvmOpcode::RESERVATION_ACQUIRE);
        command.cdw10 = AcquireCdw10::new().with_racqa(action).with_rtype(rtype).into();
        let data = AcquireData { crkey, prkey };
        self.inner().execute(target_cpu, command, Data::Out(data.as_bytes())).await?;
        Ok(())
    }

    /// Releases a reservation, or clears all registrations.
    ///
    /// # Errors
    /// As [`reservation_register`](Self::reservation_register).
    pub async fn reservation_release(
        &self,
        target_cpu: u32,
        action: ReleaseAction,
        crkey: u64,
        rtype: ReservationType,
    ) -> Result<(), RequestError> {
        self.check_reservations()?;
        let mut command = self.inner().command(NvmOpcode::RESERVATION_RELEASE);
        command.cdw10 = ReleaseCdw10::new().with_rrela(action).with_rtype(rtype).into();
        let data = ReleaseData { crkey };
        self.inner().execute(target_cpu, command, Data::Out(data.as_bytes())).await?;
        Ok(())
    }

    fn check_reservations(&self) -> Result<(), RequestError> {
        self.inner().check_present()?;
        match self.inner().core.identify.oncs.reservations() {
            true => Ok(()),
            false => Err(RequestError::Unsupported("reservations")),
        }
    }
}

/// The controllers of a report that is all there.
fn parse(bytes: &[u8], header: ReportHeader, extended: bool) -> ReservationReport {
    let count = usize::from(header.regctl());
    let (start, each) = match extended {
        true => (size_of::<ReportHeaderExtended>(), size_of::<RegisteredControllerExtended>()),
        false => (size_of::<ReportHeader>(), size_of::<RegisteredController>()),
    };
    let entries = bytes.get(start..).unwrap_or_default().chunks_exact(each).take(count);
    let controllers = entries.filter_map(|entry| match extended {
        true => RegisteredControllerExtended::read_from_bytes(entry).ok(),
        false => RegisteredController::read_from_bytes(entry).ok().map(|short| short.widen()),
    });
    ReservationReport { controllers: controllers.collect(), header, extended }
}
