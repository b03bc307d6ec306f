//! Data pointers, read as a device reads them (NVMe Base 2.0, PRP Entry and PRP List; SGL Descriptor), without a look
//! at how they are made.

use doorbell_device::{DmaMemory, HostMemory};
use proptest::prelude::*;

use super::*;
use crate::memory::{Payload, run_pointers};
use crate::queue::{Lists, Words};

const LISTS: u64 = 0x1_0000_0000;
const CHAIN: u64 = 0x2_0000_0000;

/// Memory in which lists lie, and what the device may reach of it.
struct Memory {
    lists: Lists,
    list_memory: DmaMemory,
    chain: DmaMemory,
    layout: Layout,
}

impl Memory {
    fn new(page_shift: u32, list_words: usize, sgl: bool, align_mask: u64) -> Self {
        let page = 1usize << page_shift;
        let map = |bytes: usize, iova| DmaMemory::new(HostMemory::allocate(bytes).unwrap(), iova, || Ok(()));
        let list_memory = map((4 * list_words * 8).next_multiple_of(page), LISTS);
        let words = Words::new(list_memory.clone(), 0, 4 * list_words).unwrap();
        // As many as the largest transfer here can need.
        let chain = map(page * (2 + (32 << 20) / page / (page / 8 - 1)), CHAIN);
        let layout = Layout { sgl, sgl_align_mask: align_mask, ..Layout::prps(page) };
        Self { lists: Lists { words, words_per_slot: list_words }, list_memory, chain, layout }
    }

    fn load(&self, iova: u64) -> u64 {
        assert_eq!(iova % 8, 0, "entries are aligned");
        let (memory, base) = if iova >= CHAIN { (&self.chain, CHAIN) } else { (&self.list_memory, LISTS) };
        memory.host().words()[((iova - base) / 8) as usize].load(Ordering::Relaxed)
    }

    /// The pieces' pointers, through the builder alone.
    fn build(&self, slot: u16, pieces: &[(u64, usize)]) -> Option<Pointers> {
        let len = pieces.iter().map(|(_, len)| len).sum();
        let chained = chain_pages(&self.layout, self.lists.words_per_slot, len) != 0;
        let chain = chained.then_some(Chain { memory: &self.chain, offset: 0 });
        let mut builder = Builder::new(self.layout, self.lists.of(slot), chain, len);
        pieces.iter().for_each(|(iova, len)| builder.push(*iova, *len));
        builder.finish()
    }

    /// The bytes that a device reads or writes for a command with these pointers.
    fn walk(&self, pointers: Pointers, len: usize) -> Vec<(u64, usize)> {
        match pointers.psdt {
            Cdw0::PSDT_PRP => self.walk_prps(pointers.dptr, len),
            _ => self.walk_sgl(pointers.dptr, len),
        }
    }

    fn walk_prps(&self, dptr: DataPointer, len: usize) -> Vec<(u64, usize)> {
        let page = 1u64 << self.layout.page_shift;
        let mut ranges = Vec::new();
        let mut left = len;
        let mut take = |entry: u64, left: &mut usize| {
            let part = (*left).min((page - entry % page) as usize);
            ranges.push((entry, part));
            *left -= part;
        };
        assert_eq!(dptr.prp1() % 4, 0, "PRP1 is aligned to a dword");
        take(dptr.prp1(), &mut left);
        if left == 0 {
            assert_eq!(dptr.prp2(), 0);
            return ranges;
        }
        if left as u64 <= page {
            assert_eq!(dptr.prp2() % page, 0, "no offset but in PRP1");
            take(dptr.prp2(), &mut left);
            return ranges;
        }
        let mut at = dptr.prp2();
        while left != 0 {
            let last_of_page = at % page == page - 8;
            if last_of_page && left as u64 > page {
                at = self.load(at);
                assert_eq!(at % page, 0, "a further list begins with its page");
                continue;
            }
            let entry = self.load(at);
            assert_eq!(entry % page, 0, "no offset but in PRP1");
            take(entry, &mut left);
            at += 8;
        }
        ranges
    }

