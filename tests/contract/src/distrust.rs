//! The device is not trusted: lies in completions and in registers, and silence.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use doorbell::{ControllerState, DeviceFailed, DeviceMisbehaved, Namespace, NvmeDriver, Recovery, RequestError};
use doorbell_device::wrap::{DmaLedger, Fault as Harm, FaultInjector, Rogue};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, FaultRule, When};
use futures_lite::future::poll_once;
use nvme_spec::identify::cns::Cns;
use nvme_spec::registers::offset;
use nvme_spec::{AdminOpcode, Completion, NvmOpcode, Status};

use crate::bench::{Bench, Device};
use crate::change::up;
use crate::odd::identify;

/// A driver whose device lies when asked to, with queue 1 made.
fn liar(bench: &Bench) -> (Arc<Rogue>, NvmeDriver, Namespace) {
    // Reads are left unanswered, so that one is in flight when the lie is found.
    let faults = FaultPlan::on(io(NvmOpcode::READ), Fault::Drop);
    let rogue = Rogue::new(bench.device(ControllerConfig { faults, ..ControllerConfig::default() }));
    let driver = bench.run(bench.world.options(rogue.clone()).recovery(Recovery::none()).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    (rogue, driver, namespace)
}

fn assert_nothing_left(bench: &Bench) {
    bench.world.settle();
    assert_eq!(bench.world.runtime().task_count(), 0);
}

fn io(opcode: NvmOpcode) -> CommandMatch {
    CommandMatch::io(opcode.0)
}

/// A lie on queue `qid` ends the controller, with just this finding.
fn assert_caught(qid: u16, lie: Completion, expected: &DeviceMisbehaved) {
    let bench = Bench::new();
    let (rogue, driver, namespace) = liar(&bench);
    bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        rogue.post(qid, lie).expect("posted");
        match read.await {
            Err(RequestError::Misbehaved(found)) => assert_eq!(&found, expected),
            result => panic!("{result:?}, not {expected:?}"),
        }
    });
    assert_eq!(driver.state(), ControllerState::Failed);
    assert!(matches!(bench.run(namespace.flush(0)), Err(RequestError::Misbehaved(_))));
    assert!(matches!(bench.run(driver.namespaces()), Err(RequestError::Misbehaved(_))));
    bench.run(driver.shutdown());
    assert_nothing_left(&bench);
}

#[test]
fn distrust_completions_that_name_no_command() {
    // The admin queue has slots 0 to 30; with five bits for the slot, 31 is none.
    let unknown = Completion { cid: 0x7f, ..Completion::default() };
    assert_caught(0, unknown, &DeviceMisbehaved::UnknownCommand { queue: 0, cid: 0x7f });
    for queue in [0, 1] {
        // A slot that there is, in a life that it does not have.
        for cid in [0xff00, 0xffde] {
            let stale = Completion { cid, sqid: queue, ..Completion::default() };
            assert_caught(queue, stale, &DeviceMisbehaved::StaleCommand { queue, cid });
        }
    }
}

#[test]
fn distrust_completions_of_another_queue_or_past_it() {
    for (queue, entries) in [(0, 32), (1, 33)] {
        let wrong = Completion { sqid: 7, ..Completion::default() };
        assert_caught(queue, wrong, &DeviceMisbehaved::WrongQueue { queue, sqid: 7 });
        let past = Completion { sqid: queue, sqhd: entries, ..Completion::default() };
        assert_caught(queue, past, &DeviceMisbehaved::HeadOutOfRange { queue, sqhd: entries, entries });
    }
}

