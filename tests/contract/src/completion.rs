//! Q4: how completions are found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell::{CompletionMode, DriverOptions, Namespace, NvmeDriver, Runtime, ThreadRuntime};
use doorbell_device::inprocess::Run;
use doorbell_emulator::{ControllerConfig, InterruptMode, NamespaceConfig, Subsystem, emulated};
use futures_lite::future::block_on;

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Counter, Watched, gpns, poll, whole};
use crate::spy::Spy;

#[test]
fn q4_by_interrupt_it_is_the_interrupt_that_wakes() {
    let bench = Bench::new();
    let (driver, namespace) = bench.up();
    let memory = driver.register_memory(&guest(1)).expect("registered");
    bench.run(namespace.flush(0)).expect("the first queue");
    let (pages, counter) = (gpns(0, 1), Counter::new());
    let before = driver.inspect().queues[0].counters.interrupts;
    let mut read = namespace.read(0, 0, 8, &memory, whole(&pages));
    assert!(counter.poll(&mut read).is_pending());
    while bench.world.step_devices() {}
    assert_eq!(counter.count(), 0, "the device is done, and nobody has looked");
    bench.world.settle();
    assert_eq!(counter.count(), 1);
    assert_eq!(driver.inspect().queues[0].counters.interrupts, before + 1);
    assert!(poll(&mut read).is_ready());
}

#[test]
fn q4_when_the_caller_polls_nobody_else_does() {
    let bench = Bench::new();
    let options = bench.options(ControllerConfig::default()).completion(CompletionMode::CallerPolls);
    let driver = bench.run(options.open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let counter = Counter::new();
    let mut flush = Box::pin(namespace.flush(0));
    assert!(counter.poll(&mut flush).is_pending());
    bench.world.settle();
    assert!(counter.poll(&mut flush).is_pending(), "there is a queue now");
    let woken = counter.count();
    bench.world.settle();
    bench.run(bench.world.sleep(Duration::from_millis(50)));
    assert_eq!(counter.count(), woken, "nobody looks in the background");
    assert_eq!(driver.inspect().queues[0].counters.interrupts, 0);
    assert_eq!(driver.poll(), 1);
    assert_eq!(counter.count(), woken + 1);
    assert!(poll(&mut flush).is_ready());
    // Or the future itself finds it.
    let mut flush = Box::pin(namespace.flush(0));
    assert!(poll(&mut flush).is_pending());
    bench.world.settle();
    assert!(poll(&mut flush).is_ready());
    assert_eq!(driver.poll(), 0);
}

#[test]
fn q4_adaptive_finds_completions_when_the_next_command_is_submitted() {
    for (mode, found) in [(CompletionMode::Adaptive, 1), (CompletionMode::Interrupt, 0)] {
        let bench = Bench::new();
        let w = Watched::with(&bench, ControllerConfig::default(), |options| options.completion(mode));
        let (pages, counter) = (gpns(0, 1), Counter::new());
        let mut first = w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
        assert!(counter.poll(&mut first).is_pending());
        while bench.world.step_devices() {}
        let mut second = w.namespace.read(0, 8, 8, &w.memory, whole(&pages));
        assert!(poll(&mut second).is_pending());
        assert_eq!(counter.count(), found, "{mode:?}");
        // The interrupt is there for those that nobody finds by chance.
        bench.world.settle();
        assert_eq!(counter.count(), 1);
        bench.run(async { first.await.and(second.await) }).expect("read");
    }
}

/// A driver and a controller on threads of their own.
pub(crate) fn threaded(
    config: ControllerConfig,
    change: impl FnOnce(DriverOptions) -> DriverOptions,
) -> (NvmeDriver, Arc<Namespace>) {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(16 << 20)).expect("a namespace");
    let device = emulated(&subsystem, config, Run::Threaded).expect("a device");
    let driver = block_on(change(DriverOptions::new(device).cpus(2).depth(8)).open()).expect("the controller comes up");
    let namespace = block_on(driver.namespace(1)).expect("namespace 1");
    (driver, Arc::new(namespace))
}

