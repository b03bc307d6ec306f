//! Q6: many commands under one doorbell, and none left behind it, whatever the executor does.

use std::time::Duration;

use doorbell::Transfer;
use doorbell_emulator::ControllerConfig;

use crate::bench::Bench;
use crate::hands::{Counter, Watched, gpns, join_all, poll, whole};

fn watched(bench: &Bench) -> Watched {
    Watched::with(bench, ControllerConfig::default(), |options| options.depth(8))
}

fn read<'a>(watched: &'a Watched, page: &'a [u64]) -> Transfer<'a> {
    watched.namespace.read(0, page[0] * 8, 8, &watched.memory, whole(page))
}

/// How many commands were behind each doorbell.
fn rings(watched: &Watched) -> Vec<usize> {
    watched.spy.rings().iter().map(|ring| ring.commands.len()).collect()
}

#[test]
fn q6_a_batch_rings_once_when_it_is_dropped() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 5);
    let batch = watched.namespace.batch(0);
    let inner = watched.namespace.batch(0);
    let mut reads: Vec<_> = pages.chunks(1).map(|page| read(&watched, page)).collect();
    for read in &mut reads {
        assert!(poll(read).is_pending());
    }
    drop(inner);
    assert!(rings(&watched).is_empty(), "one batch is still open");
    drop(batch);
    assert_eq!(rings(&watched), [5]);
    for result in bench.run(join_all(reads)) {
        result.expect("read");
    }
    bench.run(read(&watched, &pages[..1])).expect("read");
    assert_eq!(rings(&watched), [5, 1], "without a batch each rings");
}

#[test]
fn q6_many_are_submitted_under_one_doorbell() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 6);
    let bad = watched.namespace.read(0, u64::MAX, 8, &watched.memory, whole(&pages[..1]));
    let reads = pages.chunks(1).map(|page| read(&watched, page)).chain([bad]);
    let results = bench.run(watched.namespace.submit_many(0, reads));
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, true, true, true, false]);
    assert_eq!(rings(&watched), [6]);
}

#[test]
fn q6_the_first_behind_a_doorbell_comes_back_and_rings() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 2);
    let batch = watched.namespace.batch(0);
    let (mut first, mut second) = (read(&watched, &pages[..1]), read(&watched, &pages[1..]));
    let (one, two) = (Counter::new(), Counter::new());
    assert!(one.poll(&mut first).is_pending());
    assert!(two.poll(&mut second).is_pending());
    assert_eq!((one.count(), two.count(), rings(&watched)), (1, 0, vec![]));
    assert!(one.poll(&mut first).is_pending());
    assert_eq!((one.count(), rings(&watched)), (1, vec![2]), "who waits rings for all");
    // The batch was held while somebody waited: it is over.
    drop((first, second));
    let mut third = read(&watched, &pages[..1]);
    assert!(poll(&mut third).is_pending());
    assert_eq!(rings(&watched), [2, 1]);
    drop(batch);
    assert_eq!(rings(&watched), [2, 1]);
}

/// The guard is leaked, or held while its own task waits; the executor only polls who was woken.
#[test]
fn q6_a_forgotten_batch_leaves_nothing_behind() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 4);
    let started = bench.world.now();
    std::mem::forget(watched.namespace.batch(0));
    for result in bench.run(join_all(pages.chunks(1).map(|page| read(&watched, page)))) {
        result.expect("read");
    }
    bench.run(async {
        let _held = watched.namespace.batch(0);
        read(&watched, &pages[..1]).await.expect("read");
        watched.namespace.flush(0).await.expect("flushed");
    });
    assert!(bench.world.now() - started < Duration::from_millis(900), "nobody had to wait for the watchdog");
    assert_eq!(rings(&watched).iter().sum::<usize>(), 6);
}

/// Who would come back and ring never does: the watchdog rings.
#[test]
fn q6_leaked_futures_leave_nothing_behind() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 2);
    let started = bench.world.now();
    std::mem::forget(watched.namespace.batch(0));
    let mut leaked = read(&watched, &pages[..1]);
    assert!(poll(&mut leaked).is_pending());
    std::mem::forget(leaked);
    bench.run(read(&watched, &pages[1..])).expect("read");
    assert!(bench.world.now() - started < Duration::from_secs(3));
    assert_eq!(rings(&watched), [2]);
}

#[test]
fn q6_a_full_queue_rings() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 9);
    let batch = watched.namespace.batch(0);
    let mut reads: Vec<_> = pages.chunks(1).map(|page| read(&watched, page)).collect();
    for read in &mut reads[..8] {
        assert!(poll(read).is_pending());
    }
    assert!(rings(&watched).is_empty());
    assert!(poll(&mut reads[8]).is_pending());
    assert_eq!(rings(&watched), [8], "the slots that the ninth waits for are behind the doorbell");
    drop(reads);
    drop(batch);
    bench.world.settle();
    assert_eq!(watched.slots_taken(), 0);
}

#[test]
fn q6_waiting_for_pages_rings() {
    let bench = Bench::new();
    let watched = Watched::with(&bench, ControllerConfig::default(), |options| options.bounce_pool(8192));
    let mut slices = [vec![0; 4096], vec![0; 4096], vec![0; 4096]];
    let _batch = watched.namespace.batch(0);
    let mut reads: Vec<_> = slices.iter_mut().map(|slice| watched.namespace.read_slice(0, 0, slice)).collect();
    assert!(poll(&mut reads[0]).is_pending());
    assert!(poll(&mut reads[1]).is_pending());
    assert!(rings(&watched).is_empty());
    assert!(poll(&mut reads[2]).is_pending());
    assert_eq!(rings(&watched), [2], "the pages that the third waits for are behind the doorbell");
}

#[test]
fn q6_another_thread_rings_for_all() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 2);
    let batch = watched.namespace.batch(0);
    let mut first = read(&watched, &pages[..1]);
    assert!(poll(&mut first).is_pending());
    assert!(rings(&watched).is_empty());
    std::thread::scope(|scope| {
        let other = || {
            let _none = watched.namespace.batch(0);
            assert!(rings(&watched).is_empty(), "another's batch is none of its business");
            let mut second = read(&watched, &pages[1..]);
            assert!(poll(&mut second).is_pending());
        };
        scope.spawn(other).join().expect("the other thread");
    });
    assert_eq!(rings(&watched), [2], "it is not in the batch, and tells the device of both");
    drop((first, batch));
}

#[test]
fn q6_who_looks_or_goes_away_rings() {
    let bench = Bench::new();
    let watched = watched(&bench);
    let pages = gpns(0, 1);
    let batch = watched.namespace.batch(0);
    let mut looking = read(&watched, &pages);
    assert!(poll(&mut looking).is_pending());
    watched.driver.poll_cpu(0);
    assert_eq!(rings(&watched), [1]);
    drop(batch);

    let batch = watched.namespace.batch(0);
    let mut leaving = read(&watched, &pages);
    assert!(poll(&mut leaving).is_pending());
    drop(leaving);
    assert_eq!(rings(&watched), [1, 1], "its slot is free only when the device was told, and has answered");

    let mut named = read(&watched, &pages);
    assert!(poll(&mut named).is_pending());
    bench.run(watched.driver.unregister_memory(&watched.memory));
    assert_eq!(rings(&watched), [1, 1, 1]);
    drop(batch);
}
