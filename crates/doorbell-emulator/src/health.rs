//! What the controller counts: the SMART log page and the error log.

use std::collections::VecDeque;
use std::time::Duration;

use nvme_spec::log::{CriticalWarning, ErrorEntry, HealthLog};
use nvme_spec::scalar::Le128;
use zerocopy::{FromBytes, IntoBytes};

use crate::saved::{StateError, narrow, state};

/// Bytes of a data unit of the SMART log page.
const DATA_UNIT: u128 = 512 * 1000;

/// What is told of a controller's health. Set what the emulator cannot know of itself; the rest is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Composite temperature, in kelvins. 298. Its warning is made from the thresholds of the Temperature Threshold
    /// feature.
    pub temperature: u16,
    /// Available spare, in percent. 100.
    pub available_spare: u8,
    /// Available spare threshold, in percent. 10. Below it, the warning is made.
    pub available_spare_threshold: u8,
    /// Percentage used. 0.
    pub percentage_used: u8,
    /// Further warnings.
    pub warnings: CriticalWarning,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            temperature: 298,
            available_spare: 100,
            available_spare_threshold: 10,
            percentage_used: 0,
            warnings: CriticalWarning::new(),
        }
    }
}

/// Counters. Plain ones: whoever counts has the controller to itself.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) condition: Condition,
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) power_cycles: u64,
    pub(crate) unsafe_shutdowns: u64,
    pub(crate) media_errors: u64,
    /// Critical warnings that are on now.
    pub(crate) warnings: CriticalWarning,
    errors: u64,
    entries: VecDeque<ErrorEntry>,
}

impl Health {
    /// The counters of a controller that was just given power for the first time.
    pub(crate) fn new() -> Self {
        Self { power_cycles: 1, ..Self::default() }
    }

    /// Puts an error into the log, which keeps as many as ELPE says.
    pub(crate) fn log_error(&mut self, most: usize, entry: ErrorEntry) {
        self.errors = self.errors.saturating_add(1);
        self.entries.truncate(most.saturating_sub(1));
        self.entries.push_front(ErrorEntry { error_count: self.errors, ..entry });
    }

    /// The error log, newest first.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &ErrorEntry> {
        self.entries.iter()
    }

    pub(crate) fn log_page(&self, age: Duration) -> HealthLog {
        let units = |bytes: u64| Le128::new(u128::from(bytes).div_ceil(DATA_UNIT));
        let number = |count: u64| Le128::new(u128::from(count));
        let mut log = HealthLog {
            critical_warning: self.warnings,
            available_spare: self.condition.available_spare,
            available_spare_threshold: self.condition.available_spare_threshold,
            percentage_used: self.condition.percentage_used,
            data_units_read: units(self.bytes_read),
            data_units_written: units(self.bytes_written),
            host_reads: number(self.reads),
            host_writes: number(self.writes),
            power_cycles: number(self.power_cycles),
            power_on_hours: number(age.as_secs() / 3600),
            unsafe_shutdowns: number(self.unsafe_shutdowns),
            media_errors: number(self.media_errors),
            error_log_entries: number(self.errors),
            ..HealthLog::default()
        };
        log.set_temperature(self.condition.temperature);
        log
    }
}

impl Health {
    pub(crate) fn save(&self) -> state::Health {
        state::Health {
            temperature: self.condition.temperature.into(),
            available_spare: self.condition.available_spare.into(),
            available_spare_threshold: self.condition.available_spare_threshold.into(),
            percentage_used: self.condition.percentage_used.into(),
            condition_warnings: self.condition.warnings.into_bits().into(),
            warnings: self.warnings.into_bits().into(),
            bytes_read: self.bytes_read,
            bytes_written: self.bytes_written,
            reads: self.reads,
            writes: self.writes,
            power_cycles: self.power_cycles,
            unsafe_shutdowns: self.unsafe_shutdowns,
            media_errors: self.media_errors,
            errors: self.errors,
            entries: self.entries.iter().map(|entry| entry.as_bytes().into()).collect(),
        }
    }

    pub(crate) fn restore(saved: state::Health) -> Result<Self, StateError> {
        let warnings = |bits| narrow("critical warnings", bits).map(CriticalWarning::from_bits);
        let entry = |bytes: &Vec<u8>| {
            ErrorEntry::read_from_bytes(bytes).map_err(|_| StateError("an error log entry of another size".into()))
        };
        Ok(Self {
            condition: Condition {
                temperature: narrow("temperature", saved.temperature)?,
                available_spare: narrow("available spare", saved.available_spare)?,
                available_spare_threshold: narrow("spare threshold", saved.available_spare_threshold)?,
                percentage_used: narrow("percentage used", saved.percentage_used)?,
                warnings: warnings(saved.condition_warnings)?,
            },
            warnings: warnings(saved.warnings)?,
            bytes_read: saved.bytes_read,
            bytes_written: saved.bytes_written,
            reads: saved.reads,
            writes: saved.writes,
            power_cycles: saved.power_cycles,
            unsafe_shutdowns: saved.unsafe_shutdowns,
            media_errors: saved.media_errors,
            errors: saved.errors,
            // ELPE is one byte.
            entries: saved.entries.iter().take(256).map(entry).collect::<Result<_, _>>()?,
        })
    }
}
