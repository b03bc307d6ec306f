//! The command dwords of the admin commands (NVMe Base 2.0, "Admin Command Set").
//!
//! Each bit field is named for its command and dword; what is a plain number needs none. Dwords that a command does not
//! mention are 0.

use crate::command::{Command, DataPointer};
use crate::feature::FeatureId;
use crate::identify::cns::Cns;
use crate::log::LogId;
use crate::opcode::AdminOpcode;
use bitfield_struct::bitfield;

/// Dword 10 of Create I/O Completion Queue and Create I/O Submission Queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateQueueCdw10 {
    /// Queue Identifier.
    pub qid: u16,
    /// Queue Size in entries; 0's based.
    pub qsize: u16,
}

/// Dword 11 of Create I/O Completion Queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateCqCdw11 {
    /// Physically Contiguous: PRP1 is the queue rather than a PRP list.
    pub pc: bool,
    /// Interrupts Enabled.
    pub ien: bool,
    #[bits(14)]
    __: u16,
    /// Interrupt Vector.
    pub iv: u16,
}

/// Dword 11 of Create I/O Submission Queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw11 {
    /// Physically Contiguous: PRP1 is the queue rather than a PRP list.
    pub pc: bool,
    /// Queue Priority, for weighted round robin: 0 urgent, 1 high, 2 medium, 3 low.
    #[bits(2)]
    pub qprio: u8,
    #[bits(13)]
    __: u16,
    /// Completion Queue Identifier.
    pub cqid: u16,
}

/// Dword 12 of Create I/O Submission Queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CreateSqCdw12 {
    /// NVM Set Identifier; 0 none.
    pub nvmsetid: u16,
    __: u16,
}

/// Dword 10 of Delete I/O Completion Queue and Delete I/O Submission Queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeleteQueueCdw10 {
    /// Queue Identifier.
    pub qid: u16,
    __: u16,
}

/// Dword 10 of Identify.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw10 {
    /// Controller or Namespace Structure: what is asked for.
    #[bits(8)]
    pub cns: Cns,
    __: u8,
    /// Controller Identifier, for the lists of controllers.
    pub cntid: u16,
}

/// Dword 11 of Identify.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IdentifyCdw11 {
    /// CNS Specific Identifier: an NVM set, domain or endurance group.
    pub cnssid: u16,
    __: u8,
    /// Command Set Identifier: [`csi`](crate::identify::cns::csi).
    pub csi: u8,
}

/// Dword 10 of Get Log Page.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw10 {
    /// Log Page Identifier.
    #[bits(8)]
    pub lid: LogId,
    /// Log Specific Field (four bits before 2.0).
    #[bits(7)]
    pub lsp: u8,
    /// Retain Asynchronous Event: reading does not re-arm the event.
    pub rae: bool,
    /// Number of Dwords, lower half; 0's based.
    pub numdl: u16,
}

/// Dword 11 of Get Log Page.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw11 {
    /// Number of Dwords, upper half; only where the LPA field reports extended data.
    pub numdu: u16,
    /// Log Specific Identifier: an endurance group or NVM set.
    pub lsi: u16,
}

/// Dword 14 of Get Log Page; dwords 12 and 13 are the log page offset in bytes (or an index, where OT is set).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetLogPageCdw14 {
    /// UUID Index.
    #[bits(7)]
    pub uuid: u8,
    #[bits(16)]
    __: u16,
    /// Offset Type: the offset counts entries of a list rather than bytes.
    pub ot: bool,
    /// Command Set Identifier: [`csi`](crate::identify::cns::csi).
    pub csi: u8,
}

/// Dword 10 of Get Features.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GetFeaturesCdw10 {
    /// Feature Identifier.
    #[bits(8)]
    pub fid: FeatureId,
    /// Select: [`GetFeaturesCdw10::SEL_CURRENT`] and what follows.
    #[bits(3)]
    pub sel: u8,
    #[bits(21)]
    __: u32,
}

impl GetFeaturesCdw10 {
    /// SEL: the current value.
    pub const SEL_CURRENT: u8 = 0;
    /// SEL: the default value.
    pub const SEL_DEFAULT: u8 = 1;
    /// SEL: the saved value.
    pub const SEL_SAVED: u8 = 2;
    /// SEL: [`SupportedCapabilities`](crate::feature::SupportedCapabilities) instead of a value.
    pub const SEL_SUPPORTED: u8 = 3;
}

