//! A controller that fails is reset and used again: what goes on, what is sent once more, and what ends.

use std::pin::pin;
use std::time::Duration;

use doorbell::{
    ControllerEvent, ControllerState, DeviceFailed, ErrorClass, HostId, LbaRange, Namespace, NvmeDriver, Recovery,
    RequestError, ShutdownMode,
};
use doorbell_device::wrap::{DmaLedger, Fault as Harm, FaultInjector, Tracer, What};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, FaultRule, NamespaceConfig, When};
use futures_lite::future::poll_once;
use nvme_spec::feature::{FeatureId, InterruptVectorConfiguration, TemperatureThreshold};
use nvme_spec::registers::{Cc, offset};
use nvme_spec::reservation::RegisterAction;
use nvme_spec::{AdminOpcode, NvmOpcode, Status};

use crate::bench::{Bench, Device, guest, pattern};
use crate::hands::{Watched, fill, gpns, join_all, whole};

/// A namespace that no other host shares.
fn own() -> Bench {
    Bench::with(NamespaceConfig { shared: false, ..NamespaceConfig::ram(16 << 20) })
}

struct Up {
    bench: Bench,
    device: Device,
    driver: NvmeDriver,
    namespace: Namespace,
}

fn up(bench: Bench) -> Up {
    up_with(bench, |options| options)
}

/// With the queues of both CPUs made.
fn up_with(bench: Bench, change: impl FnOnce(doorbell::DriverOptions) -> doorbell::DriverOptions) -> Up {
    let device = bench.device(ControllerConfig::default());
    let driver = bench.run(change(bench.world.options(device.clone())).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    bench.run(namespace.flush(1)).expect("a queue");
    Up { bench, device, driver, namespace }
}

impl Up {
    fn faults(&self, plan: FaultPlan) {
        self.device.with_controller(|controller| controller.set_faults(plan));
    }

    fn resets(&self) -> u64 {
        self.driver.inspect().controller.resets
    }

    fn replayed(&self) -> u64 {
        self.driver.inspect().queues.iter().map(|queue| queue.counters.replayed).sum()
    }

    fn write(&self, lba: u64, data: &[u8]) {
        self.bench.run(self.namespace.write_slice(0, lba, false, data)).expect("written");
    }

    fn read(&self, lba: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.run(self.namespace.read_slice(0, lba, &mut bytes)).expect("read");
        bytes
    }

    /// Fails at the next command of an opcode.
    fn fail_at(&self, opcode: NvmOpcode, how: Fault) {
        self.faults(FaultPlan::on(CommandMatch::io(opcode.0).times(1), how));
    }
}

#[test]
fn f2_after_a_fatal_status_reads_go_on() {
    let up = up(Bench::new());
    let data = pattern(3, 4096);
    up.write(8, &data);
    let mut events = up.driver.events();
    up.fail_at(NvmOpcode::READ, Fault::Fatal);
    assert_eq!(up.read(8, 4096), data);
    assert_eq!((up.resets(), up.replayed(), up.driver.state()), (1, 1, ControllerState::Running));
    up.bench.world.settle();
    let mut told = std::iter::from_fn(|| events.try_next());
    assert!(told.any(|event| matches!(event, ControllerEvent::Recovered)));
    // Everything works as before, on both queues.
    up.write(100, &data);
    up.bench.run(up.namespace.flush(1)).expect("the other queue");
    assert_eq!(up.read(100, 4096), data);
    up.bench.run(up.driver.shutdown());
}

#[test]
fn f1_a_stuck_device_takes_its_deadline_and_its_reset() {
    let limit = Duration::from_secs(8);
    let up = up_with(Bench::new(), |options| options.io_timeout(Some(limit)).depth(4));
    up.write(0, &pattern(1, 16 * 512));
    up.fail_at(NvmOpcode::READ, Fault::Stuck);
    let before = up.bench.world.now();
    // More than there are slots: some have been sent, others wait in line.
    let mut buffers = vec![[0; 512]; 16];
    let reads = buffers.iter_mut().enumerate();
    let reads: Vec<_> = reads.map(|(i, bytes)| up.namespace.read_slice(i as u32 % 2, i as u64, bytes)).collect();
    for result in up.bench.run(join_all(reads)) {
        result.expect("read");
    }
    let expected = pattern(1, 16 * 512);
    assert!(buffers.concat() == expected);
    let took = up.bench.world.now() - before;
    assert!(took >= limit && took < limit + Duration::from_secs(4), "{took:?}");
    assert_eq!((up.resets(), up.replayed()), (1, 8));
}

#[test]
fn f1_an_abort_is_asked_for_before_a_reset() {
    let up = up_with(Bench::new(), |options| options.io_timeout(Some(Duration::from_secs(5))));
    up.fail_at(NvmOpcode::READ, Fault::delay(Duration::from_secs(5000)));
    let error = up.bench.run(up.namespace.read_slice(0, 0, &mut [0; 512])).expect_err("aborted");
    assert_eq!(error.status(), Some(Status::ABORT_REQUESTED));
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(up.resets(), 0, "the abort helped");
    // An abort that does not help frees nothing: the command ends by the reset.
    up.fail_at(NvmOpcode::READ, Fault::Drop);
    up.read(0, 512);
    assert_eq!(up.resets(), 1);
}

#[test]
fn f1_no_more_aborts_at_once_than_the_controller_takes() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig { acl: 1, ..ControllerConfig::default() }, |options| {
        options.io_timeout(Some(Duration::from_secs(5)))
    });
    // Nothing is answered, not even the aborts.
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::Drop)
        .and_on(CommandMatch::admin(AdminOpcode::ABORT.0), Fault::Drop);
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let mut buffers = [[0; 512]; 6];
    let reads: Vec<_> = buffers.iter_mut().map(|bytes| w.namespace.read_slice(0, 0, bytes)).collect();
    bench.run(async {
        let all = async { Some(join_all(reads).await) };
        let some_time = async {
            bench.world.sleep(Duration::from_millis(5700)).await;
            None
        };
        futures_lite::future::or(all, some_time).await
    });
    let aborts = w.spy.admin(AdminOpcode::ABORT).len();
    assert_eq!(aborts, 2);
}

