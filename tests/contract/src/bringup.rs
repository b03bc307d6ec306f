//! Odd but legal devices: those that are poor in what a bring-up needs, and drivers that go away at odd times.

use std::pin::pin;
use std::time::Duration;

use doorbell::RequestError;
use doorbell_device::Device as _;
use doorbell_device::wrap::DmaLedger;
use doorbell_emulator::{
    CommandMatch, ControllerConfig, Descriptors, Fault, FaultPlan, InterruptMode, NamespaceConfig, SglSupport,
};
use futures_lite::future::poll_once;
use nvme_spec::registers::{Cc, offset};
use nvme_spec::{AdminOpcode, Status};

use crate::bench::{Bench, pattern};

/// Bring-up, I/O of several sizes on two CPUs, events and shutdown on a device.
fn works(config: ControllerConfig) {
    let bench = Bench::with(NamespaceConfig::ram(16 << 20));
    let notices = config.namespace_notices;
    let driver = bench.driver(config);
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    for (cpu, blocks) in [(0, 1), (1, 8), (0, namespace.max_transfer_block_count().min(64)), (1, 3)] {
        let data = pattern(blocks.into(), blocks as usize * 512);
        bench.run(namespace.write_slice(cpu, 77, false, &data)).expect("written");
        let mut back = vec![0; data.len()];
        bench.run(namespace.read_slice(1 - cpu, 77, &mut back)).expect("read");
        assert_eq!(back, data);
    }
    if notices {
        bench.subsystem.resize_namespace(1, 1 << 20).expect("resized");
        assert_eq!(bench.run(namespace.wait_resize(32768)).expect("told"), 2048);
    }
    bench.run(driver.shutdown());
    drop(namespace);
    bench.run(bench.world.sleep(Duration::from_millis(10)));
    assert_eq!(bench.world.runtime().task_count(), 0);
}

#[test]
fn odd_poor_controllers_work() {
    let plain = ControllerConfig::default;
    works(plain());
    works(ControllerConfig { mqes: 1, ..plain() });
    works(ControllerConfig { vectors: 0, ..plain() });
    works(ControllerConfig { vectors: 1, ..plain() });
    works(ControllerConfig { interrupts: InterruptMode::Pin, ..plain() });
    works(ControllerConfig { interrupts: InterruptMode::Msi, vectors: 2, ..plain() });
    works(ControllerConfig { queue_pairs: 1, ..plain() });
    works(ControllerConfig { mpsmin: 4, ..plain() });
    works(ControllerConfig { mpsmin: 4, mdts: 1, sgl: SglSupport::None, ..plain() });
    works(ControllerConfig { mdts: 1, sgl: SglSupport::None, ..plain() });
    works(ControllerConfig { sgl: SglSupport::Dwords, ..plain() });
    works(ControllerConfig { dstrd: 4, ..plain() });
    works(ControllerConfig { dstrd: 8, aerl: 0, ..plain() });
    works(ControllerConfig { descriptors: Descriptors::Empty, identify_nvm_controller: false, ..plain() });
    works(ControllerConfig { descriptors: Descriptors::Refused, namespace_notices: false, ..plain() });
    works(ControllerConfig { extended_log: false, effects_log: false, ..plain() });
    works(ControllerConfig { mqes: 1, vectors: 0, mdts: 1, aerl: 0, queue_pairs: 1, ..ControllerConfig::nvme_1_0() });
}

#[test]
fn odd_slow_controllers_are_waited_for() {
    let slow = Duration::from_secs(20);
    works(ControllerConfig { ready_after: slow, disable_after: slow, to: 41, ..ControllerConfig::default() });
    // CRTO may promise more than CAP.TO can.
    let crwmt = Some(400);
    works(ControllerConfig { ready_after: slow * 9, to: 1, crwmt, ..ControllerConfig::default() });
    works(ControllerConfig { shutdown_after: slow, rtd3e: 25_000_000, ..ControllerConfig::default() });
}

#[test]
fn odd_queues_that_cannot_be_created() {
    for opcode in [AdminOpcode::CREATE_IO_CQ, AdminOpcode::CREATE_IO_SQ] {
        let bench = Bench::new();
        let faults = FaultPlan::on(CommandMatch::admin(opcode.0).times(2), Fault::fail(Status::INTERNAL_ERROR));
        let driver = bench.driver(ControllerConfig { faults, ..ControllerConfig::default() });
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        for _ in 0..2 {
            let error = bench.run(namespace.flush(0)).expect_err("no queue");
            assert!(matches!(error, RequestError::NoQueue(_)), "{error:?}");
        }
        bench.run(namespace.flush(0)).expect("the third time");
    }
}

#[test]
fn odd_a_caller_who_goes_away_leaves_no_controller_half_up() {
    let bench = Bench::new();
    let slow = Duration::from_secs(1);
    let config = ControllerConfig { ready_after: slow, ..ControllerConfig::default() };
    for steps in 0..30 {
        let device = bench.device(config.clone());
        let ledger = DmaLedger::new(device.clone());
        {
            let mut opening = pin!(bench.world.options(ledger.clone()).open());
            bench.run(async {
                for _ in 0..steps {
                    if poll_once(&mut opening).await.is_some() {
                        break;
                    }
                    bench.world.sleep(Duration::from_millis(100)).await;
                }
            });
        }
        bench.run(bench.world.sleep(Duration::from_secs(20)));
        assert!(!Cc::from(device.read32(offset::CC).expect("CC")).en(), "after {steps} steps");
        assert!(ledger.unmapped_while_running().is_empty(), "after {steps} steps");
        assert_eq!(ledger.live_ranges(), []);
        assert_eq!(bench.world.runtime().task_count(), 0);
    }
}

#[test]
fn odd_driver_namespace_and_commands_are_dropped_in_any_order() {
    // Which of driver, namespace and a command in flight goes first, second and last.
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let bench = Bench::new();
        let slow = ControllerConfig { latency: Some(Duration::from_millis(5)), ..ControllerConfig::default() };
        let device = bench.device(slow);
        let ledger = DmaLedger::new(device.clone());
        let driver = bench.run(bench.world.options(ledger.clone()).open()).expect("it comes up");
        let namespace = std::sync::Arc::new(bench.run(driver.namespace(1)).expect("namespace 1"));
        bench.run(namespace.flush(0)).expect("a queue");
        let mut events = driver.events();
        let command = {
            let namespace = namespace.clone();
            let mut command = Box::pin(async move { namespace.read_slice(0, 0, &mut [0; 8192]).await });
            assert!(bench.run(poll_once(&mut command)).is_none());
            command
        };
        let (mut driver, mut namespace, mut command) = (Some(driver), Some(namespace), Some(command));
        for which in order {
            match which {
                0 => drop(driver.take()),
                1 => drop(namespace.take()),
                _ => drop(command.take()),
            }
            bench.run(bench.world.sleep(Duration::from_millis(1)));
        }
        bench.run(bench.world.sleep(Duration::from_secs(20)));
        assert!(!Cc::from(device.read32(offset::CC).expect("CC")).en(), "order {order:?}");
        assert!(ledger.unmapped_while_running().is_empty(), "order {order:?}");
        assert_eq!((ledger.live_ranges().len(), bench.world.runtime().task_count()), (0, 0), "order {order:?}");
        assert!(matches!(bench.run(events.next()), Some(doorbell::ControllerEvent::Gone)));
    }
}