#[test]
fn distrust_a_command_completed_twice() {
    let bench = Bench::new();
    let device = bench.device(ControllerConfig::default());
    let options = bench.world.options(device.clone()).recovery(Recovery::none());
    let driver = bench.run(options.open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    device.with_controller(|c| c.set_faults(FaultPlan::on(io(NvmOpcode::FLUSH).times(1), Fault::Duplicate)));
    // The first answer may be believed.
    let _ = bench.run(namespace.flush(0));
    bench.world.settle();
    assert_eq!(driver.state(), ControllerState::Failed);
    assert!(matches!(bench.run(namespace.flush(0)), Err(RequestError::Misbehaved(_))));
}

#[test]
fn distrust_a_lie_during_bring_up_ends_it_at_once() {
    for cns in [Cns::CONTROLLER, Cns::CONTROLLER_CSI] {
        let bench = Bench::new();
        let lie = Fault::CorruptCompletion { cid: Some(0xfff0), sqid: None, sqhd: None, status_xor: 0, dw0: None };
        let config = ControllerConfig { faults: FaultPlan::on(identify(cns), lie), ..ControllerConfig::default() };
        let before = bench.world.now();
        let error = bench.run(bench.options(config).open()).expect_err("a liar");
        assert!(
            matches!(error, doorbell::DriverError::Command { source: RequestError::Misbehaved(_), .. }),
            "{error:?}"
        );
        assert!(bench.world.now() - before < Duration::from_secs(1));
        assert_nothing_left(&bench);
    }
}

fn failing(rule: Fault) -> (Bench, Device, NvmeDriver, Namespace) {
    let bench = Bench::new();
    let device = bench.device(ControllerConfig::default());
    let options = bench.world.options(device.clone()).recovery(Recovery::none());
    let driver = bench.run(options.open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    device.with_controller(|c| c.set_faults(FaultPlan::on(io(NvmOpcode::READ).times(1), rule)));
    (bench, device, driver, namespace)
}

#[test]
fn distrust_a_fatal_status_and_a_device_that_is_gone() {
    for (rule, expected) in [(Fault::Fatal, DeviceFailed::Fatal), (Fault::Gone, DeviceFailed::Gone)] {
        let (bench, _device, driver, namespace) = failing(rule);
        let before = bench.world.now();
        match bench.run(namespace.read_slice(0, 0, &mut [0; 512])) {
            Err(RequestError::Failed(found)) => assert_eq!(found, expected),
            result => panic!("{result:?}"),
        }
        assert!(bench.world.now() - before < Duration::from_secs(30), "noticed long before a command's time is up");
        assert_eq!(driver.state(), ControllerState::Failed);
        bench.run(driver.shutdown());
        drop(namespace);
        assert_nothing_left(&bench);
    }
}

#[test]
fn distrust_a_command_that_is_never_answered() {
    for rule in [Fault::Drop, Fault::Stuck] {
        let (bench, device, driver, namespace) = failing(rule);
        let before = bench.world.now();
        let error = bench.run(namespace.read_slice(0, 0, &mut [0; 512])).expect_err("no answer");
        let RequestError::Failed(DeviceFailed::IoTimeout { opcode, queue, seconds, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!((opcode, queue), (NvmOpcode::READ.0, 1));
        assert!((60..65).contains(&seconds) && bench.world.now() - before < Duration::from_secs(70));
        assert_eq!(driver.state(), ControllerState::Failed);
        // The device was stopped before its memory goes.
        assert_eq!(device.with_controller(|controller| controller.io_queues()), (0, 0));
    }
}

#[test]
fn distrust_slow_is_not_silent() {
    let slow = Fault::delay(Duration::from_secs(50));
    let (bench, _device, driver, namespace) = failing(slow);
    bench.run(namespace.read_slice(0, 0, &mut [0; 512])).expect("late");
    assert_eq!(driver.state(), ControllerState::Running);
    // As long as it likes, if the caller says so.
    let bench = Bench::new();
    let faults = FaultPlan::on(io(NvmOpcode::READ), Fault::delay(Duration::from_secs(5000)));
    let config = ControllerConfig { faults, ..ControllerConfig::default() };
    let driver = bench.run(bench.options(config).io_timeout(None).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.read_slice(0, 0, &mut [0; 512])).expect("very late");
}

#[test]
fn distrust_a_lost_interrupt_is_made_up_for() {
    let (bench, _device, driver, namespace) = failing(Fault::LoseInterrupt);
    let before = bench.world.now();
    bench.run(namespace.read_slice(0, 0, &mut [0; 512])).expect("read");
    assert!(bench.world.now() - before < Duration::from_secs(5));
    assert_eq!(driver.state(), ControllerState::Running);
}

#[test]
fn distrust_a_stuck_admin_command_says_what_its_queue_looks_like() {
    let bench = Bench::new();
    let (device, driver, _namespace) = up(&bench);
    device.with_controller(|c| c.set_faults(FaultPlan::on(identify(Cns::ACTIVE_NAMESPACES), Fault::Drop)));
    let stuck = bench.run(async {
        let mut list = pin!(driver.namespaces());
        assert!(poll_once(&mut list).await.is_none());
        bench.world.sleep(Duration::from_secs(7)).await;
        // While it is stuck, it is seen with its age; so are the event requests, which are older.
        let view = driver.inspect();
        let identify: Vec<_> = view.admin.pending.iter().filter(|c| c.opcode == AdminOpcode::IDENTIFY.0).collect();
        assert!(matches!(identify[..], [command] if command.age_us == 7_000_000), "{identify:?}");
        let events = view.admin.pending.iter().filter(|c| c.opcode == AdminOpcode::ASYNC_EVENT_REQUEST.0);
        assert_eq!(events.count(), 4);
        assert!(view.to_string().contains("7000000 us"), "{view}");
        list.await.expect_err("no answer")
    });
    let RequestError::Failed(DeviceFailed::AdminTimeout { opcode, seconds, queue }) = stuck else {
        panic!("{stuck:?}")
    };
    assert_eq!((opcode, seconds), (AdminOpcode::IDENTIFY.0, 60));
    for what in ["head", "phase", "submitted", "completed", "interrupts"] {
        assert!(queue.contains(what), "{queue}");
    }
    bench.run(driver.shutdown());
}

#[test]
fn distrust_registers_that_read_all_ones_at_any_moment() {
    // Every register access of a bring-up, in turn, is the first of a device that is gone.
    let mut accesses = 0;
    loop {
        let bench = Bench::new();
        let device = FaultInjector::new(bench.device(ControllerConfig::default()), [Harm::Gone.after(accesses)]);
        let result = bench.run(bench.world.options(device).open());
        match result {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(driver) => {
                let end = bench.run(async {
                    let namespace = driver.namespace(1).await?;
                    namespace.flush(0).await?;
                    driver.shutdown().await;
                    Ok::<_, doorbell::NamespaceError>(())
                });
                if end.is_ok() {
                    break;
                }
            }
        }
        bench.run(bench.world.sleep(Duration::from_secs(60)));
        assert_eq!(bench.world.runtime().task_count(), 0, "gone at access {accesses}");
        accesses += 1;
        assert!(accesses < 1000);
    }
    assert!(accesses > 10, "{accesses} accesses");
}

#[test]
fn distrust_single_registers_that_lie() {
    for register in [offset::CAP, offset::VS, offset::CC, offset::CSTS, offset::CRTO] {
        for value in [0, u64::MAX, 0x5555_5555_5555_5555] {
            for after in 0..4 {
                let bench = Bench::new();
                let lie = Harm::read_as(register, value).after(after);
                let device = FaultInjector::new(bench.device(ControllerConfig::default()), [lie]);
                // Whatever comes of it: an end, and nothing left behind.
                if let Ok(driver) = bench.run(bench.world.options(device).open()) {
                    bench.run(driver.shutdown());
                }
                bench.run(bench.world.sleep(Duration::from_secs(60)));
                assert_eq!(bench.world.runtime().task_count(), 0, "register {register:#x} reads {value:#x}");
            }
        }
    }
}

#[test]
fn distrust_a_device_that_never_becomes_ready() {
    let bench = Bench::new();
    let never = FaultRule { when: When::Enabled { skip: 0, count: None }, then: Fault::NotReady };
    let config = ControllerConfig { faults: FaultPlan { rules: vec![never] }, to: 6, ..ControllerConfig::default() };
    let error = bench.run(bench.options(config).open()).expect_err("never ready");
    match error {
        doorbell::DriverError::TimedOut { waited_ms, .. } => assert!((3000..3100).contains(&waited_ms)),
        error => panic!("{error:?}"),
    }
    assert_nothing_left(&bench);
}

#[test]
fn distrust_a_fatal_status_at_bring_up() {
    let bench = Bench::new();
    let fatal = FaultRule { when: When::Enabled { skip: 0, count: Some(1) }, then: Fault::Fatal };
    let config = ControllerConfig { faults: FaultPlan { rules: vec![fatal] }, ..ControllerConfig::default() };
    let device = bench.device(config);
    let error = bench.run(bench.world.options(device.clone()).open()).expect_err("fatal");
    assert!(matches!(error, doorbell::DriverError::Fatal { .. }), "{error:?}");
    // Disabling cures it.
    bench.run(bench.world.options(device).open()).expect("the second time");
}

#[test]
fn q2_a_bring_up_that_fails_keeps_no_memory_even_of_a_device_that_goes_on() {
    let bench = Bench::new();
    let faults = FaultPlan::on(identify(Cns::CONTROLLER), Fault::fail(Status::INTERNAL_ERROR));
    let device = bench.device(ControllerConfig { faults, ..ControllerConfig::default() });
    // The write that enables it arrives, the one that disables it does not.
    let lost = Harm::WriteLost { register: Some(offset::CC) }.after(1);
    let ledger = DmaLedger::new(FaultInjector::new(device, [lost, Harm::ResetFails.into()]));
    bench.run(bench.world.options(ledger.clone()).open()).expect_err("no Identify");
    bench.run(bench.world.sleep(Duration::from_secs(60)));
    assert_eq!(ledger.live_ranges(), []);
    assert_nothing_left(&bench);
}

#[test]
fn distrust_any_status_on_any_command_of_bring_up() {
    for opcode in [AdminOpcode::IDENTIFY, AdminOpcode::SET_FEATURES, AdminOpcode::ASYNC_EVENT_REQUEST] {
        for skip in 0..4 {
            for status in [Status::INTERNAL_ERROR, Status::INVALID_FIELD_IN_COMMAND, Status::new(7, 0xff)] {
                let bench = Bench::new();
                let command = CommandMatch { skip, count: Some(1), ..CommandMatch::admin(opcode.0) };
                let faults = FaultPlan::on(command, Fault::fail(status));
                let config = ControllerConfig { faults, ..ControllerConfig::default() };
                if let Ok(driver) = bench.run(bench.options(config).open()) {
                    bench.run(driver.shutdown());
                }
                assert_nothing_left(&bench);
            }
        }
    }
}
