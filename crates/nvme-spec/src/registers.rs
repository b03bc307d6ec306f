//! Controller registers of the memory-based transport (NVMe Base 2.0, "Controller Properties").

mod cmb;

pub use cmb::{Cmbloc, Cmbmsc, Cmbsz};

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Offsets in BAR0, in bytes (figure "Property Definition").
pub mod offset {
    /// Controller Capabilities, 64 bits: [`Cap`](super::Cap).
    pub const CAP: usize = 0x00;
    /// Version, 32 bits: [`Version`](super::Version).
    pub const VS: usize = 0x08;
    /// Interrupt Mask Set, 32 bits. Not to be touched when MSI-X is in use.
    pub const INTMS: usize = 0x0c;
    /// Interrupt Mask Clear, 32 bits. Not to be touched when MSI-X is in use.
    pub const INTMC: usize = 0x10;
    /// Controller Configuration, 32 bits: [`Cc`](super::Cc).
    pub const CC: usize = 0x14;
    /// Controller Status, 32 bits: [`Csts`](super::Csts).
    pub const CSTS: usize = 0x1c;
    /// NVM Subsystem Reset, 32 bits; [`NSSR_MAGIC`](super::NSSR_MAGIC) starts one.
    pub const NSSR: usize = 0x20;
    /// Admin Queue Attributes, 32 bits: [`Aqa`](super::Aqa).
    pub const AQA: usize = 0x24;
    /// Admin Submission Queue Base Address, 64 bits, 4 KiB aligned.
    pub const ASQ: usize = 0x28;
    /// Admin Completion Queue Base Address, 64 bits, 4 KiB aligned.
    pub const ACQ: usize = 0x30;
    /// Controller Memory Buffer Location, 32 bits: [`Cmbloc`](super::Cmbloc).
    pub const CMBLOC: usize = 0x38;
    /// Controller Memory Buffer Size, 32 bits: [`Cmbsz`](super::Cmbsz).
    pub const CMBSZ: usize = 0x3c;
    /// Boot Partition Information, 32 bits.
    pub const BPINFO: usize = 0x40;
    /// Boot Partition Read Select, 32 bits.
    pub const BPRSEL: usize = 0x44;
    /// Boot Partition Memory Buffer Location, 64 bits.
    pub const BPMBL: usize = 0x48;
    /// Controller Memory Buffer Memory Space Control, 64 bits: [`Cmbmsc`](super::Cmbmsc).
    pub const CMBMSC: usize = 0x50;
    /// Controller Memory Buffer Status, 32 bits.
    pub const CMBSTS: usize = 0x58;
    /// Controller Memory Buffer Elasticity Buffer Size, 32 bits.
    pub const CMBEBS: usize = 0x5c;
    /// Controller Memory Buffer Sustained Write Throughput, 32 bits.
    pub const CMBSWTP: usize = 0x60;
    /// NVM Subsystem Shutdown, 32 bits.
    pub const NSSD: usize = 0x64;
    /// Controller Ready Timeouts, 32 bits: [`Crto`](super::Crto).
    pub const CRTO: usize = 0x68;
    /// Persistent Memory Region Capabilities, 32 bits.
    pub const PMRCAP: usize = 0xe00;
    /// Persistent Memory Region Control, 32 bits.
    pub const PMRCTL: usize = 0xe04;
    /// Persistent Memory Region Status, 32 bits.
    pub const PMRSTS: usize = 0xe08;
    /// Persistent Memory Region Elasticity Buffer Size, 32 bits.
    pub const PMREBS: usize = 0xe0c;
    /// Persistent Memory Region Sustained Write Throughput, 32 bits.
    pub const PMRSWTP: usize = 0xe10;
    /// Persistent Memory Region Controller Memory Space Control, lower 32 bits.
    pub const PMRMSCL: usize = 0xe14;
    /// Persistent Memory Region Controller Memory Space Control, upper 32 bits.
    pub const PMRMSCU: usize = 0xe18;
    /// The first doorbell: the admin submission queue's tail.
    pub const DOORBELLS: usize = 0x1000;
}

