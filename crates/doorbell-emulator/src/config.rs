//! What a controller can do, as data: plain structures whose defaults are a well-equipped NVMe 2.0 controller, so that a
//! test says in a line or two in which way its device is odd.

use std::time::Duration;

use nvme_spec::identify::Oncs;
use nvme_spec::registers::Version;

use crate::fault::FaultPlan;

/// The most I/O queue pairs a controller can have.
pub const MAX_QUEUE_PAIRS: u16 = 64;
/// The most entries an I/O queue can have: room for 4096 commands, since a ring is never full.
pub const MAX_QUEUE_ENTRIES: u32 = 4097;
/// The largest memory page as MPSMAX counts it: 2 ^ (12 + 4) bytes, 64 KiB.
pub const MAX_PAGE_SHIFT: u8 = 4;

/// What a controller can do. Fields that NVMe counts from 0 are counted so here, and are named as in the specification.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// VS: the version of NVMe. Commands, identify structures and log pages that came later are refused. NVMe 2.0.
    pub version: Version,
    /// PCI vendor and subsystem vendor, VID and SSVID. 1AF4h.
    pub vendor_id: u16,
    /// IEEE OUI, most significant byte first. 525400h.
    pub ieee_oui: [u8; 3],
    /// FR: the firmware revision. `1.0`.
    pub firmware: String,
    /// I/O queue pairs, 1 to 64. 64.
    pub queue_pairs: u16,
    /// CAP.MQES: entries of the largest I/O queue, less one: 1 to 4096. 4095.
    pub mqes: u16,
    /// CAP.DSTRD: doorbells are 2 ^ (2 + DSTRD) bytes apart, 0 to 8. 0; 4 is a stride of 64 bytes.
    pub dstrd: u8,
    /// CAP.MPSMIN: the smallest memory page is 2 ^ (12 + MPSMIN) bytes, 0 to 4. 0.
    pub mpsmin: u8,
    /// CAP.MPSMAX: the largest memory page, from MPSMIN to 4. 4; raised to MPSMIN where that is more.
    pub mpsmax: u8,
    /// MDTS: a command moves at most 2 ^ MDTS smallest memory pages; 0 is no limit. 9, that is 2 MiB with 4 KiB pages.
    pub mdts: u8,
    /// SGL support for I/O commands. Any alignment.
    pub sgl: SglSupport,
    /// Interrupt vectors; 0 is a device that can only be polled. 65.
    pub vectors: u16,
    /// What carries interrupts. MSI-X.
    pub interrupts: InterruptMode,
    /// Time from CC.EN = 1 to CSTS.RDY = 1. 0.
    pub ready_after: Duration,
    /// Time from CC.EN = 0 to CSTS.RDY = 0. 0.
    pub disable_after: Duration,
    /// Time a shutdown takes. 0.
    pub shutdown_after: Duration,
    /// CAP.TO: what the controller promises for getting ready, in units of 500 ms. 20.
    pub to: u8,
    /// CRTO.CRWMT: the same promise of NVMe 2.0, in units of 500 ms. As CAP.TO.
    pub crwmt: Option<u16>,
    /// RTD3E: how long a shutdown may take, in microseconds; 0 is not reported. 1 000 000.
    pub rtd3e: u32,
    /// CRDT1 to CRDT3: how long a host that enables it (ACRE) waits before a retry, in units of 100 ms, for each value
    /// of a status's CRD. 0, 0, 0.
    pub crdt: [u16; 3],
    /// CAP.NSSRS: a reset of the NVM subsystem through NSSR is supported. Yes.
    pub nssrs: bool,
    /// AERL: Asynchronous Event Requests outstanding, less one. 3.
    pub aerl: u8,
    /// ACL: Abort commands outstanding, less one. 3.
    pub acl: u8,
    /// ELPE: entries of the error log, less one. 63.
    pub elpe: u8,
    /// ONCS: optional I/O commands, each of which can be switched off. All that the emulator has.
    pub oncs: Oncs,
    /// OACS: Format NVM. Yes.
    pub format: bool,
    /// OACS: Doorbell Buffer Config, that is, shadow doorbells. Yes.
    pub doorbell_buffer_config: bool,
    /// FUSES: fused compare and write. Yes.
    pub compare_and_write: bool,
    /// VWC: a volatile write cache is present. Yes.
    pub volatile_write_cache: bool,
    /// VWC: Flush with NSID FFFFFFFFh flushes all namespaces; otherwise it is refused. Yes.
    pub flush_all: bool,
    /// CTRATT: 128-bit host identifiers. Yes.
    pub host_id_128: bool,
    /// WZSL: most that Write Zeroes writes, as MDTS; 0 is no limit. 0.
    pub wzsl: u8,
    /// WUSL: most that Write Uncorrectable marks, as MDTS; 0 is no limit. 0.
    pub wusl: u8,
    /// VSL: most that Verify reads, as MDTS; 0 is no limit. 0.
    pub vsl: u8,
    /// DMRL: most ranges of a Dataset Management command; 0 is the command's own limit of 256. 0.
    pub dmrl: u8,
    /// DMRSL: most blocks in one range of a Dataset Management command; 0 is no limit. 0.
    pub dmrsl: u32,
    /// DMSL: most blocks in all ranges of a Dataset Management command; 0 is no limit. 0.
    pub dmsl: u64,
    /// AWUN: blocks written atomically in normal operation, less one. 65535: every write is atomic here.
    pub awun: u16,
    /// AWUPF: blocks written atomically through a power failure, less one. 0.
    pub awupf: u16,
    /// ACWU: blocks of a fused compare and write, less one. 127.
    pub acwu: u16,
    /// CNS 06h of the NVM command set (WZSL, DMRL and so on): without it the command is refused, as old controllers do.
    /// Yes.
    pub identify_nvm_controller: bool,
    /// CNS 03h, the list of namespace identifiers. In full.
    pub descriptors: Descriptors,
    /// LPA: Commands Supported and Effects log page. Yes.
    pub effects_log: bool,
    /// LPA: a log page can be read from an offset, and by more than 4096 dwords. Yes.
    pub extended_log: bool,
    /// OAES: notices of changed namespaces. Yes.
    pub namespace_notices: bool,
    /// Time from taking an I/O command to completing it; none is at once. None.
    pub latency: Option<Duration>,
    /// When to look again for what other controllers and the management interface did, without being asked. `None`
    /// leaves it to who runs the controller; [`emulated`](crate::emulated) sets 10 ms on a controller with a thread.
    pub housekeeping: Option<Duration>,
    /// What goes wrong. Nothing.
    pub faults: FaultPlan,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            version: Version::V2_0,
            vendor_id: 0x1af4,
            ieee_oui: [0x52, 0x54, 0x00],
            firmware: "1.0".into(),
            queue_pairs: MAX_QUEUE_PAIRS,
            mqes: 4095,
            dstrd: 0,
            mpsmin: 0,
            mpsmax: MAX_PAGE_SHIFT,
            mdts: 9,
            sgl: SglSupport::default(),
            vectors: MAX_QUEUE_PAIRS + 1,
            interrupts: InterruptMode::MsiX,
            ready_after: Duration::ZERO,
            disable_after: Duration::ZERO,
            shutdown_after: Duration::ZERO,
            to: 20,
            crwmt: None,
            rtd3e: 1_000_000,
            crdt: [0; 3],
            nssrs: true,
            aerl: 3,
            acl: 3,
            elpe: 63,
            oncs: Oncs::new()
                .with_compare(true)
                .with_write_uncorrectable(true)
                .with_dataset_management(true)
                .with_write_zeroes(true)
                .with_save_select(true)
                .with_reservations(true)
                .with_timestamp(true)
                .with_verify(true)
                .with_copy(true),
            format: true,
            doorbell_buffer_config: true,
            compare_and_write: true,
            volatile_write_cache: true,
            flush_all: true,
            host_id_128: true,
            wzsl: 0,
            wusl: 0,
            vsl: 0,
            dmrl: 0,
            dmrsl: 0,
            dmsl: 0,
            awun: u16::MAX,
            awupf: 0,
            acwu: 127,
            identify_nvm_controller: true,
            descriptors: Descriptors::Full,
            effects_log: true,
            extended_log: true,
            namespace_notices: true,
            latency: None,
            housekeeping: None,
            faults: FaultPlan::default(),
        }
    }
}

