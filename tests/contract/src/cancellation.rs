//! D7: dropping a future at any moment is safe.

use std::task::Poll;

use doorbell::{GuestMemory, PagedRange};
use doorbell_device::wrap::DmaLedger;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SglSupport};
use nvme_spec::NvmOpcode;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Counter, Watched, contents, fill, gpns, join_all, poll, whole};

const PAGE: usize = 4096;

fn watched(bench: &Bench, depth: u32) -> Watched {
    let config = ControllerConfig { sgl: SglSupport::None, mdts: 0, ..ControllerConfig::default() };
    Watched::with(bench, config, |options| options.depth(depth).max_transfer(8 << 20).bounce_pool(8 * PAGE))
}

fn pages_in_use(w: &Watched) -> usize {
    w.driver.inspect().queues.iter().map(|queue| queue.pool_in_use).sum()
}

fn states(w: &Watched) -> Vec<String> {
    w.driver.inspect().queues[0].commands.iter().map(|command| command.state.clone()).collect()
}

#[test]
fn d7_dropping_a_read_in_flight_keeps_its_slot_until_the_device_is_done() {
    let bench = Bench::new();
    let w = watched(&bench, 1);
    let pages = gpns(0, 1);
    let mut read = w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
    assert!(poll(&mut read).is_pending());
    drop(read);
    assert_eq!(states(&w), ["Orphaned"]);
    let woken = Counter::new();
    let mut next = w.namespace.read(0, 8, 8, &w.memory, whole(&pages));
    assert!(woken.poll(&mut next).is_pending());
    assert_eq!(w.spy.io().len(), 1, "the only slot is taken");
    bench.world.settle();
    assert_eq!(woken.count(), 1, "whoever waits for the slot is told");
    bench.run(next).expect("read");
    assert_eq!(states(&w), [""; 0]);
    assert_eq!(w.driver.inspect().queues[0].counters.orphaned, 1);
}

#[test]
fn d7_the_identifier_of_a_dropped_command_is_not_used_again_until_it_is_done() {
    let bench = Bench::new();
    let w = watched(&bench, 4);
    let pages = gpns(0, 1);
    for round in 0..40 {
        w.spy.clear();
        let mut futures: Vec<_> = (0..6).map(|i| w.namespace.read(0, i, 8, &w.memory, whole(&pages))).collect();
        for (i, future) in futures.iter_mut().enumerate() {
            assert!(poll(future).is_pending());
            assert_eq!(w.spy.io().len(), (i + 1).min(4), "four slots, round {round}");
        }
        drop(futures);
        let mut cids: Vec<u16> = w.spy.io().iter().map(|(_, command)| command.cdw0.cid()).collect();
        cids.sort_unstable();
        cids.dedup();
        assert_eq!(cids.len(), 4, "all different");
        let mut more = w.namespace.read(0, 9, 8, &w.memory, whole(&pages));
        assert!(poll(&mut more).is_pending());
        assert_eq!(w.spy.io().len(), 4, "none is free");
        bench.world.settle();
        bench.run(more).expect("read");
    }
    assert!(w.driver.inspect().queues[0].fault.is_none());
}

#[test]
fn d7_dropping_a_bounced_write_in_flight_keeps_its_pages() {
    let bench = Bench::new();
    let w = watched(&bench, 8);
    let data: Vec<Vec<u8>> = (0..4).map(|i| pattern(i, 3 * PAGE)).collect();
    // Two fill the pool but for two pages; the third must wait for one of them, though nobody waits for that.
    let mut writes: Vec<_> =
        data.iter().enumerate().map(|(i, data)| w.namespace.write_slice(0, i as u64 * 24, false, data)).collect();
    for write in &mut writes {
        assert!(poll(write).is_pending());
    }
    let (mut late, early) = (writes.split_off(2), writes);
    drop(early);
    assert_eq!(pages_in_use(&w), 6);
    assert!(poll(&mut late[0]).is_pending());
    assert_eq!(w.spy.of(NvmOpcode::WRITE).len(), 2, "no page is used again");
    bench.world.settle();
    bench.run(async {
        for write in late {
            write.await.expect("written");
        }
    });
    for (i, data) in data.iter().enumerate() {
        let mut back = vec![0; data.len()];
        bench.run(w.namespace.read_slice(0, i as u64 * 24, &mut back)).expect("read");
        assert!(back == *data, "write {i} wrote what it was given");
    }
    assert_eq!(pages_in_use(&w), 0);
}

