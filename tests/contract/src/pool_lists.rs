//! D5 and D6 together: lists and data in one pool.

use std::task::Poll;

use doorbell::{GuestMemory, PagedRange, RequestError};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SglSupport};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Watched, gpns, join_all, poll};
use crate::pointers::{Huge, MIB, scattered};

const PAGE: usize = 4096;

#[test]
fn d5_long_transfers_are_bounced_in_lists_that_are_right() {
    // The pool is larger than what one list page can say.
    for sgl in [SglSupport::None, SglSupport::Bytes] {
        let config = ControllerConfig { sgl, ..ControllerConfig::default() };
        let huge = Huge::new(config, |options| options.always_bounce(true).bounce_pool(16 << 20));
        let pages = scattered(20480);
        for len in [2 * MIB, 2 * MIB + 512, 2 * MIB + 4096, 2 * MIB + 8192, 5 * MIB + 512, 16 * MIB, 32 * MIB] {
            huge.round_trip(4, len, &pages);
        }
    }
}

/// Lists, guest memory that is bounced and guest memory that is not, all from one small pool.
#[test]
fn d6_lists_and_data_share_the_pool() {
    let bench = Bench::with(NamespaceConfig::null(1 << 30));
    let config = ControllerConfig { sgl: SglSupport::None, mdts: 0, ..ControllerConfig::default() };
    let w = Watched::with(&bench, config, |options| options.bounce_pool(3 * PAGE).depth(4).max_transfer(8 << 20));
    let reached = w.driver.register_memory(&guest(2048)).expect("registered");
    let unreached = guest(2048);
    let pages: Vec<u64> = gpns(0, 2048).into_iter().rev().collect();
    let transfers = (0..60usize).map(|i| {
        let memory: &GuestMemory = if i % 3 == 0 { &unreached } else { &reached };
        let len = [1, 515, 1030, 2, 2048, 1600, 7][i % 7] * PAGE;
        let range = PagedRange::new(0, len, &pages).expect("a range");
        w.namespace.read(0, i as u64, (len / 512) as u32, memory, range)
    });
    for result in bench.run(join_all(transfers)) {
        result.expect("read");
    }
    assert_eq!(w.driver.inspect().queues[0].pool_in_use, 0);
}

/// A future that is done may be kept, by those who join several: what it used is of use to others already.
#[test]
fn d6_a_finished_transfer_gives_its_pages_back_before_it_is_dropped() {
    let bench = Bench::with(NamespaceConfig { read_only: true, ..NamespaceConfig::ram(64 << 20) });
    let config = ControllerConfig { sgl: SglSupport::None, mdts: 0, ..ControllerConfig::default() };
    let w = Watched::with(&bench, config, |options| options.bounce_pool(4 * PAGE).max_transfer(8 << 20));
    let memory = w.driver.register_memory(&guest(2048)).expect("registered");
    let pages = scattered(2048);
    let in_use = || w.driver.inspect().queues[0].pool_in_use;

    let range = PagedRange::new(0, 1024 * PAGE, &pages).expect("a range");
    let mut chained = w.namespace.read(0, 0, 8192, &memory, range);
    assert!(poll(&mut chained).is_pending());
    assert!(in_use() > 0, "its list does not fit a page");
    bench.world.settle();
    assert!(poll(&mut chained).is_ready());
    assert_eq!(in_use(), 0);

    let bytes = pattern(1, PAGE);
    let mut refused = w.namespace.write_slice(0, 0, false, &bytes);
    assert!(poll(&mut refused).is_pending());
    bench.world.settle();
    let Poll::Ready(Err(RequestError::Nvme(_))) = poll(&mut refused) else { panic!("it cannot be written") };
    assert_eq!(in_use(), 0);
}

/// A transfer whose pages another holds that nobody polls any more: it ends when the driver does.
#[test]
fn d6_who_waits_for_pages_is_told_when_the_driver_ends() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.bounce_pool(4096));
    let bytes = [1; 4096];
    let mut holder = w.namespace.write_slice(0, 0, false, &bytes);
    assert!(poll(&mut holder).is_pending());
    let mut waiter = w.namespace.write_slice(0, 8, false, &bytes);
    assert!(poll(&mut waiter).is_pending());
    bench.run(w.driver.end(doorbell::ShutdownMode::Reset));
    assert!(matches!(bench.run(waiter), Err(RequestError::Gone)));
    bench.run(holder).expect("it was done before");
}
