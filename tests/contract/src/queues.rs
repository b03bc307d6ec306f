//! Q1 to Q3: how I/O queues are made, and what a failure leaves behind.

use std::sync::Arc;

use doorbell::{CompletionMode, DriverOptions, NvmeDriver, RequestError};
use doorbell_device::Device;
use doorbell_device::wrap::{DmaLedger, FaultInjector, MapFailure};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::{AdminOpcode, Status};

use crate::bench::Bench;
use crate::hands::{join_all, poll};
use crate::spy::{Spy, vector};

/// CPU, queue, and whether it is shared.
fn cpus(driver: &NvmeDriver) -> Vec<(u32, u16, bool)> {
    driver.inspect().cpus.iter().map(|view| (view.cpu, view.queue, view.shared)).collect()
}

fn spied(
    bench: &Bench,
    config: ControllerConfig,
    change: impl FnOnce(DriverOptions) -> DriverOptions,
) -> (Arc<Spy>, NvmeDriver, doorbell::Namespace) {
    let spy = Spy::new(bench.device(config));
    let driver = bench.run(change(bench.world.options(spy.clone())).open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    (spy, driver, namespace)
}

#[test]
fn q1_a_queue_is_made_on_the_cpus_first_io() {
    let bench = Bench::new();
    let (spy, driver, namespace) = spied(&bench, ControllerConfig::default(), |options| options.cpus(8));
    assert!(spy.admin(AdminOpcode::CREATE_IO_SQ).is_empty(), "none before the first I/O");
    for (i, cpu) in [5, 0, 7].into_iter().enumerate() {
        bench.run(namespace.flush(cpu)).expect("flushed");
        bench.run(namespace.flush(cpu)).expect("flushed");
        assert_eq!(spy.admin(AdminOpcode::CREATE_IO_CQ).len(), i + 1);
        assert_eq!(spy.admin(AdminOpcode::CREATE_IO_SQ).len(), i + 1);
    }
    assert_eq!(cpus(&driver), [(0, 2, false), (5, 1, false), (7, 3, false)]);
    assert_eq!(spy.device().with_controller(|controller| controller.io_queues()), (3, 3));
}

#[test]
fn q1_many_first_ios_of_one_cpu_make_one_queue() {
    let bench = Bench::new();
    let (spy, driver, namespace) = spied(&bench, ControllerConfig::default(), |options| options.cpus(2));
    let flushes = (0..50).map(|i| Box::pin(namespace.flush(i % 2)));
    for result in bench.run(join_all(flushes)) {
        result.expect("flushed");
    }
    assert_eq!(spy.admin(AdminOpcode::CREATE_IO_SQ).len(), 2);
    assert_eq!(cpus(&driver), [(0, 1, false), (1, 2, false)]);
}

/// The caller goes away at each stage of the making: the queue is made all the same, and works.
#[test]
fn q1_a_caller_who_goes_away_half_way_cancels_nothing() {
    for steps in 0..12 {
        let bench = Bench::new();
        let (spy, driver, namespace) = spied(&bench, ControllerConfig::default(), |options| options);
        let mut first = Box::pin(namespace.flush(1));
        let mut waits = true;
        for _ in 0..steps {
            waits = waits && poll(&mut first).is_pending();
            bench.world.step_devices();
        }
        if steps == 0 {
            assert!(poll(&mut first).is_pending());
        }
        drop(first);
        bench.world.settle();
        assert_eq!(cpus(&driver), [(1, 1, false)], "dropped after {steps} steps");
        bench.run(namespace.flush(1)).expect("flushed");
        assert_eq!(spy.admin(AdminOpcode::CREATE_IO_SQ).len(), 1);
    }
}

#[test]
fn q1_when_the_device_runs_out_the_nearest_cpus_queue_is_shared_and_that_is_visible() {
    let bench = Bench::new();
    let config = ControllerConfig { queue_pairs: 2, ..ControllerConfig::default() };
    let (_, driver, namespace) = spied(&bench, config, |options| options.cpus(16));
    assert_eq!(driver.inspect().controller.queue_limit, 2);
    for cpu in [3, 12, 0, 7, 8, 15, 4] {
        bench.run(namespace.flush(cpu)).expect("flushed");
    }
    let expected =
        [(0, 1, true), (3, 1, false), (4, 1, true), (7, 1, true), (8, 2, true), (12, 2, false), (15, 2, true)];
    assert_eq!(cpus(&driver), expected);
    let printed = driver.inspect().to_string();
    assert!(printed.contains("CPU   7 uses queue 1 (shared)"), "{printed}");
}

#[test]
fn q1_when_interrupts_run_out_queues_are_shared() {
    for (vectors, queues) in [(1, 1), (2, 1), (3, 2), (5, 4), (64, 6)] {
        let bench = Bench::new();
        let config = ControllerConfig { vectors, ..ControllerConfig::default() };
        let (_, driver, namespace) = spied(&bench, config, |options| options.cpus(6));
        for cpu in 0..6 {
            bench.run(namespace.flush(cpu)).expect("flushed");
        }
        assert_eq!(driver.inspect().queues.len(), queues, "{vectors} vectors");
        assert_eq!(cpus(&driver).iter().filter(|(.., shared)| *shared).count(), 6 - queues);
    }
}

/// Granted is less than there seemed to be: the device refuses one more queue when it is asked for it.
#[test]
fn q1_a_device_that_refuses_one_more_queue_has_it_shared() {
    let bench = Bench::new();
    let fails = CommandMatch { skip: 1, ..CommandMatch::admin(AdminOpcode::CREATE_IO_CQ.0) };
    let faults = FaultPlan::on(fails, Fault::fail(Status::INVALID_QUEUE_IDENTIFIER));
    let config = ControllerConfig { faults, ..ControllerConfig::default() };
    let (_, driver, namespace) = spied(&bench, config, |options| options.cpus(4));
    for cpu in [2, 0, 3] {
        bench.run(namespace.flush(cpu)).expect("flushed");
    }
    assert_eq!(cpus(&driver), [(0, 1, true), (2, 1, false), (3, 1, true)]);
}

/// A device whose mappings are written down and which fails the first of a kind of admin command.
fn failing(bench: &Bench, plan: FaultPlan) -> (Arc<DmaLedger>, crate::bench::Device, NvmeDriver, doorbell::Namespace) {
    let device = bench.device(ControllerConfig { faults: plan, ..ControllerConfig::default() });
    let ledger = DmaLedger::new(device.clone());
    let driver = bench.run(bench.world.options(ledger.clone()).open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.world.settle();
    (ledger, device, driver, namespace)
}

#[test]
fn q2_a_failed_creation_leaks_nothing_and_can_be_tried_again() {
    for opcode in [AdminOpcode::CREATE_IO_CQ, AdminOpcode::CREATE_IO_SQ] {
        let bench = Bench::new();
        let plan = FaultPlan::on(CommandMatch::admin(opcode.0).times(3), Fault::fail(Status::INTERNAL_ERROR));
        let (ledger, device, driver, namespace) = failing(&bench, plan);
        let before = ledger.live_ranges();
        let tasks = bench.world.runtime().task_count();
        for _ in 0..3 {
            let error = bench.run(namespace.flush(0)).expect_err("there is no queue");
            assert!(matches!(error, RequestError::NoQueue(_)), "{error:?}");
            bench.world.settle();
            assert_eq!(ledger.live_ranges(), before, "all memory is given back");
            assert_eq!(device.with_controller(|controller| controller.io_queues()), (0, 0), "and half a queue too");
            assert_eq!(bench.world.runtime().task_count(), tasks, "and nobody waits for its interrupts");
        }
        bench.run(namespace.flush(0)).expect("flushed");
        bench.run(namespace.flush(1)).expect("flushed");
        assert_eq!(cpus(&driver), [(0, 1, false), (1, 2, false)], "identifiers are used again");
        assert_eq!(driver.inspect().controller.condemned_queues, 0);
    }
}

/// Half a queue that the device does not give back: its memory stays, and its identifier is not used again until it does.
#[test]
fn q2_memory_is_kept_while_the_device_may_still_own_it() {
    let bench = Bench::new();
    let fails = |opcode: AdminOpcode, times| CommandMatch::admin(opcode.0).times(times);
    let plan = FaultPlan::on(fails(AdminOpcode::CREATE_IO_SQ, 1), Fault::fail(Status::INTERNAL_ERROR))
        .and_on(fails(AdminOpcode::DELETE_IO_CQ, 2), Fault::fail(Status::INTERNAL_ERROR));
    let (ledger, device, driver, namespace) = failing(&bench, plan);
    let before = ledger.live_ranges();
    bench.run(namespace.flush(0)).expect_err("there is no queue");
    bench.world.settle();
    assert_eq!(device.with_controller(|controller| controller.io_queues()), (0, 1), "the device has half of it");
    assert_eq!(driver.inspect().controller.condemned_queues, 1);
    let kept: Vec<_> = ledger.live_ranges().into_iter().filter(|range| !before.contains(range)).collect();
    assert!(!kept.is_empty(), "its rings stay mapped");
    bench.run(namespace.flush(0)).expect("the next one succeeds nevertheless");
    assert_eq!(cpus(&driver), [(0, 2, false)], "under another identifier");
    assert!(kept.iter().all(|range| ledger.is_live(range.iova, range.len)));
    bench.run(namespace.flush(1)).expect("flushed");
    assert_eq!(cpus(&driver), [(0, 2, false), (1, 1, false)], "the device gave the first one back at last");
    assert_eq!(driver.inspect().controller.condemned_queues, 0);
    assert!(kept.iter().all(|range| !ledger.is_live(range.iova, range.len)));
}

#[test]
fn q2_memory_that_cannot_be_mapped_is_an_error_that_passes() {
    for after in [0, 1] {
        let bench = Bench::new();
        let ledger = DmaLedger::new(bench.device(ControllerConfig::default()));
        let injector = FaultInjector::new(ledger.clone(), [] as [doorbell_device::wrap::Rule; 0]);
        let driver = bench.run(bench.world.options(injector.clone()).open()).expect("the controller comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        bench.world.settle();
        let before = ledger.live_ranges();
        let fault = doorbell_device::wrap::Fault::MapFails(MapFailure::OutOfMemory);
        injector.add(fault.times(1).after(after));
        let error = bench.run(namespace.flush(0)).expect_err("there is no memory");
        assert!(matches!(error, RequestError::NoQueue(_)), "{error:?}");
        assert_eq!(ledger.live_ranges(), before);
        bench.run(namespace.flush(0)).expect("flushed");
        assert_eq!(cpus(&driver), [(0, 1, false)]);
    }
}

#[test]
fn q2_who_waits_while_a_creation_fails_is_told() {
    let bench = Bench::new();
    let fails = CommandMatch::admin(AdminOpcode::CREATE_IO_CQ.0);
    let (_ledger, _device, _driver, namespace) =
        failing(&bench, FaultPlan::on(fails, Fault::fail(Status::INTERNAL_ERROR)));
    let flushes = (0..20).map(|i| Box::pin(namespace.flush(i % 2)));
    for result in bench.run(join_all(flushes)) {
        let Err(RequestError::NoQueue(cause)) = result else { panic!("{result:?}") };
        assert_eq!(cause.status(), Some(Status::INTERNAL_ERROR));
    }
}

#[test]
fn q3_vector_0_is_the_admin_queues_alone_where_there_are_others() {
    for (vectors, expected) in [
        (1, vec![Some(0)]),
        (2, vec![Some(1)]),
        (3, vec![Some(1), Some(2)]),
        (9, vec![Some(1), Some(2), Some(3), Some(4)]),
        (0, vec![None, None, None, None]),
    ] {
        let bench = Bench::new();
        let config = ControllerConfig { vectors, ..ControllerConfig::default() };
        let (spy, _driver, namespace) = spied(&bench, config, |options| options.cpus(4));
        for cpu in 0..4 {
            bench.run(namespace.flush(cpu)).expect("flushed");
        }
        let used: Vec<Option<u16>> = spy.admin(AdminOpcode::CREATE_IO_CQ).iter().map(vector).collect();
        assert_eq!(used, expected, "{vectors} vectors");
    }
}

#[test]
fn q3_queues_that_are_polled_ask_for_no_interrupt() {
    let bench = Bench::new();
    let (spy, driver, namespace) =
        spied(&bench, ControllerConfig::default(), |options| options.completion(CompletionMode::CallerPolls));
    let mut flush = Box::pin(namespace.flush(0));
    while poll(&mut flush).is_pending() {
        bench.world.settle();
        driver.poll();
    }
    let used: Vec<Option<u16>> = spy.admin(AdminOpcode::CREATE_IO_CQ).iter().map(vector).collect();
    assert_eq!(used, [None]);
    assert_eq!(spy.interrupt_count(), 65);
}
