//! SMART / Health Information log page.

use crate::scalar::{Le128, Opaque};
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// SMART / Health Information log page (figure of that name).
    pub struct HealthLog {
        /// Critical Warning.
        pub critical_warning: CriticalWarning,
        /// Composite Temperature in kelvins, unaligned: [`HealthLog::temperature`].
        pub temperature_bytes: [u8; 2],
        /// Available Spare, in percent.
        pub available_spare: u8,
        /// Available Spare Threshold, in percent.
        pub available_spare_threshold: u8,
        /// Percentage Used; may exceed 100, and stops at 255.
        pub percentage_used: u8,
        /// Endurance Group Critical Warning Summary.
        pub endurance_group_warning: u8,
        /// Reserved.
        pub reserved7: Opaque<25>,
        /// Data Units Read, in units of 1,000 times 512 bytes, rounded up.
        pub data_units_read: Le128,
        /// Data Units Written, in units of 1,000 times 512 bytes, rounded up.
        pub data_units_written: Le128,
        /// Host Read Commands.
        pub host_reads: Le128,
        /// Host Write Commands.
        pub host_writes: Le128,
        /// Controller Busy Time, in minutes.
        pub busy_minutes: Le128,
        /// Power Cycles.
        pub power_cycles: Le128,
        /// Power On Hours.
        pub power_on_hours: Le128,
        /// Unsafe Shutdowns.
        pub unsafe_shutdowns: Le128,
        /// Media and Data Integrity Errors.
        pub media_errors: Le128,
        /// Number of Error Information Log Entries over the controller's life.
        pub error_log_entries: Le128,
        /// Warning Composite Temperature Time, in minutes.
        pub warning_temperature_minutes: u32,
        /// Critical Composite Temperature Time, in minutes.
        pub critical_temperature_minutes: u32,
        /// Temperature Sensors 1 to 8, in kelvins; 0 not there.
        pub temperature_sensors: [u16; 8],
        /// Thermal Management Temperature Transition Counts, of temperatures 1 and 2.
        pub thermal_transitions: [u32; 2],
        /// Total Times For Thermal Management Temperatures 1 and 2, in seconds.
        pub thermal_seconds: [u32; 2],
        /// Reserved.
        pub reserved232: Opaque<280>,
    }
}
assert_layout!(
    HealthLog, size = 512, temperature_bytes @ 1, available_spare @ 3, percentage_used @ 5, data_units_read @ 32,
    host_reads @ 64, busy_minutes @ 96, power_cycles @ 112, media_errors @ 160, warning_temperature_minutes @ 192,
    temperature_sensors @ 200, thermal_transitions @ 216, thermal_seconds @ 224, reserved232 @ 232,
);

/// Critical Warning; the same bits choose events in the Asynchronous Event Configuration feature.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CriticalWarning {
    /// The available spare is below its threshold.
    pub spare: bool,
    /// A temperature is over, or under, its threshold.
    pub temperature: bool,
    /// The NVM subsystem's reliability is degraded.
    pub reliability: bool,
    /// All media are read-only.
    pub read_only: bool,
    /// The volatile memory's backup has failed.
    pub backup_failed: bool,
    /// The persistent memory region is read-only or unreliable.
    pub pmr_read_only: bool,
    #[bits(2)]
    __: u8,
}

impl HealthLog {
    /// Composite Temperature, in kelvins.
    #[must_use]
    pub const fn temperature(&self) -> u16 {
        u16::from_le_bytes(self.temperature_bytes)
    }

    /// Sets the Composite Temperature, in kelvins.
    pub const fn set_temperature(&mut self, kelvins: u16) {
        self.temperature_bytes = kelvins.to_le_bytes();
    }
}
