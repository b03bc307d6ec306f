//! Identify Controller (CNS 01h) and its power states.

use super::capabilities::*;
use crate::registers::Version;
use crate::scalar::{Ascii, Le128, Opaque};
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

codes! {
    /// Controller Type, CNTRLTYPE.
    pub struct ControllerType(u8);
    /// Before 1.4.
    NOT_REPORTED = 0, "Not reported";
    IO = 1, "I/O controller";
    DISCOVERY = 2, "Discovery controller";
    ADMINISTRATIVE = 3, "Administrative controller";
}

wire! {
    /// Identify Controller data structure (NVMe Base 2.0, figure of that name, with the NVM command set's fields), CNS
    /// 01h. Fields that came with Base 2.1 read as 0, not supported, on older controllers.
    pub struct IdentifyController {
        /// PCI Vendor ID.
        pub vid: u16,
        /// PCI Subsystem Vendor ID.
        pub ssvid: u16,
        /// Serial Number.
        pub sn: Ascii<20>,
        /// Model Number.
        pub mn: Ascii<40>,
        /// Firmware Revision.
        pub fr: Ascii<8>,
        /// Recommended Arbitration Burst: 2 ^ n commands.
        pub rab: u8,
        /// IEEE OUI Identifier, least significant byte first.
        pub ieee: [u8; 3],
        /// Controller Multi-Path I/O and Namespace Sharing Capabilities.
        pub cmic: Cmic,
        /// Maximum Data Transfer Size: 2 ^ n pages of CAP.MPSMIN; 0 is no limit.
        pub mdts: u8,
        /// Controller ID.
        pub cntlid: u16,
        /// Version; 0 before 1.2.
        pub ver: Version,
        /// RTD3 Resume Latency, in microseconds; 0 not reported.
        pub rtd3r: u32,
        /// RTD3 Entry Latency, in microseconds: the time a normal shutdown may take; 0 not reported.
        pub rtd3e: u32,
        /// Optional Asynchronous Events Supported.
        pub oaes: Oaes,
        /// Controller Attributes.
        pub ctratt: Ctratt,
        /// Read Recovery Levels Supported, a bit for each.
        pub rrls: u16,
        /// Boot Partition Capabilities (Base 2.1).
        pub bpcap: u8,
        /// Reserved.
        pub reserved103: u8,
        /// NVM Subsystem Shutdown Latency, in microseconds (Base 2.1).
        pub nssl: u32,
        /// Reserved.
        pub reserved108: Opaque<2>,
        /// Power Loss Signaling Information (Base 2.1).
        pub plsi: u8,
        /// Controller Type.
        pub cntrltype: ControllerType,
        /// FRU Globally Unique Identifier, big-endian; 0 none.
        pub fguid: [u8; 16],
        /// Command Retry Delay Time 1, in units of 100 ms.
        pub crdt1: u16,
        /// Command Retry Delay Time 2, in units of 100 ms.
        pub crdt2: u16,
        /// Command Retry Delay Time 3, in units of 100 ms.
        pub crdt3: u16,
        /// Controller Reachability Capabilities (Base 2.1).
        pub crcap: u8,
        /// Reserved.
        pub reserved135: Opaque<105>,
        /// Reserved for NVMe-MI.
        pub reserved240: Opaque<13>,
        /// NVM Subsystem Report.
        pub nvmsr: Nvmsr,
        /// VPD Write Cycle Information.
        pub vwci: Vwci,
        /// Management Endpoint Capabilities.
        pub mec: Mec,
        /// Optional Admin Command Support.
        pub oacs: Oacs,
        /// Abort Command Limit; 0's based.
        pub acl: u8,
        /// Asynchronous Event Request Limit; 0's based.
        pub aerl: u8,
        /// Firmware Updates.
        pub frmw: Frmw,
        /// Log Page Attributes.
        pub lpa: Lpa,
        /// Error Log Page Entries; 0's based.
        pub elpe: u8,
        /// Number of Power States Support; 0's based.
        pub npss: u8,
        /// Admin Vendor Specific Command Configuration: bit 0, they have the standard format.
        pub avscc: u8,
        /// Autonomous Power State Transition Attributes.
        pub apsta: Apsta,
        /// Warning Composite Temperature Threshold, in kelvins.
        pub wctemp: u16,
        /// Critical Composite Temperature Threshold, in kelvins.
        pub cctemp: u16,
        /// Maximum Time for Firmware Activation, in units of 100 ms.
        pub mtfa: u16,
        /// Host Memory Buffer Preferred Size, in units of 4 KiB.
        pub hmpre: u32,
        /// Host Memory Buffer Minimum Size, in units of 4 KiB.
        pub hmmin: u32,
        /// Total NVM Capacity, in bytes.
        pub tnvmcap: Le128,
        /// Unallocated NVM Capacity, in bytes.
        pub unvmcap: Le128,
        /// Replay Protected Memory Block Support.
        pub rpmbs: u32,
        /// Extended Device Self-test Time, in minutes.
        pub edstt: u16,
        /// Device Self-test Options.
        pub dsto: u8,
        /// Firmware Update Granularity, in units of 4 KiB; 0 not reported, FFh none.
        pub fwug: u8,
        /// Keep Alive Support: the timer's granularity in units of 100 ms; 0 no keep alive.
        pub kas: u16,
        /// Host Controlled Thermal Management Attributes.
        pub hctma: u16,
        /// Minimum Thermal Management Temperature, in kelvins.
        pub mntmt: u16,
        /// Maximum Thermal Management Temperature, in kelvins.
        pub mxtmt: u16,
        /// Sanitize Capabilities.
        pub sanicap: Sanicap,
        /// Host Memory Buffer Minimum Descriptor Entry Size, in units of 4 KiB.
        pub hmminds: u32,
        /// Host Memory Maximum Descriptors Entries.
        pub hmmaxd: u16,
        /// NVM Set Identifier Maximum.
        pub nsetidmax: u16,
        /// Endurance Group Identifier Maximum.
        pub endgidmax: u16,
        /// ANA Transition Time, in seconds.
        pub anatt: u8,
        /// Asymmetric Namespace Access Capabilities.
        pub anacap: Anacap,
        /// ANA Group Identifier Maximum.
        pub anagrpmax: u32,
        /// Number of ANA Group Identifiers.
        pub nanagrpid: u32,
        /// Persistent Event Log Size, in units of 64 KiB.
        pub pels: u32,
        /// Domain Identifier.
        pub domainid: u16,
        /// Key Per I/O Capabilities (Base 2.1).
        pub kpioc: u8,
        /// Reserved.
        pub reserved359: u8,
        /// Maximum Processing Time for Firmware Activation Without Reset, in units of 100 ms (Base 2.1).
        pub mptfawr: u16,
        /// Reserved.
        pub reserved362: Opaque<6>,
        /// Max Endurance Group Capacity, in bytes.
        pub megcap: Le128,
        /// Temperature Threshold Hysteresis Attributes (Base 2.1).
        pub tmpthha: u8,
        /// Reserved.
        pub reserved385: u8,
        /// Command Quiesce Time, in milliseconds (Base 2.1).
        pub cqt: u16,
        /// Reserved.
        pub reserved388: Opaque<124>,
        /// Submission Queue Entry Size.
        pub sqes: QueueEntrySize,
        /// Completion Queue Entry Size.
        pub cqes: QueueEntrySize,
        /// Maximum Outstanding Commands; 0 not reported.
        pub maxcmd: u16,
        /// Number of Namespaces: the largest valid NSID.
        pub nn: u32,
        /// Optional NVM Command Support.
        pub oncs: Oncs,
        /// Fused Operation Support.
        pub fuses: Fuses,
        /// Format NVM Attributes.
        pub fna: Fna,
        /// Volatile Write Cache.
        pub vwc: Vwc,
        /// Atomic Write Unit Normal, in logical blocks; 0's based.
        pub awun: u16,
        /// Atomic Write Unit Power Fail, in logical blocks; 0's based.
        pub awupf: u16,
        /// I/O Command Set Vendor Specific Command Configuration: bit 0, they have the standard format.
        pub icsvscc: u8,
        /// Namespace Write Protection Capabilities.
        pub nwpc: Nwpc,
        /// Atomic Compare & Write Unit, in logical blocks; 0's based.
        pub acwu: u16,
        /// Copy Descriptor Formats Supported, a bit for each.
        pub cdfs: u16,
        /// SGL Support.
        pub sgls: Sgls,
        /// Maximum Number of Allowed Namespaces; 0: NN is.
        pub mnan: u32,
        /// Maximum Domain Namespace Attachments.
        pub maxdna: Le128,
        /// Maximum I/O Controller Namespace Attachments; 0 not reported.
        pub maxcna: u32,
        /// Optimal Aggregated Queue Depth (Base 2.1).
        pub oaqd: u32,
        /// Recommended Host-Initiated Refresh Interval, in days (Base 2.1).
        pub rhiri: u8,
        /// Host-Initiated Refresh Time, in minutes (Base 2.1).
        pub hirt: u8,
        /// Controller Maximum Memory Range Tracking Descriptors (Base 2.1).
        pub cmmrtd: u16,
        /// NVM Subsystem Maximum Memory Range Tracking Descriptors (Base 2.1).
        pub nmmrtd: u16,
        /// Minimum Memory Range Tracking Granularity (Base 2.1).
        pub minmrtg: u8,
        /// Maximum Memory Range Tracking Granularity (Base 2.1).
        pub maxmrtg: u8,
        /// Tracking Attributes (Base 2.1).
        pub trattr: u8,
        /// Reserved.
        pub reserved577: u8,
        /// Maximum Controller User Data Migration Queues (Base 2.1).
        pub mcudmq: u16,
        /// Maximum NVM Subsystem User Data Migration Queues (Base 2.1).
        pub mnsudmq: u16,
        /// Maximum CDQ Memory Ranges (Base 2.1).
        pub mcmr: u16,
        /// NVM Subsystem Maximum CDQ Memory Ranges (Base 2.1).
        pub nmcmr: u16,
        /// Maximum Controller Data Queue PRP Count (Base 2.1).
        pub mcdqpc: u16,
        /// Reserved.
        pub reserved588: Opaque<180>,
        /// NVM Subsystem NVMe Qualified Name, UTF-8, ended by NUL.
        pub subnqn: Ascii<256>,
        /// Reserved.
        pub reserved1024: Opaque<768>,
        /// I/O Queue Command Capsule Supported Size, in units of 16 bytes; fabrics only.
        pub ioccsz: u32,
        /// I/O Queue Response Capsule Supported Size, in units of 16 bytes; fabrics only.
        pub iorcsz: u32,
        /// In Capsule Data Offset, in units of 16 bytes; fabrics only.
        pub icdoff: u16,
        /// Fabrics Controller Attributes; fabrics only.
        pub fcatt: u8,
        /// Maximum SGL Data Block Descriptors; 0 no limit; fabrics only.
        pub msdbd: u8,
        /// Optional Fabrics Commands Support; fabrics only.
        pub ofcs: u16,
        /// Discovery Controller Type; fabrics only (Base 2.1).
        pub dctype: u8,
        /// Reserved.
        pub reserved1807: Opaque<241>,
        /// Power State Descriptors, NPSS + 1 of them valid.
        pub psd: [PowerState; 32],
        /// Vendor Specific.
        pub vendor: Opaque<1024>,
    }

    /// Power State Descriptor data structure (figure of that name).
    pub struct PowerState {
        /// Maximum Power, in centiwatts, or in units of 0.1 mW where [`PowerFlags::mxps`] is set.
        pub mp: u16,
        /// Reserved.
        pub reserved2: u8,
        /// Flags.
        pub flags: PowerFlags,
        /// Entry Latency, in microseconds.
        pub enlat: u32,
        /// Exit Latency, in microseconds.
        pub exlat: u32,
        /// Relative Read Throughput, less is more; five bits.
        pub rrt: u8,
        /// Relative Read Latency, less is less; five bits.
        pub rrl: u8,
        /// Relative Write Throughput, less is more; five bits.
        pub rwt: u8,
        /// Relative Write Latency, less is less; five bits.
        pub rwl: u8,
        /// Idle Power, in units of `ips`.
        pub idlp: u16,
        /// Idle Power Scale.
        pub ips: PowerScale,
        /// Reserved.
        pub reserved19: u8,
        /// Active Power, in units of `apws`.
        pub actp: u16,
        /// Active Power Workload in bits 2:0 and Active Power Scale in bits 7:6.
        pub apws: PowerScale,
        /// Emergency Power Fail Recovery Time (Base 2.1).
        pub epfrt: u8,
        /// Forced Quiescence Vault Time (Base 2.1).
        pub fqvt: u8,
        /// Emergency Power Fail Vault Time (Base 2.1).
        pub epfvt: u8,
        /// Scales of EPFRT in bits 3:0 and of FQVT in bits 7:4 (Base 2.1).
        pub epfrts_fqvts: u8,
        /// Scale of EPFVT in bits 3:0 (Base 2.1).
        pub epfvts: u8,
        /// Reserved.
        pub reserved28: u32,
    }
}

