//! Features whose value is a data structure: Timestamp, Host Behavior Support, Host Identifier.

use std::time::Duration;

use nvme_spec::Status;
use nvme_spec::admin::GetFeaturesCdw10;
use nvme_spec::feature::{FeatureId, HostBehavior, HostIdentifierCdw11, Timestamp, TimestampAttributes};
use zerocopy::{FromBytes, IntoBytes};

use crate::admin::Call;
use crate::controller::Controller;
use crate::reservation::HostId;
use crate::saved::{StateError, nanos, state, time};

/// Their values.
#[derive(Debug, Default)]
pub(crate) struct Structured {
    /// The timestamp that was set, in milliseconds, and when.
    timestamp: Option<(u64, Duration)>,
    behavior: HostBehavior,
}

impl Structured {
    /// A controller level reset takes back what the host said of itself; the timestamp goes on.
    pub(super) fn reset(&mut self) {
        self.behavior = HostBehavior::default();
    }

    pub(super) fn save(&self) -> state::Features {
        let (timestamp, set) = self.timestamp.unzip();
        state::Features {
            timestamp,
            timestamp_set: set.map(nanos).unwrap_or_default(),
            behavior: self.behavior.as_bytes().into(),
            ..state::Features::default()
        }
    }

    pub(super) fn restore(saved: &state::Features) -> Result<Self, StateError> {
        let timestamp = saved.timestamp.map(|millis| (millis, time(saved.timestamp_set)));
        let behavior = HostBehavior::read_from_bytes(&saved.behavior);
        let behavior = behavior.map_err(|_| StateError("Host Behavior Support of another size".into()))?;
        Ok(Self { timestamp, behavior })
    }

    /// Whether the host handles more LBA formats than 16.
    pub(crate) fn extended_formats(&self) -> bool {
        self.behavior.lbafee == 1
    }
}

pub(super) fn is_structured(fid: FeatureId) -> bool {
    matches!(fid, FeatureId::TIMESTAMP | FeatureId::HOST_BEHAVIOR_SUPPORT | FeatureId::HOST_IDENTIFIER)
}

impl Controller {
    pub(super) fn get_structured(&mut self, call: &Call<'_>, fid: FeatureId, select: u8) -> Result<u64, Status> {
        let default = select != GetFeaturesCdw10::SEL_CURRENT;
        match fid {
            FeatureId::TIMESTAMP => {
                let set = self.features.structured.timestamp.filter(|_| !default);
                let (millis, since) = set.unwrap_or((0, self.powered_on.unwrap_or_default()));
                let passed = self.now.saturating_sub(since).as_millis() as u64;
                let mut timestamp = Timestamp::from_millis(if default { 0 } else { millis.wrapping_add(passed) });
                timestamp.attributes = TimestampAttributes::new().with_origin(set.is_some().into());
                self.send(call, timestamp.as_bytes())?;
            }
            FeatureId::HOST_BEHAVIOR_SUPPORT => {
                let behavior = if default { HostBehavior::default() } else { self.features.structured.behavior };
                self.send(call, behavior.as_bytes())?;
            }
            _ => {
                let extended = HostIdentifierCdw11::from(call.command.cdw11).exhid();
                let host = if default { HostId::Unset { cntlid: 0, epoch: 0 } } else { self.host };
                let id = match (host, extended) {
                    (HostId::Unset { .. }, _) => [0; 16],
                    (HostId::Long(id), true) => id,
                    (HostId::Short(id), false) => u128::from(id).to_le_bytes(),
                    _ => return Err(Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT),
                };
                let len = if extended { 16 } else { 8 };
                self.send(call, id.get(..len).unwrap_or_default())?;
            }
        }
        Ok(0)
    }

    pub(super) fn set_structured(&mut self, call: &Call<'_>, fid: FeatureId) -> Result<u64, Status> {
        match fid {
            FeatureId::TIMESTAMP => {
                let bytes: [u8; 8] = self.receive(call)?;
                let timestamp = Timestamp::read_from_bytes(&bytes).map_err(|_| Status::INTERNAL_ERROR)?;
                self.features.structured.timestamp = Some((timestamp.millis(), self.now));
            }
            FeatureId::HOST_BEHAVIOR_SUPPORT => {
                let bytes: [u8; size_of::<HostBehavior>()] = self.receive(call)?;
                let behavior = HostBehavior::read_from_bytes(&bytes).map_err(|_| Status::INTERNAL_ERROR)?;
                if behavior.acre > 1 || behavior.etdas > 1 || behavior.lbafee > 1 {
                    return Err(Status::INVALID_FIELD_IN_COMMAND);
                }
                self.features.structured.behavior = behavior;
            }
            _ => {
                let host = if HostIdentifierCdw11::from(call.command.cdw11).exhid() {
                    if !self.config.host_id_128 {
                        return Err(Status::INVALID_FIELD_IN_COMMAND);
                    }
                    HostId::Long(self.receive(call)?)
                } else {
                    HostId::Short(u64::from_le_bytes(self.receive(call)?))
                };
                self.adopt_host(host)?;
            }
        }
        Ok(0)
    }

    /// The host says who it is: once after each reset.
    fn adopt_host(&mut self, host: HostId) -> Result<(), Status> {
        let is_zero = host == HostId::Short(0) || host == HostId::Long([0; 16]);
        match self.host {
            known if known == host => Ok(()),
            HostId::Unset { .. } if is_zero => Ok(()),
            HostId::Unset { .. } => {
                self.subsystem.forget_host(self.host);
                self.set_host(host);
                Ok(())
            }
            _ => Err(Status::COMMAND_SEQUENCE_ERROR),
        }
    }
}
