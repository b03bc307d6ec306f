//! D5: data of every length at every place, named to the device by PRP lists, chained where they are long, or SGLs.

use std::ops::RangeInclusive;

use doorbell::{DriverOptions, GuestMemory, Namespace, PagedRange};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SglSupport};
use nvme_spec::NvmOpcode;
use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, contents, fill, gpns};

/// The pages of the guest, every one of them used once, in an order without two neighbours.
pub(crate) fn scattered(pages: u64) -> Vec<u64> {
    (0..pages).map(|i| if i % 2 == 0 { i / 2 } else { pages - 1 - i / 2 }).collect()
}

fn prps() -> ControllerConfig {
    ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() }
}

/// Writes `len` bytes that begin `offset` bytes into the pages, reads them to other pages, and looks that nothing else
/// changed.
fn round_trip(bench: &Bench, w: &Watched, lba: u64, offset: usize, len: usize, from: &[u64], to: &[u64]) {
    let data = pattern((offset * 31 + len) as u64, len);
    fill(&w.memory, from, offset, &data);
    let blocks = (len / 512) as u32;
    let range = PagedRange::new(offset, len, from).expect("a range");
    bench.run(w.namespace.write(0, lba, blocks, false, &w.memory, range)).expect("written");
    let size = to.len() * 4096;
    fill(&w.memory, to, 0, &vec![0xee; size]);
    let range = PagedRange::new(offset, len, to).expect("a range");
    bench.run(w.namespace.read(0, lba, blocks, &w.memory, range)).expect("read");
    assert!(contents(&w.memory, to, offset, len) == data, "{len} bytes at {offset}");
    assert!(contents(&w.memory, to, 0, offset).iter().all(|b| *b == 0xee), "before {len} bytes at {offset}");
    let after = contents(&w.memory, to, offset + len, size - offset - len);
    assert!(after.iter().all(|b| *b == 0xee), "after {len} bytes at {offset}");
}

/// Every length in blocks, and offsets of every kind.
fn every_length(
    config: ControllerConfig,
    blocks: RangeInclusive<usize>,
    change: impl FnOnce(DriverOptions) -> DriverOptions,
) -> Watched {
    let bench = Bench::new();
    let w = Watched::with(&bench, config, change);
    let pages = scattered(128);
    let (from, to) = pages.split_at(64);
    for blocks in blocks {
        for offset in [0, 4, 512, 2048, 4092] {
            round_trip(&bench, &w, 7, offset, blocks * 512, from, to);
        }
    }
    w
}

#[test]
fn d5_every_length_by_prps() {
    // 256 KiB less a page: the last offset needs a page more.
    let w = every_length(ControllerConfig { mdts: 6, ..prps() }, 1..=504, |options| options);
    assert_eq!(w.bounced(), 0, "PRPs say all of it");
}

#[test]
fn d5_every_length_by_sgls() {
    let w = every_length(ControllerConfig { mdts: 6, ..ControllerConfig::default() }, 1..=504, |options| options);
    assert_eq!(w.bounced(), 0);
}

#[test]
fn d5_every_length_in_short_lists() {
    // The largest transfer is 64 KiB, so the list of a slot is a small part of a page.
    let w = every_length(ControllerConfig { mdts: 4, ..prps() }, 1..=128, |options| options.depth(7));
    assert_eq!(w.bounced(), 0);
}

#[test]
fn d5_sgls_are_not_used_when_the_driver_is_told_not_to() {
    let w = every_length(ControllerConfig::default(), 1..=20, |options| options.sgl(false));
    assert!(w.spy.io().iter().all(|(_, command)| command.cdw0.psdt() == 0));
}

/// Offsets that PRPs cannot say: not a multiple of 4.
#[test]
fn d5_data_off_a_dword_goes_by_sgl_where_that_may_and_bounced_where_not() {
    for (sgl, bounced) in [(SglSupport::Bytes, false), (SglSupport::Dwords, true), (SglSupport::None, true)] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig { sgl, ..ControllerConfig::default() });
        let pages = scattered(40);
        let (from, to) = pages.split_at(20);
        for offset in [1, 2, 3, 511, 4095] {
            for blocks in [1, 8, 9, 16, 100] {
                round_trip(&bench, &w, 3, offset, blocks * 512, from, to);
            }
        }
        assert_eq!(w.bounced() != 0, bounced, "{sgl:?}");
    }
}

/// A device without a transfer limit, a driver with one of 32 MiB, and a guest of 80 MiB.
pub(crate) struct Huge {
    pub(crate) bench: Bench,
    pub(crate) spy: std::sync::Arc<crate::spy::Spy>,
    pub(crate) driver: doorbell::NvmeDriver,
    pub(crate) namespace: Namespace,
    pub(crate) memory: GuestMemory,
}

