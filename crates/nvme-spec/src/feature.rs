//! Features (NVMe Base 2.0, "Set Features command" and "Feature Values").
//!
//! The bit fields are dword 11 of Set Features, and dword 0 of Get Features' completion.

mod data;

pub use data::{HostBehavior, Timestamp, TimestampAttributes};

use bitfield_struct::bitfield;

codes! {
    /// Feature Identifier (figure "Set Features – Feature Identifiers").
    pub struct FeatureId(u8);
    ARBITRATION = 0x01, "Arbitration";
    POWER_MANAGEMENT = 0x02, "Power Management";
    LBA_RANGE_TYPE = 0x03, "LBA Range Type";
    TEMPERATURE_THRESHOLD = 0x04, "Temperature Threshold";
    ERROR_RECOVERY = 0x05, "Error Recovery";
    VOLATILE_WRITE_CACHE = 0x06, "Volatile Write Cache";
    NUMBER_OF_QUEUES = 0x07, "Number of Queues";
    INTERRUPT_COALESCING = 0x08, "Interrupt Coalescing";
    INTERRUPT_VECTOR_CONFIGURATION = 0x09, "Interrupt Vector Configuration";
    WRITE_ATOMICITY = 0x0a, "Write Atomicity Normal";
    ASYNC_EVENT_CONFIGURATION = 0x0b, "Asynchronous Event Configuration";
    AUTONOMOUS_POWER_STATE_TRANSITION = 0x0c, "Autonomous Power State Transition";
    HOST_MEMORY_BUFFER = 0x0d, "Host Memory Buffer";
    /// Data: [`Timestamp`].
    TIMESTAMP = 0x0e, "Timestamp";
    /// Dword 11: the time-out in milliseconds, 0 disables.
    KEEP_ALIVE_TIMER = 0x0f, "Keep Alive Timer";
    HOST_CONTROLLED_THERMAL_MANAGEMENT = 0x10, "Host Controlled Thermal Management";
    NON_OPERATIONAL_POWER_STATE = 0x11, "Non-Operational Power State Config";
    READ_RECOVERY_LEVEL = 0x12, "Read Recovery Level Config";
    PREDICTABLE_LATENCY_MODE_CONFIG = 0x13, "Predictable Latency Mode Config";
    PREDICTABLE_LATENCY_MODE_WINDOW = 0x14, "Predictable Latency Mode Window";
    LBA_STATUS_INFORMATION_ATTRIBUTES = 0x15, "LBA Status Information Attributes";
    /// Data: [`HostBehavior`].
    HOST_BEHAVIOR_SUPPORT = 0x16, "Host Behavior Support";
    SANITIZE_CONFIG = 0x17, "Sanitize Config";
    ENDURANCE_GROUP_EVENT_CONFIGURATION = 0x18, "Endurance Group Event Configuration";
    IO_COMMAND_SET_PROFILE = 0x19, "I/O Command Set Profile";
    SPINUP_CONTROL = 0x1a, "Spinup Control";
    /// Base 2.1.
    POWER_LOSS_SIGNALING = 0x1b, "Power Loss Signaling Config";
    /// Base 2.1.
    PERFORMANCE_CHARACTERISTICS = 0x1c, "Performance Characteristics";
    /// Base 2.1.
    FLEXIBLE_DATA_PLACEMENT = 0x1d, "Flexible Data Placement";
    /// Base 2.1.
    FLEXIBLE_DATA_PLACEMENT_EVENTS = 0x1e, "Flexible Data Placement Events";
    /// Base 2.1.
    NAMESPACE_ADMIN_LABEL = 0x1f, "Namespace Admin Label";
    KEY_VALUE_CONFIGURATION = 0x20, "Key Value Configuration";
    /// Base 2.1.
    CONTROLLER_DATA_QUEUE = 0x21, "Controller Data Queue";
    /// Base 2.1.
    EMBEDDED_MANAGEMENT_CONTROLLER_ADDRESS = 0x78, "Embedded Management Controller Address";
    /// Base 2.1.
    HOST_MANAGEMENT_AGENT_ADDRESS = 0x79, "Host Management Agent Address";
    ENHANCED_CONTROLLER_METADATA = 0x7d, "Enhanced Controller Metadata";
    CONTROLLER_METADATA = 0x7e, "Controller Metadata";
    NAMESPACE_METADATA = 0x7f, "Namespace Metadata";
    SOFTWARE_PROGRESS_MARKER = 0x80, "Software Progress Marker";
    /// Data: 8 bytes, or 16 where dword 11 is [`HostIdentifierCdw11`] with EXHID.
    HOST_IDENTIFIER = 0x81, "Host Identifier";
    RESERVATION_NOTIFICATION_MASK = 0x82, "Reservation Notification Mask";
    RESERVATION_PERSISTENCE = 0x83, "Reservation Persistence";
    NAMESPACE_WRITE_PROTECTION = 0x84, "Namespace Write Protection Config";
    /// Base 2.1.
    BOOT_PARTITION_WRITE_PROTECTION = 0x85, "Boot Partition Write Protection Config";
}

