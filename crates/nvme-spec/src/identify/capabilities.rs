//! The bit fields of [`IdentifyController`](super::IdentifyController).

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Controller Multi-Path I/O and Namespace Sharing Capabilities, CMIC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cmic {
    /// The NVM subsystem may have more than one port.
    pub multi_port: bool,
    /// The NVM subsystem may have more than one controller.
    pub multi_controller: bool,
    /// The controller is an SR-IOV virtual function's.
    pub sriov: bool,
    /// Asymmetric namespace access is reported.
    pub ana: bool,
    #[bits(4)]
    __: u8,
}

/// Optional Asynchronous Events Supported, OAES.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oaes {
    __: u8,
    /// Attached Namespace Attribute Changed: notices when namespaces come, go or change.
    pub namespace_attribute: bool,
    /// Firmware Activation Starting.
    pub firmware_activation: bool,
    __: bool,
    /// Asymmetric Namespace Access Change.
    pub ana_change: bool,
    /// Predictable Latency Event Aggregate Log Change.
    pub predictable_latency: bool,
    /// LBA Status Information Alert.
    pub lba_status: bool,
    /// Endurance Group Event Aggregate Log Page Change.
    pub endurance_group: bool,
    /// Normal NVM Subsystem Shutdown.
    pub normal_shutdown: bool,
    /// Temperature Threshold Hysteresis Recovery (Base 2.1).
    pub temperature_hysteresis: bool,
    /// Reachability Groups Change (Base 2.1).
    pub reachability: bool,
    __: bool,
    /// Allocated Namespace Attribute (Base 2.1).
    pub allocated_namespace: bool,
    #[bits(7)]
    __: u8,
    /// Zone Descriptor Changed.
    pub zone_descriptor: bool,
    #[bits(3)]
    __: u8,
    /// Discovery Log Page Change.
    pub discovery_log: bool,
}

/// Controller Attributes, CTRATT.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ctratt {
    /// 128-bit host identifiers are supported.
    pub host_id_128: bool,
    /// Non-Operational Power State Permissive Mode.
    pub non_operational_permissive: bool,
    /// NVM Sets.
    pub nvm_sets: bool,
    /// Read Recovery Levels.
    pub read_recovery_levels: bool,
    /// Endurance Groups.
    pub endurance_groups: bool,
    /// Predictable Latency Mode.
    pub predictable_latency: bool,
    /// Traffic Based Keep Alive: any admin or I/O command restarts the timer.
    pub traffic_based_keep_alive: bool,
    /// Namespace Granularity.
    pub namespace_granularity: bool,
    /// Submission Queue Associations.
    pub sq_associations: bool,
    /// The UUID List is reported.
    pub uuid_list: bool,
    /// Multi-Domain Subsystem.
    pub multi_domain: bool,
    /// Fixed Capacity Management.
    pub fixed_capacity: bool,
    /// Variable Capacity Management.
    pub variable_capacity: bool,
    /// Delete Endurance Group.
    pub delete_endurance_group: bool,
    /// Delete NVM Set.
    pub delete_nvm_set: bool,
    /// Extended LBA Formats: more than 16, and the formats with 16-bit metadata extensions behind them.
    pub extended_lba_formats: bool,
    /// MDTS and Size Limits Exclude Metadata (Base 2.1).
    pub mdts_excludes_metadata: bool,
    /// HMB Restrict Non-Operational Power State Access (Base 2.1).
    pub hmb_restrict: bool,
    /// Reservations and Host Identifier Interaction (Base 2.1).
    pub reservations_host_id: bool,
    /// Flexible Data Placement (Base 2.1).
    pub flexible_data_placement: bool,
    #[bits(12)]
    __: u16,
}

/// NVM Subsystem Report, NVMSR.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nvmsr {
    /// The NVM subsystem is part of a storage device.
    pub storage_device: bool,
    /// The NVM subsystem is part of an enclosure.
    pub enclosure: bool,
    #[bits(6)]
    __: u8,
}

