//! Log pages (NVMe Base 2.0, "Get Log Page command" and the log pages that follow it).

mod effects;
mod error;
mod health;

pub use effects::{CommandEffects, Effects, SupportedLogPage, SupportedLogPages};
pub use error::{ErrorEntry, ParameterErrorLocation};
pub use health::{CriticalWarning, HealthLog};

use crate::scalar::{Ascii, Opaque};
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

codes! {
    /// Log Page Identifier (figure "Get Log Page – Log Page Identifiers").
    pub struct LogId(u8);
    /// [`SupportedLogPages`].
    SUPPORTED_LOG_PAGES = 0x00, "Supported Log Pages";
    /// A list of [`ErrorEntry`], newest first.
    ERROR = 0x01, "Error Information";
    /// [`HealthLog`].
    SMART = 0x02, "SMART / Health Information";
    /// [`FirmwareSlots`].
    FIRMWARE_SLOT = 0x03, "Firmware Slot Information";
    /// [`NamespaceList`](crate::identify::NamespaceList).
    CHANGED_NAMESPACES = 0x04, "Changed Attached Namespace List";
    /// [`CommandEffects`].
    COMMANDS_SUPPORTED_AND_EFFECTS = 0x05, "Commands Supported and Effects";
    DEVICE_SELF_TEST = 0x06, "Device Self-test";
    TELEMETRY_HOST = 0x07, "Telemetry Host-Initiated";
    TELEMETRY_CONTROLLER = 0x08, "Telemetry Controller-Initiated";
    ENDURANCE_GROUP = 0x09, "Endurance Group Information";
    PREDICTABLE_LATENCY_PER_NVM_SET = 0x0a, "Predictable Latency Per NVM Set";
    PREDICTABLE_LATENCY_EVENT_AGGREGATE = 0x0b, "Predictable Latency Event Aggregate";
    ASYMMETRIC_NAMESPACE_ACCESS = 0x0c, "Asymmetric Namespace Access";
    PERSISTENT_EVENT = 0x0d, "Persistent Event Log";
    LBA_STATUS_INFORMATION = 0x0e, "LBA Status Information";
    ENDURANCE_GROUP_EVENT_AGGREGATE = 0x0f, "Endurance Group Event Aggregate";
    MEDIA_UNIT_STATUS = 0x10, "Media Unit Status";
    SUPPORTED_CAPACITY_CONFIGURATIONS = 0x11, "Supported Capacity Configuration List";
    FEATURE_IDENTIFIERS_SUPPORTED_AND_EFFECTS = 0x12, "Feature Identifiers Supported and Effects";
    NVME_MI_COMMANDS_SUPPORTED_AND_EFFECTS = 0x13, "NVMe-MI Commands Supported and Effects";
    COMMAND_AND_FEATURE_LOCKDOWN = 0x14, "Command and Feature Lockdown";
    BOOT_PARTITION = 0x15, "Boot Partition";
    ROTATIONAL_MEDIA_INFORMATION = 0x16, "Rotational Media Information";
    /// Base 2.1.
    DISPERSED_NAMESPACE_PARTICIPATING_SUBSYSTEMS = 0x17, "Dispersed Namespace Participating NVM Subsystems";
    /// Base 2.1.
    MANAGEMENT_ADDRESS_LIST = 0x18, "Management Address List";
    /// Base 2.1.
    PHYSICAL_INTERFACE_RECEIVER_EYE_OPENING = 0x19, "Physical Interface Receiver Eye Opening Measurement";
    /// Base 2.1.
    REACHABILITY_GROUPS = 0x1a, "Reachability Groups";
    /// Base 2.1.
    REACHABILITY_ASSOCIATIONS = 0x1b, "Reachability Associations";
    /// Base 2.1.
    CHANGED_ALLOCATED_NAMESPACES = 0x1c, "Changed Allocated Namespace List";
    /// Base 2.1.
    FDP_CONFIGURATIONS = 0x20, "FDP Configurations";
    /// Base 2.1.
    RECLAIM_UNIT_HANDLE_USAGE = 0x21, "Reclaim Unit Handle Usage";
    /// Base 2.1.
    FDP_STATISTICS = 0x22, "FDP Statistics";
    /// Base 2.1.
    FDP_EVENTS = 0x23, "FDP Events";
    DISCOVERY = 0x70, "Discovery";
    /// Base 2.1.
    HOST_DISCOVERY = 0x71, "Host Discovery";
    /// Base 2.1.
    AVE_DISCOVERY = 0x72, "AVE Discovery";
    /// Base 2.1.
    PULL_MODEL_DDC_REQUEST = 0x73, "Pull Model DDC Request";
    /// [`ReservationNotification`].
    RESERVATION_NOTIFICATION = 0x80, "Reservation Notification";
    SANITIZE_STATUS = 0x81, "Sanitize Status";
    /// Of the zoned command set.
    CHANGED_ZONE_LIST = 0xbf, "Changed Zone List";
}

wire! {
    /// Firmware Slot Information log page (figure of that name).
    pub struct FirmwareSlots {
        /// Active Firmware Info.
        pub afi: ActiveFirmware,
        /// Reserved.
        pub reserved1: Opaque<7>,
        /// Firmware Revision for slots 1 to 7; NUL where a slot is empty.
        pub frs: [Ascii<8>; 7],
        /// Reserved.
        pub reserved64: Opaque<448>,
    }

    /// Reservation Notification log page (figure of that name). Reading it takes the notice off the controller's queue.
    pub struct ReservationNotification {
        /// Log Page Count: counts notices, skipping 0; 0 where there is none.
        pub log_page_count: u64,
        /// Reservation Notification Log Page Type.
        pub kind: ReservationNotice,
        /// Number of Available Log Pages: how many notices wait behind this one, no more than 255.
        pub available: u8,
        /// Reserved.
        pub reserved10: Opaque<2>,
        /// Namespace ID.
        pub nsid: u32,
        /// Reserved.
        pub reserved16: Opaque<48>,
    }
}
assert_layout!(FirmwareSlots, size = 512, frs @ 8, reserved64 @ 64);
assert_layout!(ReservationNotification, size = 64, kind @ 8, available @ 9, nsid @ 12);

/// Active Firmware Info, AFI.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ActiveFirmware {
    /// The slot whose firmware is active.
    #[bits(3)]
    pub active: u8,
    __: bool,
    /// The slot whose firmware is going to be active after the next reset; 0 not said.
    #[bits(3)]
    pub next: u8,
    __: bool,
}

codes! {
    /// Reservation Notification Log Page Type.
    pub struct ReservationNotice(u8);
    EMPTY = 0, "Empty Log Page";
    REGISTRATION_PREEMPTED = 1, "Registration Preempted";
    RESERVATION_RELEASED = 2, "Reservation Released";
    RESERVATION_PREEMPTED = 3, "Reservation Preempted";
}
