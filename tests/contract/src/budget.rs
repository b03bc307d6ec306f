//! D8: from call to doorbell, and from completion to wake, there is nothing in between.

use std::sync::Arc;

use allocation_counter::measure;
use doorbell::{CompletionMode, DriverOptions, GuestMemory, Namespace, NvmeDriver, PagedRange, Transfer};
use doorbell_device::wrap::{Tracer, What};
use doorbell_device::zero_work::{Options, Queue, ZeroWork};
use doorbell_device::{Device, wrap::Event};
use doorbell_sim::World;
use nvme_spec::NvmOpcode;
use nvme_spec::registers::sq_tail_doorbell;

use crate::bench::{Bench, guest};
use crate::hands::{Counter, Watched, gpns, join_all, poll, whole};

const PAGE: usize = 4096;

/// A driver of a device that does nothing unless told, whose background tasks do not run unless told either.
struct Still {
    world: World,
    driver: NvmeDriver,
    namespace: Namespace,
    queue: Queue,
    memory: GuestMemory,
}

impl Still {
    fn new(device: impl FnOnce(Arc<ZeroWork>) -> Arc<dyn Device>, mode: CompletionMode) -> Self {
        let zero_work = ZeroWork::new(Options { interrupts: 4, ..Options::default() }).expect("a device");
        let world = World::new();
        let options = DriverOptions::new(device(zero_work.clone())).runtime(world.runtime().clone()).cpus(1).depth(64);
        let driver = world.run(options.completion(mode).open()).expect("the controller comes up");
        let namespace = world.run(driver.namespace(1)).expect("namespace 1");
        let memory = driver.register_memory(&guest(256)).expect("registered");
        // The first I/O has the queue made in the background.
        let mut flush = Box::pin(namespace.flush(0));
        assert!(poll(&mut flush).is_pending());
        world.settle();
        assert!(poll(&mut flush).is_pending());
        let queue = zero_work.queue(1).expect("the queue");
        queue.complete(1);
        driver.poll();
        world.run(flush).expect("flushed");
        Self { world, driver, namespace, queue, memory }
    }
}

/// The life of some transfers: submitted, completed, found, claimed. How many allocations that took.
fn allocations<'a>(still: &Still, start: impl Fn(usize) -> Transfer<'a>) -> u64 {
    let mut transfers: Vec<_> = (0..32).map(|_| None).collect();
    let mut round = || {
        for (i, transfer) in transfers.iter_mut().enumerate() {
            assert!(poll(transfer.insert(start(i))).is_pending());
        }
        assert_eq!(still.queue.complete(usize::MAX), 32);
        assert_eq!(still.driver.poll_cpu(0), 32);
        for transfer in &mut transfers {
            assert!(poll(transfer.as_mut().expect("a transfer")).is_ready());
            *transfer = None;
        }
    };
    // What is only done once is done.
    round();
    measure(|| (0..100).for_each(|_| round())).count_total
}

#[test]
fn d8_an_io_allocates_nothing() {
    let still = Still::new(|device| device, CompletionMode::CallerPolls);
    let unreached = guest(64);
    let pages = gpns(0, 64);
    let page = |i: usize| PagedRange::new(0, PAGE, &pages[i..=i]).expect("a range");
    let scattered: Vec<u64> = (0..64).map(|i| i * 2).collect();
    let odd = PagedRange::new(4, 63 * PAGE, &scattered).expect("a range");
    let Still { namespace, memory, .. } = &still;
    assert_eq!(allocations(&still, |i| namespace.read(0, i as u64, 1, memory, page(i))), 0, "read");
    assert_eq!(allocations(&still, |i| namespace.write(0, i as u64, 1, true, memory, page(i))), 0, "write");
    assert_eq!(allocations(&still, |_| namespace.read(0, 0, 63, memory, odd)), 0, "with a list");
    assert_eq!(allocations(&still, |i| namespace.read(0, i as u64, 1, &unreached, page(i))), 0, "bounced read");
    assert_eq!(
        allocations(&still, |i| namespace.write(0, i as u64, 1, false, &unreached, page(i))),
        0,
        "bounced write"
    );
    let bytes = [0; PAGE];
    assert_eq!(allocations(&still, |_| namespace.write_slice(0, 0, false, &bytes)), 0, "slices");
}

