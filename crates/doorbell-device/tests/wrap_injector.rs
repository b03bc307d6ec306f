//! Each fault that can be injected.

mod common;

use std::sync::Arc;

use common::Driver;
use doorbell_device::wrap::{Fault, FaultInjector, MapFailure, Rule};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_device::{Device, DeviceError};
use nvme_spec::registers::{Cc, offset};
use nvme_spec::{AdminOpcode, Cdw0, Command};

fn device() -> Arc<ZeroWork> {
    ZeroWork::new(Options { interrupts: 2, ..Options::default() }).unwrap()
}

fn injector(plan: impl IntoIterator<Item = impl Into<Rule>>) -> Arc<FaultInjector> {
    FaultInjector::new(device(), plan)
}

#[test]
fn registers_read_as_the_plan_says() {
    let device = injector([Fault::read_as(offset::CSTS, 2).after(1).times(2)]);
    let status = || device.read32(offset::CSTS).unwrap();
    assert_eq!([status(), status(), status(), status()], [0, 2, 2, 0]);
    assert_eq!(device.plan()[0].1, 2);

    let device = injector([Fault::reads_all_ones()]);
    assert_eq!(device.read32(offset::VS).unwrap(), u32::MAX);
    assert_eq!(device.read64(offset::CAP).unwrap(), u64::MAX);
    device.clear();
    assert_ne!(device.read32(offset::VS).unwrap(), u32::MAX);
}

#[test]
fn a_stuck_register_keeps_its_value() {
    let device = injector([Fault::ReadStuck { register: offset::AQA }.after(1)]);
    let write = |value| device.write32(offset::AQA, value).unwrap();
    let read = || device.read32(offset::AQA).unwrap();
    write(1);
    assert_eq!(read(), 1);
    write(2);
    assert_eq!(read(), 2);
    write(3);
    assert_eq!(read(), 2);
}

#[test]
fn writes_are_lost() {
    let device = injector([Fault::WriteLost { register: Some(offset::AQA) }.times(1)]);
    device.write32(offset::AQA, 5).unwrap();
    assert_eq!(device.read32(offset::AQA).unwrap(), 0);
    device.write32(offset::AQA, 5).unwrap();
    assert_eq!(device.read32(offset::AQA).unwrap(), 5);
}

#[test]
fn doorbells_are_lost_or_late() {
    let bottom = device();
    let device = FaultInjector::new(bottom.clone(), [] as [Rule; 0]);
    let mut driver = Driver::new(device.clone());
    let mut pair = driver.create_pair(1, 8);
    let read = Command { cdw0: Cdw0::new().with_opcode(2), nsid: 1, ..Command::default() };

    device.add(Fault::DoorbellLost { doorbell: Some(0x1080) }.times(1));
    pair.push(&read);
    pair.ring();
    assert_eq!(bottom.complete(1, 9), 0);
    pair.ring();
    assert_eq!(bottom.complete(1, 9), 1);
    assert!(pair.pop().is_some());

    device.add(Fault::DoorbellDelayed { doorbell: None });
    pair.push(&read);
    pair.ring();
    pair.push(&read);
    pair.ring();
    assert_eq!(bottom.complete(1, 9), 0);
    assert_eq!(device.release_doorbells(), 1);
    assert_eq!(bottom.complete(1, 9), 2);
    assert_eq!(device.release_doorbells(), 0);
}

#[test]
fn a_doorbell_that_rings_in_time_is_not_taken_back_by_a_late_one() {
    let bottom = device();
    let device = FaultInjector::new(bottom.clone(), [Fault::DoorbellDelayed { doorbell: Some(0x1080) }.times(1)]);
    let mut pair = Driver::new(device.clone()).create_pair(1, 8);
    pair.push(&Command::default());
    pair.ring();
    pair.push(&Command::default());
    pair.ring();
    assert_eq!(bottom.complete(1, 9), 2);
    device.release_doorbells();
    assert_eq!(bottom.complete(1, 9), 0);
}

#[test]
fn interrupts_are_lost() {
    let device = injector([Fault::InterruptLost { vector: Some(1) }.times(1)]);
    let vectors = [device.interrupt(0).unwrap(), device.interrupt(1).unwrap()];
    vectors.iter().for_each(|vector| vector.raise());
    assert_eq!([vectors[0].take(), vectors[1].take()], [1, 0]);
    vectors[1].raise();
    assert_eq!(vectors[1].take(), 1);
}

#[test]
fn mapping_fails() {
    let failures = [MapFailure::Limit, MapFailure::Unmappable, MapFailure::OutOfMemory];
    let device = injector(failures.map(|failure| Fault::MapFails(failure).times(1)));
    assert!(matches!(device.allocate(1, 1), Err(DeviceError::MappingLimit(_))));
    assert!(matches!(device.allocate(1, 1), Err(DeviceError::Unmappable { .. })));
    assert!(matches!(device.allocate(1, 1), Err(DeviceError::Io { .. })));
    assert!(device.allocate(1, 1).is_ok());

    let device = injector([Fault::MapLimit { mappings: 2 }]);
    let (first, _second) = (device.allocate(1, 1).unwrap(), device.allocate(1, 1).unwrap());
    assert!(matches!(device.allocate(1, 1), Err(DeviceError::MappingLimit(_))));
    drop(first);
    assert!(device.allocate(1, 1).is_ok());
}

#[test]
fn a_reset_fails_and_does_nothing() {
    let device = injector([Fault::ResetFails.times(1)]);
    let _driver = Driver::new(device.clone());
    device.reset().unwrap_err();
    assert_eq!(device.read32(offset::CSTS).unwrap(), 1);
    device.reset().unwrap();
    assert_eq!(device.read32(offset::CSTS).unwrap(), 0);
}

#[test]
fn a_device_that_is_gone_says_nothing_more() {
    let device = injector([] as [Rule; 0]);
    let mut driver = Driver::new(device.clone());
    let vector = device.interrupt(0).unwrap();
    device.add(Fault::Gone);
    assert_eq!(device.read32(offset::CSTS).unwrap(), u32::MAX);
    device.write32(offset::CC, Cc::new().into_bits()).unwrap();
    driver.send(AdminOpcode::ABORT, Command::default());
    assert_eq!((driver.admin.pop(), vector.take()), (None, 0));
    assert!(matches!(device.allocate(1, 1), Err(DeviceError::Gone(_))));
    assert!(matches!(device.reset(), Err(DeviceError::Gone(_))));

    let device = injector([Fault::KnownGone]);
    assert!(matches!(device.read64(offset::CAP), Err(DeviceError::Gone(_))));
    assert!(matches!(device.write32(offset::CC, 0), Err(DeviceError::Gone(_))));
}
