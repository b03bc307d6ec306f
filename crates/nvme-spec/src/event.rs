//! Asynchronous events (NVMe Base 2.0, "Asynchronous Event Request command").

use crate::log::LogId;
use bitfield_struct::bitfield;

codes! {
    /// Asynchronous Event Type; three bits.
    pub struct EventType(u8);
    ERROR = 0, "Error Status";
    SMART = 1, "SMART / Health Status";
    NOTICE = 2, "Notice";
    IMMEDIATE = 3, "Immediate";
    /// Base 2.1.
    ONE_SHOT = 4, "One-Shot";
    IO_COMMAND_SET = 6, "I/O Command Set Specific Status";
    VENDOR_SPECIFIC = 7, "Vendor Specific";
}

/// Dword 0 of an Asynchronous Event Request's completion.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// Asynchronous Event Type.
    #[bits(3)]
    pub event_type: EventType,
    #[bits(5)]
    __: u8,
    /// Asynchronous Event Information; its meaning depends on the type: [`AsyncEvent::kind`].
    pub info: u8,
    /// Log Page Identifier: reading it, without Retain Asynchronous Event, re-arms the event.
    #[bits(8)]
    pub log_page: LogId,
    __: u8,
}

codes! {
    /// What happened: `type << 8 | information`.
    pub struct EventKind(u16);
    WRITE_TO_INVALID_DOORBELL = 0x000, "Write to Invalid Doorbell Register";
    INVALID_DOORBELL_VALUE = 0x001, "Invalid Doorbell Register Write Value";
    DIAGNOSTIC_FAILURE = 0x002, "Diagnostic Failure";
    PERSISTENT_INTERNAL_ERROR = 0x003, "Persistent Internal Error";
    TRANSIENT_INTERNAL_ERROR = 0x004, "Transient Internal Error";
    FIRMWARE_IMAGE_LOAD_ERROR = 0x005, "Firmware Image Load Error";
    SUBSYSTEM_RELIABILITY = 0x100, "NVM subsystem Reliability";
    TEMPERATURE_THRESHOLD = 0x101, "Temperature Threshold";
    SPARE_BELOW_THRESHOLD = 0x102, "Spare Below Threshold";
    NAMESPACE_ATTRIBUTE_CHANGED = 0x200, "Namespace Attribute Changed";
    FIRMWARE_ACTIVATION_STARTING = 0x201, "Firmware Activation Starting";
    TELEMETRY_LOG_CHANGED = 0x202, "Telemetry Log Changed";
    ASYMMETRIC_NAMESPACE_ACCESS_CHANGE = 0x203, "Asymmetric Namespace Access Change";
    PREDICTABLE_LATENCY_CHANGE = 0x204, "Predictable Latency Event Aggregate Log Change";
    LBA_STATUS_INFORMATION_ALERT = 0x205, "LBA Status Information Alert";
    ENDURANCE_GROUP_CHANGE = 0x206, "Endurance Group Event Aggregate Log Page Change";
    /// Base 2.1.
    REACHABILITY_GROUP_CHANGE = 0x207, "Reachability Group Change";
    /// Base 2.1.
    REACHABILITY_ASSOCIATION_CHANGE = 0x208, "Reachability Association Change";
    /// Base 2.1.
    ALLOCATED_NAMESPACE_ATTRIBUTE_CHANGED = 0x209, "Allocated Namespace Attribute Changed";
    ZONE_DESCRIPTOR_CHANGED = 0x2ef, "Zone Descriptor Changed";
    DISCOVERY_LOG_PAGE_CHANGE = 0x2f0, "Discovery Log Page Change";
    /// Base 2.1.
    HOST_DISCOVERY_LOG_PAGE_CHANGE = 0x2f1, "Host Discovery Log Page Change";
    /// Base 2.1.
    AVE_DISCOVERY_LOG_PAGE_CHANGE = 0x2f2, "AVE Discovery Log Page Change";
    /// Base 2.1.
    PULL_MODEL_DDC_REQUEST_LOG_PAGE_CHANGE = 0x2f3, "Pull Model DDC Request Log Page Change";
    NORMAL_SUBSYSTEM_SHUTDOWN = 0x300, "Normal NVM Subsystem Shutdown";
    /// Base 2.1.
    TEMPERATURE_HYSTERESIS_RECOVERY = 0x301, "Temperature Threshold Hysteresis Recovery";
    RESERVATION_LOG_PAGE_AVAILABLE = 0x600, "Reservation Log Page Available";
    SANITIZE_COMPLETED = 0x601, "Sanitize Operation Completed";
    SANITIZE_COMPLETED_WITH_DEALLOCATION = 0x602, "Sanitize Operation Completed With Unexpected Deallocation";
    /// Base 2.1.
    SANITIZE_ENTERED_MEDIA_VERIFICATION = 0x603, "Sanitize Operation Entered Media Verification State";
}

impl AsyncEvent {
    /// Type and information together.
    #[must_use]
    pub const fn kind(self) -> EventKind {
        EventKind((self.event_type().into_bits() as u16) << 8 | self.info() as u16)
    }

    /// The event of a kind, that reading `log_page` re-arms.
    #[must_use]
    pub const fn of(kind: EventKind, log_page: LogId) -> Self {
        let [info, event_type] = kind.0.to_le_bytes();
        Self::new().with_event_type(EventType(event_type & 0x7)).with_info(info).with_log_page(log_page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_changed() {
        let event = AsyncEvent::from_bits(0x0004_0002);
        assert_eq!(event.kind(), EventKind::NAMESPACE_ATTRIBUTE_CHANGED);
        assert_eq!(event.log_page(), LogId::CHANGED_NAMESPACES);
        assert_eq!(AsyncEvent::of(event.kind(), event.log_page()), event);
    }

    #[test]
    fn every_kind_is_of_a_known_type() {
        for kind in EventKind::KNOWN {
            let event = AsyncEvent::of(*kind, LogId::ERROR);
            assert_eq!(event.kind(), *kind);
            assert!(event.event_type().name().is_some());
        }
    }
}
