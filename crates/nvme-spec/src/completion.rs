//! The completion queue entry (NVMe Base 2.0, "Completion Queue Entry").

use crate::Status;
use crate::command::{high, low, pair};
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Phase tag and status: the upper half of dword 3 (figures "Completion Queue Entry: DW 3" and "Status Field").
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StatusField {
    /// Phase Tag: inverts each time the queue wraps; 1 on the first pass.
    pub phase: bool,
    /// Status Code.
    pub sc: u8,
    /// Status Code Type.
    #[bits(3)]
    pub sct: u8,
    /// Command Retry Delay: 0 none, 1 to 3 the delay of CRDT1 to CRDT3 in Identify Controller.
    #[bits(2)]
    pub crd: u8,
    /// More: there is an entry about this in the Error Information log page.
    pub more: bool,
    /// Do Not Retry.
    pub dnr: bool,
}

impl StatusField {
    /// Type and code together.
    #[inline]
    #[must_use]
    pub const fn status(self) -> Status {
        Status::new(self.sct(), self.sc())
    }

    /// This field with another type and code.
    #[must_use]
    pub const fn with_status(self, status: Status) -> Self {
        self.with_sct(status.sct()).with_sc(status.sc())
    }

    /// Whether the command succeeded.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.into_bits() & 0x0ffe == 0
    }
}

/// A completion as it lies in a completion queue: 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Completion {
    /// Dword 0: the command's result, if it has one.
    pub dw0: u32,
    /// Dword 1: the upper half of the result, if it has one.
    pub dw1: u32,
    /// SQ Head Pointer: how far the controller has read the submission queue.
    pub sqhd: u16,
    /// SQ Identifier: the submission queue the command came from.
    pub sqid: u16,
    /// Command Identifier.
    pub cid: u16,
    /// Phase tag and status.
    pub status: StatusField,
}
assert_layout!(Completion, size = 16, dw0 @ 0, dw1 @ 4, sqhd @ 8, sqid @ 10, cid @ 12, status @ 14);
const _: () = assert!(align_of::<Completion>() == 8);

impl Completion {
    /// The completion as two words, as it lies in memory.
    #[inline]
    #[must_use]
    pub const fn to_words(&self) -> [u64; 2] {
        [
            pair(self.dw0, self.dw1),
            pair(self.sqhd as u32 | (self.sqid as u32) << 16, self.cid as u32 | (self.status.into_bits() as u32) << 16),
        ]
    }

    /// The completion that lies in memory as these two words.
    #[inline]
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [h0, h1, i0, i1, c0, c1, s0, s1] = words[1].to_le_bytes();
        Self {
            dw0: low(words[0]),
            dw1: high(words[0]),
            sqhd: u16::from_le_bytes([h0, h1]),
            sqid: u16::from_le_bytes([i0, i1]),
            cid: u16::from_le_bytes([c0, c1]),
            status: StatusField::from_bits(u16::from_le_bytes([s0, s1])),
        }
    }

    /// The phase tag of an entry, given its second word alone.
    #[inline]
    #[must_use]
    pub const fn phase_of_word1(word1: u64) -> bool {
        word1 >> 48 & 1 == 1
    }

    /// Dwords 0 and 1 as one number, lower half first.
    #[inline]
    #[must_use]
    pub const fn result(&self) -> u64 {
        pair(self.dw0, self.dw1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromBytes, IntoBytes};

    #[test]
    fn words_are_the_bytes() {
        let bytes: [u8; 16] = core::array::from_fn(|i| u8::try_from(i * 7 + 1).unwrap());
        let completion = Completion::read_from_bytes(&bytes).unwrap();
        assert_eq!(completion.to_words().as_bytes(), bytes);
        assert_eq!(Completion::from_words(completion.to_words()), completion);
    }

    #[test]
    fn status_field() {
        let field = StatusField::new().with_phase(true).with_status(Status::LBA_OUT_OF_RANGE).with_dnr(true);
        assert_eq!(field.into_bits(), 0x8101);
        assert_eq!(field.status(), Status::LBA_OUT_OF_RANGE);
        assert!(!field.is_success());
        assert!(StatusField::new().with_phase(true).with_crd(3).is_success());
        let completion = Completion { status: field, ..Completion::default() };
        assert!(Completion::phase_of_word1(completion.to_words()[1]));
    }
}