    fn walk_sgl(&self, dptr: DataPointer, len: usize) -> Vec<(u64, usize)> {
        let block = |words: [u64; 2]| {
            assert_eq!(words[1] >> 56, 0, "a data block, its address an offset from nothing");
            (words[0], (words[1] & 0xffff_ffff) as usize)
        };
        let DataPointer(words) = dptr;
        let ranges: Vec<(u64, usize)> = match words[1] >> 60 {
            0 => vec![block(words)],
            3 => {
                let bytes = words[1] & 0xffff_ffff;
                assert_eq!(bytes % 16, 0);
                (0..bytes / 16).map(|i| [0, 8].map(|at| self.load(words[0] + i * 16 + at))).map(block).collect()
            }
            kind => panic!("descriptor type {kind}"),
        };
        assert_eq!(ranges.iter().map(|(_, len)| len).sum::<usize>(), len, "an SGL is as long as the data");
        for (iova, len) in &ranges {
            assert_eq!((iova | *len as u64) & self.layout.sgl_align_mask, 0);
        }
        ranges
    }
}

/// Adjacent ranges made one.
fn merged(ranges: &[(u64, usize)]) -> Vec<(u64, usize)> {
    let mut merged: Vec<(u64, usize)> = Vec::new();
    for (iova, len) in ranges {
        match merged.last_mut() {
            Some((start, so_far)) if *start + *so_far as u64 == *iova => *so_far += len,
            _ => merged.push((*iova, *len)),
        }
    }
    merged
}

/// `len` bytes from `offset` on in guest pages that lie apart, together, or backwards.
fn guest_pieces(offset: usize, len: usize, order: impl Fn(u64) -> u64) -> Vec<(u64, usize)> {
    let mut pieces = Vec::new();
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let part = (end - at).min(4096 - at % 4096);
        pieces.push((0x4000_0000 + order((at / 4096) as u64) * 4096 + (at % 4096) as u64, part));
        at += part;
    }
    pieces
}

