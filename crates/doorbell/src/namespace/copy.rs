//! Copying blocks inside the namespace, without moving them through memory (NVM Command Set, Copy).

use nvme_spec::NvmOpcode;
use nvme_spec::nvm::{CopyCdw12, CopyFormat, CopyRange, PrInfo};
use zerocopy::IntoBytes;

use super::{LbaRange, Namespace, Protection};
use crate::error::RequestError;
use crate::queue::pooled::Data;

/// What one Copy command may carry (MSSRL, MCL, MSRC).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) range_blocks: u32,
    pub(crate) blocks: u32,
    pub(crate) ranges: usize,
}

/// One Copy command: where to, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) to: u64,
    pub(crate) from: Vec<(u64, u32)>,
}

/// Splits a copy into commands within the limits, in order.
pub(crate) fn parts(to: u64, from: &[LbaRange], limits: Limits) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut current = Part { to, from: Vec::new() };
    let mut filled = 0;
    for range in from {
        let (mut lba, mut left) = (range.lba, range.block_count);
        while left != 0 {
            if current.from.len() == limits.ranges.max(1) || filled == limits.blocks.max(1) {
                let next = current.to.saturating_add(filled.into());
                parts.push(std::mem::replace(&mut current, Part { to: next, from: Vec::new() }));
                filled = 0;
            }
            let room = limits.blocks.max(1).saturating_sub(filled);
            let part = left.min(limits.range_blocks.max(1).into()).min(room.into());
            current.from.push((lba, part as u32));
            filled = filled.saturating_add(part as u32);
            (lba, left) = (lba.saturating_add(part), left.saturating_sub(part));
        }
    }
    if !current.from.is_empty() {
        parts.push(current);
    }
    parts
}

impl Namespace {
    /// Copies source ranges, laid end to end, to the blocks from `to` on. Split where the device limits it (MSSRL,
    /// MCL, MSRC).
    ///
    /// # Errors
    /// [`RequestError`]: blocks outside the namespace, sources that overlap the target, or a controller without Copy;
    /// then nothing was sent.
    pub async fn copy(&self, target_cpu: u32, to: u64, from: &[LbaRange]) -> Result<(), RequestError> {
        let inner = self.inner();
        inner.check_present()?;
        if !inner.core.identify.oncs.copy() {
            return Err(RequestError::Unsupported("Copy"));
        }
        let mut total = 0u64;
        for range in from {
            inner.check_range(range.lba, range.block_count)?;
            total = total.saturating_add(range.block_count);
        }
        inner.check_range(to, total)?;
        // Split, an overlapping copy would read what an earlier part wrote.
        let (end, ends) = (to.saturating_add(total), |r: &LbaRange| r.lba.saturating_add(r.block_count));
        let overlaps = |r: &&LbaRange| r.block_count != 0 && r.lba < end && to < ends(r);
        if let Some(range) = from.iter().find(overlaps) {
            return Err(RequestError::BadParameter {
                what: "the first block of a source",
                value: range.lba,
                allowed: "a source that does not overlap the target",
            });
        }
        if total == 0 {
            return Ok(());
        }
        let details = inner.details();
        let max_data = inner.max_data(inner.queue(target_cpu).await?);
        // The list of ranges is data too.
        let listed = max_data.checked_div(size_of::<CopyRange>()).unwrap_or_default();
        let limits = Limits {
            range_blocks: if details.copy_range_blocks == 0 { 1 << 16 } else { details.copy_range_blocks.into() },
            blocks: if details.copy_blocks == 0 { u32::MAX } else { details.copy_blocks },
            ranges: usize::from(details.copy_ranges).min(listed).clamp(1, 256),
        };
        for part in parts(to, from, limits) {
            let ranges: Vec<CopyRange> = part.from.iter().map(|(lba, blocks)| self.copy_range(*lba, *blocks)).collect();
            let mut cdw12 =
                CopyCdw12::new().with_nr(ranges.len().saturating_sub(1) as u8).with_desfmt(CopyFormat::RANGE);
            let mut command = inner.command(NvmOpcode::COPY);
            if let Protection::Type(pi) = inner.fixed.protection {
                let info = PrInfo::new().with_pract(true).with_check_guard(true).with_check_reference(pi != 3);
                cdw12 = cdw12.with_prinfor(info.into_bits()).with_prinfow(info.into_bits());
                command.cdw14 = if pi == 3 { 0 } else { part.to as u32 };
            }
            command.set_cdw10_11(part.to);
            command.cdw12 = cdw12.into();
            inner.execute(target_cpu, command, Data::Out(ranges.as_bytes())).await?;
        }
        Ok(())
    }

    fn copy_range(&self, lba: u64, blocks: u32) -> CopyRange {
        let mut range = CopyRange::new(lba, blocks);
        if let Protection::Type(pi) = self.protection()
            && pi != 3
        {
            range.eilbrt = lba as u32;
        }
        range
    }
}