impl ControllerConfig {
    /// An NVMe 1.0 controller: no active namespace list, no descriptors, no CNS 06h, no SGLs, no optional command but
    /// Compare, Write Uncorrectable and Dataset Management.
    pub fn nvme_1_0() -> Self {
        Self {
            version: Version::V1_0,
            sgl: SglSupport::None,
            oncs: Oncs::new().with_compare(true).with_write_uncorrectable(true).with_dataset_management(true),
            doorbell_buffer_config: false,
            nssrs: false,
            flush_all: false,
            host_id_128: false,
            identify_nvm_controller: false,
            descriptors: Descriptors::Refused,
            effects_log: false,
            extended_log: false,
            namespace_notices: false,
            rtd3e: 0,
            ..Self::default()
        }
    }

    /// Brings every field into the range that its documentation gives.
    pub(crate) fn normalised(mut self) -> Self {
        self.queue_pairs = self.queue_pairs.clamp(1, MAX_QUEUE_PAIRS);
        self.mqes = self.mqes.clamp(1, (MAX_QUEUE_ENTRIES - 1) as u16);
        self.dstrd = self.dstrd.min(8);
        self.mpsmin = self.mpsmin.min(MAX_PAGE_SHIFT);
        self.mpsmax = self.mpsmax.clamp(self.mpsmin, MAX_PAGE_SHIFT);
        self.vectors = match self.interrupts {
            InterruptMode::MsiX => self.vectors.min(2048),
            InterruptMode::Msi => self.vectors.min(32),
            InterruptMode::Pin => self.vectors.min(1),
        };
        self
    }