/// Dword 10 of Set Features.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SetFeaturesCdw10 {
    /// Feature Identifier.
    #[bits(8)]
    pub fid: FeatureId,
    #[bits(23)]
    __: u32,
    /// Save: the value persists through power cycles and resets.
    pub sv: bool,
}

/// Dword 10 of Abort.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortCdw10 {
    /// Submission Queue Identifier of the command to abort.
    pub sqid: u16,
    /// Command Identifier of the command to abort.
    pub cid: u16,
}

/// Dword 0 of Abort's completion.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AbortResult {
    /// The command was *not* aborted.
    pub not_aborted: bool,
    #[bits(31)]
    __: u32,
}

/// Dword 10 of Format NVM.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FormatNvmCdw10 {
    /// LBA Format, lower four bits.
    #[bits(4)]
    pub lbafl: u8,
    /// Metadata Settings: metadata is transferred at the end of each block's data.
    pub mset: bool,
    /// Protection Information type; [`PiType`](crate::identify::PiType).
    #[bits(3)]
    pub pi: crate::identify::PiType,
    /// Protection Information Location: in the first bytes of metadata.
    pub pil: bool,
    /// Secure Erase Settings: 0 none, 1 user data, 2 cryptographic.
    #[bits(3)]
    pub ses: u8,
    /// LBA Format, upper two bits; only where the host has enabled extended LBA formats.
    #[bits(2)]
    pub lbafu: u8,
    #[bits(18)]
    __: u32,
}

/// Dword 10 of Namespace Management.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NamespaceManagementCdw10 {
    /// Select: 0 create, 1 delete.
    #[bits(4)]
    pub sel: u8,
    #[bits(28)]
    __: u32,
}

/// Dword 10 of Namespace Attachment.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct NamespaceAttachmentCdw10 {
    /// Select: 0 attach, 1 detach.
    #[bits(4)]
    pub sel: u8,
    #[bits(28)]
    __: u32,
}

/// Dword 10 of Firmware Commit.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FirmwareCommitCdw10 {
    /// Firmware Slot; 0 lets the controller choose.
    #[bits(3)]
    pub fs: u8,
    /// Commit Action: 0 replace, 1 replace and activate at reset, 2 activate at reset, 3 activate now.
    #[bits(3)]
    pub ca: u8,
    #[bits(25)]
    __: u32,
    /// Boot Partition ID.
    pub bpid: bool,
}

/// Dword 10 of Device Self-test.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DeviceSelfTestCdw10 {
    /// Self-test Code: 1 short, 2 extended, Fh abort.
    #[bits(4)]
    pub stc: u8,
    #[bits(28)]
    __: u32,
}

/// Dword 10 of Sanitize; dword 11 is the pattern of an overwrite.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct SanitizeCdw10 {
    /// Sanitize Action: 1 exit failure mode, 2 block erase, 3 overwrite, 4 crypto erase.
    #[bits(3)]
    pub sanact: u8,
    /// Allow Unrestricted Sanitize Exit.
    pub ause: bool,
    /// Overwrite Pass Count; 0 is 16.
    #[bits(4)]
    pub owpass: u8,
    /// Overwrite Invert Pattern Between Passes.
    pub oipbp: bool,
    /// No-Deallocate After Sanitize.
    pub ndas: bool,
    #[bits(22)]
    __: u32,
}

/// Create I/O Completion Queue, physically contiguous, of `entries` entries (2 to 65,536), with `vector` or no
/// interrupt.
#[must_use]
pub fn create_io_cq(qid: u16, entries: u32, address: u64, vector: Option<u16>) -> Command {
    let cdw11 = CreateCqCdw11::new().with_pc(true).with_ien(vector.is_some()).with_iv(vector.unwrap_or_default());
    Command {
        dptr: DataPointer::prp(address, 0),
        cdw10: CreateQueueCdw10::new().with_qid(qid).with_qsize(zeroes_based(entries)).into(),
        cdw11: cdw11.into(),
        ..AdminOpcode::CREATE_IO_CQ.command()
    }
}

