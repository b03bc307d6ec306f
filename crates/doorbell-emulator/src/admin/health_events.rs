//! Critical warnings of the SMART log page, and the events that they are.

use nvme_spec::event::EventKind;
use nvme_spec::feature::AsyncEventConfiguration;
use nvme_spec::log::{CriticalWarning, LogId};

use crate::controller::Controller;

impl Controller {
    /// Works out which warnings are on; those that came on are events, where the configuration has them.
    pub(crate) fn check_health(&mut self) {
        let condition = self.health.condition;
        let over = condition.temperature >= self.features.temperature_threshold(0);
        let under = condition.temperature <= self.features.temperature_threshold(1);
        let spare = condition.available_spare < condition.available_spare_threshold;
        let warnings = condition.warnings;
        let warnings =
            warnings.with_temperature(warnings.temperature() || over || under).with_spare(warnings.spare() || spare);
        let before = std::mem::replace(&mut self.health.warnings, warnings);
        let wanted = AsyncEventConfiguration::from(self.features.async_events(&self.config)).smart();
        let new = CriticalWarning::from(warnings.into_bits() & !before.into_bits() & wanted);
        if new.temperature() {
            self.events.raise(EventKind::TEMPERATURE_THRESHOLD, LogId::SMART);
        }
        if new.spare() {
            self.events.raise(EventKind::SPARE_BELOW_THRESHOLD, LogId::SMART);
        }
        if new.reliability() || new.read_only() || new.backup_failed() || new.pmr_read_only() {
            self.events.raise(EventKind::SUBSYSTEM_RELIABILITY, LogId::SMART);
        }
    }
}