/// What is written to NSSR to reset the NVM subsystem: "NVMe" in ASCII.
pub const NSSR_MAGIC: u32 = 0x4e56_4d65;

/// What is written to NSSD to shut the NVM subsystem down normally: "Nrml" in ASCII.
pub const NSSD_NORMAL: u32 = 0x4e72_6d6c;

/// What is written to NSSD to shut the NVM subsystem down abruptly: "Abrp" in ASCII.
pub const NSSD_ABRUPT: u32 = 0x4162_7270;

/// Offset in BAR0 of a submission queue's tail doorbell, in bytes (NVMe over PCIe Transport, "SQyTDBL").
///
/// `dstrd` is [`Cap::dstrd`]; only its four bits count.
#[must_use]
pub const fn sq_tail_doorbell(qid: u16, dstrd: u8) -> usize {
    doorbell((qid as usize).saturating_mul(2), dstrd)
}

/// Offset in BAR0 of a completion queue's head doorbell, in bytes (NVMe over PCIe Transport, "CQyHDBL").
///
/// `dstrd` is [`Cap::dstrd`]; only its four bits count.
#[must_use]
pub const fn cq_head_doorbell(qid: u16, dstrd: u8) -> usize {
    doorbell((qid as usize).saturating_mul(2).saturating_add(1), dstrd)
}

/// The offset of one of all doorbells, of which each queue has two.
const fn doorbell(index: usize, dstrd: u8) -> usize {
    offset::DOORBELLS.saturating_add(index.saturating_mul(doorbell_stride(dstrd)))
}

/// Distance between two doorbells in bytes: 2 ^ (2 + DSTRD), with DSTRD the four bits of [`Cap::dstrd`].
#[must_use]
pub const fn doorbell_stride(dstrd: u8) -> usize {
    4 << (dstrd & 0xf)
}

/// Controller Capabilities ("Offset 0h: CAP").
#[bitfield(u64)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cap {
    /// Maximum Queue Entries Supported: entries of the largest I/O queue; 0's based.
    pub mqes: u16,
    /// Contiguous Queues Required.
    pub cqr: bool,
    /// Arbitration Mechanism Supported: bit 0 weighted round robin with urgent priority, bit 1 vendor specific.
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    __: u8,
    /// Timeout for ready and for disable, in units of 500 ms; see [`Crto`] for the longer one.
    pub to: u8,
    /// Doorbell Stride: 2 ^ (2 + DSTRD) bytes.
    #[bits(4)]
    pub dstrd: u8,
    /// NVM Subsystem Reset Supported.
    pub nssrs: bool,
    /// Command Sets Supported: [`Cap::CSS_NVM`], [`Cap::CSS_IOCS`], [`Cap::CSS_NO_IO`].
    pub css: u8,
    /// Boot Partition Support.
    pub bps: bool,
    /// Controller Power Scope: 0 not reported, 1 controller, 2 domain, 3 NVM subsystem.
    #[bits(2)]
    pub cps: u8,
    /// Memory Page Size Minimum: 2 ^ (12 + MPSMIN) bytes.
    #[bits(4)]
    pub mpsmin: u8,
    /// Memory Page Size Maximum: 2 ^ (12 + MPSMAX) bytes.
    #[bits(4)]
    pub mpsmax: u8,
    /// Persistent Memory Region Supported.
    pub pmrs: bool,
    /// Controller Memory Buffer Supported.
    pub cmbs: bool,
    /// NVM Subsystem Shutdown Supported.
    pub nsss: bool,
    /// Controller Ready Modes Supported: bit 0 CRWMS (with media), bit 1 CRIMS (independent of media).
    #[bits(2)]
    pub crms: u8,
    /// NVM Subsystem Shutdown Enhancements Supported (Base 2.1).
    pub nsses: bool,
    #[bits(2)]
    __: u8,
}

