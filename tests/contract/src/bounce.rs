//! D6: bounce buffering makes progress at every size and depth.

use doorbell::{PagedRange, RequestError};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SglSupport};
use nvme_spec::NvmOpcode;

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Counter, Watched, contents, fill, join_all, poll, whole};

const PAGE: usize = 4096;

/// A driver with a pool of so many pages a queue.
fn pool(bench: &Bench, pages: usize, depth: u32) -> Watched {
    let config = ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() };
    Watched::with(bench, config, |options| options.bounce_pool(pages * PAGE).depth(depth))
}

fn pages_in_use(w: &Watched) -> usize {
    w.driver.inspect().queues.iter().map(|queue| queue.pool_in_use).sum()
}

#[test]
fn d6_every_size_at_every_depth_with_any_pool() {
    for pages in [1, 2, 3, 7, 32] {
        for depth in [1, 2, 5, 32] {
            let bench = Bench::new();
            let w = pool(&bench, pages, depth);
            // Sizes up to several times the pool, 40 transfers at a time.
            let sizes: Vec<usize> = (1..=40).map(|i| (i * 37) % (pages * 8 * 3) + 1).collect();
            let mut lba = 0;
            let data: Vec<(u64, Vec<u8>)> = sizes
                .iter()
                .map(|blocks| {
                    let at = lba;
                    lba += *blocks as u64;
                    (at, pattern(at, blocks * 512))
                })
                .collect();
            let writes = data.iter().map(|(lba, data)| w.namespace.write_slice(0, *lba, false, data));
            for result in bench.run(join_all(writes)) {
                result.expect("written");
            }
            let mut back: Vec<(u64, Vec<u8>)> = data.iter().map(|(lba, data)| (*lba, vec![0; data.len()])).collect();
            let reads = back.iter_mut().map(|(lba, data)| w.namespace.read_slice(0, *lba, data));
            for result in bench.run(join_all(reads)) {
                result.expect("read");
            }
            assert!(back == data, "{pages} pages, depth {depth}");
            assert_eq!(pages_in_use(&w), 0);
        }
    }
}

#[test]
fn d6_what_is_larger_than_the_pool_is_carried_in_pieces() {
    let bench = Bench::new();
    let w = pool(&bench, 2, 8);
    let memory = guest(64);
    let pages = [9, 4, 30, 31, 32, 5];
    let data = pattern(1, 5 * PAGE);
    fill(&memory, &pages, 100, &data);
    let range = PagedRange::new(100, data.len(), &pages).expect("a range");
    bench.run(w.namespace.write(0, 60, 40, true, &memory, range)).expect("written");
    let pieces: Vec<(u64, u32)> = w.spy.of(NvmOpcode::WRITE).iter().map(|c| (c.cdw10_11(), c.cdw12)).collect();
    let fua = 1 << 30;
    assert_eq!(pieces, [(60, fua | 15), (76, fua | 15), (92, fua | 7)]);
    fill(&memory, &pages, 0, &[0; 6 * PAGE]);
    bench.run(w.namespace.read(0, 60, 40, &memory, range)).expect("read");
    assert_eq!(contents(&memory, &pages, 100, data.len()), data);
    bench.run(w.namespace.compare(0, 60, 40, &memory, range)).expect("equal");
}

#[test]
fn d6_what_may_not_be_split_is_too_large_and_not_sent() {
    let bench = Bench::new();
    let w = pool(&bench, 2, 8);
    let data = pattern(1, 3 * PAGE);
    bench.run(w.namespace.write_slice(0, 0, false, &data[..2 * PAGE]).whole()).expect("it just fits");
    w.spy.clear();
    let result = bench.run(w.namespace.write_slice(0, 0, false, &data).whole());
    assert!(matches!(result, Err(RequestError::TooLarge { len: 12288, max: 8192, unit: "bytes" })), "{result:?}");
    assert!(w.spy.rings().is_empty());
    bench.run(w.namespace.write(0, 0, 24, false, &w.memory, whole(&[5, 3, 8])).whole()).expect("not through the pool");
}

#[test]
fn d6_a_block_larger_than_the_pool_is_too_large() {
    let bench = Bench::with(NamespaceConfig::ram(16 << 20).block_size(65536));
    let w = pool(&bench, 15, 8);
    let result = bench.run(w.namespace.write_slice(0, 0, false, &[0; 65536]));
    assert!(matches!(result, Err(RequestError::TooLarge { len: 65536, .. })), "{result:?}");
    let w = pool(&bench, 16, 8);
    let data = pattern(4, 2 * 65536);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("a block at a time");
    let mut back = vec![0; data.len()];
    bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
    assert_eq!(back, data);
}