#[test]
fn f3_writes_go_out_again_if_nothing_changed_their_blocks_since() {
    let up = up(own());
    let (old, new) = (pattern(1, 4096), pattern(2, 4096));
    up.write(0, &old);
    up.fail_at(NvmOpcode::WRITE, Fault::Drop);
    up.write(0, &new);
    assert_eq!((up.resets(), up.replayed()), (1, 1));
    assert_eq!(up.read(0, 4096), new);
}

#[test]
fn f3_a_write_does_not_go_out_again_over_a_newer_one() {
    let up = up(own());
    let (old, new) = (pattern(1, 4096), pattern(2, 4096));
    up.fail_at(NvmOpcode::WRITE, Fault::Drop);
    let lost = up.bench.run(async {
        let mut lost = pin!(up.namespace.write_slice(0, 0, false, &old));
        assert!(poll_once(&mut lost).await.is_none());
        up.namespace.write_slice(1, 4, false, &new).await.expect("written");
        lost.await
    });
    assert!(matches!(lost, Err(RequestError::Interrupted)), "{lost:?}");
    assert_eq!(up.read(4, 4096), new);
    assert_eq!(up.replayed(), 0);
}

#[test]
fn f3_writes_to_a_shared_namespace_go_out_again_only_if_the_caller_says_so() {
    for (replay, expected) in [(false, 0), (true, 1)] {
        let recovery = Recovery::default().replay_shared_writes(replay);
        let up = up_with(Bench::new(), |options| options.recovery(recovery));
        up.fail_at(NvmOpcode::WRITE, Fault::Drop);
        let result = up.bench.run(up.namespace.write_slice(0, 0, false, &pattern(1, 512)));
        assert_eq!(result.is_ok(), replay, "{result:?}");
        assert_eq!((up.resets(), up.replayed()), (1, expected));
    }
}

#[test]
fn f4_what_must_not_be_done_twice_ends() {
    let up = up(own());
    let interrupted = |result: Result<(), RequestError>, what: &str| {
        assert!(matches!(result, Err(RequestError::Interrupted)), "{what}: {result:?}");
    };
    let (bench, namespace) = (&up.bench, &up.namespace);
    up.fail_at(NvmOpcode::FLUSH, Fault::Fatal);
    interrupted(bench.run(namespace.flush(0)), "flush");
    up.fail_at(NvmOpcode::COPY, Fault::Fatal);
    let ranges = [LbaRange { lba: 0, block_count: 8 }];
    interrupted(bench.run(namespace.copy(0, 100, &ranges)).map(drop), "copy");
    up.fail_at(NvmOpcode::RESERVATION_REGISTER, Fault::Fatal);
    let register = namespace.reservation_register(0, RegisterAction::REGISTER, None, 7, None);
    interrupted(bench.run(register), "reservation");
    assert_eq!((up.resets(), up.replayed()), (3, 0));
}