impl FeatureId {
    /// The bits of dword 11 that say which of several values of the feature is set or asked for.
    #[must_use]
    pub const fn selector(self) -> u32 {
        match self {
            // Which sensor, and which end.
            Self::TEMPERATURE_THRESHOLD => 0x003f_0000,
            // A vector, an NVM set, an endurance group, a placement handle.
            Self::INTERRUPT_VECTOR_CONFIGURATION
            | Self::READ_RECOVERY_LEVEL
            | Self::PREDICTABLE_LATENCY_MODE_CONFIG
            | Self::PREDICTABLE_LATENCY_MODE_WINDOW
            | Self::ENDURANCE_GROUP_EVENT_CONFIGURATION
            | Self::FLEXIBLE_DATA_PLACEMENT
            | Self::FLEXIBLE_DATA_PLACEMENT_EVENTS => 0xffff,
            _ => 0,
        }
    }
}

/// Dword 0 of Get Features' completion where the supported capabilities were selected.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SupportedCapabilities {
    /// The value can be saved.
    pub saveable: bool,
    /// Each namespace has a value of its own.
    pub namespace_specific: bool,
    /// The value can be changed.
    pub changeable: bool,
    #[bits(29)]
    __: u32,
}

/// Arbitration.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Arbitration {
    /// Arbitration Burst: 2 ^ n commands, 7 no limit.
    #[bits(3)]
    pub ab: u8,
    #[bits(5)]
    __: u8,
    /// Low Priority Weight; 0's based.
    pub lpw: u8,
    /// Medium Priority Weight; 0's based.
    pub mpw: u8,
    /// High Priority Weight; 0's based.
    pub hpw: u8,
}

/// Power Management.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PowerManagement {
    /// Power State.
    #[bits(5)]
    pub ps: u8,
    /// Workload Hint.
    #[bits(3)]
    pub wh: u8,
    #[bits(24)]
    __: u32,
}

/// Temperature Threshold.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct TemperatureThreshold {
    /// Temperature Threshold, in kelvins.
    pub tmpth: u16,
    /// Threshold Temperature Select: 0 composite, 1 to 8 a sensor, Fh all (of Set Features).
    #[bits(4)]
    pub tmpsel: u8,
    /// Threshold Type Select: 0 over, 1 under temperature.
    #[bits(2)]
    pub thsel: u8,
    /// Temperature Threshold Hysteresis, in kelvins (Base 2.1).
    #[bits(3)]
    pub tmpthh: u8,
    #[bits(7)]
    __: u8,
}

/// Error Recovery.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ErrorRecovery {
    /// Time Limited Error Recovery, in units of 100 ms; 0 none.
    pub tler: u16,
    /// Deallocated or Unwritten Logical Block Error Enable.
    pub dulbe: bool,
    #[bits(15)]
    __: u16,
}

/// Volatile Write Cache.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VolatileWriteCache {
    /// Volatile Write Cache Enable.
    pub wce: bool,
    #[bits(31)]
    __: u32,
}

/// Number of Queues: requested in dword 11 (FFFFh is not allowed), allocated in the completion's dword 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NumberOfQueues {
    /// Number of I/O Submission Queues; 0's based.
    pub nsq: u16,
    /// Number of I/O Completion Queues; 0's based.
    pub ncq: u16,
}

impl NumberOfQueues {
    /// How many pairs of queues there are: 1 to 65,536.
    #[must_use]
    pub fn pairs(self) -> u32 {
        u32::from(self.nsq().min(self.ncq())) + 1
    }
}

