//! Values that several messages have.

use std::time::Duration;

use super::{StateError, state};
use crate::reservation::{HostId, Notice};

/// What cannot be.
pub(crate) fn bad<T>(what: impl Into<String>) -> Result<T, StateError> {
    Err(StateError(what.into()))
}

/// A number in a field that is wider than it.
pub(crate) fn narrow<T: TryFrom<u32>>(what: &str, value: u32) -> Result<T, StateError> {
    T::try_from(value).or_else(|_| bad(format!("{what} {value}")))
}

/// A time, or a span of it.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The other way round.
pub(crate) fn time(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

impl From<HostId> for state::HostId {
    fn from(host: HostId) -> Self {
        match host {
            HostId::Unset { cntlid, epoch } => Self { cntlid: cntlid.into(), epoch, bytes: Vec::new() },
            HostId::Short(id) => Self { bytes: id.to_le_bytes().into(), ..Self::default() },
            HostId::Long(id) => Self { bytes: id.into(), ..Self::default() },
        }
    }
}

impl state::HostId {
    pub(crate) fn restore(&self) -> Result<HostId, StateError> {
        match self.bytes.len() {
            0 => Ok(HostId::Unset { cntlid: narrow("CNTLID", self.cntlid)?, epoch: self.epoch }),
            8 => Ok(HostId::Short(u64::from_le_bytes(fixed("host identifier", &self.bytes)?))),
            _ => Ok(HostId::Long(fixed("host identifier", &self.bytes)?)),
        }
    }
}

/// Bytes of which it is known how many they are.
pub(crate) fn fixed<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], StateError> {
    bytes.try_into().or_else(|_| bad(format!("{what} of {} bytes, {N} are expected", bytes.len())))
}

/// A notice of reservations, by its number in the log page.
pub(crate) fn notice(kind: u32) -> Result<Notice, StateError> {
    match kind {
        1 => Ok(Notice::RegistrationPreempted),
        2 => Ok(Notice::ReservationReleased),
        3 => Ok(Notice::ReservationPreempted),
        _ => bad(format!("notice of reservations {kind}")),
    }
}
