//! Protection information (NVM Command Set 1.0, "End-to-end Data Protection", 16-bit guard): making and checking it.

use nvme_spec::Status;
use nvme_spec::identify::PiType;

/// Bytes of protection information in a block's metadata.
pub(crate) const PI_BYTES: usize = 8;

/// CRC-16/T10-DIF: polynomial 8BB7h, not reflected, starting from 0. Eight tables, so that eight bytes are taken at a
/// time.
static TABLES: [[u16; 256]; 8] = tables();

#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated at compile time")]
const fn tables() -> [[u16; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let previous = tables[table - 1][byte];
            tables[table][byte] = previous << 8 ^ tables[0][(previous >> 8) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// The guard of a block's data.
#[expect(clippy::indexing_slicing, reason = "every table has an entry for each byte")]
pub(crate) fn guard(data: &[u8]) -> u16 {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = &TABLES;
    let (words, rest) = data.as_chunks::<8>();
    let mut crc = 0u16;
    for [a, b, c, d, e, f, g, h] in words {
        let [high, low] = crc.to_be_bytes();
        crc = t7[usize::from(a ^ high)]
            ^ t6[usize::from(b ^ low)]
            ^ t5[usize::from(*c)]
            ^ t4[usize::from(*d)]
            ^ t3[usize::from(*e)]
            ^ t2[usize::from(*f)]
            ^ t1[usize::from(*g)]
            ^ t0[usize::from(*h)];
    }
    for byte in rest {
        let [high, _] = crc.to_be_bytes();
        crc = crc << 8 ^ t0[usize::from(byte ^ high)];
    }
    crc
}

/// The protection information of one block, as it lies in metadata (big-endian).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProtectionInfo {
    pub(crate) guard: u16,
    pub(crate) application_tag: u16,
    pub(crate) reference_tag: u32,
}

impl ProtectionInfo {
    pub(crate) fn from_bytes(bytes: [u8; PI_BYTES]) -> Self {
        let [g0, g1, a0, a1, r0, r1, r2, r3] = bytes;
        Self {
            guard: u16::from_be_bytes([g0, g1]),
            application_tag: u16::from_be_bytes([a0, a1]),
            reference_tag: u32::from_be_bytes([r0, r1, r2, r3]),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; PI_BYTES] {
        let [g0, g1] = self.guard.to_be_bytes();
        let [a0, a1] = self.application_tag.to_be_bytes();
        let [r0, r1, r2, r3] = self.reference_tag.to_be_bytes();
        [g0, g1, a0, a1, r0, r1, r2, r3]
    }
}

/// What a command says about protection information: PRINFO and the tags of dwords 14 and 15.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checks {
    pub(crate) kind: PiType,
    pub(crate) guard: bool,
    pub(crate) application: bool,
    pub(crate) reference: bool,
    /// (E)ILBRT: the reference tag of the first block.
    pub(crate) first_reference: u32,
    /// (E)LBAT.
    pub(crate) application_tag: u16,
    /// (E)LBATM: which bits of the application tag are checked.
    pub(crate) application_mask: u16,
}

impl Checks {
    /// The reference tag of block `index` of the command.
    pub(crate) fn reference_of(&self, index: u32) -> u32 {
        match self.kind {
            PiType::TYPE3 => self.first_reference,
            _ => self.first_reference.wrapping_add(index),
        }
    }

    /// What the controller makes for block `index` when PRACT is set.
    pub(crate) fn make(&self, index: u32, data: &[u8]) -> ProtectionInfo {
        ProtectionInfo {
            guard: guard(data),
            application_tag: self.application_tag,
            reference_tag: self.reference_of(index),
        }
    }

    /// Checks block `index` ("Control of Protection Information Checking - PRCHK").
    pub(crate) fn check(&self, index: u32, data: &[u8], pi: ProtectionInfo) -> Result<(), Status> {
        let escaped = match self.kind {
            PiType::TYPE3 => pi.application_tag == u16::MAX && pi.reference_tag == u32::MAX,
            _ => pi.application_tag == u16::MAX,
        };
        if escaped {
            return Ok(());
        }
        if self.guard && pi.guard != guard(data) {
            return Err(Status::END_TO_END_GUARD_CHECK_ERROR);
        }
        if self.application && (pi.application_tag ^ self.application_tag) & self.application_mask != 0 {
            return Err(Status::END_TO_END_APPLICATION_TAG_CHECK_ERROR);
        }
        if self.reference && self.kind != PiType::TYPE3 && pi.reference_tag != self.reference_of(index) {
            return Err(Status::END_TO_END_REFERENCE_TAG_CHECK_ERROR);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guard_is_t10_dif() {
        // The check value of CRC-16/T10-DIF, and the guards of blocks of zeroes and of ones.
        assert_eq!(guard(b"123456789"), 0xd0db);
        assert_eq!(guard(&[0; 512]), 0);
        assert_eq!(guard(&[0xff; 32]), 0xa293);
    }

    #[test]
    fn bytes_and_back() {
        let pi = ProtectionInfo { guard: 0x1234, application_tag: 0x5678, reference_tag: 0x9abc_def0 };
        assert_eq!(pi.to_bytes(), [0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]);
        assert_eq!(ProtectionInfo::from_bytes(pi.to_bytes()), pi);
    }
}
