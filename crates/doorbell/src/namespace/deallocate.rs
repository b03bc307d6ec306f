//! Deallocating blocks: Dataset Management with the deallocate attribute.

use nvme_spec::NvmOpcode;
use nvme_spec::nvm::{DsmCdw10, DsmCdw11, DsmRange};
use zerocopy::IntoBytes;

use super::Namespace;
use crate::error::RequestError;
use crate::queue::pooled::Data;

/// A run of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LbaRange {
    /// The first block.
    pub lba: u64,
    /// How many.
    pub block_count: u64,
}

/// What one command may carry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Ranges.
    pub(crate) ranges: usize,
    /// Blocks of a range.
    pub(crate) range_blocks: u32,
    /// Blocks of all ranges.
    pub(crate) blocks: u64,
}

/// Splits ranges into commands within the limits. None is dropped, and none is empty.
pub(crate) fn commands(ranges: &[LbaRange], limits: Limits) -> Vec<Vec<DsmRange>> {
    let mut commands = Vec::new();
    let mut current: Vec<DsmRange> = Vec::new();
    let mut room = limits.blocks.max(1);
    for range in ranges {
        let (mut lba, mut left) = (range.lba, range.block_count);
        while left != 0 {
            if current.len() == limits.ranges.max(1) || room == 0 {
                commands.push(std::mem::take(&mut current));
                room = limits.blocks.max(1);
            }
            let part = left.min(limits.range_blocks.max(1).into()).min(room);
            current.push(DsmRange::new(lba, part as u32));
            (lba, left, room) = (lba.saturating_add(part), left.saturating_sub(part), room.saturating_sub(part));
        }
    }
    if !current.is_empty() {
        commands.push(current);
    }
    commands
}

impl Namespace {
    /// Tells the device that blocks are no longer needed. No range, or none with blocks, is success and issues nothing;
    /// what the device does not take in one command goes out in several.
    ///
    /// # Errors
    /// [`RequestError`]: blocks outside the namespace, or a controller without Dataset Management; then nothing was
    /// sent. After an error from the device, earlier ranges may be deallocated and later ones not.
    pub async fn deallocate(&self, target_cpu: u32, ranges: &[LbaRange]) -> Result<(), RequestError> {
        let inner = self.inner();
        inner.check_present()?;
        for range in ranges {
            inner.check_range(range.lba, range.block_count)?;
        }
        if ranges.iter().all(|range| range.block_count == 0) {
            return Ok(());
        }
        if !self.supports_dataset_management() {
            return Err(RequestError::Unsupported("Dataset Management"));
        }
        let max_data = inner.max_data(inner.queue(target_cpu).await?);
        let limits = Limits {
            // The list of ranges is data too.
            ranges: max_data
                .checked_div(size_of::<DsmRange>())
                .unwrap_or_default()
                .min(self.dataset_management_range_limit().min(256) as usize),
            range_blocks: self.dataset_management_range_size_limit().unwrap_or(u32::MAX),
            blocks: self.dataset_management_size_limit().unwrap_or(u64::MAX),
        };
        for ranges in commands(ranges, limits) {
            let mut command = inner.command(NvmOpcode::DSM);
            command.cdw10 = DsmCdw10::new().with_nr(ranges.len().saturating_sub(1) as u8).into();
            command.cdw11 = DsmCdw11::new().with_ad(true).into();
            inner.execute(target_cpu, command, Data::Out(ranges.as_bytes())).await?;
        }
        Ok(())
    }
}