/// Flags of a power state.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PowerFlags {
    /// Max Power Scale: MP is in units of 0.1 mW rather than of 10 mW.
    pub mxps: bool,
    /// Non-Operational State: no I/O is processed in it.
    pub nops: bool,
    #[bits(6)]
    __: u8,
}

/// Scale (and, for the active power, workload) of a power value.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PowerScale {
    /// Active Power Workload; reserved for the idle power.
    #[bits(3)]
    pub workload: u8,
    #[bits(3)]
    __: u8,
    /// Scale: 0 not reported, 1 in units of 0.1 mW, 2 in units of 10 mW.
    #[bits(2)]
    pub scale: u8,
}

assert_layout!(PowerState, size = 32, flags @ 3, enlat @ 4, rrt @ 12, idlp @ 16, ips @ 18, actp @ 20, apws @ 22);
assert_layout!(
    IdentifyController, size = 4096, sn @ 4, mn @ 24, fr @ 64, rab @ 72, ieee @ 73, cmic @ 76, mdts @ 77, cntlid @ 78,
    ver @ 80, rtd3r @ 84, oaes @ 92, ctratt @ 96, rrls @ 100, nssl @ 104, cntrltype @ 111, fguid @ 112, crdt1 @ 128,
    crcap @ 134, nvmsr @ 253, oacs @ 256, acl @ 258, aerl @ 259, frmw @ 260, lpa @ 261, elpe @ 262, npss @ 263,
    apsta @ 265, wctemp @ 266, mtfa @ 270, hmpre @ 272, tnvmcap @ 280, unvmcap @ 296, rpmbs @ 312, edstt @ 316,
    fwug @ 319, kas @ 320, hctma @ 322, sanicap @ 328, hmminds @ 332, nsetidmax @ 338, anatt @ 342, anagrpmax @ 344,
    pels @ 352, domainid @ 356, mptfawr @ 360, megcap @ 368, tmpthha @ 384, cqt @ 386, sqes @ 512, cqes @ 513,
    maxcmd @ 514, nn @ 516, oncs @ 520, fuses @ 522, fna @ 524, vwc @ 525, awun @ 526, awupf @ 528, icsvscc @ 530,
    nwpc @ 531, acwu @ 532, cdfs @ 534, sgls @ 536, mnan @ 540, maxdna @ 544, maxcna @ 560, oaqd @ 564, rhiri @ 568,
    trattr @ 576, mcdqpc @ 586, subnqn @ 768, ioccsz @ 1792, ofcs @ 1804, psd @ 2048, vendor @ 3072,
);

impl IdentifyController {
    /// The most data a command may move, in bytes, for a controller of this smallest page; `None` is no limit.
    #[must_use]
    pub const fn max_transfer_bytes(&self, min_page_size: usize) -> Option<u64> {
        if self.mdts == 0 {
            return None;
        }
        match 1u64.checked_shl(self.mdts as u32) {
            Some(pages) => pages.checked_mul(min_page_size as u64),
            None => None,
        }
    }

    /// How many Asynchronous Event Requests can be outstanding.
    #[must_use]
    pub const fn max_async_events(&self) -> u16 {
        (self.aerl as u16).saturating_add(1)
    }

    /// How many entries the Error Information log page has.
    #[must_use]
    pub const fn error_log_entries(&self) -> u16 {
        (self.elpe as u16).saturating_add(1)
    }

    /// The power states that are valid.
    #[must_use]
    pub fn power_states(&self) -> &[PowerState] {
        self.psd.get(..=usize::from(self.npss)).unwrap_or(&self.psd)
    }
}