#[test]
fn f4_the_halves_of_a_fused_pair_do_not_go_out_again() {
    let up = up(own());
    up.fail_at(NvmOpcode::COMPARE, Fault::Fatal);
    let zeroes = [0; 512];
    let result = up.bench.run(up.namespace.compare_and_write(0, 0, &zeroes, &[1; 512], false));
    assert!(matches!(result, Err(RequestError::Interrupted)), "{result:?}");
    assert_eq!(up.replayed(), 0);
    assert_eq!(up.read(0, 512), zeroes);
}

#[test]
fn f1_an_admin_command_without_an_answer_resets_the_controller() {
    let up = up(Bench::new());
    let identify = CommandMatch::admin(AdminOpcode::IDENTIFY.0).times(1);
    up.faults(FaultPlan::on(identify, Fault::Drop));
    let error = up.bench.run(up.driver.namespaces()).expect_err("no answer");
    assert!(matches!(error, RequestError::Failed(DeviceFailed::AdminTimeout { .. })), "{error:?}");
    up.read(0, 512);
    assert_eq!(up.bench.run(up.driver.namespaces()).expect("it is back"), [1]);
    assert_eq!(up.resets(), 1);
}

#[test]
fn f5_another_disk_in_the_place_of_the_old_one_is_never_written() {
    let up = up_with(own(), |options| options.depth(1));
    up.fail_at(NvmOpcode::WRITE, Fault::Stuck);
    let data = pattern(1, 512);
    let results = up.bench.run(async {
        // One is on its way, one waits in line, one comes while the controller is away.
        let mut sent = pin!(up.namespace.write_slice(0, 0, false, &data));
        let mut waits = pin!(up.namespace.write_slice(0, 1, false, &data));
        assert!(poll_once(&mut sent).await.is_none() && poll_once(&mut waits).await.is_none());
        // Its event cannot be told: the device is stuck.
        up.bench.subsystem.replace_namespace(1, NamespaceConfig::ram(16 << 20)).expect("another disk");
        [sent.await, waits.await]
    });
    for result in results {
        let error = result.expect_err("the disk is gone");
        assert_eq!(error.status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT), "{error:?}");
    }
    let error = up.bench.run(up.namespace.write_slice(0, 2, false, &data)).expect_err("for good");
    assert_eq!(error.class(), ErrorClass::Gone);
    let new = up.bench.run(up.driver.namespace(1)).expect("a new handle for the new disk");
    let mut bytes = [1; 3 * 512];
    up.bench.run(new.read_slice(0, 0, &mut bytes)).expect("read");
    assert_eq!(bytes, [0; 3 * 512], "nobody has written to it");
}

#[test]
fn c1_after_a_reset_a_new_size_is_known_before_any_io() {
    let up = up(Bench::new());
    up.fail_at(NvmOpcode::READ, Fault::Stuck);
    up.bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(up.namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        up.bench.world.settle();
        up.bench.subsystem.resize_namespace(1, 8 << 20).expect("resized");
        read.await.expect("read");
    });
    assert_eq!(up.namespace.block_count(), (8 << 20) / 512);
    // And events are awaited again.
    up.bench.subsystem.resize_namespace(1, 4 << 20).expect("resized");
    let size = up.bench.run(up.namespace.wait_resize((8 << 20) / 512)).expect("told");
    assert_eq!(size, (4 << 20) / 512);
}

/// Over and under temperature, two vectors: one feature each, and values of their own.
#[test]
fn f5_every_value_of_a_feature_is_set_again() {
    let bench = Bench::new();
    let driver = bench.driver(ControllerConfig::default());
    let threshold = |kind, kelvins| TemperatureThreshold::new().with_thsel(kind).with_tmpth(kelvins).into_bits();
    let vector = |iv, cd| InterruptVectorConfiguration::new().with_iv(iv).with_cd(cd).into_bits();
    let set = |fid, cdw11| {
        bench.run(driver.set_features(fid, false, 0, cdw11, &[])).expect("set");
    };
    let get = |fid, cdw11| bench.run(driver.get_features(fid, 0, 0, cdw11, &mut [])).expect("got");
    set(FeatureId::TEMPERATURE_THRESHOLD, threshold(1, 250));
    set(FeatureId::TEMPERATURE_THRESHOLD, threshold(0, 300));
    set(FeatureId::TEMPERATURE_THRESHOLD, threshold(0, 350));
    for (iv, cd) in [(1, true), (2, true), (2, false), (0, true)] {
        set(FeatureId::INTERRUPT_VECTOR_CONFIGURATION, vector(iv, cd));
    }
    for _ in 0..2 {
        assert_eq!(get(FeatureId::TEMPERATURE_THRESHOLD, threshold(0, 0)) & 0xffff, 350);
        assert_eq!(get(FeatureId::TEMPERATURE_THRESHOLD, threshold(1, 0)) & 0xffff, 250);
        for (iv, cd) in [(0, true), (1, true), (2, false)] {
            assert_eq!(get(FeatureId::INTERRUPT_VECTOR_CONFIGURATION, vector(iv, false)), vector(iv, cd));
        }
        bench.run(driver.reset_controller()).expect("reset");
    }
}

