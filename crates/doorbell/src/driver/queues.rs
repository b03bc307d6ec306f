//! The memory of a queue pair: one allocation for rings and lists, one for the pool, one for the slots.

use std::sync::Arc;

use doorbell_device::{Device, DeviceError, DmaMemory, Doorbell, HostMemory};
use nvme_spec::registers::{cq_head_doorbell, offset, sq_tail_doorbell};

use super::failure::Failure;
use super::shadow::Shadows;
use crate::memory::PAGE_SIZE;
use crate::queue::{Adopted, Lists, MAX_DEPTH, OnFault, Parts, Pool, QueuePair, SLOT_WORDS, Still, Words};

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
#[expect(clippy::arithmetic_side_effects, reason = "bounded: depths, pages and transfers are at most some MiB")]
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
    let lists = completion + (entries * 16).next_multiple_of(page);
    let end = lists + depth * list_words * 8;
    let memory = device.allocate(end, page as u64)?;
    // A chained list needs at least one more page than the data has, so the pool always has a page for it.
    let pool = device.allocate(shape.pool.max(page).next_multiple_of(page), page as u64)?;
    let [sq_doorbell, cq_doorbell] =
        doorbells(device, shape.id, shape.dstrd, |doorbell, index| match &shape.shadows {
            Some(shadows) => shadows.over(doorbell, index),
            None => doorbell,
        })?;
    let parts = Parts {
        id: shape.id,
        depth: shape.depth,
        submission: words(&memory, submission, entries)?,
        completion: words(&memory, completion, entries)?,
        slots: slots(depth)?,
        lists: Lists { words: words(&memory, lists, depth * list_words)?, words_per_slot: list_words },
        pool: Pool::new(pool, page),
        sq_doorbell,
        cq_doorbell,
        eager: shape.eager,
        exclusive: shape.exclusive,
    };
    Ok(Arc::new(QueuePair::new(parts, tells(failure))))
}

/// What becomes of a device that breaks the protocol.
fn tells(failure: Arc<Failure>) -> OnFault {
    Box::new(move |fault| failure.misbehaved(fault.clone()))
}

/// Those of submission and completion queue, each `shadowed`, which is told how many bytes it is behind the first.
fn doorbells(
    device: &dyn Device,
    id: u16,
    dstrd: u8,
    shadowed: impl Fn(Doorbell, usize) -> Doorbell,
) -> Result<[Doorbell; 2], DeviceError> {
    let doorbell =
        |register: usize| Ok(shadowed(device.doorbell(register)?, register.saturating_sub(offset::DOORBELLS)));
    Ok([doorbell(sq_tail_doorbell(id, dstrd))?, doorbell(cq_head_doorbell(id, dstrd))?])
}

/// A queue pair of another process, as its memory has it.
pub(crate) struct Inherited {
    pub(crate) id: u16,
    pub(crate) depth: u16,
    pub(crate) page_size: usize,
    pub(crate) dstrd: u8,
    pub(crate) submission: (DmaMemory, usize),
    pub(crate) completion: (DmaMemory, usize),
    pub(crate) lists: (DmaMemory, usize),
    pub(crate) list_words: usize,
    pub(crate) pool: DmaMemory,
    pub(crate) eager: bool,
    pub(crate) exclusive: bool,
    pub(crate) shadows: Option<Arc<Shadows>>,
}

/// Goes on with a queue pair that the device has.
///
/// # Errors
/// The outer one is the device's, the inner one says what makes no sense.
pub(crate) fn adopt(
    device: &dyn Device,
    shape: Inherited,
    still: Still,
    failure: Arc<Failure>,
) -> Result<Result<(QueuePair, Vec<Adopted>), &'static str>, DeviceError> {
    let Inherited { id, depth, page_size: page, list_words, pool, .. } = shape;
    let entries = usize::from(depth) + 1;
    if depth == 0 || depth > MAX_DEPTH || !list_words.is_power_of_two() || list_words > page / 8 {
        return Ok(Err("its depth, or the length of its lists"));
    }
    if pool.len() < page {
        return Ok(Err("a pool without a page"));
    }
    let words = (
        Words::new(shape.submission.0, shape.submission.1, entries),
        Words::new(shape.completion.0, shape.completion.1, entries),
        Words::new(shape.lists.0, shape.lists.1, usize::from(depth).saturating_mul(list_words)),
    );
    let (Some(submission), Some(completion), Some(lists)) = words else {
        return Ok(Err("rings or lists past the end of their memory"));
    };
    let [sq_doorbell, cq_doorbell] = doorbells(device, id, shape.dstrd, |doorbell, index| match &shape.shadows {
        Some(shadows) => shadows.over_inherited(doorbell, index),
        None => doorbell,
    })?;
    let parts = Parts {
        id,
        depth,
        submission,
        completion,
        slots: slots(depth.into())?,
        lists: Lists { words: lists, words_per_slot: list_words },
        pool: Pool::new(pool, page),
        sq_doorbell,
        cq_doorbell,
        eager: shape.eager,
        exclusive: shape.exclusive,
    };
    Ok(QueuePair::adopt(parts, tells(failure), still))
}

/// Slots are no device's business, but may be another process's.
fn slots(depth: usize) -> Result<Words<SLOT_WORDS>, DeviceError> {
    let host = HostMemory::allocate(depth.saturating_mul(SLOT_WORDS * 8))?;
    Words::private(&host, depth).ok_or(DeviceError::Unsupported("memory that is not word-accessible"))
}

fn words<const N: usize>(memory: &DmaMemory, offset: usize, count: usize) -> Result<Words<N>, DeviceError> {
    Words::new(memory.clone(), offset, count).ok_or(DeviceError::Unsupported("memory that is not word-accessible"))
}