/// Every mode, over every way a device has of telling.
#[test]
fn q4_every_mode_works_with_every_kind_of_interrupt() {
    let modes =
        [CompletionMode::Interrupt, CompletionMode::Polling, CompletionMode::CallerPolls, CompletionMode::Adaptive];
    let kinds = [
        (InterruptMode::MsiX, 65),
        (InterruptMode::MsiX, 2),
        (InterruptMode::Msi, 4),
        (InterruptMode::Pin, 1),
        (InterruptMode::MsiX, 0),
    ];
    for mode in modes {
        for (interrupts, vectors) in kinds {
            let config = ControllerConfig { interrupts, vectors, ..ControllerConfig::default() };
            let (driver, namespace) = threaded(config, |options| options.completion(mode));
            let deadline = Instant::now() + Duration::from_secs(20);
            let io = async {
                for i in 0..30u64 {
                    let data = pattern(i, 4096);
                    namespace.write_slice(i as u32 % 2, i * 8, false, &data).await.expect("written");
                    let mut back = vec![0; 4096];
                    namespace.read_slice(i as u32 % 2, i * 8, &mut back).await.expect("read");
                    assert!(back == data);
                }
            };
            if mode == CompletionMode::CallerPolls {
                let mut io = Box::pin(io);
                while poll(&mut io).is_pending() {
                    driver.poll();
                    assert!(Instant::now() < deadline, "{mode:?}, {interrupts:?}, {vectors} vectors");
                }
            } else {
                let late = async {
                    async_deadline(deadline).await;
                    panic!("{mode:?}, {interrupts:?}, {vectors} vectors");
                };
                block_on(futures_lite::future::or(io, late));
            }
            let shown = driver.inspect().controller.completion;
            let expected = match (mode, vectors) {
                (CompletionMode::CallerPolls, _) => "caller polls",
                (_, 0) | (CompletionMode::Polling, _) => "polling",
                (CompletionMode::Adaptive, _) => "adaptive",
                _ => "interrupt",
            };
            assert_eq!(shown, expected);
            block_on(driver.shutdown());
        }
    }
}

#[test]
fn q4_where_there_are_no_threads_a_task_polls() {
    let bench = Bench::new();
    for (vectors, mode) in [(0, CompletionMode::Interrupt), (0, CompletionMode::Adaptive), (2, CompletionMode::Polling)]
    {
        let options = bench.options(ControllerConfig { vectors, ..ControllerConfig::default() }).completion(mode);
        let driver = bench.run(options.open()).expect("the controller comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        let (wrote, begun) = (pattern(7, 4096), bench.world.now());
        let mut read = vec![0; 4096];
        bench.run(namespace.write_slice(0, 0, false, &wrote)).expect("written");
        bench.run(namespace.read_slice(1, 0, &mut read)).expect("read");
        assert!(read == wrote, "{mode:?}");
        assert!(bench.world.now() - begun < Duration::from_millis(50), "{mode:?}: looked for soon enough");
        assert_eq!(driver.inspect().controller.completion, "polling");
        drop(namespace);
        bench.run(driver.shutdown());
        bench.world.settle();
        assert_eq!(bench.world.runtime().task_count(), 0, "{mode:?}");
    }
}

/// Ready at a time.
pub(crate) async fn async_deadline(at: Instant) {
    let runtime = ThreadRuntime::global();
    runtime.sleep_until(runtime.now() + at.saturating_duration_since(Instant::now())).await;
}

/// Whoever had the device before may have been killed, and left it with an interrupt that nobody can silence.
#[test]
fn q4_an_interrupt_that_never_falls_silent_keeps_nothing_from_running() {
    let bench = Bench::new();
    let config = ControllerConfig { interrupts: InterruptMode::Pin, vectors: 1, ..ControllerConfig::default() };
    let spy = Spy::noisy(bench.device(config));
    let driver = bench.run(bench.world.options(spy).open()).expect("a driver");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let data = pattern(1, 4096);
    bench.run(namespace.write_slice(0, 8, false, &data)).expect("written");
    let mut back = vec![0; 4096];
    bench.run(namespace.read_slice(1, 8, &mut back)).expect("read");
    assert!(back == data);
    let before = bench.world.now();
    bench.run(driver.shutdown());
    assert!(bench.world.now() - before < Duration::from_secs(1));
}
