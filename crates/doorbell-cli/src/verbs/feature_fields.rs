//! What the bits of a feature's value mean.

use nvme_spec::feature::{FeatureId, Timestamp};
use zerocopy::FromBytes;

use crate::fields::{Bits, choice, flag, lines, number};

/// The bits of a value, as `get-feature --human-readable` prints them.
pub(super) fn decoded(fid: FeatureId, sel: u8, value: u32, data: &[u8]) -> String {
    if sel == 3 {
        return lines(value.into(), CAPABILITIES);
    }
    if fid == FeatureId::TIMESTAMP
        && let Ok((timestamp, _)) = Timestamp::read_from_prefix(data)
    {
        let origin = if timestamp.attributes.origin() == 1 { "1970-01-01 UTC" } else { "the controller's start" };
        return format!("  {} ms since {origin}\n", timestamp.millis());
    }
    lines(value.into(), bits(fid))
}

fn bits(fid: FeatureId) -> &'static [Bits] {
    FEATURES.iter().find(|(known, _)| *known == fid).map_or(&[], |(_, bits)| bits)
}

const FEATURES: &[(FeatureId, &[Bits])] = &[
    (FeatureId::ARBITRATION, ARBITRATION),
    (FeatureId::POWER_MANAGEMENT, &[number(7, 5, "Workload Hint"), number(4, 0, "Power State")]),
    (FeatureId::TEMPERATURE_THRESHOLD, TEMPERATURE),
    (FeatureId::ERROR_RECOVERY, ERROR_RECOVERY),
    (
        FeatureId::VOLATILE_WRITE_CACHE,
        &[choice(0, 0, &["Volatile Write Cache Disabled", "Volatile Write Cache Enabled"])],
    ),
    (FeatureId::NUMBER_OF_QUEUES, QUEUES),
    (FeatureId::INTERRUPT_COALESCING, COALESCING),
    (
        FeatureId::INTERRUPT_VECTOR_CONFIGURATION,
        &[choice(16, 16, &["Coalescing Enabled", "Coalescing Disabled"]), number(15, 0, "Interrupt Vector")],
    ),
    (
        FeatureId::WRITE_ATOMICITY,
        &[choice(0, 0, &["Write Atomicity Normal Enabled", "Write Atomicity Normal Disabled"])],
    ),
    (FeatureId::ASYNC_EVENT_CONFIGURATION, EVENTS),
    (FeatureId::KEEP_ALIVE_TIMER, &[number(31, 0, "Keep Alive Timeout, in milliseconds; 0 none")]),
    (FeatureId::IO_COMMAND_SET_PROFILE, &[number(8, 0, "I/O Command Set Combination Index")]),
    (FeatureId::SOFTWARE_PROGRESS_MARKER, &[number(7, 0, "Pre-boot Software Load Count")]),
    (FeatureId::RESERVATION_NOTIFICATION_MASK, NOTICES),
    (
        FeatureId::RESERVATION_PERSISTENCE,
        &[choice(0, 0, &["Reservations are lost with power", "Reservations persist through power loss"])],
    ),
    (FeatureId::NAMESPACE_WRITE_PROTECTION, WRITE_PROTECTION),
];

const ARBITRATION: &[Bits] = &[
    number(31, 24, "High Priority Weight, 0's based"),
    number(23, 16, "Medium Priority Weight, 0's based"),
    number(15, 8, "Low Priority Weight, 0's based"),
    number(2, 0, "Arbitration Burst, as a power of two; 7 no limit"),
];
const TEMPERATURE: &[Bits] = &[
    choice(21, 20, &["Over Temperature Threshold", "Under Temperature Threshold"]),
    number(19, 16, "Threshold Temperature Select: 0 composite, 1 to 8 a sensor"),
    number(15, 0, "Temperature Threshold, in kelvins"),
];
const ERROR_RECOVERY: &[Bits] = &[
    choice(16, 16, &["Deallocated Logical Block Error Disabled", "Deallocated Logical Block Error Enabled"]),
    number(15, 0, "Time Limited Error Recovery, in units of 100 ms"),
];
const QUEUES: &[Bits] = &[
    number(31, 16, "I/O Completion Queues Allocated, 0's based"),
    number(15, 0, "I/O Submission Queues Allocated, 0's based"),
];
const COALESCING: &[Bits] =
    &[number(15, 8, "Aggregation Time, in units of 100 us"), number(7, 0, "Aggregation Threshold, 0's based")];
const NOTICES: &[Bits] = &[
    choice(3, 3, &["Reservation Preempted is told", "Reservation Preempted is masked"]),
    choice(2, 2, &["Reservation Released is told", "Reservation Released is masked"]),
    choice(1, 1, &["Registration Preempted is told", "Registration Preempted is masked"]),
];
const WRITE_PROTECTION: &[Bits] = &[choice(
    2,
    0,
    &["No Write Protect", "Write Protect", "Write Protect Until Power Cycle", "Permanent Write Protect"],
)];
const CAPABILITIES: &[Bits] = &[
    choice(2, 2, &["Feature is not changeable", "Feature is changeable"]),
    choice(1, 1, &["Feature is not namespace specific", "Feature is namespace specific"]),
    choice(0, 0, &["Feature is not saveable", "Feature is saveable"]),
];
const EVENTS: &[Bits] = &[
    flag(31, "Discovery Log Page Change Notices"),
    flag(27, "Zone Descriptor Changed Notices"),
    flag(15, "Normal NVM Subsystem Shutdown Notices"),
    flag(14, "Endurance Group Event Aggregate Log Change Notices"),
    flag(13, "LBA Status Information Notices"),
    flag(12, "Predictable Latency Event Aggregate Log Change Notices"),
    flag(11, "Asymmetric Namespace Access Change Notices"),
    flag(10, "Telemetry Log Notices"),
    flag(9, "Firmware Activation Notices"),
    flag(8, "Namespace Attribute Notices"),
    number(7, 0, "SMART / Health Critical Warnings, a bit for each"),
];
