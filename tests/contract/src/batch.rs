//! Q6: many commands under one doorbell, and none left behind it, whatever the executor does.

use std::sync::Arc;
use std::time::Duration;

use doorbell::{Batch, Transfer};
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

/// A pseudo-random number below `bound`.
fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize % bound
}

/// A read, and how often it had been woken when it was last polled.
struct Watching<'a>(Transfer<'a>, Arc<Counter>, usize);

impl Watching<'_> {
    /// Whether it has ended.
    fn poll(&mut self) -> bool {
        self.2 = self.1.count();
        self.1.poll(&mut self.0).map(|result| result.expect("read")).is_ready()
    }

    fn is_woken(&self) -> bool {
        self.1.count() != self.2
    }
}

/// An executor that does whatever it likes: holds batches too long, forgets them, drops and leaks what is in flight, polls
/// what nobody woke, submits from another thread, lets the device work or not. Once it is honest again and polls just
/// those that were woken, everything ends, without waiting for the watchdog unless a future was leaked.
#[test]
fn q6_hostile_executors_leave_nothing_behind() {
    for seed in 1..=300_u64 {
        let bench = Bench::new();
        let watched = watched(&bench);
        let pages = gpns(0, 1);
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut reads: Vec<Watching<'_>> = Vec::new();
        let mut batches: Vec<Batch<'_>> = Vec::new();
        let mut leaked = 0;
        for _ in 0..40 {
            let place = below(&mut state, reads.len().max(1));
            match below(&mut state, 12) {
                0 => batches.push(watched.namespace.batch(0)),
                1 => drop(batches.pop()),
                2 => std::mem::forget(batches.pop()),
                3 if !reads.is_empty() => drop(reads.swap_remove(place)),
                // Their slots are lost: not all of them.
                4 if !reads.is_empty() && leaked < 3 => {
                    std::mem::forget(reads.swap_remove(place));
                    leaked += 1;
                }
                5 if !reads.is_empty() => {
                    if reads[place].poll() {
                        reads.swap_remove(place);
                    }
                }
                6 => {
                    watched.driver.poll_cpu(0);
                }
                7 => {
                    bench.world.step_devices();
                }
                kind => {
                    let mut new = Watching(read(&watched, &pages), Counter::new(), 0);
                    let elsewhere = kind == 8;
                    let start = move || (!new.poll()).then_some(new);
                    reads.extend(match elsewhere {
                        true => std::thread::scope(|scope| scope.spawn(start).join().expect("the other thread")),
                        false => start(),
                    });
                }
            }
        }
        // They are never closed.
        std::mem::forget(batches);
        let begun = bench.world.now();
        bench.run(async {
            while !reads.is_empty() {
                let before = reads.len();
                reads.retain_mut(|read| !(read.is_woken() && read.poll()));
                if reads.len() == before {
                    bench.world.sleep(Duration::from_millis(1)).await;
                }
            }
        });
        let took = bench.world.now() - begun;
        let most = if leaked == 0 { Duration::from_millis(50) } else { Duration::from_secs(3) };
        assert!(took <= most, "seed {seed}: {leaked} leaked, {took:?}");
        bench.run(bench.world.sleep(Duration::from_secs(3)));
        assert!(watched.slots_taken() <= leaked, "seed {seed}: {leaked} leaked");
    }
}