/// Interrupt Coalescing.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptCoalescing {
    /// Aggregation Threshold, in completions; 0's based.
    pub thr: u8,
    /// Aggregation Time, in units of 100 µs; 0 no delay.
    pub time: u8,
    __: u16,
}

/// Interrupt Vector Configuration.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InterruptVectorConfiguration {
    /// Interrupt Vector.
    pub iv: u16,
    /// Coalescing Disable.
    pub cd: bool,
    #[bits(15)]
    __: u16,
}

/// Write Atomicity Normal.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct WriteAtomicity {
    /// Disable Normal: only AWUPF holds, not AWUN.
    pub dn: bool,
    #[bits(31)]
    __: u32,
}

/// Asynchronous Event Configuration: which events are sent.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEventConfiguration {
    /// SMART / Health Critical Warnings, the bits of [`CriticalWarning`](crate::log::CriticalWarning).
    pub smart: u8,
    /// Attached Namespace Attribute Notices.
    pub namespace_attribute: bool,
    /// Firmware Activation Notices.
    pub firmware_activation: bool,
    /// Telemetry Log Notices.
    pub telemetry: bool,
    /// Asymmetric Namespace Access Change Notices.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change Notices.
    pub predictable_latency: bool,
    /// LBA Status Information Alert Notices.
    pub lba_status: bool,
    /// Endurance Group Event Aggregate Log Change Notices.
    pub endurance_group: bool,
    /// Normal NVM Subsystem Shutdown.
    pub normal_shutdown: bool,
    /// Temperature Threshold Hysteresis Recovery (Base 2.1).
    pub temperature_hysteresis: bool,
    /// Reachability Association (Base 2.1).
    pub reachability_association: bool,
    /// Reachability Group (Base 2.1).
    pub reachability_group: bool,
    /// Allocated Namespace Attribute Notices (Base 2.1).
    pub allocated_namespace: bool,
    #[bits(7)]
    __: u8,
    /// Zone Descriptor Changed Notices.
    pub zone_descriptor: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Page Change Notification.
    pub discovery_log: bool,
}

/// I/O Command Set Profile.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IoCommandSetProfile {
    /// Index into [`CommandSetCombinations`](crate::identify::CommandSetCombinations).
    #[bits(9)]
    pub iocsci: u16,
    #[bits(23)]
    __: u32,
}

/// Host Identifier, dword 11.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct HostIdentifierCdw11 {
    /// Enable Extended Host Identifier: 128 bits rather than 64.
    pub exhid: bool,
    #[bits(31)]
    __: u32,
}

/// Reservation Notification Mask: which notices are *not* wanted.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationNotificationMask {
    __: bool,
    /// Mask Registration Preempted Notification.
    pub regpre: bool,
    /// Mask Reservation Released Notification.
    pub resrel: bool,
    /// Mask Reservation Preempted Notification.
    pub respre: bool,
    #[bits(28)]
    __: u32,
}

/// Reservation Persistence.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationPersistence {
    /// Persist Through Power Loss.
    pub ptpl: bool,
    #[bits(31)]
    __: u32,
}

/// Namespace Write Protection Config.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NamespaceWriteProtection {
    /// Write Protection State: 0 none, 1 protected, 2 until power cycle, 3 for good.
    #[bits(3)]
    pub wps: u8,
    #[bits(29)]
    __: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_figures_put_them() {
        assert_eq!(NumberOfQueues::new().with_nsq(3).with_ncq(5).into_bits(), 0x0005_0003);
        assert_eq!(NumberOfQueues::from_bits(u32::MAX).pairs(), 65_536);
        let events = AsyncEventConfiguration::new().with_namespace_attribute(true).with_discovery_log(true);
        assert_eq!(events.into_bits(), 0x8000_0100);
        assert_eq!(ReservationNotificationMask::new().with_respre(true).into_bits(), 8);
        assert_eq!(InterruptVectorConfiguration::new().with_iv(1).with_cd(true).into_bits(), 0x0001_0001);
        assert_eq!(TemperatureThreshold::new().with_tmpth(373).with_thsel(1).into_bits(), 0x0010_0175);
    }
}
