//! The memory of a queue pair: one allocation for rings, slots and lists, one for the pool.

use std::sync::Arc;

use doorbell_device::{Device, DeviceError, DmaMemory};
use nvme_spec::registers::{cq_head_doorbell, offset, sq_tail_doorbell};

use super::failure::Failure;
use super::shadow::Shadows;
use crate::error::DeviceMisbehaved;
use crate::memory::PAGE_SIZE;
use crate::queue::{Lists, Parts, Pool, QueuePair, SLOT_WORDS, Words};

/// Bytes of the largest block that there can be, with its metadata.
const LARGEST_BLOCK: usize = 128 << 10;

/// What a queue pair is to be like.
pub(crate) struct Shape {
    pub(crate) id: u16,
    pub(crate) depth: u16,
    pub(crate) page_size: usize,
    pub(crate) dstrd: u8,
    /// Bytes of the pool.
    pub(crate) pool: usize,
    /// Bytes of the largest transfer.
    pub(crate) max_transfer: usize,
    /// Whether its commands may carry SGLs.
    pub(crate) sgl: bool,
    /// Look for completions right after submitting.
    pub(crate) eager: bool,
    /// Where its doorbells have shadows.
    pub(crate) shadows: Option<Arc<Shadows>>,
    /// For one owner.
    pub(crate) exclusive: bool,
}

/// Makes a queue pair on the host's side. The device knows nothing of it yet.
pub(crate) fn build(device: &dyn Device, shape: &Shape, failure: Arc<Failure>) -> Result<Arc<QueuePair>, DeviceError> {
    let page = shape.page_size;
    let depth = usize::from(shape.depth);
    let entries = depth + 1;
    // The longest list any transfer needs, in a part of a page whose size is a power of two, so that none crosses a
    // page; longer lists go on in pages of the pool.
    // A block goes whole, whatever the largest transfer is.
    let longest = shape.max_transfer.max(LARGEST_BLOCK);
    let prps = longest / page + 2;
    // Guest pages that are smaller than the controller's go out as SGLs, two words each.
    let sgls = if shape.sgl && page > PAGE_SIZE { 2 * (longest / PAGE_SIZE + 1) } else { 0 };
    let list_words = prps.max(sgls).next_power_of_two().clamp(8, page / 8);
    let submission = 0;
    let completion = submission + (entries * 64).next_multiple_of(page);
    let slots = completion + (entries * 16).next_multiple_of(page);
    let lists = slots + (depth * SLOT_WORDS * 8).next_multiple_of(page);
    let end = lists + depth * list_words * 8;
    let memory = device.allocate(end, page as u64)?;
    // A chained list needs at least one more page than the data has, so the pool always has a page for it.
    let pool = device.allocate(shape.pool.max(page).next_multiple_of(page), page as u64)?;
    let doorbell = |register: usize| {
        let doorbell = device.doorbell(register)?;
        Ok::<_, DeviceError>(match &shape.shadows {
            Some(shadows) => shadows.over(doorbell, register - offset::DOORBELLS),
            None => doorbell,
        })
    };
    let parts = Parts {
        id: shape.id,
        depth: shape.depth,
        submission: words(&memory, submission, entries)?,
        completion: words(&memory, completion, entries)?,
        slots: words(&memory, slots, depth)?,
        lists: Lists { words: words(&memory, lists, depth * list_words)?, words_per_slot: list_words },
        pool: Pool::new(pool, page),
        sq_doorbell: doorbell(sq_tail_doorbell(shape.id, shape.dstrd))?,
        cq_doorbell: doorbell(cq_head_doorbell(shape.id, shape.dstrd))?,
        eager: shape.eager,
        exclusive: shape.exclusive,
    };
    let on_fault = Box::new(move |fault: &DeviceMisbehaved| failure.misbehaved(fault.clone()));
    Ok(Arc::new(QueuePair::new(parts, on_fault)))
}

fn words<const N: usize>(memory: &DmaMemory, offset: usize, count: usize) -> Result<Words<N>, DeviceError> {
    Words::new(memory.clone(), offset, count).ok_or(DeviceError::Unsupported("memory that is not word-accessible"))
}