#[test]
fn r3_the_host_identifier_is_set_again_before_the_io_queues() {
    let bench = Bench::new();
    let device = Tracer::new(bench.device(ControllerConfig::default()), 100_000);
    let id = HostId::Extended([7; 16]);
    let driver = bench.run(bench.world.options(device.clone()).host_id(id).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let register = namespace.reservation_register(0, RegisterAction::REGISTER, None, 7, None);
    bench.run(register).expect("registered");
    bench.run(driver.set_features(FeatureId::ARBITRATION, false, 0, 3, &[])).expect("set");
    assert!(bench.run(driver.set_features(FeatureId(0x7f), false, 0, 3, &[])).is_err());
    let disables = |device: &Tracer| {
        let is_disable = |what: &What| matches!(what, What::Write { offset: offset::CC, value, .. } if !Cc::from(*value as u32).en());
        device.events().iter().filter(|event| is_disable(&event.what)).count()
    };
    let before = disables(&device);
    // As if by an accident: the device reports a fatal status at its own time.
    bench.run(driver.admin_in(nvme_spec::Command::default(), &mut [])).expect_err("no such command");
    let mut host = [0; 16];
    bench.run(driver.get_features(FeatureId::HOST_IDENTIFIER, 0, 0, 1, &mut host)).expect("it has one");
    assert_eq!(host, [7; 16]);
    bench.run(driver.reset_controller()).expect("back");
    assert_eq!(disables(&device), before + 1);
    let mut host = [0; 16];
    bench.run(driver.get_features(FeatureId::HOST_IDENTIFIER, 0, 0, 1, &mut host)).expect("it has one");
    assert_eq!(host, [7; 16]);
    let arbitration = bench.run(driver.get_features(FeatureId::ARBITRATION, 0, 0, 0, &mut [])).expect("got");
    assert_eq!(arbitration & 7, 3, "what the caller had set");
    let report = bench.run(namespace.reservation_report_extended(0)).expect("a report");
    assert_eq!(report.controllers.first().map(|c| (c.hostid, c.rkey)), Some(([7; 16], 7)));
}

#[test]
fn f6_a_controller_that_fails_again_and_again_is_given_up() {
    let recovery = Recovery::default().resets(2, Duration::from_secs(600));
    let up = up_with(Bench::new(), |options| options.recovery(recovery));
    up.faults(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::Fatal));
    let error = up.bench.run(up.namespace.read_slice(0, 0, &mut [0; 512])).expect_err("given up");
    assert!(matches!(error, RequestError::Failed(DeviceFailed::Fatal)), "{error:?}");
    assert_eq!((up.resets(), up.driver.state()), (2, ControllerState::Failed));
    assert!(matches!(up.bench.run(up.namespace.flush(0)), Err(RequestError::Failed(_))));
    up.bench.run(up.driver.shutdown());
    up.bench.world.settle();
    assert_eq!(up.bench.world.runtime().task_count(), 0);
}

#[test]
fn f6_resets_of_long_ago_do_not_count() {
    let recovery = Recovery::default().resets(1, Duration::from_secs(100));
    let up = up_with(Bench::new(), |options| options.recovery(recovery));
    for _ in 0..3 {
        up.fail_at(NvmOpcode::READ, Fault::Fatal);
        up.read(0, 512);
        up.bench.run(up.bench.world.sleep(Duration::from_secs(101)));
    }
    assert_eq!((up.resets(), up.driver.state()), (3, ControllerState::Running));
}

