//! Real threads: several CPUs share queues, futures go away, and all data is looked at.

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell::{CompletionMode, PagedRange};
use doorbell_emulator::ControllerConfig;
use futures_lite::future::{block_on, or};

use crate::bench::{guest, pattern};
use crate::completion::{async_deadline, threaded};
use crate::hands::{contents, fill, gpns, poll};

fn stress(mode: CompletionMode, config: ControllerConfig, seed: u64) {
    const THREADS: u64 = 4;
    let (driver, namespace) =
        threaded(config, |options| options.cpus(THREADS as u32).depth(3).bounce_pool(4 * 4096).completion(mode));
    let driver = Arc::new(driver);
    let end = Instant::now() + Duration::from_millis(700);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (driver, namespace) = (driver.clone(), namespace.clone());
            std::thread::spawn(move || {
                let reached = driver.register_memory(&guest(16)).expect("registered");
                let unreached = guest(16);
                let pages = gpns(0, 8);
                let mut random = pattern(seed + thread, 1 << 20).into_iter().map(usize::from).cycle();
                let mut random = move || random.next().expect("endless");
                let mut rounds = 0u64;
                while Instant::now() < end {
                    rounds += 1;
                    let memory = if random() % 2 == 0 { &reached } else { &unreached };
                    let blocks = (random() % 64 + 1) as u32;
                    let (lba, cpu) = (thread * 64, random() as u32 % THREADS as u32);
                    let data = pattern(rounds ^ thread << 32, blocks as usize * 512);
                    let range = PagedRange::new(0, data.len(), &pages).expect("a range");
                    let late = || async {
                        async_deadline(Instant::now() + Duration::from_secs(60)).await;
                        panic!("a wake-up was lost");
                    };
                    fill(memory, &pages, 0, &data);
                    block_on(or(namespace.write(cpu, lba, blocks, false, memory, range), late())).expect("written");
                    // Reads elsewhere, that go away at any moment. Theirs is other memory.
                    let elsewhere = gpns(8, 8);
                    let mut gone: Vec<_> = (0..random() % 4)
                        .map(|_| {
                            namespace.read(
                                random() as u32 % 4,
                                1000,
                                64,
                                memory,
                                PagedRange::new(0, 32768, &elsewhere).expect("a range"),
                            )
                        })
                        .collect();
                    gone.iter_mut().for_each(|read| drop(poll(read)));
                    if random() % 2 == 0 {
                        gone.clear();
                    }
                    drop(gone);
                    fill(memory, &pages, 0, &vec![0; data.len()]);
                    block_on(or(namespace.read(cpu, lba, blocks, memory, range), late())).expect("read");
                    assert!(contents(memory, &pages, 0, data.len()) == data, "thread {thread}, round {rounds}");
                }
                rounds
            })
        })
        .collect();
    let rounds: u64 = threads.into_iter().map(|thread| thread.join().expect("no thread fails")).sum();
    assert!(rounds >= THREADS);
    let Some(driver) = Arc::into_inner(driver) else { panic!("the threads are gone") };
    let view = driver.inspect();
    assert!(view.queues.iter().all(|queue| queue.fault.is_none()), "{view}");
    block_on(driver.shutdown());
}

#[test]
fn d8_threads_share_queues_by_interrupt() {
    stress(CompletionMode::Interrupt, ControllerConfig { queue_pairs: 2, ..ControllerConfig::default() }, 1);
}

#[test]
fn d8_threads_share_queues_adaptively() {
    stress(CompletionMode::Adaptive, ControllerConfig { queue_pairs: 1, ..ControllerConfig::default() }, 2);
}

#[test]
fn d8_threads_share_queues_by_polling() {
    stress(CompletionMode::Polling, ControllerConfig { queue_pairs: 2, ..ControllerConfig::default() }, 3);
}

/// Completions come late and in another order.
#[test]
fn d7_threads_drop_what_is_late() {
    use doorbell_emulator::{CommandMatch, Fault, FaultPlan};
    let some = CommandMatch { every: 3, ..CommandMatch::io(2) };
    let faults = FaultPlan::on(some, Fault::Delay { microseconds: 700 });
    stress(CompletionMode::Interrupt, ControllerConfig { queue_pairs: 2, faults, ..ControllerConfig::default() }, 4);
}