#[test]
fn d8_io_with_a_buffer_allocates_nothing() {
    let still = Still::new(|device| device, CompletionMode::CallerPolls);
    let mut buffer = Some(still.driver.allocate_buffer(2 * PAGE).expect("a buffer"));
    let mut round = || {
        let mut read = still.namespace.read_buffer(0, 0, 2, buffer.take().expect("it came back"));
        assert!(poll(&mut read).is_pending());
        still.queue.complete(1);
        still.driver.poll();
        let std::task::Poll::Ready((back, Ok(()))) = poll(&mut read) else { panic!("it is done") };
        buffer = Some(back);
    };
    round();
    assert_eq!(measure(|| (0..100).for_each(|_| round())).count_total, 0);
}

#[test]
fn d8_a_flush_allocates_nothing() {
    let still = Still::new(|device| device, CompletionMode::CallerPolls);
    let round = || {
        let mut flush = std::pin::pin!(still.namespace.flush(0));
        assert!(poll(&mut flush.as_mut()).is_pending());
        still.queue.complete(1);
        still.driver.poll();
        assert!(poll(&mut flush.as_mut()).is_ready());
    };
    round();
    assert_eq!(measure(|| (0..100).for_each(|_| round())).count_total, 0);
}

#[test]
fn d8_the_doorbell_rings_in_the_first_poll() {
    let mut tracer = None;
    let still = Still::new(
        |device| {
            let traced = Tracer::new(device, 1 << 16);
            tracer = Some(traced.clone());
            traced
        },
        CompletionMode::Interrupt,
    );
    let tracer = tracer.expect("the device is traced");
    let rung = || -> usize {
        let tail = sq_tail_doorbell(1, 4);
        tracer
            .events()
            .iter()
            .filter(|e| matches!(e, Event { what: What::Doorbell { offset, .. }, .. } if *offset == tail))
            .count()
    };
    let (pages, unreached, slice) = (gpns(0, 2), guest(2), [0; PAGE]);
    let Still { namespace, memory, .. } = &still;
    let transfers = [
        namespace.read(0, 0, 2, memory, whole(&pages)),
        namespace.write(0, 0, 2, false, memory, whole(&pages)),
        namespace.read(0, 0, 2, &unreached, whole(&pages)),
        namespace.write_slice(0, 0, false, &slice),
    ];
    for mut transfer in transfers {
        tracer.clear();
        let events = tracer.count();
        let counter = Counter::new();
        // No background task runs in between: this world stands still.
        assert!(counter.poll(&mut transfer).is_pending());
        assert_eq!(rung(), 1, "in the caller's own call");
        assert_eq!(tracer.count() - events, 1, "and nothing else: no register is touched");
        assert_eq!(still.queue.pending(), 1);
        still.queue.complete(1);
        assert_eq!(counter.count(), 0);
        still.driver.poll();
        assert_eq!(counter.count(), 1, "whoever finds a completion wakes the future that waits for it");
        assert!(counter.poll(&mut transfer).is_ready());
    }
    still.world.settle();
}

#[test]
fn d8_a_future_finds_its_own_completion() {
    let still = Still::new(|device| device, CompletionMode::Interrupt);
    let pages = gpns(0, 1);
    let mut read = still.namespace.read(0, 0, 1, &still.memory, whole(&pages));
    assert!(poll(&mut read).is_pending());
    still.queue.complete(1);
    assert!(poll(&mut read).is_ready(), "no interrupt was looked at, and nobody else polled");
}

