//! Copy (NVM Command Set 1.0, "Copy command").

use crate::scalar::Opaque;
use bitfield_struct::bitfield;

codes! {
    /// Copy Descriptor Format: the layout of a copy's source ranges; four bits.
    pub struct CopyFormat(u8);
    /// With a 16-bit guard: [`CopyRange`].
    RANGE = 0, "Format 0h";
    /// With a 32-bit or 64-bit guard: [`CopyRange64`].
    RANGE_64 = 1, "Format 1h";
    /// Like 0h, from another namespace: SNSID and SOPT count (NVM 1.1).
    OTHER_NAMESPACE = 2, "Format 2h";
    /// Like 1h, from another namespace: SNSID and SOPT count (NVM 1.1).
    OTHER_NAMESPACE_64 = 3, "Format 3h";
}

/// Dword 12 of Copy; dwords 10 and 11 are the starting LBA of the destination.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CopyCdw12 {
    /// Number of Ranges; 0's based.
    pub nr: u8,
    /// Descriptor Format.
    #[bits(4)]
    pub desfmt: CopyFormat,
    /// Protection Information of what is read: the four bits of [`PrInfo`](super::PrInfo).
    #[bits(4)]
    pub prinfor: u8,
    /// Command Extension Type, of Key Per I/O (NVM 1.1).
    #[bits(4)]
    pub cetype: u8,
    /// Directive Type.
    #[bits(4)]
    pub dtype: u8,
    /// Storage Tag Check of what is written (NVM 1.1).
    pub stcw: bool,
    /// Storage Tag Check of what is read (NVM 1.1).
    pub stcr: bool,
    /// Protection Information of what is written: the four bits of [`PrInfo`](super::PrInfo).
    #[bits(4)]
    pub prinfow: u8,
    /// Force Unit Access.
    pub fua: bool,
    /// Limited Retry.
    pub lr: bool,
}

wire! {
    /// A source range with a 16-bit guard (figure "Copy – Source Range Entries Copy Descriptor Format 0h"; 2h too).
    pub struct CopyRange {
        /// Source Namespace Identifier; only in format 2h, reserved in 0h.
        pub snsid: u32,
        /// Reserved.
        pub reserved4: u32,
        /// Starting LBA.
        pub slba: u64,
        /// Number of Logical Blocks; 0's based.
        pub nlb: u16,
        /// Reserved.
        pub reserved18: Opaque<4>,
        /// Source Options; only in format 2h. Bit 15: the copy has to be a fast one.
        pub sopt: u16,
        /// Expected Initial Logical Block Reference Tag.
        pub eilbrt: u32,
        /// Expected Logical Block Application Tag.
        pub elbat: u16,
        /// Expected Logical Block Application Tag Mask.
        pub elbatm: u16,
    }

    /// A source range with a 32-bit or 64-bit guard (figure "Copy – Source Range Entries Copy Descriptor Format 1h"; 3h
    /// too).
    pub struct CopyRange64 {
        /// Source Namespace Identifier; only in format 3h, reserved in 1h.
        pub snsid: u32,
        /// Reserved.
        pub reserved4: u32,
        /// Starting LBA.
        pub slba: u64,
        /// Number of Logical Blocks; 0's based.
        pub nlb: u16,
        /// Reserved.
        pub reserved18: Opaque<4>,
        /// Source Options; only in format 3h. Bit 15: the copy has to be a fast one.
        pub sopt: u16,
        /// Reserved.
        pub reserved24: u16,
        /// Expected Logical Block Tags: reference and storage tag, most significant byte first.
        pub elbt: [u8; 10],
        /// Expected Logical Block Application Tag.
        pub elbat: u16,
        /// Expected Logical Block Application Tag Mask.
        pub elbatm: u16,
    }
}
assert_layout!(CopyRange, size = 32, slba @ 8, nlb @ 16, sopt @ 22, eilbrt @ 24, elbat @ 28, elbatm @ 30);
assert_layout!(CopyRange64, size = 40, slba @ 8, nlb @ 16, sopt @ 22, elbt @ 26, elbat @ 36, elbatm @ 38);

impl CopyRange {
    /// `nlb` blocks (1 to 65,536) from `slba` of the namespace that is copied to.
    #[must_use]
    pub fn new(slba: u64, nlb: u32) -> Self {
        Self { slba, nlb: u16::try_from(nlb.saturating_sub(1)).unwrap_or(u16::MAX), ..Self::default() }
    }

    /// How many blocks: 1 to 65,536.
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        (self.nlb as u32).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dword_12() {
        let cdw12 = CopyCdw12::new().with_nr(127).with_desfmt(CopyFormat::RANGE_64).with_prinfow(8).with_fua(true);
        assert_eq!(cdw12.into_bits(), 127 | 1 << 8 | 1 << 29 | 1 << 30);
    }

    #[test]
    fn ranges() {
        assert_eq!(CopyRange::new(5, 1).nlb, 0);
        assert_eq!(CopyRange::new(5, 65_536).block_count(), 65_536);
    }
}
