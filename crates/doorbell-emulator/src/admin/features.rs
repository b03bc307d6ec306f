//! Get Features and Set Features (NVMe Base 2.0, "Feature Values").

mod structured;

use std::collections::BTreeMap;

use nvme_spec::admin::{GetFeaturesCdw10, SetFeaturesCdw10};
use nvme_spec::feature::{
    AsyncEventConfiguration, ErrorRecovery, FeatureId, InterruptCoalescing, InterruptVectorConfiguration,
    NamespaceWriteProtection, NumberOfQueues, PowerManagement, ReservationPersistence, SupportedCapabilities,
    TemperatureThreshold,
};
use nvme_spec::identify::Oncs;
use nvme_spec::registers::Version;
use nvme_spec::{Command, NSID_ALL, Status};

use super::Call;
use crate::config::ControllerConfig;
use crate::controller::Controller;
use crate::saved::{StateError, bad, narrow, state};
use crate::sync::{read, write};

/// The default over-temperature threshold, in kelvins: WCTEMP.
pub(crate) const WARNING_TEMPERATURE: u16 = 343;
/// The temperature sensor that is the composite temperature, the only one there is.
const COMPOSITE: u8 = 0;
const ALL_SENSORS: u8 = 0xf;
/// Bits of Asynchronous Event Configuration that mean something here.
const SUPPORTED_EVENTS: u32 = 0x1f | 1 << 8;

/// Values of features that are a dword, by feature and by what it is for (a namespace, a vector, a threshold).
#[derive(Debug, Default)]
pub(crate) struct Features {
    current: BTreeMap<(u8, u32), u32>,
    saved: BTreeMap<(u8, u32), u32>,
    pub(super) structured: structured::Structured,
}

/// What is known of a feature.
struct Traits {
    default: u32,
    saveable: bool,
    per_namespace: bool,
    changeable: bool,
}

impl Features {
    /// A reset brings back what was saved, or else the default.
    pub(crate) fn reset(&mut self) {
        self.current.clear();
        self.structured.reset();
    }

    fn value(&self, key: (u8, u32), default: u32) -> u32 {
        *self.current.get(&key).or_else(|| self.saved.get(&key)).unwrap_or(&default)
    }

    /// Asynchronous Event Configuration.
    pub(crate) fn async_events(&self, config: &ControllerConfig) -> u32 {
        self.value((FeatureId::ASYNC_EVENT_CONFIGURATION.0, 0), default_events(config))
    }

    /// Interrupt Coalescing.
    pub(crate) fn interrupt_coalescing(&self) -> InterruptCoalescing {
        self.value((FeatureId::INTERRUPT_COALESCING.0, 0), 0).into()
    }

    /// Whether the interrupts of a vector may wait for each other.
    pub(crate) fn coalesces(&self, vector: u16) -> bool {
        let value = self.value((FeatureId::INTERRUPT_VECTOR_CONFIGURATION.0, vector.into()), 0);
        !InterruptVectorConfiguration::from(value).cd()
    }

    /// Reservation Notification Mask of a namespace.
    pub(crate) fn notification_mask(&self, nsid: u32) -> u32 {
        self.value((FeatureId::RESERVATION_NOTIFICATION_MASK.0, nsid), 0)
    }

    /// A temperature threshold: over (0) or under (1).
    pub(crate) fn temperature_threshold(&self, kind: u8) -> u16 {
        let default = if kind == 0 { WARNING_TEMPERATURE } else { 0 };
        self.value((FeatureId::TEMPERATURE_THRESHOLD.0, kind.into()), default.into()) as u16
    }
}

/// Feature, what for, and value of each.
fn save_values(values: &BTreeMap<(u8, u32), u32>) -> Vec<u32> {
    values.iter().flat_map(|(&(fid, sub), &value)| [fid.into(), sub, value]).collect()
}

fn restore_values(saved: &[u32]) -> Result<BTreeMap<(u8, u32), u32>, StateError> {
    let (values, rest) = saved.as_chunks::<3>();
    if !rest.is_empty() {
        return bad(format!("{} words of features", saved.len()));
    }
    values.iter().map(|[fid, sub, value]| Ok(((narrow("feature", *fid)?, *sub), *value))).collect()
}

impl Features {
    pub(crate) fn save(&self) -> state::Features {
        let (current, saved) = (save_values(&self.current), save_values(&self.saved));
        state::Features { current, saved, ..self.structured.save() }
    }

    pub(crate) fn restore(saved: &state::Features) -> Result<Self, StateError> {
        Ok(Self {
            current: restore_values(&saved.current)?,
            saved: restore_values(&saved.saved)?,
            structured: structured::Structured::restore(saved)?,
        })
    }
}

