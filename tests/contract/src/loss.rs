//! Devices that are taken away.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use doorbell::{
    ControllerState, DeviceFailed, DriverError, Namespace, NvmeDriver, Recovery, RequestError, Runtime as _,
};
use doorbell_device::Device as _;
use doorbell_device::wrap::{Fault as Harm, FaultInjector};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use futures_lite::future::{poll_once, zip};
use nvme_spec::NvmOpcode;
use nvme_spec::identify::cns::Cns;
use nvme_spec::registers::{Cc, offset};

use crate::bench::{Bench, Device, guest};
use crate::odd::identify;

const WHY: &str = "somebody wants it back";

/// A driver on a device that can be lost, whose reads are harmed by `fault`, and namespace 1, with a queue.
fn up(bench: &Bench, fault: Fault) -> (Device, Arc<FaultInjector>, NvmeDriver, Namespace) {
    let faults = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), fault);
    let device = bench.device(ControllerConfig { faults, ..ControllerConfig::default() });
    let injector = FaultInjector::new(device.clone(), [] as [Harm; 0]);
    let driver = bench.run(bench.world.options(injector.clone()).depth(1).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    (device, injector, driver, namespace)
}

fn sleep(bench: &Bench, seconds: u64) {
    bench.run(bench.world.runtime().sleep_until(bench.world.now() + Duration::from_secs(seconds)));
}

fn assert_lost(result: Result<(), RequestError>) {
    match result {
        Err(RequestError::Failed(DeviceFailed::Lost(reason))) => assert_eq!(reason, WHY),
        result => panic!("{result:?}"),
    }
}

#[test]
fn l1_a_device_that_is_asked_back_fails_every_command_and_is_let_go() {
    let bench = Bench::new();
    let (_device, injector, driver, namespace) = up(&bench, Fault::Drop);
    let before = bench.world.now();
    bench.run(async {
        let (mut first, mut second) = ([0; 512], [0; 512]);
        // One is with the device, the other waits for the only slot.
        let mut in_flight = pin!(namespace.read_slice(0, 0, &mut first));
        assert!(poll_once(in_flight.as_mut()).await.is_none());
        let mut waiting = pin!(namespace.read_slice(0, 0, &mut second));
        assert!(poll_once(waiting.as_mut()).await.is_none());
        injector.lose(WHY);
        let (in_flight, waiting) = zip(in_flight, waiting).await;
        assert_lost(in_flight);
        assert_lost(waiting);
    });
    assert!(bench.world.now() - before < Duration::from_secs(1));
    assert!(injector.released_with().is_some());
    assert_eq!(driver.state(), ControllerState::Failed);
    assert_lost(bench.run(namespace.read_slice(0, 0, &mut [0; 512])));
    assert_lost(bench.run(namespace.flush(0)));
    bench.run(driver.shutdown());
    drop(namespace);
    bench.world.settle();
    assert_eq!(bench.world.runtime().task_count(), 0);
}

#[test]
fn l1_an_idle_device_that_is_asked_back_is_let_go() {
    let bench = Bench::new();
    let (_device, injector, driver, namespace) = up(&bench, Fault::Drop);
    bench.world.settle();
    assert_eq!(injector.released_with(), None);
    injector.lose(WHY);
    bench.world.notice_interrupts();
    sleep(&bench, 1);
    assert!(injector.released_with().is_some());
    assert_eq!(driver.state(), ControllerState::Failed);
    assert_lost(bench.run(namespace.flush(0)));
}

#[test]
fn l1_a_device_that_is_asked_back_while_it_comes_up_is_let_go() {
    // It never answers the first command; or it never becomes ready.
    let silent = FaultPlan::on(identify(Cns::CONTROLLER), Fault::Drop);
    let deaf = Harm::WriteLost { register: Some(offset::CC) };
    for (faults, harms) in [(silent, vec![]), (FaultPlan::default(), vec![deaf])] {
        let bench = Bench::new();
        let device = bench.device(ControllerConfig { faults, ..ControllerConfig::default() });
        let injector = FaultInjector::new(device, harms);
        let before = bench.world.now();
        let error = bench.run(async {
            let mut open = pin!(bench.world.options(injector.clone()).open());
            assert!(poll_once(open.as_mut()).await.is_none());
            injector.lose(WHY);
            open.await.expect_err("it is lost")
        });
        match error {
            DriverError::Command { source, .. } => assert_lost(Err(source)),
            error => panic!("{error:?}"),
        }
        assert!(bench.world.now() - before < Duration::from_secs(3));
        assert!(injector.released_with().is_some());
        bench.world.settle();
        assert_eq!(bench.world.runtime().task_count(), 0);
    }
}

