//! D12: guest pages that cannot be used are found before anything is sent.

use doorbell::{ErrorClass, GuestMemory, PagedRange, RequestError};
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::{ControllerConfig, SglSupport};

use crate::bench::Bench;
use crate::hands::{Watched, gpns, poll, whole};

const PAGE: u64 = 4096;

fn watched(bench: &Bench) -> Watched {
    Watched::new(bench, ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() })
}

/// Pages 0 to 3 can be written, pages 4 and 5 only be read, and there are no pages 6 and 7 before pages 8 to 11.
fn patchy() -> GuestMemory {
    let host = |pages: u64| HostMemory::allocate((pages * PAGE) as usize).expect("memory");
    let builder = GuestMemory::builder().region(0, host(4), Access::ReadWrite);
    let builder = builder.region(4 * PAGE, host(2), Access::Read).region(8 * PAGE, host(4), Access::ReadWrite);
    builder.build().expect("guest memory")
}

fn memory_error(result: Result<(), RequestError>) -> String {
    let Err(error @ RequestError::Memory(_)) = result else { panic!("{result:?}") };
    assert_eq!(error.class(), ErrorClass::Invalid);
    error.to_string()
}

#[test]
fn d12_an_absent_page_is_an_error_before_anything_is_sent() {
    let bench = Bench::new();
    let w = watched(&bench);
    let registered = w.driver.register_memory(&patchy()).expect("registered");
    // The bad page is first, in the middle and last; and far away, where addresses overflow.
    let lists = [[6u64, 0, 1], [0, 7, 1], [0, 1, 6], [0, 1, 12], [0, u64::MAX, 1], [u64::MAX / PAGE, 0, 1]];
    for memory in [&registered, &patchy()] {
        for pages in &lists {
            let range = whole(pages);
            let said = memory_error(bench.run(w.namespace.read(0, 0, 24, memory, range)));
            assert!(said.contains("not present"), "{said}");
            memory_error(bench.run(w.namespace.write(0, 0, 24, false, memory, range)));
            memory_error(bench.run(w.namespace.compare(0, 0, 24, memory, range)));
        }
    }
    assert!(w.spy.rings().is_empty());
    assert_eq!(w.slots_taken(), 0);
    // A bad page that the transfer does not get to is no matter.
    bench.run(w.namespace.read(0, 0, 16, &registered, whole(&[0, 1, 6]))).expect("read");
}

#[test]
fn d12_a_read_only_page_cannot_be_read_into_but_written_from() {
    let bench = Bench::new();
    let w = watched(&bench);
    let registered = w.driver.register_memory(&patchy()).expect("registered");
    for memory in [&registered, &patchy()] {
        for pages in [[4u64, 0, 1], [0, 5, 1], [0, 1, 5]] {
            w.spy.clear();
            let said = memory_error(bench.run(w.namespace.read(0, 0, 24, memory, whole(&pages))));
            assert!(said.contains("read-only"), "{said}");
            assert!(w.spy.rings().is_empty());
            bench.run(w.namespace.write(0, 0, 24, false, memory, whole(&pages))).expect("written");
            bench.run(w.namespace.compare(0, 0, 24, memory, whole(&pages))).expect("equal");
        }
    }
}

/// Also when it goes in pieces through the pool, of which the first ones would be good.
#[test]
fn d12_the_whole_range_is_looked_at_before_the_first_piece() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.bounce_pool(4096));
    let memory = patchy();
    let pages = [0, 1, 2, 3, 8, 9, 6];
    memory_error(bench.run(w.namespace.write(0, 0, 56, false, &memory, whole(&pages))));
    let pages = [0, 1, 2, 3, 8, 9, 5];
    memory_error(bench.run(w.namespace.read(0, 0, 56, &memory, whole(&pages))));
    assert!(w.spy.rings().is_empty());
}

#[test]
fn d12_a_bad_page_leaves_slots_and_pages_free() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.depth(1).bounce_pool(4096));
    let registered = w.driver.register_memory(&patchy()).expect("registered");
    for _ in 0..10 {
        memory_error(bench.run(w.namespace.read(0, 0, 16, &registered, whole(&[0, 6]))));
        memory_error(bench.run(w.namespace.read(0, 0, 16, &patchy(), whole(&[0, 6]))));
    }
    bench.run(w.namespace.read(0, 0, 16, &registered, whole(&[0, 8]))).expect("read");
    assert_eq!((w.slots_taken(), w.driver.inspect().queues[0].pool_in_use), (0, 0));
}

#[test]
fn d12_unregistered_memory_is_an_error_and_not_touched() {
    let bench = Bench::new();
    let w = watched(&bench);
    bench.run(w.driver.unregister_memory(&w.memory));
    let pages = gpns(0, 1);
    memory_error(bench.run(w.namespace.read(0, 0, 8, &w.memory, whole(&pages))));
    assert!(w.spy.rings().is_empty());
}

/// It was registered when the transfer began to wait, and no longer is when it could be sent.
#[test]
fn d12_memory_unregistered_while_its_transfer_waits_is_not_touched() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.depth(1));
    let pages = gpns(0, 2);
    let buffer = w.driver.allocate_buffer(512).expect("a buffer");
    let mut first = w.namespace.read_buffer(0, 0, 1, buffer);
    let mut second = w.namespace.read(0, 0, 16, &w.memory, whole(&pages));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    bench.run(w.driver.unregister_memory(&w.memory));
    w.spy.clear();
    bench.run(first).1.expect("read");
    memory_error(bench.run(second));
    assert!(w.spy.rings().is_empty());
    assert_eq!(w.spy.device().dma_space().fault_count(), 0);
}

#[test]
fn d12_a_range_is_no_longer_than_its_pages() {
    assert!(PagedRange::new(0, 8192, &[1, 2]).is_some());
    assert!(PagedRange::new(1, 8192, &[1, 2]).is_none());
    assert!(PagedRange::new(8192, 0, &[1, 2]).is_some());
    assert!(PagedRange::new(usize::MAX, 2, &[1, 2]).is_none());
    assert!(PagedRange::new(0, 1, &[]).is_none());
}