#[test]
fn f6_a_controller_that_does_not_come_back_ends_everything() {
    let up = up(Bench::new());
    let never = FaultRule { when: When::Enabled { skip: 0, count: None }, then: Fault::NotReady };
    let fatal = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal);
    up.faults(FaultPlan { rules: fatal.rules.into_iter().chain([never]).collect() });
    let results = up.bench.run(async {
        let (mut one, mut two) = ([0; 512], [0; 512]);
        let mut sent = pin!(up.namespace.read_slice(0, 0, &mut one));
        assert!(poll_once(&mut sent).await.is_none());
        up.bench.world.settle();
        let mut admin = pin!(up.driver.namespaces());
        assert!(poll_once(&mut admin).await.is_none());
        let other = up.namespace.read_slice(1, 0, &mut two);
        [sent.await, other.await, admin.await.map(drop)]
    });
    for result in results {
        let error = result.expect_err("it is given up");
        assert!(matches!(error, RequestError::Failed(_) | RequestError::Interrupted), "{error:?}");
    }
    assert_eq!(up.driver.state(), ControllerState::Failed);
    up.bench.run(up.driver.shutdown());
    up.bench.world.settle();
    assert_eq!(up.bench.world.runtime().task_count(), 0);
}

#[test]
fn f1_the_function_is_reset_where_the_controller_cannot_be_disabled() {
    let bench = Bench::new();
    let inner = bench.device(ControllerConfig::default());
    // RDY is read as 1, whatever CC says, once armed.
    let device = FaultInjector::new(inner.clone(), [] as [Harm; 0]);
    let tracer = Tracer::new(device.clone(), 100_000);
    let driver = bench.run(bench.world.options(tracer.clone()).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    device.add(Harm::read_as(offset::CSTS, 1));
    let mut bytes = [0; 512];
    bench.run(namespace.read_slice(0, 0, &mut bytes)).expect("read");
    bench.run(driver.reset_controller()).expect("back");
    assert!(tracer.events().iter().any(|event| matches!(event.what, What::Reset)));
    bench.run(namespace.read_slice(0, 0, &mut bytes)).expect("read");
}

#[test]
fn f7_dropped_commands_give_back_what_they_held() {
    let bench = Bench::new();
    let inner = bench.device(ControllerConfig::default());
    let ledger = DmaLedger::new(inner.clone());
    let driver = bench.run(bench.world.options(ledger.clone()).depth(4).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let memory = driver.register_memory(&guest(16)).expect("registered");
    bench.run(namespace.flush(0)).expect("a queue");
    inner.with_controller(|c| c.set_faults(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(4), Fault::Drop)));
    let pages = gpns(0, 4);
    bench.run(async {
        for lba in 0..4 {
            let mut read = pin!(namespace.read(0, lba, 8, &memory, whole(&pages)));
            assert!(poll_once(&mut read).await.is_none());
        }
        // All slots are orphans, and the memory is not let go before they are.
        let mut unregistered = pin!(driver.unregister_memory(&memory));
        assert!(poll_once(&mut unregistered).await.is_none());
        let mut bytes = [0; 512];
        namespace.read_slice(0, 0, &mut bytes).await.expect("read");
        unregistered.await;
    });
    assert_eq!(driver.inspect().queues.iter().map(|queue| queue.commands.len()).sum::<usize>(), 0);
    assert_eq!(inner.dma_space().fault_count(), 0);
    assert_eq!(driver.inspect().controller.resets, 1);
    assert_eq!(doorbell_device::leaked_mappings(), 0);
}

#[test]
fn f7_the_queue_that_was_being_made_is_made() {
    let bench = Bench::new();
    for opcode in [AdminOpcode::CREATE_IO_CQ, AdminOpcode::CREATE_IO_SQ] {
        let device = bench.device(ControllerConfig::default());
        let driver = bench.run(bench.world.options(device.clone()).open()).expect("it comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        device.with_controller(|c| c.set_faults(FaultPlan::on(CommandMatch::admin(opcode.0).times(1), Fault::Fatal)));
        bench.run(namespace.flush(0)).expect("by the queue of its next life");
        let view = driver.inspect();
        assert_eq!((view.queues.len(), view.controller.resets, view.controller.condemned_queues), (1, 1, 0));
        drop(namespace);
        bench.run(driver.shutdown());
    }
}

#[test]
fn f7_a_shutdown_meanwhile_ends_in_order() {
    for mode in [ShutdownMode::Reset, ShutdownMode::LeaveEnabled] {
        let up = up(Bench::new());
        let slow = Fault::delay(Duration::from_millis(50));
        let fatal = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal);
        up.faults(fatal.and_on(CommandMatch::admin(AdminOpcode::IDENTIFY.0), slow));
        up.bench.run(async {
            let mut bytes = [0; 512];
            let mut read = pin!(up.namespace.read_slice(0, 0, &mut bytes));
            assert!(poll_once(&mut read).await.is_none());
            while up.driver.state() == ControllerState::Running {
                up.bench.world.sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(up.driver.state(), ControllerState::Recovering);
            up.driver.end(mode).await;
            assert_eq!(up.driver.state(), ControllerState::ShutDown);
            read.await.expect("what was in flight has ended first");
        });
    }
}

#[test]
fn f7_a_shutdown_during_a_reset_that_fails_ends() {
    let up = up_with(Bench::new(), |options| options.recovery(Recovery::none()));
    let never_ready = FaultRule { when: When::Enabled { skip: 0, count: Some(1) }, then: Fault::NotReady };
    up.faults(FaultPlan { rules: vec![never_ready] });
    up.bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(up.namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        let mut reset = pin!(up.driver.reset_controller());
        assert!(poll_once(&mut reset).await.is_none());
        while up.driver.state() == ControllerState::Running {
            up.bench.world.sleep(Duration::from_millis(1)).await;
        }
        up.driver.end(ShutdownMode::Reset).await;
        assert_eq!(up.driver.state(), ControllerState::ShutDown);
        assert_eq!(up.namespace.flush(0).await.map_err(|error| error.class()), Err(ErrorClass::Gone));
        let _ = read.await;
    });
}

#[test]
fn f7_a_shutdown_ends_though_the_admin_queue_is_full_for_good() {
    let up = up(Bench::new());
    up.bench.run(up.namespace.flush(0)).expect("there is an I/O queue");
    up.faults(FaultPlan::on(CommandMatch::admin(AdminOpcode::IDENTIFY.0), Fault::Drop));
    up.bench.run(async {
        let mut asked: Vec<_> = (0..32).map(|_| Box::pin(up.driver.namespaces())).collect();
        for asked in &mut asked {
            assert!(poll_once(asked).await.is_none());
        }
        // Nobody looks at any of them again, so that none gives its slot back.
        up.driver.end(ShutdownMode::Reset).await;
        assert_eq!(up.driver.state(), ControllerState::ShutDown);
        for asked in asked {
            assert!(asked.await.is_err());
        }
    });
}

/// At whichever of them: those that the reset itself waits for, and those after it.
#[test]
fn f7_a_controller_that_fails_again_as_its_namespaces_are_looked_at_is_reset_again() {
    for skip in 0..7 {
        let up = up(Bench::new());
        let lie = Fault::CorruptCompletion { cid: Some(9999), sqid: None, sqhd: None, status_xor: 0, dw0: None };
        let look = CommandMatch { skip, ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) }.times(1);
        up.faults(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal).and_on(look, lie));
        up.bench.run(async {
            let mut bytes = [0; 512];
            let again = async {
                while up.resets() < 2 {
                    up.namespace.read_slice(0, 0, &mut bytes).await.expect("read");
                    up.bench.world.sleep(Duration::from_secs(1)).await;
                }
            };
            let ends = async {
                up.bench.world.sleep(Duration::from_secs(10)).await;
                panic!("look {skip}: the second reset never came");
            };
            futures_lite::future::or(again, ends).await;
        });
        up.bench.run(up.driver.shutdown());
    }
}

