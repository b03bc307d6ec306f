//! Scatter gather lists (NVMe Base 2.0, "Scatter Gather List (SGL)").

use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

codes! {
    /// SGL Descriptor Type (figure "SGL Descriptor Type"); four bits.
    pub struct SglType(u8);
    DATA_BLOCK = 0x0, "Data Block";
    /// The device discards what it would write here; for reads only.
    BIT_BUCKET = 0x1, "Bit Bucket";
    SEGMENT = 0x2, "Segment";
    LAST_SEGMENT = 0x3, "Last Segment";
    KEYED_DATA_BLOCK = 0x4, "Keyed Data Block";
    TRANSPORT_DATA_BLOCK = 0x5, "Transport Data Block";
    VENDOR_SPECIFIC = 0xf, "Vendor Specific";
}

/// SGL Descriptor Sub Type: an address.
pub const SUBTYPE_ADDRESS: u8 = 0x0;
/// SGL Descriptor Sub Type: an offset from the start of a place the transport knows (capsule, controller memory buffer).
pub const SUBTYPE_OFFSET: u8 = 0x1;
/// SGL Descriptor Sub Type of a keyed data block: the key is to be invalidated.
pub const SUBTYPE_INVALIDATE_KEY: u8 = 0xf;
/// SGL Descriptor Sub Type of a transport data block: what the transport defines (for NVMe/TCP: data by R2T and C2HData).
pub const SUBTYPE_TRANSPORT: u8 = 0xa;

/// SGL Identifier: the descriptor's last byte.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SglId {
    /// SGL Descriptor Sub Type.
    #[bits(4)]
    pub subtype: u8,
    /// SGL Descriptor Type: a value of [`SglType`].
    #[bits(4)]
    pub kind: SglType,
}

wire! {
    /// One SGL descriptor (figure "SGL Descriptor Format"), laid out as an address, a 32-bit length and the identifier.
    /// The keyed form puts a 24-bit length and a 32-bit key in the same place: [`SglDescriptor::keyed_data_block`].
    pub struct SglDescriptor {
        /// Address or offset, in bytes.
        pub address: u64,
        /// Length in bytes; in segment descriptors a multiple of 16.
        pub length: u32,
        /// Reserved (key bits 0 to 23 are in `length` and here in the keyed form).
        pub reserved: [u8; 3],
        /// Type and sub type.
        pub id: SglId,
    }
}
assert_layout!(SglDescriptor, size = 16, address @ 0, length @ 8, id @ 15);

impl SglDescriptor {
    /// A contiguous block of `length` bytes.
    #[must_use]
    pub const fn data_block(address: u64, length: u32) -> Self {
        Self::of(SglType::DATA_BLOCK, SUBTYPE_ADDRESS, address, length)
    }

    /// A contiguous block at an offset into the capsule or the controller memory buffer.
    #[must_use]
    pub const fn data_block_at_offset(offset: u64, length: u32) -> Self {
        Self::of(SglType::DATA_BLOCK, SUBTYPE_OFFSET, offset, length)
    }

    /// `length` bytes that the device reads from the medium and throws away.
    #[must_use]
    pub const fn bit_bucket(length: u32) -> Self {
        Self::of(SglType::BIT_BUCKET, SUBTYPE_ADDRESS, 0, length)
    }

    /// Another segment of descriptors, `length` bytes of it, whose last descriptor leads on.
    #[must_use]
    pub const fn segment(address: u64, length: u32) -> Self {
        Self::of(SglType::SEGMENT, SUBTYPE_ADDRESS, address, length)
    }

    /// The last segment of descriptors, `length` bytes of it.
    #[must_use]
    pub const fn last_segment(address: u64, length: u32) -> Self {
        Self::of(SglType::LAST_SEGMENT, SUBTYPE_ADDRESS, address, length)
    }

    /// A block of which the transport knows the place; `length` bytes.
    #[must_use]
    pub const fn transport_data_block(length: u32) -> Self {
        Self::of(SglType::TRANSPORT_DATA_BLOCK, SUBTYPE_TRANSPORT, 0, length)
    }

    /// A block with a key (RDMA). Only the low 24 bits of `length` fit.
    #[must_use]
    pub const fn keyed_data_block(address: u64, length: u32, key: u32) -> Self {
        let key = key.to_le_bytes();
        let mut this = Self::of(SglType::KEYED_DATA_BLOCK, SUBTYPE_ADDRESS, address, length & 0x00ff_ffff);
        this.length |= (key[0] as u32) << 24;
        this.reserved = [key[1], key[2], key[3]];
        this
    }

    /// Length and key of a keyed data block; meaningless in any other type.
    #[must_use]
    pub const fn keyed(&self) -> (u32, u32) {
        let [_, _, _, key0] = self.length.to_le_bytes();
        let [key1, key2, key3] = self.reserved;
        (self.length & 0x00ff_ffff, u32::from_le_bytes([key0, key1, key2, key3]))
    }

    /// The descriptor's type.
    #[must_use]
    pub const fn kind(&self) -> SglType {
        self.id.kind()
    }

    const fn of(kind: SglType, subtype: u8, address: u64, length: u32) -> Self {
        Self { address, length, reserved: [0; 3], id: SglId::new().with_kind(kind).with_subtype(subtype) }
    }

    /// The descriptor as two words, as it lies in memory.
    #[must_use]
    pub const fn to_words(self) -> [u64; 2] {
        let [r0, r1, r2] = self.reserved;
        let high = (self.length as u64)
            | (r0 as u64) << 32
            | (r1 as u64) << 40
            | (r2 as u64) << 48
            | (self.id.into_bits() as u64) << 56;
        [self.address, high]
    }

    /// The descriptor that lies in memory as these two words.
    #[must_use]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [l0, l1, l2, l3, r0, r1, r2, id] = words[1].to_le_bytes();
        Self {
            address: words[0],
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            reserved: [r0, r1, r2],
            id: SglId::from_bits(id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    #[test]
    fn identifiers() {
        assert_eq!(SglDescriptor::data_block(0, 0).as_bytes()[15], 0x00);
        assert_eq!(SglDescriptor::data_block_at_offset(0, 0).as_bytes()[15], 0x01);
        assert_eq!(SglDescriptor::bit_bucket(0).as_bytes()[15], 0x10);
        assert_eq!(SglDescriptor::segment(0, 0).as_bytes()[15], 0x20);
        assert_eq!(SglDescriptor::last_segment(0, 0).as_bytes()[15], 0x30);
        assert_eq!(SglDescriptor::keyed_data_block(0, 0, 0).as_bytes()[15], 0x40);
        assert_eq!(SglDescriptor::transport_data_block(0).as_bytes()[15], 0x5a);
    }

    #[test]
    fn keyed_form() {
        let keyed = SglDescriptor::keyed_data_block(0x1122, 0x33_4455, 0xaabb_ccdd);
        assert_eq!(&keyed.as_bytes()[8..], [0x55, 0x44, 0x33, 0xdd, 0xcc, 0xbb, 0xaa, 0x40]);
        assert_eq!(keyed.keyed(), (0x33_4455, 0xaabb_ccdd));
    }

    #[test]
    fn words_are_the_bytes() {
        let d = SglDescriptor::keyed_data_block(0x0102_0304_0506_0708, 0x33_4455, 0xaabb_ccdd);
        assert_eq!(d.to_words().as_bytes(), d.as_bytes());
        assert_eq!(SglDescriptor::from_words(d.to_words()), d);
    }
}