#[test]
fn l2_a_device_that_cannot_be_stopped_keeps_its_memory_until_it_is_let_go() {
    let bench = Bench::new();
    // It answers late, and writes to the memory when it does.
    let (device, injector, driver, namespace) = up(&bench, Fault::delay(Duration::from_secs(20)));
    let memory = bench.run(async { driver.register_memory(&guest(1)) }).expect("registered");
    let mapped = injector.live_mappings();
    injector.add(Harm::WriteLost { register: Some(offset::CC) });
    injector.add(Harm::ResetFails);
    bench.run(async {
        let pages = doorbell::PagedRange::new(0, 512, &[0]).expect("a range");
        let mut read = pin!(namespace.read(0, 0, 1, &memory, pages));
        assert!(poll_once(read.as_mut()).await.is_none());
        injector.lose(WHY);
        let result = read.await;
        assert!(injector.released_with().is_some(), "the command ended while the device could still write");
        assert_lost(result);
    });
    assert_eq!(injector.released_with(), Some(mapped), "memory was unmapped under a device that still ran");
    drop((memory, namespace, driver));
    sleep(&bench, 60);
    assert_eq!(device.dma_space().fault_count(), 0);
}

/// A read is in flight when somebody else disables the controller; what becomes of the read.
fn disabled_behind_its_back(bench: &Bench, device: &Device, namespace: &Namespace) -> Result<(), RequestError> {
    let before = bench.world.now();
    let result = bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(read.as_mut()).await.is_none());
        device.with_controller(|controller| controller.set_faults(FaultPlan::default()));
        device.write32(offset::CC, Cc::new().into()).expect("disabled behind the driver's back");
        read.await
    });
    assert!(bench.world.now() - before < Duration::from_secs(5), "noticed long before a command's time is up");
    result
}

#[test]
fn l3_a_controller_that_somebody_else_disabled_is_reset_and_goes_on() {
    let bench = Bench::new();
    let (device, _injector, driver, namespace) = up(&bench, Fault::Drop);
    disabled_behind_its_back(&bench, &device, &namespace).expect("read after a reset");
    assert_eq!(driver.state(), ControllerState::Running);
    bench.run(namespace.flush(0)).expect("flushed");
}

#[test]
fn l3_a_controller_that_somebody_else_disabled_is_given_up_where_nothing_is_to_be_reset() {
    let bench = Bench::new();
    let faults = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::Drop);
    let device = bench.device(ControllerConfig { faults, ..ControllerConfig::default() });
    let driver = bench.run(bench.world.options(device.clone()).recovery(Recovery::none()).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("a queue");
    let result = disabled_behind_its_back(&bench, &device, &namespace);
    assert!(matches!(result, Err(RequestError::Failed(DeviceFailed::NotReady { csts: 0 }))), "{result:?}");
    assert_eq!(driver.state(), ControllerState::Failed);
}

#[test]
fn l3_a_controller_that_reads_as_disabled_is_disabled_all_the_same() {
    let bench = Bench::new();
    let (device, injector, driver, _namespace) = up(&bench, Fault::Drop);
    for register in [offset::CC, offset::CSTS] {
        injector.add(Harm::read_as(register, 0));
    }
    bench.run(driver.shutdown());
    assert!(!Cc::from(device.read32(offset::CC).expect("a register")).en(), "it runs, and its memory was given back");
}

#[test]
fn l3_registers_of_zeroes_do_not_pass_for_a_device_that_is_stopped() {
    let bench = Bench::new();
    let (device, injector, _driver, namespace) = up(&bench, Fault::Drop);
    bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        assert!(poll_once(read.as_mut()).await.is_none());
        for register in [offset::CC, offset::CSTS] {
            injector.add(Harm::read_as(register, 0));
        }
        injector.add(Harm::WriteLost { register: Some(offset::CC) });
        // It does not come back either: registers of zeroes never become ready.
        assert!(matches!(read.await, Err(RequestError::Failed(DeviceFailed::NotRecovered(_)))));
        // Reset, not only looked at.
        assert_eq!(device.with_controller(|controller| controller.io_queues()), (0, 0));
    });
}