#[test]
fn f6_a_queue_that_is_made_as_the_controller_ends_keeps_nobody_waiting() {
    let bench = Bench::new();
    let device = bench.device(ControllerConfig::default());
    let options = bench.world.options(device.clone()).recovery(Recovery::none());
    let driver = bench.run(options.open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    let rule = |command, then| FaultRule { when: When::Command(command), then };
    let lie = Fault::CorruptCompletion { cid: None, sqid: None, sqhd: Some(9999), status_xor: 0, dw0: None };
    let late = Duration::from_millis(2);
    let rules = vec![
        rule(CommandMatch::io(NvmOpcode::READ.0).times(1), lie),
        rule(CommandMatch::admin(AdminOpcode::CREATE_IO_SQ.0), Fault::delay(late)),
    ];
    device.with_controller(|controller| controller.set_faults(FaultPlan { rules }));
    let (mut first, mut second) = ([0; 512], [0; 512]);
    let result = bench.run(async {
        let mut waits = pin!(namespace.read_slice(1, 0, &mut first));
        assert!(poll_once(&mut waits).await.is_none());
        bench.world.sleep(late / 2).await;
        let mut read = pin!(namespace.read_slice(0, 0, &mut second));
        assert!(poll_once(&mut read).await.is_none());
        // At the same moment the device lies, and says that the queue is there: the lie is found first.
        bench.world.advance(bench.world.now() + late);
        assert!(bench.world.step_devices());
        bench.world.notice_interrupts();
        driver.poll_cpu(0);
        waits.await
    });
    assert_eq!(result.map_err(|error| error.class()), Err(ErrorClass::Gone));
    bench.world.settle();
    assert_eq!(driver.state(), ControllerState::Failed);
    let result = bench.run(async {
        let mut bytes = [0; 512];
        let late = async {
            bench.world.sleep(Duration::from_secs(400)).await;
            panic!("it took a command, and nobody ends it");
        };
        futures_lite::future::or(namespace.read_slice(1, 0, &mut bytes), late).await
    });
    assert_eq!(result.map_err(|error| error.class()), Err(ErrorClass::Gone));
}

#[test]
fn f3_a_guests_pages_go_out_again_from_where_they_are() {
    let up = up(own());
    let memory = up.driver.register_memory(&guest(600)).expect("registered");
    // A PRP list, and a write whose data stays the guest's.
    let pages: Vec<u64> = (0..100).map(|i| (i * 37) % 600).collect();
    let data = pattern(9, 100 * 4096);
    fill(&memory, &pages, 0, &data);
    up.fail_at(NvmOpcode::WRITE, Fault::Stuck);
    up.bench.run(up.namespace.write(0, 0, 800, false, &memory, whole(&pages))).expect("written");
    assert_eq!(up.replayed(), 1);
    assert!(up.read(0, data.len()) == data);
}

#[test]
fn f1_a_breach_of_the_protocol_resets_the_controller() {
    let lies = [
        Fault::Duplicate,
        Fault::CorruptCompletion { cid: Some(0x7777), sqid: None, sqhd: None, status_xor: 0, dw0: None },
        Fault::CorruptCompletion { cid: None, sqid: Some(9), sqhd: None, status_xor: 0, dw0: None },
        Fault::CorruptCompletion { cid: None, sqid: None, sqhd: Some(9999), status_xor: 0, dw0: None },
    ];
    for lie in lies {
        let up = up(Bench::new());
        let data = pattern(1, 4096);
        up.write(0, &data);
        up.fail_at(NvmOpcode::READ, lie.clone());
        assert_eq!(up.read(0, 4096), data, "{lie:?}");
        up.bench.run(up.bench.world.sleep(Duration::from_secs(5)));
        assert_eq!(up.read(0, 4096), data, "{lie:?}");
        assert_eq!((up.resets(), up.driver.state()), (1, ControllerState::Running), "{lie:?}");
    }
}

#[test]
fn f6_another_controller_in_its_place_is_not_used() {
    use doorbell_emulator::Patch;
    let up = up(Bench::new());
    let other = Patch { offset: 4, set: b"SOMEBODY ELSE".to_vec(), ..Patch::default() };
    let identify = CommandMatch { cdw10: Some(1), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) };
    up.faults(FaultPlan::on(identify, Fault::CorruptData(other)));
    let error = up.bench.run(up.driver.reset_controller()).expect_err("it is not the same");
    assert!(matches!(error, RequestError::Failed(DeviceFailed::NotRecovered(_))), "{error:?}");
    assert_eq!(error.to_string().matches("brought back").count(), 1, "{error}");
    assert_eq!(up.driver.state(), ControllerState::Failed);
}