impl Cap {
    /// CSS bit: the NVM command set.
    pub const CSS_NVM: u8 = 1 << 0;
    /// CSS bit: one or more I/O command sets, selected with Identify and the I/O Command Set Profile feature.
    pub const CSS_IOCS: u8 = 1 << 6;
    /// CSS bit: no I/O command set, the admin queue only.
    pub const CSS_NO_IO: u8 = 1 << 7;
    /// CRMS bit: Controller Ready With Media mode.
    pub const CRMS_WITH_MEDIA: u8 = 1 << 0;
    /// CRMS bit: Controller Ready Independent of Media mode.
    pub const CRMS_INDEPENDENT_OF_MEDIA: u8 = 1 << 1;

    /// Entries of the largest I/O queue: 1 to 65,536 (2 is the least the specification allows).
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        (self.mqes() as u32).saturating_add(1)
    }

    /// The smallest memory page, in bytes.
    #[must_use]
    pub const fn min_page_size(self) -> usize {
        4096_usize.wrapping_shl(self.mpsmin() as u32)
    }

    /// The largest memory page, in bytes.
    #[must_use]
    pub const fn max_page_size(self) -> usize {
        4096_usize.wrapping_shl(self.mpsmax() as u32)
    }

    /// The longest wait for CSTS.RDY to follow CC.EN that this register promises, in milliseconds.
    #[must_use]
    pub const fn timeout_ms(self) -> u32 {
        (self.to() as u32).saturating_mul(500)
    }
}

/// Version ("Offset 8h: VS"); also the VER field of [`IdentifyController`](crate::identify::IdentifyController).
#[bitfield(u32)]
#[derive(PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Version {
    /// Tertiary Version.
    pub tertiary: u8,
    /// Minor Version.
    pub minor: u8,
    /// Major Version.
    pub major: u16,
}

impl Version {
    /// NVMe 1.0.
    pub const V1_0: Self = Self::of(1, 0, 0);
    /// NVMe 1.1.
    pub const V1_1: Self = Self::of(1, 1, 0);
    /// NVMe 1.2.
    pub const V1_2: Self = Self::of(1, 2, 0);
    /// NVMe 1.3.
    pub const V1_3: Self = Self::of(1, 3, 0);
    /// NVMe 1.4.
    pub const V1_4: Self = Self::of(1, 4, 0);
    /// NVMe 2.0.
    pub const V2_0: Self = Self::of(2, 0, 0);

    /// A version of its three parts. Versions compare in their order.
    #[must_use]
    pub const fn of(major: u16, minor: u8, tertiary: u8) -> Self {
        Self::new().with_major(major).with_minor(minor).with_tertiary(tertiary)
    }
}

impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.major(), self.minor(), self.tertiary())
    }
}

/// Controller Configuration ("Offset 14h: CC").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cc {
    /// Enable.
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// I/O Command Set Selected: [`Cc::CSS_NVM`], [`Cc::CSS_ALL`], [`Cc::CSS_ADMIN_ONLY`].
    #[bits(3)]
    pub css: u8,
    /// Memory Page Size: 2 ^ (12 + MPS) bytes.
    #[bits(4)]
    pub mps: u8,
    /// Arbitration Mechanism Selected: 0 round robin, 1 weighted round robin with urgent, 7 vendor specific.
    #[bits(3)]
    pub ams: u8,
    /// Shutdown Notification: [`Cc::SHN_NONE`], [`Cc::SHN_NORMAL`], [`Cc::SHN_ABRUPT`].
    #[bits(2)]
    pub shn: u8,
    /// I/O Submission Queue Entry Size: 2 ^ IOSQES bytes (6 for the NVM command set).
    #[bits(4)]
    pub iosqes: u8,
    /// I/O Completion Queue Entry Size: 2 ^ IOCQES bytes (4 for the NVM command set).
    #[bits(4)]
    pub iocqes: u8,
    /// Controller Ready Independent of Media Enable.
    pub crime: bool,
    #[bits(7)]
    __: u8,
}