/// VPD Write Cycle Information, VWCI.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vwci {
    /// Write cycles that remain.
    #[bits(7)]
    pub remaining: u8,
    /// Whether `remaining` is valid.
    pub valid: bool,
}

/// Management Endpoint Capabilities, MEC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mec {
    /// A management endpoint on an SMBus or I2C port.
    pub smbus: bool,
    /// A management endpoint on a PCIe port.
    pub pcie: bool,
    #[bits(6)]
    __: u8,
}

/// Optional Admin Command Support, OACS.
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oacs {
    /// Security Send and Security Receive.
    pub security: bool,
    /// Format NVM.
    pub format: bool,
    /// Firmware Commit and Firmware Image Download.
    pub firmware: bool,
    /// Namespace Management and Namespace Attachment.
    pub namespace_management: bool,
    /// Device Self-test.
    pub self_test: bool,
    /// Directives.
    pub directives: bool,
    /// NVMe-MI Send and NVMe-MI Receive.
    pub nvme_mi: bool,
    /// Virtualization Management.
    pub virtualization: bool,
    /// Doorbell Buffer Config.
    pub doorbell_buffer_config: bool,
    /// Get LBA Status.
    pub get_lba_status: bool,
    /// Command and Feature Lockdown.
    pub lockdown: bool,
    /// Host Managed Live Migration (Base 2.1).
    pub live_migration: bool,
    #[bits(4)]
    __: u8,
}

/// Firmware Updates, FRMW.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Frmw {
    /// Slot 1 is read-only.
    pub first_slot_read_only: bool,
    /// Number of firmware slots, 1 to 7.
    #[bits(3)]
    pub slots: u8,
    /// Firmware can be activated without a reset.
    pub activation_without_reset: bool,
    /// Overlapping ranges in a downloaded image are detected.
    pub overlap_detection: bool,
    #[bits(2)]
    __: u8,
}

/// Log Page Attributes, LPA.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Lpa {
    /// SMART / Health Information for each namespace.
    pub smart_per_namespace: bool,
    /// Commands Supported and Effects log page.
    pub effects: bool,
    /// Extended data for Get Log Page: 32-bit NUMD and a log page offset.
    pub extended: bool,
    /// Telemetry log pages.
    pub telemetry: bool,
    /// Persistent Event log page.
    pub persistent_event: bool,
    /// Supported Log Pages and what else came with 2.0 to describe them.
    pub supported_pages: bool,
    /// Telemetry data area 4.
    pub telemetry_area_4: bool,
    __: bool,
}

/// Autonomous Power State Transition Attributes, APSTA.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Apsta {
    /// Autonomous power state transitions are supported.
    pub supported: bool,
    #[bits(7)]
    __: u8,
}

/// Sanitize Capabilities, SANICAP.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sanicap {
    /// Crypto Erase.
    pub crypto_erase: bool,
    /// Block Erase.
    pub block_erase: bool,
    /// Overwrite.
    pub overwrite: bool,
    /// Verification of sanitized media (Base 2.1).
    pub verification: bool,
    #[bits(25)]
    __: u32,
    /// No-Deallocate Inhibited.
    pub no_deallocate_inhibited: bool,
    /// No-Deallocate Modifies Media After Sanitize: 0 not defined, 1 does not, 2 does.
    #[bits(2)]
    pub no_deallocate_modifies: u8,
}

/// Asymmetric Namespace Access Capabilities, ANACAP.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Anacap {
    /// ANA Optimized state can be reported.
    pub optimized: bool,
    /// ANA Non-Optimized state can be reported.
    pub non_optimized: bool,
    /// ANA Inaccessible state can be reported.
    pub inaccessible: bool,
    /// ANA Persistent Loss state can be reported.
    pub persistent_loss: bool,
    /// ANA Change state can be reported.
    pub change: bool,
    __: bool,
    /// The ANA group of a namespace does not change while it is attached.
    pub group_id_fixed: bool,
    /// A non-zero ANAGRPID is supported in Namespace Management.
    pub group_id_settable: bool,
}