#[test]
fn d7_dropping_a_bounced_read_in_flight_keeps_its_pages_and_leaves_the_slice_alone() {
    let bench = Bench::new();
    let w = watched(&bench, 8);
    let data = pattern(1, 8 * PAGE);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    let mut slice = vec![7; 8 * PAGE];
    let mut read = w.namespace.read_slice(0, 0, &mut slice);
    assert!(poll(&mut read).is_pending());
    drop(read);
    assert_eq!(slice, [7; 8 * PAGE]);
    let mut next = vec![0; PAGE];
    let mut read = w.namespace.read_slice(0, 8, &mut next);
    assert!(poll(&mut read).is_pending());
    assert_eq!(w.spy.of(NvmOpcode::READ).len(), 1, "the whole pool is the device's");
    bench.world.settle();
    assert_eq!(slice, [7; 8 * PAGE]);
    bench.run(read).expect("read");
    assert_eq!(next, data[PAGE..2 * PAGE]);
}

#[test]
fn d7_dropping_a_chained_transfer_in_flight_keeps_its_list_pages() {
    let bench = Bench::new();
    let w = watched(&bench, 8);
    let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).expect("guest memory");
    let memory = w.driver.register_memory(&GuestMemory::new(&mmap).expect("guest memory")).expect("registered");
    let pages: Vec<u64> = (0..2048).rev().collect();
    let data = pattern(3, 2048 * PAGE);
    fill(&memory, &pages, 0, &data);
    let mut write = w.namespace.write(0, 0, 16384, false, &memory, whole(&pages));
    assert!(poll(&mut write).is_pending());
    let lists = pages_in_use(&w);
    assert!(lists > 0, "its list does not fit a page");
    drop(write);
    assert_eq!(pages_in_use(&w), lists);
    // As many others as the pool has pages for write there what they like.
    let noise = vec![0xff; PAGE];
    let mut others: Vec<_> = (0..8).map(|i| w.namespace.write_slice(0, 20000 + i * 8, false, &noise)).collect();
    others.iter_mut().for_each(|other| assert!(poll(other).is_pending()));
    bench.world.settle();
    bench.run(async {
        for other in others {
            other.await.expect("written");
        }
    });
    let mut back = vec![0; data.len()];
    bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
    assert!(back == data, "the device followed the list it was given");
    assert_eq!(pages_in_use(&w), 0);
}

