//! A set of blocks, kept as ranges.

use std::collections::BTreeMap;

use crate::saved::{StateError, bad};

/// Ranges that do not touch, by first block, with the block behind the last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    ranges: BTreeMap<u64, u64>,
}

/// Ranges kept; the emulator forgets to mark more rather than run out of memory.
const MAX_RANGES: usize = 1 << 16;

impl Marks {
    /// Whether a range has a marked block.
    #[inline]
    pub(crate) fn touches(&self, first: u64, count: u64) -> bool {
        !self.ranges.is_empty() && self.overlap(first, first.saturating_add(count)).is_some()
    }

    /// The last of the ranges that overlap `first..end`.
    fn overlap(&self, first: u64, end: u64) -> Option<(u64, u64)> {
        let (&start, &stop) = self.ranges.range(..end).next_back()?;
        (stop > first).then_some((start, stop))
    }

    /// Marks a range; false if there are too many ranges already.
    pub(crate) fn insert(&mut self, first: u64, count: u64) -> bool {
        let end = first.saturating_add(count);
        if first == end {
            return true;
        }
        self.remove(first, count);
        let joins = self.ranges.range(..first).next_back().filter(|(_, stop)| **stop == first).map(|(start, _)| *start);
        if joins.is_none() && self.ranges.len() >= MAX_RANGES {
            return false;
        }
        self.ranges.insert(joins.unwrap_or(first), end);
        true
    }

    /// Takes marks away from a range.
    #[inline]
    pub(crate) fn remove(&mut self, first: u64, count: u64) {
        if self.ranges.is_empty() {
            return;
        }
        let end = first.saturating_add(count);
        while let Some((start, stop)) = self.overlap(first, end) {
            self.ranges.remove(&start);
            if start < first {
                self.ranges.insert(start, first);
            }
            if stop > end {
                self.ranges.insert(end, stop);
            }
        }
    }

    /// Takes all marks away from `blocks` on.
    pub(crate) fn truncate(&mut self, blocks: u64) {
        self.remove(blocks, u64::MAX.saturating_sub(blocks));
    }
}

impl Marks {
    /// First, and behind the last, of each range.
    pub(crate) fn save(&self) -> Vec<u64> {
        self.ranges.iter().flat_map(|(start, stop)| [*start, *stop]).collect()
    }

    pub(crate) fn restore(saved: &[u64]) -> Result<Self, StateError> {
        let (ranges, rest) = saved.as_chunks::<2>();
        let ordered = saved.is_sorted() && ranges.iter().all(|[start, stop]| start < stop);
        if !rest.is_empty() || !ordered || ranges.len() > MAX_RANGES {
            return bad("uncorrectable blocks that are no ranges in order");
        }
        Ok(Self { ranges: ranges.iter().map(|[start, stop]| (*start, *stop)).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_split_and_joined() {
        let mut marks = Marks::default();
        marks.insert(10, 10);
        marks.remove(12, 2);
        assert!(marks.touches(0, 11) && marks.touches(11, 1) && marks.touches(14, 1) && marks.touches(19, 100));
        assert!(!marks.touches(12, 2) && !marks.touches(20, 5) && !marks.touches(0, 10));
        marks.insert(5, 8);
        assert!(marks.touches(12, 1) && !marks.touches(13, 1));
        marks.truncate(6);
        assert!(marks.touches(5, 1) && !marks.touches(6, u64::MAX - 6));
    }
}