impl Cc {
    /// CSS: the NVM command set.
    pub const CSS_NVM: u8 = 0b000;
    /// CSS: all supported I/O command sets.
    pub const CSS_ALL: u8 = 0b110;
    /// CSS: the admin command set only.
    pub const CSS_ADMIN_ONLY: u8 = 0b111;
    /// SHN: no notification.
    pub const SHN_NONE: u8 = 0b00;
    /// SHN: normal shutdown.
    pub const SHN_NORMAL: u8 = 0b01;
    /// SHN: abrupt shutdown.
    pub const SHN_ABRUPT: u8 = 0b10;

    /// The memory page in use, in bytes.
    #[must_use]
    pub const fn page_size(self) -> usize {
        4096_usize.wrapping_shl(self.mps() as u32)
    }
}

/// Controller Status ("Offset 1Ch: CSTS").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Csts {
    /// Ready.
    pub rdy: bool,
    /// Controller Fatal Status.
    pub cfs: bool,
    /// Shutdown Status: [`Csts::SHST_NONE`], [`Csts::SHST_OCCURRING`], [`Csts::SHST_COMPLETE`].
    #[bits(2)]
    pub shst: u8,
    /// NVM Subsystem Reset Occurred; written as 1 to clear.
    pub nssro: bool,
    /// Processing Paused.
    pub pp: bool,
    /// Shutdown Type: whether SHST reports an NVM subsystem shutdown rather than a controller's.
    pub st: bool,
    #[bits(25)]
    __: u32,
}

impl Csts {
    /// SHST: normal operation.
    pub const SHST_NONE: u8 = 0b00;
    /// SHST: shutdown is being processed.
    pub const SHST_OCCURRING: u8 = 0b01;
    /// SHST: shutdown is complete.
    pub const SHST_COMPLETE: u8 = 0b10;
    /// What a register of a device reads as that is no longer there.
    pub const GONE: Self = Self::from_bits(u32::MAX);
}

/// Admin Queue Attributes ("Offset 24h: AQA").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Aqa {
    /// Admin Submission Queue Size in entries; 0's based.
    #[bits(12)]
    pub asqs: u16,
    #[bits(4)]
    __: u8,
    /// Admin Completion Queue Size in entries; 0's based.
    #[bits(12)]
    pub acqs: u16,
    #[bits(4)]
    __: u8,
}

/// Controller Ready Timeouts ("Offset 68h: CRTO").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Crto {
    /// Controller Ready With Media Timeout, in units of 500 ms.
    pub crwmt: u16,
    /// Controller Ready Independent of Media Timeout, in units of 500 ms.
    pub crimt: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbells_alternate() {
        assert_eq!(sq_tail_doorbell(0, 0), 0x1000);
        assert_eq!(cq_head_doorbell(0, 0), 0x1004);
        assert_eq!(sq_tail_doorbell(3, 0), 0x1018);
        assert_eq!(cq_head_doorbell(3, 2), 0x1000 + 7 * 16);
        assert_eq!(cq_head_doorbell(u16::MAX, 0), 0x1000 + 0x1ffff * 4);
    }

    #[test]
    fn fields_are_where_the_figures_put_them() {
        assert_eq!(Cap::new().with_css(Cap::CSS_NVM).into_bits(), 1 << 37);
        assert_eq!(Cap::new().with_mpsmin(1).with_mpsmax(1).into_bits(), (1 << 48) | (1 << 52));
        assert_eq!(Cap::new().with_nsss(true).with_crms(3).into_bits(), 0b111 << 58);
        let cc = Cc::new().with_en(true).with_iosqes(6).with_iocqes(4).with_shn(Cc::SHN_ABRUPT).with_css(Cc::CSS_ALL);
        assert_eq!(cc.into_bits(), 0x0046_8061);
        assert_eq!(Aqa::new().with_asqs(31).with_acqs(63).into_bits(), 0x003f_001f);
        assert!(Version::from_bits(0x0001_0400) == Version::V1_4 && Version::V1_4 < Version::V2_0);
    }
}