#[test]
fn f10_the_subsystem_is_reset_when_the_caller_asks_and_all_its_controllers_come_back() {
    let up = up(Bench::new());
    let data = pattern(1, 4096);
    up.write(0, &data);
    // Another host has a controller of the same subsystem, and a read on it.
    let other = up.bench.device(ControllerConfig::default());
    let neighbour = up.bench.run(up.bench.world.options(other.clone()).open()).expect("it comes up");
    let theirs = up.bench.run(neighbour.namespace(1)).expect("namespace 1");
    up.bench.run(theirs.flush(0)).expect("a queue");
    let lost = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Drop);
    other.with_controller(|controller| controller.set_faults(lost));
    let mut bytes = vec![0; 4096];
    up.bench.run(async {
        let mut read = pin!(theirs.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        up.bench.world.settle();
        up.driver.reset_subsystem().await.expect("reset");
        read.await.expect("read after a reset that was not theirs");
    });
    assert_eq!(bytes, data);
    assert_eq!(up.read(0, 4096), data);
    assert_eq!((up.resets(), neighbour.inspect().controller.resets), (1, 1));
    for driver in [&up.driver, &neighbour] {
        assert_eq!(driver.state(), ControllerState::Running);
    }
}

#[test]
fn f10_a_subsystem_that_cannot_be_reset_is_left_alone() {
    let bench = Bench::new();
    let driver = bench.driver(ControllerConfig { nssrs: false, ..ControllerConfig::default() });
    let result = bench.run(driver.reset_subsystem());
    assert!(matches!(result, Err(RequestError::Unsupported(_))), "{result:?}");
    assert_eq!((driver.state(), driver.inspect().controller.resets), (ControllerState::Running, 0));
}

