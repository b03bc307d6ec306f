//! The submission queue entry (NVMe Base 2.0, "Submission Queue Entry", figure "Common Command Format").

use crate::sgl::SglDescriptor;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Command Dword 0 (figure "Command Dword 0").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cdw0 {
    /// Opcode: the raw value of an [`AdminOpcode`](crate::AdminOpcode) or [`NvmOpcode`](crate::NvmOpcode).
    pub opcode: u8,
    /// Fused Operation: [`Cdw0::FUSE_NONE`], [`Cdw0::FUSE_FIRST`], [`Cdw0::FUSE_SECOND`].
    #[bits(2)]
    pub fuse: u8,
    #[bits(4)]
    __: u8,
    /// PRP or SGL for Data Transfer: [`Cdw0::PSDT_PRP`], [`Cdw0::PSDT_SGL`], [`Cdw0::PSDT_SGL_METADATA_SGL`].
    #[bits(2)]
    pub psdt: u8,
    /// Command Identifier. FFFFh is not to be used: error log entries use it for "no particular command".
    pub cid: u16,
}

impl Cdw0 {
    /// FUSE: an ordinary command.
    pub const FUSE_NONE: u8 = 0b00;
    /// FUSE: the first half of a fused operation.
    pub const FUSE_FIRST: u8 = 0b01;
    /// FUSE: the second half of a fused operation.
    pub const FUSE_SECOND: u8 = 0b10;
    /// PSDT: PRPs; MPTR is the address of one contiguous metadata buffer.
    pub const PSDT_PRP: u8 = 0b00;
    /// PSDT: an SGL; MPTR is the address of one contiguous metadata buffer.
    pub const PSDT_SGL: u8 = 0b01;
    /// PSDT: an SGL; MPTR is the address of one SGL segment with a single descriptor.
    pub const PSDT_SGL_METADATA_SGL: u8 = 0b10;
}

/// Data Pointer, DPTR: two PRP entries, or one SGL descriptor, as [`Cdw0::psdt`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DataPointer(pub [u64; 2]);

impl DataPointer {
    /// No data.
    pub const NONE: Self = Self([0; 2]);

    /// PRP Entry 1 and PRP Entry 2. The second is 0 where the data needs one page, the second page's address where it
    /// needs two, and the address of a PRP list where it needs more.
    #[must_use]
    pub const fn prp(prp1: u64, prp2: u64) -> Self {
        Self([prp1, prp2])
    }

    /// An SGL descriptor.
    #[must_use]
    pub const fn sgl(descriptor: SglDescriptor) -> Self {
        Self(descriptor.to_words())
    }

    /// PRP Entry 1.
    #[must_use]
    pub const fn prp1(self) -> u64 {
        self.0[0]
    }

    /// PRP Entry 2.
    #[must_use]
    pub const fn prp2(self) -> u64 {
        self.0[1]
    }

    /// The SGL descriptor that these words are.
    #[must_use]
    pub const fn as_sgl(self) -> SglDescriptor {
        SglDescriptor::from_words(self.0)
    }
}

/// A command as it lies in a submission queue: 64 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// Opcode, fused operation, PRP or SGL, command identifier.
    pub cdw0: Cdw0,
    /// Namespace Identifier; 0 where a command has none, [`NSID_ALL`](crate::NSID_ALL) for all.
    pub nsid: u32,
    /// Command Dword 2.
    pub cdw2: u32,
    /// Command Dword 3.
    pub cdw3: u32,
    /// Metadata Pointer.
    pub mptr: u64,
    /// Data Pointer.
    pub dptr: DataPointer,
    /// Command Dword 10.
    pub cdw10: u32,
    /// Command Dword 11.
    pub cdw11: u32,
    /// Command Dword 12.
    pub cdw12: u32,
    /// Command Dword 13.
    pub cdw13: u32,
    /// Command Dword 14.
    pub cdw14: u32,
    /// Command Dword 15.
    pub cdw15: u32,
}
assert_layout!(
    Command, size = 64, cdw0 @ 0, nsid @ 4, cdw2 @ 8, cdw3 @ 12, mptr @ 16, dptr @ 24,
    cdw10 @ 40, cdw11 @ 44, cdw12 @ 48, cdw13 @ 52, cdw14 @ 56, cdw15 @ 60,
);
const _: () = assert!(align_of::<Command>() == 8);

impl Command {
    /// The command as eight words, as it lies in memory: the form in which it is stored to a ring.
    #[inline]
    #[must_use]
    pub const fn to_words(&self) -> [u64; 8] {
        [
            pair(self.cdw0.into_bits(), self.nsid),
            pair(self.cdw2, self.cdw3),
            self.mptr,
            self.dptr.0[0],
            self.dptr.0[1],
            pair(self.cdw10, self.cdw11),
            pair(self.cdw12, self.cdw13),
            pair(self.cdw14, self.cdw15),
        ]
    }

    /// The command that lies in memory as these eight words.
    #[inline]
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self {
            cdw0: Cdw0::from_bits(low(words[0])),
            nsid: high(words[0]),
            cdw2: low(words[1]),
            cdw3: high(words[1]),
            mptr: words[2],
            dptr: DataPointer([words[3], words[4]]),
            cdw10: low(words[5]),
            cdw11: high(words[5]),
            cdw12: low(words[6]),
            cdw13: high(words[6]),
            cdw14: low(words[7]),
            cdw15: high(words[7]),
        }
    }

    /// Command Dwords 10 and 11 as the 64-bit number that many commands put there (lower half first), such as SLBA.
    #[inline]
    #[must_use]
    pub const fn cdw10_11(&self) -> u64 {
        pair(self.cdw10, self.cdw11)
    }

    /// Puts a 64-bit number into Command Dwords 10 and 11, lower half first.
    #[inline]
    pub const fn set_cdw10_11(&mut self, value: u64) {
        self.cdw10 = low(value);
        self.cdw11 = high(value);
    }
}

pub(crate) const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
pub(crate) const fn low(word: u64) -> u32 {
    word as u32
}

pub(crate) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn words_are_the_bytes() {
        let bytes: [u8; 64] = core::array::from_fn(|i| u8::try_from(i * 3 + 1).unwrap());
        let command = Command::read_from_bytes(&bytes).unwrap();
        assert_eq!(command.to_words().as_bytes(), bytes);
        assert_eq!(Command::from_words(command.to_words()), command);
        assert_eq!(command.cdw10_11().to_le_bytes(), bytes[40..48]);
    }

    #[test]
    fn dword_0() {
        let cdw0 = Cdw0::new().with_opcode(2).with_fuse(Cdw0::FUSE_SECOND).with_psdt(Cdw0::PSDT_SGL).with_cid(0xabcd);
        assert_eq!(cdw0.into_bits(), 0xabcd_4202);
    }

    #[test]
    fn data_pointers() {
        let block = SglDescriptor::data_block(0x1000, 0x200);
        let pointer = DataPointer::sgl(block);
        assert_eq!(pointer.as_bytes(), block.as_bytes());
        assert_eq!(pointer.as_sgl(), block);
        assert_eq!(DataPointer::prp(1, 2).prp2(), 2);
    }
}