/// A driver whose mappings are written down.
fn with_ledger(bench: &Bench) -> (std::sync::Arc<DmaLedger>, doorbell::NvmeDriver, doorbell::Namespace) {
    let ledger = DmaLedger::new(bench.device(ControllerConfig::default()));
    let driver = bench.run(bench.world.options(ledger.clone()).open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("the first queue");
    bench.world.settle();
    (ledger, driver, namespace)
}

#[test]
fn d7_a_buffer_is_not_freed_while_the_device_may_write_it() {
    let bench = Bench::new();
    let (ledger, driver, namespace) = with_ledger(&bench);
    let before = ledger.live_ranges();
    for poll_first in [true, false] {
        let buffer = driver.allocate_buffer(3 * PAGE).expect("a buffer");
        let with = ledger.live_ranges();
        let mine = *with.last().expect("the buffer");
        let mut read = namespace.read_buffer(0, 0, 24, buffer);
        if poll_first {
            assert!(poll(&mut read).is_pending());
        }
        drop(read);
        assert_eq!(ledger.is_live(mine.iova, mine.len), poll_first, "kept only while the device has it");
        bench.world.settle();
        assert_eq!(ledger.live_ranges(), before, "freed when the device is done");
    }
    assert_eq!(driver.inspect().queues[0].commands.len(), 0);
}

#[test]
fn d7_a_buffer_whose_read_is_done_but_not_claimed_is_freed_at_once() {
    let bench = Bench::new();
    let (ledger, driver, namespace) = with_ledger(&bench);
    let before = ledger.live_ranges();
    let buffer = driver.allocate_buffer(PAGE).expect("a buffer");
    let mut read = namespace.read_buffer(0, 0, 8, buffer);
    assert!(poll(&mut read).is_pending());
    bench.world.settle();
    drop(read);
    assert_eq!(ledger.live_ranges(), before);
}

#[test]
fn d7_guest_memory_stays_mapped_while_a_dropped_command_names_it() {
    let bench = Bench::new();
    let (ledger, driver, namespace) = with_ledger(&bench);
    let before = ledger.live_ranges();
    for explicitly in [true, false] {
        let memory = driver.register_memory(&guest(4)).expect("registered");
        let mine = *ledger.live_ranges().last().expect("the guest");
        let pages = gpns(0, 4);
        let mut read = namespace.read(0, 0, 32, &memory, whole(&pages));
        assert!(poll(&mut read).is_pending());
        drop(read);
        let mut unregister = Box::pin(async {
            if explicitly {
                driver.unregister_memory(&memory).await;
            }
        });
        let pending = poll(&mut unregister);
        assert_eq!(pending, if explicitly { Poll::Pending } else { Poll::Ready(()) });
        if !explicitly {
            drop(unregister);
            drop(memory);
            // The background task that waits for the device has its turn, the device has not.
            assert!(ledger.is_live(mine.iova, mine.len));
            bench.world.settle();
        } else {
            assert!(ledger.is_live(mine.iova, mine.len));
            bench.run(unregister);
        }
        assert_eq!(ledger.live_ranges(), before, "unmapped when the device is done");
    }
}

#[test]
fn d7_dropping_before_the_first_poll_does_nothing() {
    let bench = Bench::new();
    let w = watched(&bench, 2);
    let pages = gpns(0, 1);
    let data = [1; 512];
    for _ in 0..10 {
        drop(w.namespace.write(0, 0, 8, false, &w.memory, whole(&pages)));
        drop(w.namespace.write_slice(0, 0, false, &data));
        drop(w.namespace.compare_and_write(0, 0, &data, &data, false));
        drop(w.namespace.flush(0));
    }
    bench.world.settle();
    assert!(w.spy.rings().is_empty());
    assert_eq!((w.slots_taken(), pages_in_use(&w)), (0, 0));
}

#[test]
fn d7_dropping_while_waiting_for_a_slot_sends_nothing_and_holds_up_nobody() {
    let bench = Bench::new();
    let w = watched(&bench, 1);
    let pages = gpns(0, 1);
    let woken: Vec<_> = (0..4).map(|_| Counter::new()).collect();
    let mut reads: Vec<_> = (0..4).map(|i| Some(w.namespace.read(0, i, 1, &w.memory, whole(&pages)))).collect();
    for (read, woken) in reads.iter_mut().zip(&woken) {
        assert!(woken.poll(read.as_mut().expect("a read")).is_pending());
    }
    // The second goes away while it waits, the third when it has been granted the slot.
    reads[1] = None;
    bench.world.settle();
    assert!(woken[0].poll(reads[0].as_mut().expect("a read")).is_ready());
    assert_eq!((woken[2].count(), woken[3].count()), (1, 0));
    reads[2] = None;
    assert_eq!(woken[3].count(), 1);
    bench.run(reads[3].take().expect("a read")).expect("read");
    let lbas: Vec<u64> = w.spy.of(NvmOpcode::READ).iter().map(|c| c.cdw10_11()).collect();
    assert_eq!(lbas, [0, 3]);
    assert_eq!(w.driver.inspect().queues[0].waiting, 0);
}

#[test]
fn d7_dropping_after_completion_frees_everything() {
    let bench = Bench::new();
    let w = watched(&bench, 2);
    let pages = gpns(0, 1);
    let data = [1; PAGE];
    for _ in 0..20 {
        let mut direct = w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
        let mut bounced = w.namespace.write_slice(0, 0, false, &data);
        assert!(poll(&mut direct).is_pending());
        assert!(poll(&mut bounced).is_pending());
        bench.world.settle();
        assert_eq!(states(&w), ["Done", "Done"]);
        drop((direct, bounced));
        assert_eq!((w.slots_taken(), pages_in_use(&w)), (0, 0));
    }
}

#[test]
fn d7_dropping_a_fused_pair_in_flight_keeps_both_halves() {
    let bench = Bench::new();
    let w = watched(&bench, 2);
    let (old, new) = ([0; PAGE], pattern(1, PAGE));
    let mut pair = Box::pin(w.namespace.compare_and_write(0, 0, &old, &new, false));
    assert!(poll(&mut pair).is_pending());
    drop(pair);
    assert_eq!(states(&w), ["Orphaned", "Orphaned"]);
    assert_eq!(pages_in_use(&w), 2);
    let noise = vec![0xff; 6 * PAGE];
    let mut other = w.namespace.write_slice(0, 100, false, &noise);
    assert!(poll(&mut other).is_pending());
    bench.run(other).expect("written");
    let mut back = vec![0; PAGE];
    bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
    assert!(back == new, "it was carried out as it was given");
    assert_eq!((w.slots_taken(), pages_in_use(&w)), (0, 0));
}

/// Hundreds of commands at a time, of which many are dropped at any moment; those that are not see their own data.
#[test]
fn d7_random_drops_never_mix_up_data() {
    for seed in 1..6 {
        let bench = Bench::with(NamespaceConfig::ram(16 << 20));
        let w = watched(&bench, 5);
        let unreached = guest(256);
        let mut random = pattern(seed, 1 << 16).into_iter().map(usize::from);
        let mut random = move || random.next().expect("enough of it");
        for round in 0..60u64 {
            let count = 12;
            let pages: Vec<Vec<u64>> = (0..count).map(|i| gpns(i * 8, 8)).collect();
            for memory in [&w.memory, &unreached] {
                pages.iter().enumerate().for_each(|(i, pages)| {
                    fill(memory, pages, 0, &pattern(round * 100 + i as u64, 8 * PAGE));
                });
            }
            let mut writes: Vec<_> = (0..count as usize)
                .map(|i| {
                    let memory = if random() % 2 == 0 { &w.memory } else { &unreached };
                    let len = (random() % 64 + 1) * 512;
                    let range = PagedRange::new(0, len, &pages[i]).expect("a range");
                    let write = w.namespace.write(0, i as u64 * 64, (len / 512) as u32, false, memory, range);
                    (i, len, Some(write), false)
                })
                .collect();
            // Nothing of this changes until all are done.
            for _ in 0..40 {
                let (_, _, write, done) = &mut writes[random() % count as usize];
                match random() % 8 {
                    0 if random() % 3 == 0 => *write = None,
                    0 | 1 => {
                        bench.world.step_devices();
                    }
                    2 => bench.world.settle(),
                    _ => {
                        if let Some(pending) = write.as_mut()
                            && let Poll::Ready(result) = poll(pending)
                        {
                            result.expect("written");
                            (*write, *done) = (None, true);
                        }
                    }
                }
            }
            let left = writes.iter_mut().filter_map(|(.., write, done)| {
                *done |= write.is_some();
                write.take()
            });
            for result in bench.run(join_all(left.collect::<Vec<_>>())) {
                result.expect("written");
            }
            bench.world.settle();
            for (i, len, _, done) in &writes {
                if *done {
                    let mut back = vec![0; *len];
                    bench.run(w.namespace.read_slice(0, *i as u64 * 64, &mut back)).expect("read");
                    assert!(back == pattern(round * 100 + *i as u64, 8 * PAGE)[..*len], "seed {seed}, round {round}");
                }
            }
            assert_eq!((w.slots_taken(), pages_in_use(&w)), (0, 0));
        }
        assert!(contents(&w.memory, &[200], 0, PAGE).iter().all(|byte| *byte == 0), "no stray write");
        assert_eq!(w.spy.device().dma_space().fault_count(), 0, "nor stray access");
    }
}
