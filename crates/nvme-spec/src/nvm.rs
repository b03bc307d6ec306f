//! The command dwords and data structures of the NVM command set (NVM Command Set 1.0, "NVM Commands").
//!
//! Dwords 10 and 11 are the starting LBA in all of them but Flush, Dataset Management and Copy (whose are those of the
//! destination). Protection information tags of the basic 16-bit guard are in dwords 14 and 15.

mod copy;
mod dsm;

pub use copy::{CopyCdw12, CopyFormat, CopyRange, CopyRange64};
pub use dsm::{DsmAttributes, DsmCdw10, DsmCdw11, DsmRange};

use bitfield_struct::bitfield;

/// Protection Information Field, PRINFO.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct PrInfo {
    /// Protection Information Check: the reference tag.
    pub check_reference: bool,
    /// Protection Information Check: the application tag.
    pub check_application: bool,
    /// Protection Information Check: the guard.
    pub check_guard: bool,
    /// Protection Information Action: the controller makes the information of a write, and strips that of a read.
    pub pract: bool,
    #[bits(4)]
    __: u8,
}

/// Dword 12 of Read, Write, Compare, Verify, Write Zeroes and (no more than NLB and DTYPE of it) Write Uncorrectable.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReadWriteCdw12 {
    /// Number of Logical Blocks; 0's based.
    pub nlb: u16,
    /// Command Extension Type, of Key Per I/O (NVM 1.1).
    #[bits(4)]
    pub cetype: u8,
    /// Directive Type: which directive the specific value of dword 13 is for. Only in Write, Write Zeroes and Write
    /// Uncorrectable; reserved elsewhere. In Write Zeroes the highest bit is [`ReadWriteCdw12::DTYPE_NSZ`].
    #[bits(4)]
    pub dtype: u8,
    /// Storage Tag Check.
    pub stc: bool,
    /// Deallocate: Write Zeroes may deallocate the blocks.
    pub deac: bool,
    /// Protection Information: the four bits of [`PrInfo`].
    #[bits(4)]
    pub prinfo: u8,
    /// Force Unit Access: on non-volatile media before completion.
    pub fua: bool,
    /// Limited Retry: the controller should not try as hard as it can.
    pub lr: bool,
}

impl ReadWriteCdw12 {
    /// The bit of `dtype` that is Namespace Zeroes in a Write Zeroes: the whole namespace is meant (NVM 1.1).
    pub const DTYPE_NSZ: u8 = 0b1000;

    /// How many blocks: 1 to 65,536.
    #[must_use]
    pub const fn block_count(self) -> u32 {
        (self.nlb() as u32).saturating_add(1)
    }
}

/// Dword 13 of Read and Write.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReadWriteCdw13 {
    /// Dataset Management hints.
    #[bits(8)]
    pub dsm: DsmHints,
    __: u8,
    /// Directive Specific; only in Write.
    pub dspec: u16,
}

/// What a Read or Write says about the data it transfers.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct DsmHints {
    /// Access Frequency: 0 none given, 1 typical, 2 rarely, 3 read often, 4 written often, 5 both often, 6 once, 7
    /// speculative read, 8 to be overwritten soon.
    #[bits(4)]
    pub access_frequency: u8,
    /// Access Latency: 0 none given, 1 idle, 2 normal, 3 low.
    #[bits(2)]
    pub access_latency: u8,
    /// Sequential Request.
    pub sequential: bool,
    /// Incompressible.
    pub incompressible: bool,
}

/// Dword 15 of Read, Write, Compare, Verify and Write Zeroes; dword 14 is the (lower 32 bits of the) initial or expected
/// reference tag, together with the storage tag.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReadWriteCdw15 {
    /// Logical Block Application Tag, or the expected one.
    pub lbat: u16,
    /// Mask of the application tag: the bits that are checked.
    pub lbatm: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dword_12() {
        assert_eq!(ReadWriteCdw12::new().with_nlb(7).with_fua(true).into_bits(), 0x4000_0007);
        assert_eq!(ReadWriteCdw12::new().with_lr(true).with_stc(true).into_bits(), 1 << 31 | 1 << 24);
        assert_eq!(ReadWriteCdw12::new().with_deac(true).with_dtype(1).into_bits(), 1 << 25 | 1 << 20);
        let prinfo = PrInfo::new().with_pract(true).with_check_guard(true).into_bits();
        assert_eq!(ReadWriteCdw12::new().with_prinfo(prinfo).into_bits(), 1 << 29 | 1 << 28);
        assert_eq!(ReadWriteCdw12::from_bits(u32::MAX).block_count(), 65_536);
    }
}
