//! What each block of a disk may hold.
//!
//! Every block that is written gets a content of its own, known by a stamp. Of each block the model keeps who wrote what
//! from when to when, and whether that was acknowledged. A content that a read returns is right unless it was surely
//! overwritten before the read began: that is, unless an acknowledged write began after the content's own write had
//! ended, and itself ended before the read began.

/// A moment: counts what happens.
pub(crate) type Tick = u64;

/// The stamp of a block of zeroes.
pub(crate) const ZEROES: u64 = 0;

/// What the blocks of a disk may hold.
#[derive(Debug)]
pub(crate) struct Model {
    blocks: Vec<Vec<Entry>>,
    /// There is a volatile write cache.
    volatile: bool,
}

/// A write to a block.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Who wrote it.
    op: u64,
    stamp: u64,
    start: Tick,
    /// `None` as long as it may still take effect.
    end: Option<Tick>,
    /// It took effect.
    acknowledged: bool,
    /// It outlives a loss of power.
    durable: bool,
    /// The power was lost meanwhile: even if it is acknowledged, it need not be there.
    shaken: bool,
}

impl Entry {
    fn is_before(&self, other: &Self) -> bool {
        other.acknowledged && self.end.is_some_and(|end| end < other.start)
    }
}

impl Model {
    pub(crate) fn new(blocks: u64, volatile: bool) -> Self {
        let first =
            Entry { op: 0, stamp: ZEROES, start: 0, end: Some(0), acknowledged: true, durable: true, shaken: false };
        Self { blocks: vec![vec![first]; blocks as usize], volatile }
    }

    fn block(&mut self, lba: u64) -> &mut Vec<Entry> {
        &mut self.blocks[lba as usize]
    }

    /// A write begins. `oldest` is when the oldest read or write that is under way began.
    pub(crate) fn write_begins(&mut self, op: u64, lba: u64, stamp: u64, now: Tick, oldest: Tick) {
        let block = self.block(lba);
        if block.len() > 3 {
            let all = block.clone();
            let forgotten = |entry: &Entry| {
                let later = |other: &Entry| other.durable && other.end.is_some_and(|end| end < oldest);
                all.iter().any(|other| entry.is_before(other) && later(other))
            };
            block.retain(|entry| !forgotten(entry));
        }
        block.push(Entry { op, stamp, start: now, end: None, acknowledged: false, durable: false, shaken: false });
    }

    /// A write ends: it was carried out, or that is not known.
    pub(crate) fn write_ends(&mut self, op: u64, lba: u64, acknowledged: bool, fua: bool, now: Tick) {
        let durable = acknowledged && (fua || !self.volatile);
        for entry in self.block(lba).iter_mut().filter(|entry| entry.op == op) {
            entry.end = Some(now);
            entry.acknowledged = acknowledged && (fua || !entry.shaken);
            entry.durable = durable && entry.acknowledged;
        }
    }

    /// It is certain that the write did nothing.
    pub(crate) fn write_did_nothing(&mut self, op: u64, lba: u64) {
        self.block(lba).retain(|entry| entry.op != op);
    }

    /// A flush that began at `start` has ended well.
    pub(crate) fn flushed(&mut self, start: Tick) {
        for entry in self.blocks.iter_mut().flatten() {
            entry.durable |= entry.acknowledged && entry.end.is_some_and(|end| end < start);
        }
    }

    /// The power was lost. What was under way may have been done before, and be lost.
    pub(crate) fn power_lost(&mut self, now: Tick, oldest: Tick) {
        if !self.volatile {
            return;
        }
        for block in &mut self.blocks {
            let all = block.clone();
            let surely = |other: &Entry| other.durable && other.end.is_some_and(|end| end < oldest);
            block.retain(|entry| !all.iter().any(|other| surely(other) && entry.is_before(other)));
            for entry in block {
                entry.shaken |= entry.end.is_none();
                if entry.end.is_some() {
                    entry.acknowledged = false;
                    entry.durable = false;
                    entry.end = Some(now);
                }
            }
        }
    }

    /// Nothing is under way any more.
    pub(crate) fn all_ended(&mut self, now: Tick) {
        for entry in self.blocks.iter_mut().flatten() {
            entry.end.get_or_insert(now);
        }
    }

    /// Blocks were cut off: where they come back, they are zeroes.
    pub(crate) fn cut_off(&mut self, from: u64, now: Tick) {
        for block in self.blocks.iter_mut().skip(from as usize) {
            let (start, end) = (now, Some(now));
            block.push(Entry { op: 0, stamp: ZEROES, start, end, acknowledged: true, durable: true, shaken: false });
        }
    }

    /// Whether a block may have held anything but this since `start`.
    pub(crate) fn may_differ(&self, lba: u64, stamp: u64, start: Tick) -> bool {
        let others = self.blocks[lba as usize].iter().map(|entry| entry.stamp);
        others.filter(|other| *other != stamp).any(|other| self.may_be(lba, other, start))
    }