/// Create I/O Submission Queue, physically contiguous, of `entries` entries (2 to 65,536).
#[must_use]
pub fn create_io_sq(qid: u16, entries: u32, address: u64, cqid: u16) -> Command {
    Command {
        dptr: DataPointer::prp(address, 0),
        cdw10: CreateQueueCdw10::new().with_qid(qid).with_qsize(zeroes_based(entries)).into(),
        cdw11: CreateSqCdw11::new().with_pc(true).with_cqid(cqid).into(),
        ..AdminOpcode::CREATE_IO_SQ.command()
    }
}

/// Get Log Page of `bytes` bytes (rounded up to dwords, no more than 16 GiB) from `offset`. The data pointer is the
/// caller's to set.
///
/// Controllers whose LPA does not report extended data take no offset, and no more than 4,096 dwords.
#[must_use]
pub fn get_log_page(lid: LogId, nsid: u32, bytes: u64, offset: u64) -> Command {
    let numd = u32::try_from(bytes.div_ceil(4).saturating_sub(1)).unwrap_or(u32::MAX);
    let [l0, l1, u0, u1] = numd.to_le_bytes();
    let mut command = Command {
        nsid,
        cdw10: GetLogPageCdw10::new().with_lid(lid).with_numdl(u16::from_le_bytes([l0, l1])).into(),
        cdw11: GetLogPageCdw11::new().with_numdu(u16::from_le_bytes([u0, u1])).into(),
        ..AdminOpcode::GET_LOG_PAGE.command()
    };
    command.cdw12 = crate::command::low(offset);
    command.cdw13 = crate::command::high(offset);
    command
}

/// How many bytes a Get Log Page command asks for.
#[must_use]
pub fn log_page_bytes(command: &Command) -> u64 {
    let low = GetLogPageCdw10::from(command.cdw10).numdl();
    let high = GetLogPageCdw11::from(command.cdw11).numdu();
    (u64::from(high) << 16 | u64::from(low)).saturating_add(1).saturating_mul(4)
}

fn zeroes_based(entries: u32) -> u16 {
    u16::try_from(entries.saturating_sub(1)).unwrap_or(u16::MAX)
}

impl AdminOpcode {
    /// A command of this opcode and nothing else.
    #[must_use]
    pub fn command(self) -> Command {
        Command { cdw0: crate::Cdw0::new().with_opcode(self.0), ..Command::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues() {
        let cq = create_io_cq(3, 1024, 0x1000, Some(5));
        assert_eq!((cq.cdw10, cq.cdw11), (0x03ff_0003, 0x0005_0003));
        assert_eq!(create_io_cq(3, 65_536, 0x1000, None).cdw10, 0xffff_0003);
        assert_eq!(create_io_cq(3, 2, 0x1000, None).cdw11, 1);
        let sq = create_io_sq(4, 2, 0x2000, 3);
        assert_eq!((sq.cdw10, sq.cdw11, sq.dptr.prp1()), (0x0001_0004, 0x0003_0001, 0x2000));
    }

    #[test]
    fn log_pages() {
        let command = get_log_page(LogId::SMART, crate::NSID_ALL, 512, 0x1_0000_0004);
        assert_eq!(command.cdw10, 0x007f_0002);
        assert_eq!((command.cdw11, command.cdw12, command.cdw13), (0, 4, 1));
        assert_eq!(log_page_bytes(&command), 512);
        let large = get_log_page(LogId::ERROR, 0, 0x10_0001, 0);
        assert_eq!(log_page_bytes(&large), 0x10_0004);
        assert_eq!(log_page_bytes(&get_log_page(LogId::ERROR, 0, 0, 0)), 4);
        assert_eq!(log_page_bytes(&get_log_page(LogId::ERROR, 0, u64::MAX, 0)), 1 << 34);
    }

    #[test]
    fn other_dwords() {
        assert_eq!(IdentifyCdw10::new().with_cns(Cns::ACTIVE_NAMESPACES).with_cntid(1).into_bits(), 0x0001_0002);
        assert_eq!(SetFeaturesCdw10::new().with_fid(FeatureId::HOST_IDENTIFIER).with_sv(true).into_bits(), 0x8000_0081);
        assert_eq!(AbortCdw10::new().with_sqid(1).with_cid(2).into_bits(), 0x0002_0001);
        assert_eq!(FormatNvmCdw10::new().with_lbafl(1).with_lbafu(1).with_ses(2).into_bits(), 0x1401);
        assert_eq!(GetLogPageCdw14::new().with_ot(true).with_csi(2).into_bits(), 0x0280_0000);
    }
}
