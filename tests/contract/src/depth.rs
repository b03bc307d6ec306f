//! Q5: how many commands are in flight.

use doorbell::{CompletionMode, DriverError};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_emulator::{ControllerConfig, NamespaceConfig};

use crate::bench::Bench;
use crate::hands::{Watched, gpns, join_all, poll, whole};

/// Submits until no more go out, and says how many did.
fn most_in_flight(bench: &Bench, mqes: u16, depth: u32) -> usize {
    let w =
        Watched::with(bench, ControllerConfig { mqes, ..ControllerConfig::default() }, |options| options.depth(depth));
    assert_eq!(usize::from(w.driver.depth()), usize::from(w.driver.inspect().queues[0].depth));
    let pages = gpns(0, 1);
    let count = depth as usize + 3;
    for round in 0..3 {
        w.spy.clear();
        let mut reads: Vec<_> =
            (0..count).map(|i| w.namespace.read(0, i as u64, 1, &w.memory, whole(&pages))).collect();
        reads.iter_mut().for_each(|read| assert!(poll(read).is_pending()));
        let sent = w.spy.io().len();
        assert_eq!(sent, w.slots_taken());
        assert_eq!(sent, usize::from(w.driver.depth()), "round {round}");
        for result in bench.run(join_all(reads)) {
            result.expect("read");
        }
        assert_eq!(w.spy.io().len(), count);
    }
    w.spy.clear();
    usize::from(w.driver.depth())
}

#[test]
fn q5_depth_is_commands_in_flight_as_asked() {
    let bench = Bench::new();
    for depth in [1, 2, 3, 31, 32, 63, 64, 65, 255, 256, 257, 1000] {
        assert_eq!(most_in_flight(&bench, 4095, depth), depth as usize);
    }
}

#[test]
fn q5_depth_goes_up_to_mqes() {
    let bench = Bench::new();
    // A ring has one entry more than commands, and MQES is 0's based.
    for (mqes, depth, in_flight) in [(1, 256, 1), (2, 256, 2), (3, 3, 3), (3, 4, 3), (255, 256, 255), (256, 256, 256)] {
        assert_eq!(most_in_flight(&bench, mqes, depth), in_flight, "MQES {mqes}, asked {depth}");
    }
}

#[test]
fn q5_thousands_are_in_flight() {
    let bench = Bench::with(NamespaceConfig::null(1 << 30));
    assert_eq!(most_in_flight(&bench, 4095, 4096), 4095);
    assert_eq!(most_in_flight(&bench, 4096, 4096), 4096);
}

#[test]
fn q5_a_depth_that_cannot_be_is_refused_by_name() {
    let bench = Bench::new();
    for depth in [0, 4097, 70000, u32::MAX] {
        let error =
            bench.run(bench.options(ControllerConfig::default()).depth(depth).open()).expect_err("it cannot be");
        let DriverError::BadOption { option: "depth", value, .. } = error else { panic!("{error:?}") };
        assert_eq!(value, u64::from(depth));
        assert!(error.to_string().contains("1 to 4096"), "{error}");
    }
}

/// Identifiers come round: slot and generation, FFFFh never.
#[test]
fn q5_identifiers_are_never_ffff() {
    let bench = Bench::new();
    let zero_work = ZeroWork::new(Options::default()).expect("a device");
    let options = bench.world.options(zero_work.clone()).cpus(1).depth(4095).completion(CompletionMode::CallerPolls);
    let driver = bench.run(options.open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let mut flush = Box::pin(namespace.flush(0));
    while poll(&mut flush).is_pending() {
        bench.world.settle();
        zero_work.complete(1, 1);
        driver.poll();
    }
    for _ in 0..40 {
        let mut flushes: Vec<_> = (0..4095).map(|_| Box::pin(namespace.flush(0))).collect();
        flushes.iter_mut().for_each(|flush| assert!(poll(flush).is_pending()));
        let commands = &driver.inspect().queues[0].commands;
        assert_eq!(commands.len(), 4095);
        assert!(commands.iter().all(|command| command.cid != 0xffff));
        zero_work.complete(1, usize::MAX);
        while driver.poll() > 0 {}
        flushes.iter_mut().for_each(|flush| assert!(poll(flush).is_ready()));
    }
}