/// SMART warnings are on after a reset, and so are notices where there were any before they could be chosen.
fn default_events(config: &ControllerConfig) -> u32 {
    AsyncEventConfiguration::new().with_namespace_attribute(config.namespace_notices).into_bits() | 0x1f
}

impl Controller {
    pub(super) fn get_features(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = GetFeaturesCdw10::from(call.command.cdw10);
        let fid = cdw10.fid();
        let traits = self.traits(fid)?;
        let select = cdw10.sel();
        if select != GetFeaturesCdw10::SEL_CURRENT && !self.config.oncs.save_select() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        if select == GetFeaturesCdw10::SEL_SUPPORTED {
            let capabilities = SupportedCapabilities::new()
                .with_saveable(traits.saveable)
                .with_namespace_specific(traits.per_namespace)
                .with_changeable(traits.changeable);
            return Ok(capabilities.into_bits().into());
        }
        if select > GetFeaturesCdw10::SEL_SUPPORTED {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        if structured::is_structured(fid) {
            return self.get_structured(call, fid, select);
        }
        let sub = self.what_for(fid, call.command, traits.per_namespace)?;
        if sub == NSID_ALL {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
        }
        let key = (fid.0, sub);
        let current = match fid {
            FeatureId::RESERVATION_PERSISTENCE => self.persistence(sub)?,
            FeatureId::NAMESPACE_WRITE_PROTECTION => self.write_protection(sub)?,
            _ => self.features.value(key, traits.default),
        };
        let value = match select {
            GetFeaturesCdw10::SEL_CURRENT => current,
            GetFeaturesCdw10::SEL_SAVED => *self.features.saved.get(&key).unwrap_or(&traits.default),
            _ => traits.default,
        };
        Ok(value.into())
    }

    pub(super) fn set_features(&mut self, call: &Call<'_>) -> Result<u64, Status> {
        let cdw10 = SetFeaturesCdw10::from(call.command.cdw10);
        let (fid, save) = (cdw10.fid(), cdw10.sv());
        let traits = self.traits(fid)?;
        if save && !self.config.oncs.save_select() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        if save && !traits.saveable {
            return Err(Status::FEATURE_IDENTIFIER_NOT_SAVEABLE);
        }
        if !traits.changeable {
            return Err(Status::FEATURE_NOT_CHANGEABLE);
        }
        if structured::is_structured(fid) {
            return self.set_structured(call, fid);
        }
        let nsid = call.command.nsid;
        if !traits.per_namespace && nsid != 0 && nsid != NSID_ALL && self.namespace(nsid).is_some() {
            return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC);
        }
        let sub = self.what_for(fid, call.command, traits.per_namespace)?;
        let value = call.command.cdw11;
        self.check_value(fid, value)?;
        if fid == FeatureId::NUMBER_OF_QUEUES {
            return self.set_number_of_queues(value);
        }
        let targets = if traits.per_namespace && sub == NSID_ALL {
            self.table.iter().flatten().map(|namespace| namespace.nsid).collect()
        } else {
            vec![sub]
        };
        for sub in targets {
            match fid {
                FeatureId::RESERVATION_PERSISTENCE => self.set_persistence(sub, value)?,
                FeatureId::NAMESPACE_WRITE_PROTECTION => self.set_write_protection(sub, value)?,
                _ => {
                    self.features.current.insert((fid.0, sub), value);
                    if save {
                        self.features.saved.insert((fid.0, sub), value);
                    }
                }
            }
        }
        if fid == FeatureId::TEMPERATURE_THRESHOLD || fid == FeatureId::ASYNC_EVENT_CONFIGURATION {
            self.check_health();
        }
        Ok(0)
    }

    /// What is known of a feature; features that are not there are Invalid Field in Command.
    fn traits(&self, fid: FeatureId) -> Result<Traits, Status> {
        let config = &self.config;
        let of = |default, saveable, per_namespace| Traits { default, saveable, per_namespace, changeable: true };
        let reservations = config.oncs.reservations();
        Ok(match fid {
            FeatureId::ARBITRATION => of(0b111, true, false),
            FeatureId::POWER_MANAGEMENT => of(0, false, false),
            FeatureId::TEMPERATURE_THRESHOLD => of(WARNING_TEMPERATURE.into(), true, false),
            FeatureId::ERROR_RECOVERY => of(0, true, true),
            FeatureId::VOLATILE_WRITE_CACHE if config.volatile_write_cache => of(1, true, false),
            FeatureId::NUMBER_OF_QUEUES => of(self.number_of_queues(), false, false),
            FeatureId::INTERRUPT_COALESCING => of(0, true, false),
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => of(0, false, false),
            FeatureId::WRITE_ATOMICITY => of(0, true, false),
            FeatureId::ASYNC_EVENT_CONFIGURATION => of(default_events(config), false, false),
            FeatureId::TIMESTAMP if config.oncs.timestamp() => of(0, false, false),
            FeatureId::HOST_BEHAVIOR_SUPPORT if config.version >= Version::V1_4 => of(0, false, false),
            FeatureId::SOFTWARE_PROGRESS_MARKER => of(0, true, false),
            FeatureId::HOST_IDENTIFIER if reservations || config.host_id_128 => of(0, false, false),
            FeatureId::RESERVATION_NOTIFICATION_MASK | FeatureId::RESERVATION_PERSISTENCE if reservations => {
                of(0, false, true)
            }
            FeatureId::NAMESPACE_WRITE_PROTECTION if config.version >= Version::V1_4 => of(0, false, true),
            _ => return Err(Status::INVALID_FIELD_IN_COMMAND),
        })
    }