#[test]
fn d8_waiting_for_a_full_queue_is_in_order_of_arrival() {
    for depth in [1, 4] {
        let bench = Bench::new();
        let w = Watched::with(&bench, doorbell_emulator::ControllerConfig::default(), |options| {
            options.depth(depth).bounce_pool(1 << 20)
        });
        let (pages, unreached, bytes) = (gpns(0, 1), guest(1), [0; 512]);
        let transfers: Vec<_> = (0..200u64)
            .map(|i| match i % 3 {
                0 => w.namespace.read(0, i, 1, &w.memory, whole(&pages)),
                1 => w.namespace.write_slice(0, i, false, &bytes),
                _ => w.namespace.read(0, i, 1, &unreached, whole(&pages)),
            })
            .collect();
        for result in bench.run(join_all(transfers)) {
            result.expect("done");
        }
        let lbas: Vec<u64> = w.spy.io().iter().map(|(_, command)| command.cdw10_11()).collect();
        assert_eq!(lbas, (0..200).collect::<Vec<_>>(), "depth {depth}");
        assert!(w.driver.inspect().queues[0].counters.waited > 0);
    }
}

#[test]
fn d8_a_newcomer_does_not_overtake_who_waits() {
    let bench = Bench::new();
    let w = Watched::with(&bench, doorbell_emulator::ControllerConfig::default(), |options| options.depth(1));
    let pages = gpns(0, 1);
    let read = |lba| w.namespace.read(0, lba, 1, &w.memory, whole(&pages));
    let (mut first, mut second, mut third) = (read(0), read(1), read(2));
    assert!(poll(&mut first).is_pending());
    assert!(poll(&mut second).is_pending());
    bench.world.settle();
    assert!(poll(&mut first).is_ready());
    // The slot is free, and the second's.
    assert!(poll(&mut third).is_pending());
    assert_eq!(w.spy.of(NvmOpcode::READ).len(), 1);
    assert!(poll(&mut second).is_pending());
    assert_eq!(w.spy.of(NvmOpcode::READ).last().map(|c| c.cdw10_11()), Some(1));
    bench.run(async { second.await.and(third.await) }).expect("read");
}

/// Whoever waits is only polled again when it is woken, so one lost wake-up and this never ends.
#[test]
fn d8_no_wake_up_is_lost_however_many_wait_and_go_away() {
    for (depth, seed) in [(1, 1), (1, 2), (4, 3), (4, 4), (2, 5)] {
        let bench = Bench::new();
        let w = Watched::with(&bench, doorbell_emulator::ControllerConfig::default(), |options| {
            options.depth(depth).bounce_pool(4 * PAGE)
        });
        let (pages, unreached) = (gpns(0, 6), guest(6));
        let mut random = crate::bench::pattern(seed, 1 << 14).into_iter().map(usize::from);
        let mut random = move || random.next().expect("enough of it");
        for _ in 0..20 {
            let mut transfers: Vec<_> = (0..60u64)
                .map(|i| {
                    let memory = if random() % 2 == 0 { &w.memory } else { &unreached };
                    w.namespace.read(0, i, (random() % 48 + 1) as u32, memory, whole(&pages))
                })
                .collect();
            // All are in line, then a third of them goes, some of which have been granted what they wait for.
            for transfer in &mut transfers {
                let _ = poll(transfer);
            }
            if random() % 2 == 0 {
                bench.world.settle();
            }
            let woken: Vec<_> = transfers.iter().map(|_| Counter::new()).collect();
            for (transfer, woken) in transfers.iter_mut().zip(&woken) {
                if woken.poll(transfer).is_ready() {
                    *transfer = w.namespace.read(0, 0, 1, &w.memory, whole(&pages));
                }
            }
            transfers.retain(|_| random() % 3 != 0);
            for result in bench.run(join_all(transfers)) {
                result.expect("read");
            }
        }
        bench.world.settle();
        assert_eq!((w.slots_taken(), w.driver.inspect().queues[0].waiting), (0, 0));
    }
}