/// Three transfers on a pool of four pages: two pages in flight, four wanted, one wanted.
macro_rules! three {
    ($w:ident, $woken:ident, $first:ident, $second:ident, $third:ident) => {
        let (one, four, last) = ([1; 2 * PAGE], [2; 4 * PAGE], [3; PAGE]);
        let $woken = [Counter::new(), Counter::new(), Counter::new()];
        let mut $first = Box::pin($w.namespace.write_slice(0, 0, false, &one));
        let mut $second = Box::pin($w.namespace.write_slice(0, 100, false, &four));
        let mut $third = Box::pin($w.namespace.write_slice(0, 200, false, &last));
        assert!($woken[0].poll(&mut $first).is_pending());
        assert!($woken[1].poll(&mut $second).is_pending());
        assert!($woken[2].poll(&mut $third).is_pending());
    };
}

fn lbas(w: &Watched) -> Vec<u64> {
    w.spy.of(NvmOpcode::WRITE).iter().map(|c| c.cdw10_11()).collect()
}

#[test]
fn d6_pages_are_taken_in_order_of_arrival() {
    let bench = Bench::new();
    let w = pool(&bench, 4, 8);
    three!(w, woken, first, second, third);
    assert_eq!(lbas(&w), [0], "nobody overtakes, even if there are pages enough for the last");
    bench.world.settle();
    assert!(woken[0].poll(&mut first).is_ready());
    assert_eq!([woken[1].count(), woken[2].count()], [1, 0], "the second has its turn");
    assert!(woken[2].poll(&mut third).is_pending());
    assert_eq!(lbas(&w), [0]);
    assert!(woken[1].poll(&mut second).is_pending());
    assert_eq!(lbas(&w), [0, 100]);
    bench.world.settle();
    assert!(woken[1].poll(&mut second).is_ready());
    assert_eq!(woken[2].count(), 1);
    bench.run(third).expect("written");
    assert_eq!(pages_in_use(&w), 0);
}

#[test]
fn d6_a_waiter_that_goes_away_lets_the_next_one_in() {
    let bench = Bench::new();
    let w = pool(&bench, 4, 8);
    three!(w, woken, first, second, third);
    drop(second);
    assert_eq!(woken[2].count(), 1, "there are pages enough for the last");
    assert!(woken[2].poll(&mut third).is_pending());
    assert_eq!(lbas(&w), [0, 200]);
    bench.run(async { first.await.and(third.await) }).expect("written");
    assert_eq!(pages_in_use(&w), 0);
}

#[test]
fn d6_pages_granted_to_a_waiter_that_goes_away_are_passed_on() {
    let bench = Bench::new();
    let w = pool(&bench, 4, 8);
    three!(w, woken, first, second, third);
    bench.world.settle();
    assert!(woken[0].poll(&mut first).is_ready());
    assert_eq!(pages_in_use(&w), 4, "granted, though not yet picked up");
    drop(second);
    assert_eq!(woken[2].count(), 1);
    bench.run(third).expect("written");
    assert_eq!(lbas(&w), [0, 200]);
    assert_eq!(pages_in_use(&w), 0);
}

#[test]
fn d6_pages_of_a_command_that_waits_for_a_slot_are_given_back() {
    let bench = Bench::new();
    let w = pool(&bench, 4, 1);
    let (one, two) = ([1; 2 * PAGE], [2; 2 * PAGE]);
    let mut first = Box::pin(w.namespace.write_slice(0, 0, false, &one));
    let mut second = Box::pin(w.namespace.write_slice(0, 100, false, &two));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    assert_eq!(pages_in_use(&w), 4, "the second has its pages and waits for the slot");
    drop(second);
    assert_eq!(pages_in_use(&w), 2);
    bench.run(first).expect("written");
    assert_eq!(pages_in_use(&w), 0);
}

#[test]
fn d6_pages_come_back_when_the_device_fails_a_command() {
    let bench = Bench::with(NamespaceConfig { read_only: true, ..NamespaceConfig::ram(1 << 20) });
    let w = pool(&bench, 2, 8);
    for _ in 0..10 {
        let result = bench.run(w.namespace.write_slice(0, 0, false, &[0; 8 * PAGE]));
        assert!(matches!(result, Err(RequestError::Nvme(_))), "{result:?}");
        assert_eq!(pages_in_use(&w), 0);
    }
}