impl Huge {
    pub(crate) fn new(config: ControllerConfig, change: impl FnOnce(DriverOptions) -> DriverOptions) -> Self {
        let bench = Bench::with(NamespaceConfig::ram(64 << 20));
        let spy = crate::spy::Spy::new(bench.device(ControllerConfig { mdts: 0, ..config }));
        let options = change(bench.world.options(spy.clone()).depth(4).max_transfer(32 << 20));
        let driver = bench.run(options.open()).expect("the controller comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 80 << 20)]).expect("guest memory");
        let memory = driver.register_memory(&GuestMemory::new(&mmap).expect("guest memory")).expect("registered");
        Self { bench, spy, driver, namespace, memory }
    }

    fn bounced(&self) -> u64 {
        self.driver.inspect().queues.iter().map(|queue| queue.counters.bounced).sum()
    }

    pub(crate) fn round_trip(&self, offset: usize, len: usize, pages: &[u64]) {
        let data = pattern(len as u64, len);
        fill(&self.memory, pages, offset, &data);
        let range = PagedRange::new(offset, len, pages).expect("a range");
        let blocks = (len / 512) as u32;
        let Self { bench, namespace, memory, .. } = self;
        bench.run(namespace.write(0, 5, blocks, false, memory, range)).expect("written");
        fill(memory, pages, offset, &vec![0; len]);
        bench.run(namespace.read(0, 5, blocks, memory, range)).expect("read");
        assert!(contents(memory, pages, offset, len) == data, "{len} bytes at {offset}");
    }
}

pub(crate) const MIB: usize = 1 << 20;

#[test]
fn d5_prp_lists_are_chained_up_to_32_mib() {
    let huge = Huge::new(prps(), |options| options);
    assert_eq!(huge.namespace.max_transfer_block_count(), 1 << 16);
    let pages = scattered(20480);
    // Around one list page (512 entries and PRP1), around two (511 + 512), and at the end.
    for entries in [511, 512, 513, 514, 1022, 1023, 1024, 1025, 1534, 1535, 4096, 8190, 8191] {
        for offset in [0, 4, 4092] {
            huge.round_trip(offset, entries * 4096, &pages);
        }
    }
    huge.round_trip(0, 32 * MIB, &pages);
    huge.round_trip(2048, 32 * MIB - 512, &pages);
    assert_eq!(huge.bounced(), 0, "all of it in place");
    assert!(huge.spy.of(NvmOpcode::WRITE).iter().all(|command| command.cdw0.psdt() == 0));
}

#[test]
fn d5_sgls_say_what_they_can_up_to_32_mib() {
    let huge = Huge::new(ControllerConfig::default(), |options| options);
    let contiguous = gpns(3, 8193);
    for len in [2 * MIB + 512, 7 * MIB, 32 * MIB] {
        huge.spy.clear();
        huge.round_trip(512, len, &contiguous);
        assert!(huge.spy.io().iter().all(|(_, command)| command.cdw0.psdt() == 1), "one data block says it");
    }
    let pages = scattered(20480);
    for len in [2 * MIB + 8192, 5 * MIB, 32 * MIB] {
        huge.round_trip(0, len, &pages);
    }
    assert_eq!(huge.bounced(), 0);
    // Neither a PRP list nor a segment of one page says this.
    huge.round_trip(1, 5 * MIB, &pages);
}

#[test]
fn d5_a_chain_that_the_pool_cannot_hold_is_no_obstacle() {
    let huge = Huge::new(prps(), |options| options.bounce_pool(4096));
    let pages = scattered(20480);
    for len in [2 * MIB, 2 * MIB + 4096, 3 * MIB, 8 * MIB] {
        huge.round_trip(0, len, &pages);
    }
}

#[test]
fn d5_a_block_larger_than_the_largest_transfer_goes_whole() {
    let bench = Bench::with(NamespaceConfig::ram(16 << 20).block_size(65536));
    let w = Watched::with(&bench, prps(), |options| options.max_transfer(512));
    assert_eq!(w.namespace.max_transfer_block_count(), 1);
    let pages = scattered(40);
    let data = pattern(1, 65536);
    for offset in [0, 4, 4092] {
        fill(&w.memory, &pages, offset, &data);
        let range = PagedRange::new(offset, data.len(), &pages).expect("a range");
        bench.run(w.namespace.write(0, 3, 1, false, &w.memory, range)).expect("written");
        let mut back = vec![0; data.len()];
        bench.run(w.namespace.read_slice(0, 3, &mut back)).expect("read");
        assert!(back == data);
    }
}

#[test]
fn d5_a_buffer_of_the_drivers_is_named_at_every_length() {
    let huge = Huge::new(prps(), |options| options);
    let Huge { bench, driver, namespace, .. } = &huge;
    for len in [512, 4096, 4608, 8192, 8704, 2 * MIB, 2 * MIB + 512, 2 * MIB + 4096, 2 * MIB + 8192, 32 * MIB] {
        let data = pattern(len as u64, len);
        let mut buffer = driver.allocate_buffer(len).expect("a buffer");
        buffer.write_at(0, &data).expect("it fits");
        let (buffer, result) = bench.run(namespace.write_buffer(0, 1, (len / 512) as u32, false, buffer));
        result.expect("written");
        drop(buffer);
        let buffer = driver.allocate_buffer(len).expect("a buffer");
        let (buffer, result) = bench.run(namespace.read_buffer(0, 1, (len / 512) as u32, buffer));
        result.expect("read");
        assert!(buffer.to_vec() == data, "{len} bytes");
    }
    assert_eq!(huge.bounced(), 0);
}

/// CC.MPS pages of 64 KiB: guest pages of 4 KiB can begin and end a PRP entry only by luck.
#[test]
fn d5_pages_are_cc_mps_pages() {
    for (sgl, bounced) in [(SglSupport::Bytes, false), (SglSupport::None, true)] {
        let config = ControllerConfig { mpsmin: 4, mdts: 3, sgl, ..ControllerConfig::default() };
        let bench = Bench::new();
        let w = Watched::new(&bench, config);
        assert_eq!(w.driver.inspect().controller.page_size, 65536);
        let pages = scattered(128);
        let (from, to) = pages.split_at(64);
        for blocks in [1, 7, 8, 9, 16, 33, 128, 129, 400, 504] {
            for offset in [0, 4, 2048, 4092] {
                round_trip(&bench, &w, 7, offset, blocks * 512, from, to);
            }
        }
        assert_eq!(w.bounced() != 0, bounced, "scattered pages, {sgl:?}");

        // Contiguous in the guest, across any boundary of the controller's pages, nothing needs a copy.
        let before = w.bounced();
        let (from, to) = (gpns(3, 100), gpns(120, 100));
        for (blocks, offset) in [(8, 0), (128, 0), (129, 512), (400, 4), (700, 0), (792, 4092)] {
            round_trip(&bench, &w, 7, offset, blocks * 512, &from, &to);
        }
        assert_eq!(w.bounced(), before, "contiguous pages, {sgl:?}");
        // Whole pages of the controller's, in any order.
        let shuffled: Vec<u64> = [2u64, 0, 1].iter().flat_map(|big| gpns(big * 16, 16)).collect();
        let to: Vec<u64> = [9u64, 12, 8].iter().flat_map(|big| gpns(big * 16, 16)).collect();
        round_trip(&bench, &w, 7, 4096, 47 * 4096, &shuffled, &to);
        assert_eq!(w.bounced(), before, "whole pages, {sgl:?}");
    }
}

#[test]
fn d5_a_guest_that_begins_off_a_controllers_page_stays_aligned() {
    let config = ControllerConfig { mpsmin: 4, sgl: SglSupport::None, ..ControllerConfig::default() };
    let bench = Bench::new();
    let w = Watched::new(&bench, config);
    let regions = [(GuestAddress(0x5000), 0x2_0000), (GuestAddress(0x4003_0000), 0x4_1000)];
    let mmap = GuestMemoryMmap::from_ranges(&regions).expect("guest memory");
    let memory = w.driver.register_memory(&GuestMemory::new(&mmap).expect("guest memory")).expect("registered");
    for first in [0x5, 0x4_0030] {
        let pages = gpns(first, 0x20);
        let data = pattern(first, 0x20 * 4096);
        fill(&memory, &pages, 0, &data);
        let range = PagedRange::new(0, data.len(), &pages).expect("a range");
        bench.run(w.namespace.write(0, 0, 256, false, &memory, range)).expect("written");
        let mut back = vec![0; data.len()];
        bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
        assert!(back == data);
    }
    assert_eq!(w.bounced(), 2, "but for the slices");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn d5_any_pages_any_offset_any_length(
        seed in any::<u64>(),
        sgl in prop_oneof![Just(SglSupport::None), Just(SglSupport::Bytes), Just(SglSupport::Dwords)],
        mps in 0u8..=4,
        transfers in proptest::collection::vec((0usize..8192, 1usize..600, any::<u64>()), 1..12),
    ) {
        let bench = Bench::new();
        let config = ControllerConfig { mpsmin: mps, sgl, mdts: 0, ..ControllerConfig::default() };
        let w = Watched::with(&bench, config, |options| options.max_transfer(400 << 10).bounce_pool(128 << 10));
        for (offset, blocks, shuffle) in transfers {
            // Runs of neighbours of random lengths, in random order.
            let mut runs: Vec<Vec<u64>> = Vec::new();
            let mut random = pattern(seed ^ shuffle, 512).into_iter().map(u64::from);
            let mut at = 0;
            while at < 256 {
                let len = (random.next().unwrap_or(1) % 17 + 1).min(256 - at);
                let place = random.next().unwrap_or(0) as usize % (runs.len() + 1);
                runs.insert(place, gpns(at, len));
                at += len;
            }
            let pages: Vec<u64> = runs.concat();
            let (from, to) = pages.split_at(128);
            round_trip(&bench, &w, 100, offset, blocks * 512, from, to);
        }
    }
}