#[test]
fn f10_no_failure_resets_the_subsystem() {
    let bench = own();
    let device = bench.device(ControllerConfig::default());
    let tracer = Tracer::new(device.clone(), 10_000);
    let driver = bench.run(bench.world.options(tracer.clone()).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    for fault in [Fault::Fatal, Fault::Stuck] {
        let once = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), fault);
        device.with_controller(|controller| controller.set_faults(once));
        bench.run(namespace.read_slice(0, 0, &mut [0; 512])).expect("read");
    }
    bench.run(driver.reset_controller()).expect("reset");
    assert_eq!(driver.inspect().controller.resets, 3);
    assert!(!tracer.to_string().contains("NSSR"), "others are struck by it");
}

#[test]
fn f5_a_new_handle_does_not_inherit_what_an_old_one_had_in_flight() {
    let bench = own();
    let second = bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("namespace 2");
    let Up { bench, device, driver, namespace } = up(bench);
    let _second = bench.run(driver.namespace(second)).expect("namespace 2");
    let set_faults = |plan| device.with_controller(|controller| controller.set_faults(plan));
    set_faults(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal));
    let mut bytes = vec![0; 4096];
    let read = bench.run(async {
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        // Let it see the command, and fail.
        bench.world.sleep(Duration::from_millis(1)).await;
        bench.subsystem.remove_namespace(1).expect("removed");
        bench
            .subsystem
            .add_namespace(NamespaceConfig { nsid: Some(1), ..NamespaceConfig::ram(16 << 20) })
            .expect("another");
        // While the other namespace is being looked at again, somebody opens the one that took this one's place.
        let slow = CommandMatch { nsid: Some(second), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) };
        set_faults(FaultPlan::on(slow, Fault::delay(Duration::from_secs(5))));
        namespace.wait_removed().await;
        let new = driver.namespace(1).await.expect("the new one");
        assert_eq!(driver.state(), ControllerState::Recovering);
        let result = read.await;
        new.flush(0).await.expect("flushed");
        result
    });
    assert_eq!(read.expect_err("it is gone").status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT));
}

#[test]
fn f5_a_new_handle_that_does_not_come_about_lets_nothing_of_the_old_one_through() {
    let bench = own();
    let second = bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("namespace 2");
    let Up { bench, device, driver, namespace } = up(bench);
    let _second = bench.run(driver.namespace(second)).expect("namespace 2");
    let set_faults = |plan| device.with_controller(|controller| controller.set_faults(plan));
    set_faults(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal));
    let mut bytes = vec![0; 4096];
    let read = bench.run(async {
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(&mut read).await.is_none());
        bench.world.sleep(Duration::from_millis(1)).await;
        bench.subsystem.remove_namespace(1).expect("removed");
        let another = NamespaceConfig { nsid: Some(1), ..NamespaceConfig::ram(16 << 20) };
        bench.subsystem.add_namespace(another).expect("another");
        let slow = CommandMatch { nsid: Some(second), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) };
        set_faults(FaultPlan::on(slow, Fault::delay(Duration::from_secs(5))));
        namespace.wait_removed().await;
        // Somebody wants a handle for the one that took its place, and does not wait for it.
        let mut opening = Box::pin(driver.namespace(1));
        assert!(poll_once(&mut opening).await.is_none());
        drop(opening);
        assert_eq!(driver.state(), ControllerState::Recovering);
        read.await
    });
    assert_eq!(read.expect_err("it is gone").status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT));
}

#[test]
fn f7_unregistering_memory_ends_with_what_is_not_sent_again() {
    let Up { bench, device, driver, namespace } = up(own());
    let memory = driver.register_memory(&guest(4)).expect("registered");
    let pages = gpns(0, 1);
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal);
    device.with_controller(|controller| controller.set_faults(plan));
    bench.run(async {
        let mut read = pin!(namespace.read(0, 0, 8, &memory, whole(&pages)));
        assert!(poll_once(&mut read).await.is_none());
        bench.world.sleep(Duration::from_millis(1)).await;
        bench.subsystem.remove_namespace(1).expect("removed");
        // Nobody looks at the read, nor at anything else, meanwhile.
        driver.unregister_memory(&memory).await;
        let error = read.await.expect_err("it is gone");
        assert_eq!(error.status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT));
    });
}