    /// Everything that a block may hold, now or after the power was lost.
    pub(crate) fn all_contents(&self, lba: u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.blocks[lba as usize].iter().map(|entry| entry.stamp).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether a read that began at `start` and ends now may find this content.
    pub(crate) fn may_be(&self, lba: u64, stamp: u64, start: Tick) -> bool {
        let block = &self.blocks[lba as usize];
        let overwritten = |entry: &Entry| {
            let surely = |other: &Entry| entry.is_before(other) && other.end.is_some_and(|end| end < start);
            block.iter().any(surely)
        };
        block.iter().any(|entry| entry.stamp == stamp && !overwritten(entry))
    }

    /// A read that began at `start` found this content. If nobody wrote meanwhile, that is what the block holds.
    pub(crate) fn was_read(&mut self, lba: u64, stamp: u64, start: Tick) {
        let volatile = self.volatile;
        let block = self.block(lba);
        if block.iter().any(|entry| entry.end.is_none_or(|end| end >= start)) {
            return;
        }
        if let Some(entry) = block.iter_mut().rev().find(|entry| entry.stamp == stamp) {
            entry.acknowledged = true;
            entry.durable |= !volatile;
            entry.start = start;
            entry.end = Some(start);
        }
    }

    /// All contents that a block may hold, if read from now on.
    pub(crate) fn contents(&self, lba: u64, now: Tick) -> Vec<u64> {
        let stamps = self.blocks[lba as usize].iter().map(|entry| entry.stamp);
        let mut all: Vec<u64> = stamps.filter(|stamp| self.may_be(lba, *stamp, now)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What is known of a block, in words.
    pub(crate) fn told(&self, lba: u64) -> String {
        let mut text = String::new();
        for entry in &self.blocks[lba as usize] {
            let Entry { op, stamp, start, end, acknowledged, durable, shaken: _ } = entry;
            let end = end.map_or("?".to_owned(), |end| end.to_string());
            text += &format!(
                "\n    {stamp:#x} by operation {op} from {start} to {end}{}{}",
                if *acknowledged { ", acknowledged" } else { "" },
                if *durable { ", durable" } else { "" }
            );
        }
        text
    }
}

/// Fills a block with the content of a stamp.
pub(crate) fn fill(block: &mut [u8], stamp: u64) {
    for (index, word) in (0u64..).zip(block.chunks_exact_mut(8)) {
        word.copy_from_slice(&word_at(stamp, index).to_le_bytes());
    }
}

/// The stamp whose content a block has, all of it.
pub(crate) fn stamp_of(block: &[u8]) -> Option<u64> {
    let words = || block.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    let stamp = words().next()?;
    (0u64..).zip(words()).all(|(index, word)| word == word_at(stamp, index)).then_some(stamp)
}

fn word_at(stamp: u64, index: u64) -> u64 {
    if stamp == ZEROES { 0 } else { stamp ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn an_acknowledged_write_replaces_what_was_there() {
        let mut model = Model::new(1, false);
        model.write_begins(1, 0, 0x100, 1, 1);
        assert!(model.may_be(0, ZEROES, 2) && model.may_be(0, 0x100, 2));
        model.write_ends(1, 0, true, false, 3);
        assert!(!model.may_be(0, ZEROES, 4) && model.may_be(0, 0x100, 4));
        assert!(model.may_be(0, ZEROES, 2), "a read that began before may have found the old content");
    }

    #[test]
    fn what_a_quiet_read_found_stays() {
        let mut model = Model::new(1, false);
        model.write_begins(1, 0, 0x100, 1, 1);
        model.write_ends(1, 0, false, false, 2);
        assert_eq!(model.contents(0, 3), [ZEROES, 0x100]);
        model.was_read(0, ZEROES, 3);
        assert_eq!(model.contents(0, 4), [ZEROES], "a write that failed does not take effect later");
    }

    #[test]
    fn only_what_was_flushed_survives_for_certain() {
        let mut model = Model::new(1, true);
        for (op, stamp) in [(1, 0x100), (2, 0x200)] {
            model.write_begins(op, 0, stamp, op * 10, op * 10);
            model.write_ends(op, 0, true, false, op * 10 + 1);
            if op == 1 {
                model.flushed(15);
            }
        }
        assert_eq!(model.contents(0, 30), [0x200]);
        model.power_lost(31, 31);
        assert_eq!(model.contents(0, 32), [0x100, 0x200]);
    }

    #[test]
    fn torn_blocks_are_no_content() {
        let mut block = [0; 512];
        fill(&mut block, 0x100);
        assert_eq!(stamp_of(&block), Some(0x100));
        block[256] ^= 1;
        assert_eq!(stamp_of(&block), None);
        assert_eq!(stamp_of(&[0; 512]), Some(ZEROES));
    }
}