    /// What a feature has a value of its own for: a namespace, a vector, a threshold.
    fn what_for(&self, fid: FeatureId, command: &Command, per_namespace: bool) -> Result<u32, Status> {
        if per_namespace {
            if command.nsid != NSID_ALL {
                self.attached(command.nsid)?;
            }
            return Ok(command.nsid);
        }
        match fid {
            FeatureId::TEMPERATURE_THRESHOLD => {
                let value = TemperatureThreshold::from(command.cdw11);
                let known = matches!(value.tmpsel(), COMPOSITE | ALL_SENSORS) && value.thsel() < 2;
                if known { Ok(value.thsel().into()) } else { Err(Status::INVALID_FIELD_IN_COMMAND) }
            }
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => {
                let vector = InterruptVectorConfiguration::from(command.cdw11).iv();
                let known = vector == 0 || vector < self.config.vectors;
                if known { Ok(vector.into()) } else { Err(Status::INVALID_FIELD_IN_COMMAND) }
            }
            _ => Ok(0),
        }
    }

    /// Refuses values that the feature cannot have.
    fn check_value(&self, fid: FeatureId, value: u32) -> Result<(), Status> {
        let valid = match fid {
            FeatureId::POWER_MANAGEMENT => PowerManagement::from(value).ps() == 0,
            FeatureId::ERROR_RECOVERY => !ErrorRecovery::from(value).dulbe(),
            FeatureId::VOLATILE_WRITE_CACHE | FeatureId::WRITE_ATOMICITY => value & !1 == 0,
            FeatureId::RESERVATION_PERSISTENCE => value & !1 == 0,
            FeatureId::NAMESPACE_WRITE_PROTECTION => NamespaceWriteProtection::from(value).wps() <= 1,
            FeatureId::RESERVATION_NOTIFICATION_MASK => value & !0b1110 == 0,
            FeatureId::ASYNC_EVENT_CONFIGURATION => {
                let notices = u32::from(self.config.namespace_notices) << 8;
                value & !(SUPPORTED_EVENTS & !(1 << 8) | notices) == 0
            }
            _ => true,
        };
        if valid { Ok(()) } else { Err(Status::INVALID_FIELD_IN_COMMAND) }
    }

    /// Number of Queues: as many as there are, whatever was asked for.
    fn set_number_of_queues(&mut self, value: u32) -> Result<u64, Status> {
        let asked = NumberOfQueues::from(value);
        if asked.nsq() == u16::MAX || asked.ncq() == u16::MAX {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        if self.io_queues() != (0, 0) {
            return Err(Status::COMMAND_SEQUENCE_ERROR);
        }
        Ok(self.number_of_queues().into())
    }

    fn number_of_queues(&self) -> u32 {
        let zeroes_based = self.config.queue_pairs.saturating_sub(1);
        NumberOfQueues::new().with_nsq(zeroes_based).with_ncq(zeroes_based).into_bits()
    }

    fn persistence(&self, nsid: u32) -> Result<u32, Status> {
        let state = read(&self.attached(nsid)?.state);
        Ok(ReservationPersistence::new().with_ptpl(state.reservations.ptpl).into_bits())
    }

    fn set_persistence(&self, nsid: u32, value: u32) -> Result<(), Status> {
        let mut state = write(&self.attached(nsid)?.state);
        let ptpl = ReservationPersistence::from(value).ptpl();
        if ptpl && !state.config.rescap.persist_through_power_loss() {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        state.reservations.ptpl = ptpl;
        Ok(())
    }

    fn write_protection(&self, nsid: u32) -> Result<u32, Status> {
        Ok(u32::from(read(&self.attached(nsid)?.state).write_protected))
    }

    fn set_write_protection(&self, nsid: u32, value: u32) -> Result<(), Status> {
        let mut state = write(&self.attached(nsid)?.state);
        if state.config.read_only && value == 0 {
            return Err(Status::FEATURE_NOT_CHANGEABLE);
        }
        state.write_protected = value != 0;
        Ok(())
    }

    /// ONCS as reported.
    pub(super) fn oncs(&self) -> Oncs {
        self.config.oncs
    }
}