    /// Bytes of the largest transfer by MDTS; `u64::MAX` without a limit.
    pub(crate) fn max_transfer(&self) -> u64 {
        self.size_limit(self.mdts)
    }

    /// A limit in the form of MDTS, in bytes.
    pub(crate) fn size_limit(&self, exponent: u8) -> u64 {
        let shift = u32::from(self.mpsmin).saturating_add(12).saturating_add(u32::from(exponent));
        if exponent == 0 || shift > 63 { u64::MAX } else { 1 << shift }
    }
}

/// Which SGLs I/O commands can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SglSupport {
    /// None: PRPs only.
    None,
    /// Data blocks at any address and of any length, bit buckets, an SGL for metadata, and lists longer than the data.
    #[default]
    Bytes,
    /// Data blocks whose address and length are multiples of 4; no bit buckets, and no lists longer than the data.
    Dwords,
}

impl SglSupport {
    pub(crate) fn is_supported(self) -> bool {
        self != Self::None
    }

    pub(crate) fn dword_granular(self) -> bool {
        self == Self::Dwords
    }

    pub(crate) fn bit_bucket(self) -> bool {
        self == Self::Bytes
    }

    pub(crate) fn longer_than_data(self) -> bool {
        self == Self::Bytes
    }
}

/// What carries a controller's interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InterruptMode {
    /// MSI-X: masked in its own table; INTMS and INTMC do nothing.
    #[default]
    MsiX,
    /// MSI, up to 32 vectors, masked by INTMS and INTMC.
    Msi,
    /// One pin for all completion queues, which stays asserted while any has entries that the host has not taken,
    /// masked by INTMS and INTMC.
    Pin,
}

/// What a controller answers to Identify with CNS 03h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Descriptors {
    /// All identifiers the namespace has.
    #[default]
    Full,
    /// A list with nothing in it.
    Empty,
    /// Invalid Field in Command.
    Refused,
}