fn lengths() -> impl Strategy<Value = usize> {
    let dword = |len: usize| (len & !3).max(4);
    prop_oneof![
        (1usize..20_000).prop_map(dword),
        (1usize..2_200_000).prop_map(dword),
        (1usize..(32 << 20) + 1).prop_map(dword),
        (1usize..=8192).prop_map(|pages| pages * 4096),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Scattered pages of 4 KiB, at every size to 32 MiB, through chained lists where a slot's own does not do.
    #[test]
    fn prps_name_scattered_pages(offset in 0usize..1024, len in lengths(), backwards: bool, stride in 1u64..4) {
        let memory = Memory::new(12, 512, false, 0);
        let pieces = guest_pieces(offset * 4, len, |page| if backwards { 9000 - page } else { page * stride });
        let pointers = memory.build(2, &pieces).expect("4 KiB pages can always be named");
        prop_assert_eq!(pointers.psdt, Cdw0::PSDT_PRP);
        prop_assert_eq!(merged(&memory.walk(pointers, len)), merged(&pieces));
    }

    /// The same where a slot's own list is a part of a page, which is enough for what the queue is made for.
    #[test]
    fn prps_in_a_part_of_a_page(offset in 0usize..1024, words in 3u32..9, share in 0usize..10_000, slot in 0u16..4) {
        let words = 1usize << words;
        let largest = (words - 2) * 4096;
        let len = (share * largest / 10_000).max(4) & !3;
        let memory = Memory::new(12, words, false, 0);
        let pieces = guest_pieces(offset * 4, len, |page| page * 2);
        prop_assert_eq!(chain_pages(&memory.layout, words, len), 0);
        let pointers = memory.build(slot, &pieces).unwrap();
        prop_assert_eq!(merged(&memory.walk(pointers, len)), merged(&pieces));
    }

    /// Contiguous data, with any controller page and with or without SGLs; `None` only where nothing can name it.
    #[test]
    fn contiguous_data(iova in 0x4000_0000u64..0x4010_0000, len in lengths(), shift in 12u32..17, sgl: bool, dwords: bool) {
        let words = 1usize << (shift - 3);
        let memory = Memory::new(shift, words, sgl, if dwords { 3 } else { 0 });
        let chained = chain_pages(&memory.layout, words, len) != 0;
        let chain = chained.then_some(Chain { memory: &memory.chain, offset: 0 });
        match Pointers::contiguous(&memory.layout, memory.lists.of(1), chain, iova, len) {
            Some(pointers) => prop_assert_eq!(merged(&memory.walk(pointers, len)), vec![(iova, len)]),
            None => prop_assert!(iova % 4 != 0 && (!sgl || dwords)),
        }
        if iova % 4 == 0 {
            let pool = DmaMemory::new(HostMemory::allocate(4096).unwrap(), iova - 64, || Ok(()));
            let pointers = run_pointers(&pool, 64, memory.layout, memory.lists.of(0), chain, len).unwrap();
            prop_assert_eq!(merged(&memory.walk(pointers, len)), vec![(iova, len)]);
        }
    }

    /// Guest pages under a controller whose pages are larger: what is named is right, and what is not cannot be.
    #[test]
    fn guest_pages_under_larger_ones(offset in 0usize..4096, len in 1usize..400_000, group in 0u32..7, shift in 13u32..17) {
        let memory = Memory::new(shift, 1 << (shift - 3), false, 0);
        // Groups of 2^group pages lie together, each group apart from the next.
        let pieces = guest_pieces(offset, len, |page| page + (page >> group << group));
        let page = 1u64 << shift;
        let whole = merged(&pieces);
        let nameable = whole[0].0.is_multiple_of(4)
            && whole[1..].iter().all(|(iova, _)| iova.is_multiple_of(page))
            && whole[..whole.len() - 1].iter().all(|(iova, len)| (iova + *len as u64).is_multiple_of(page));
        match memory.build(0, &pieces) {
            Some(pointers) => {
                prop_assert!(nameable);
                prop_assert_eq!(merged(&memory.walk(pointers, len)), whole);
            }
            None => prop_assert!(!nameable),
        }
    }

    /// SGLs of several blocks.
    #[test]
    fn sgls_name_pieces(pieces in prop::collection::vec((0u64..1000, 1usize..9000), 1..40), dwords: bool) {
        let memory = Memory::new(12, 64, true, if dwords { 3 } else { 0 });
        let pieces: Vec<(u64, usize)> = pieces.into_iter().map(|(at, len)| (0x4000_0000 + at * 4096, len)).collect();
        let len = pieces.iter().map(|(_, len)| len).sum();
        let mut builder = SglBuilder::new(memory.layout, memory.lists.of(3));
        pieces.iter().for_each(|(iova, len)| builder.push(*iova, *len));
        let blocks = merged(&pieces);
        let aligned = blocks.iter().all(|(iova, len)| (iova | *len as u64) & memory.layout.sgl_align_mask == 0);
        match builder.finish() {
            Some(pointers) => prop_assert_eq!(merged(&memory.walk(pointers, len)), blocks),
            None => prop_assert!(blocks.len() > 32 || !aligned),
        }
    }

    /// A list never needs more pages than were taken for it, nor fewer than a walk of it sees.
    #[test]
    fn chains_are_as_long_as_they_need_to_be(len in lengths()) {
        let layout = Layout::prps(4096);
        // Beginning in the last dword of a page; PRP1 names it.
        let entries = (len - 4).div_ceil(4096);
        let mut pages = 0;
        let mut room = 512;
        let mut left = entries;
        while left > room {
            // The last entry of a page that is not the last points on.
            left -= 511;
            room = 512;
            pages += 1;
        }
        prop_assert_eq!(chain_pages(&layout, 512, len), pages);
    }
}

/// What does not lie in memory that the device reaches is not named.
#[test]
fn a_slice_is_not_named() {
    let memory = Memory::new(12, 64, false, 0);
    let payload = Payload::From(&[0; 512]);
    let pointers =
        payload.pointers(1, &memory.layout, memory.lists.of(0), None, doorbell_device::Access::Read, (0, 512));
    assert_eq!(pointers, Ok(None));
}