/// Queue Entry Size, in SQES and CQES: powers of two of bytes.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct QueueEntrySize {
    /// Required, that is smallest, entry size: 2 ^ n bytes.
    #[bits(4)]
    pub required: u8,
    /// Largest entry size: 2 ^ n bytes.
    #[bits(4)]
    pub maximum: u8,
}

/// Optional NVM Command Support, ONCS.
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Oncs {
    /// Compare.
    pub compare: bool,
    /// Write Uncorrectable.
    pub write_uncorrectable: bool,
    /// Dataset Management.
    pub dataset_management: bool,
    /// Write Zeroes.
    pub write_zeroes: bool,
    /// A non-zero Save in Set Features and Select in Get Features.
    pub save_select: bool,
    /// Reservations.
    pub reservations: bool,
    /// Timestamp feature.
    pub timestamp: bool,
    /// Verify.
    pub verify: bool,
    /// Copy.
    pub copy: bool,
    /// A copy is one atomic write, if it fits the atomic write unit (NVM 1.1).
    pub copy_atomicity: bool,
    /// Every copy that the controller takes is a fast one (NVM 1.1).
    pub all_fast_copy: bool,
    /// The Deallocate bit of Write Zeroes clears more than MDTS at once (NVM 1.1).
    pub maximum_write_zeroes_with_deallocate: bool,
    /// A namespace can be zeroed by one command (NVM 1.1).
    pub namespace_zeroes: bool,
    #[bits(3)]
    __: u8,
}

/// Fused Operation Support, FUSES.
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fuses {
    /// Compare and Write.
    pub compare_and_write: bool,
    #[bits(15)]
    __: u16,
}

/// Format NVM Attributes, FNA.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Fna {
    /// Formatting one namespace formats all of them.
    pub format_all: bool,
    /// Secure erase of one namespace erases all of them.
    pub erase_all: bool,
    /// Cryptographic erase.
    pub crypto_erase: bool,
    /// Formatting with NSID FFFFFFFFh is *not* supported.
    pub no_broadcast: bool,
    #[bits(4)]
    __: u8,
}

/// Volatile Write Cache, VWC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vwc {
    /// A volatile write cache is present.
    pub present: bool,
    /// Flush with NSID FFFFFFFFh: 0 not said, 2 not supported, 3 supported.
    #[bits(2)]
    pub flush_all: u8,
    #[bits(5)]
    __: u8,
}

/// Namespace Write Protection Capabilities, NWPC.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nwpc {
    /// No Write Protect and Write Protect.
    pub write_protect: bool,
    /// Write Protect Until Power Cycle.
    pub until_power_cycle: bool,
    /// Permanent Write Protect.
    pub permanent: bool,
    #[bits(5)]
    __: u8,
}

/// SGL Support, SGLS.
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sgls {
    /// SGLs for the NVM command set: 0 not supported, 1 supported with any alignment, 2 with dword alignment and
    /// granularity of data blocks.
    #[bits(2)]
    pub supported: u8,
    /// Keyed SGL Data Block descriptor.
    pub keyed: bool,
    #[bits(5)]
    __: u8,
    /// SGL Descriptor Threshold: the recommended most descriptors, 0 if none is reported.
    pub threshold: u8,
    /// SGL Bit Bucket descriptor.
    pub bit_bucket: bool,
    /// A byte-aligned contiguous metadata buffer.
    pub metadata_byte_aligned: bool,
    /// An SGL longer than the data.
    pub longer_than_data: bool,
    /// An SGL segment in MPTR with one descriptor, for metadata.
    pub metadata_sgl: bool,
    /// Addresses that are offsets.
    pub offset: bool,
    /// Transport SGL Data Block descriptor.
    pub transport: bool,
    #[bits(10)]
    __: u16,
}
