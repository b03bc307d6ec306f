//! Scatter Gather Lists (NVMe Base 2.0, "Scatter Gather List (SGL)").

use doorbell_device::inprocess::DmaView;
use nvme_spec::Status;
use nvme_spec::sgl::{SUBTYPE_ADDRESS, SglDescriptor, SglType};

use super::{Extents, ListBuffer, Toward};
use crate::config::SglSupport;

/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;
/// Segments that one command may lead through; more is refused, so that a list in a circle ends.
const MAX_SEGMENTS: u32 = 1024;
/// Descriptors that one command may have in all.
const MAX_DESCRIPTORS: u32 = 1 << 17;
/// Descriptors that are copied from the host at a time.
const BATCH: u32 = 256;

/// Finds the pieces of `len` bytes of data, starting from the descriptor in the command.
pub(crate) fn walk(
    dma: &DmaView<'_>,
    support: SglSupport,
    first: SglDescriptor,
    len: u64,
    toward: Toward,
    lists: &mut ListBuffer,
    extents: &mut Extents,
) -> Result<(), Status> {
    extents.clear();
    let mut walk = Walk { support, toward, rest: len, extents };
    match first.kind() {
        SglType::SEGMENT | SglType::LAST_SEGMENT => walk.segments(dma, first, lists)?,
        _ => walk.block(first)?,
    }
    if walk.rest > 0 { Err(Status::DATA_SGL_LENGTH_INVALID) } else { Ok(()) }
}

struct Walk<'a> {
    support: SglSupport,
    toward: Toward,
    rest: u64,
    extents: &'a mut Extents,
}

impl Walk<'_> {
    /// A descriptor of data.
    fn block(&mut self, descriptor: SglDescriptor) -> Result<(), Status> {
        let SglDescriptor { address, length, .. } = descriptor;
        if descriptor.id.subtype() != SUBTYPE_ADDRESS {
            return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID);
        }
        match descriptor.kind() {
            SglType::DATA_BLOCK => {
                if self.support.dword_granular() && !(address | u64::from(length)).is_multiple_of(4) {
                    return Err(Status::SGL_DATA_BLOCK_GRANULARITY_INVALID);
                }
                let part = self.part(length)?;
                self.extents.push(address, part);
            }
            SglType::BIT_BUCKET if self.support.bit_bucket() => {
                // For data that comes from the host, a bit bucket is of length 0 whatever it says.
                if self.toward == Toward::Host {
                    let part = self.part(length)?;
                    self.extents.push_discard(part);
                }
            }
            _ => return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID),
        }
        Ok(())
    }

    /// How much of a descriptor's length is needed.
    fn part(&mut self, length: u32) -> Result<u32, Status> {
        let part = u64::from(length).min(self.rest);
        if part < u64::from(length) && !self.support.longer_than_data() {
            return Err(Status::DATA_SGL_LENGTH_INVALID);
        }
        self.rest = self.rest.saturating_sub(part);
        Ok(part as u32)
    }

    fn segments(&mut self, dma: &DmaView<'_>, first: SglDescriptor, lists: &mut ListBuffer) -> Result<(), Status> {
        let mut pointer = first;
        let mut descriptors = 0u32;
        for _ in 0..MAX_SEGMENTS {
            let last = pointer.kind() == SglType::LAST_SEGMENT;
            let SglDescriptor { address, length, .. } = pointer;
            if pointer.id.subtype() != SUBTYPE_ADDRESS {
                return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID);
            }
            if length == 0 || !length.is_multiple_of(DESCRIPTOR) || !address.is_multiple_of(8) {
                return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR);
            }
            let count = length / DESCRIPTOR;
            descriptors = descriptors.saturating_add(count);
            if descriptors > MAX_DESCRIPTORS {
                return Err(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS);
            }
            match self.segment(dma, address, count, last, lists)? {
                Some(next) => pointer = next,
                None => return Ok(()),
            }
        }
        Err(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS)
    }

    /// One segment; gives the descriptor of the next one, or `None` where the list, or what is needed of it, ends.
    fn segment(
        &mut self,
        dma: &DmaView<'_>,
        address: u64,
        count: u32,
        last: bool,
        lists: &mut ListBuffer,
    ) -> Result<Option<SglDescriptor>, Status> {
        let mut at = address;
        let mut left = count;
        while left > 0 {
            let batch = left.min(BATCH);
            let bytes = lists.load(dma, at, batch.saturating_mul(DESCRIPTOR) as usize)?;
            let (descriptors, _) = bytes.as_chunks::<{ DESCRIPTOR as usize }>();
            for (index, bytes) in (0u32..).zip(descriptors) {
                let descriptor = from_bytes(bytes);
                let is_final = left.saturating_sub(index) == 1;
                match descriptor.kind() {
                    SglType::SEGMENT | SglType::LAST_SEGMENT if last => {
                        return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR);
                    }
                    SglType::SEGMENT | SglType::LAST_SEGMENT if is_final => return Ok(Some(descriptor)),
                    SglType::SEGMENT | SglType::LAST_SEGMENT => return Err(Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS),
                    _ if is_final && !last => return Err(Status::INVALID_SGL_SEGMENT_DESCRIPTOR),
                    _ => self.block(descriptor)?,
                }
                if self.rest == 0 && self.support.longer_than_data() {
                    return Ok(None);
                }
            }
            left = left.saturating_sub(batch);
            at = at.wrapping_add(u64::from(batch.saturating_mul(DESCRIPTOR)));
        }
        Ok(None)
    }
}

fn from_bytes(bytes: &[u8; DESCRIPTOR as usize]) -> SglDescriptor {
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = *bytes;
    let low = u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]);
    let high = u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]);
    SglDescriptor::from_words([low, high])
}
