//! Many controllers.

use std::cell::Cell;
use std::pin::pin;

use doorbell::{ControllerState, DriverError, ManagerError, NvmeManager, ShutdownMode};
use doorbell_device::Device as _;
use doorbell_emulator::{ControllerConfig, Fault, FaultPlan, FaultRule, When};
use futures_lite::future::{poll_once, zip};
use nvme_spec::registers::{Cc, offset};

use crate::bench::Bench;

fn broken() -> ControllerConfig {
    let rule = FaultRule { when: When::Enabled { skip: 0, count: None }, then: Fault::NotReady };
    ControllerConfig { faults: FaultPlan { rules: vec![rule] }, ..ControllerConfig::default() }
}

#[test]
fn manager_opens_a_controller_once_however_many_ask() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let opened = Cell::new(0);
    let open = || {
        opened.set(opened.get() + 1);
        Ok(bench.options(ControllerConfig::default()))
    };
    let (a, b) = bench.run(zip(manager.get("a", open), manager.get("a", open)));
    let (a, b) = (a.expect("opened"), b.expect("the same"));
    let c = bench.run(manager.get("a", open)).expect("the same");
    assert!(std::sync::Arc::ptr_eq(&a, &b) && std::sync::Arc::ptr_eq(&a, &c));
    assert_eq!(opened.get(), 1);
    let other = bench.run(manager.get("b", open)).expect("another");
    assert!(!std::sync::Arc::ptr_eq(&a, &other));
    assert_eq!(manager.list(), ["a", "b"]);
    let views = manager.inspect();
    assert_eq!(views.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert!(views.values().all(|view| view.controller.state == ControllerState::Running));
    bench.run(manager.shutdown(|_| ShutdownMode::Reset));
}

#[test]
fn manager_failures_are_each_controllers_own() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let good = || Ok(bench.options(ControllerConfig::default()));
    let bad = || Ok(bench.options(broken()));
    // While one never becomes ready, another is opened and used.
    bench.run(async {
        let mut failing = pin!(manager.get("bad", bad));
        assert!(poll_once(&mut failing).await.is_none());
        let driver = manager.get("good", good).await.expect("opened");
        driver.namespace(1).await.expect("used");
        match failing.await {
            Err(ManagerError::Driver { address, source: DriverError::TimedOut { .. } }) => assert_eq!(address, "bad"),
            result => panic!("{result:?}"),
        }
    });
    let error = bench.run(manager.get("worse", || Err(DriverError::NotThere))).expect_err("no options");
    assert!(matches!(error, ManagerError::Driver { source: DriverError::NotThere, .. }), "{error:?}");
    assert_eq!(manager.list(), ["good"]);
    // Who waits while the first one fails tries next.
    let (first, second) = bench.run(zip(manager.get("bad", bad), manager.get("bad", good)));
    assert!(first.is_err() && second.is_ok(), "{first:?} {second:?}");
    bench.run(manager.shutdown(|_| ShutdownMode::Reset));
}

#[test]
fn manager_replaces_a_controller_that_has_ended() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let device = bench.device(ControllerConfig::default());
    let open = || Ok(bench.world.options(device.clone()));
    let first = bench.run(manager.get("a", open)).expect("opened");
    bench.run(first.end(ShutdownMode::Reset));
    let second = bench.run(manager.get("a", open)).expect("opened again");
    assert_eq!((first.state(), second.state()), (ControllerState::ShutDown, ControllerState::Running));
    bench.run(manager.shutdown(|_| ShutdownMode::Reset));
}

#[test]
fn manager_an_opening_that_is_given_up_is_in_nobodys_way() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let slow = ControllerConfig { ready_after: std::time::Duration::from_secs(2), ..ControllerConfig::default() };
    let device = bench.device(slow);
    let open = || Ok(bench.world.options(device.clone()));
    {
        let mut given_up = pin!(manager.get("a", open));
        assert!(bench.run(poll_once(&mut given_up)).is_none());
    }
    assert!(manager.list().is_empty());
    // What came up for nobody was shut down.
    bench.run(bench.world.sleep(std::time::Duration::from_secs(10)));
    assert!(!Cc::from(device.read32(offset::CC).expect("CC")).en());
    assert_eq!(bench.world.runtime().task_count(), 0);
    bench.run(manager.get("a", open)).expect("opened");
    bench.run(manager.shutdown(|_| ShutdownMode::Reset));
}

#[test]
fn manager_shuts_all_down_together_each_as_chosen() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let slow = ControllerConfig { shutdown_after: std::time::Duration::from_secs(3), ..ControllerConfig::default() };
    let devices: Vec<_> = (0..4).map(|_| bench.device(slow.clone())).collect();
    for (name, device) in ["a", "b", "c", "kept"].into_iter().zip(&devices) {
        bench.run(manager.get(name, || Ok(bench.world.options(device.clone())))).expect("opened");
    }
    let before = bench.world.now();
    let mode = |name: &str| if name == "kept" { ShutdownMode::LeaveEnabled } else { ShutdownMode::Reset };
    bench.run(manager.shutdown(mode));
    let took = bench.world.now() - before;
    assert!(took < std::time::Duration::from_secs(6), "one after the other: {took:?}");
    let enabled: Vec<bool> =
        devices.iter().map(|device| Cc::from(device.read32(offset::CC).expect("CC")).en()).collect();
    assert_eq!(enabled, [false, false, false, true]);
    assert!(manager.list().is_empty());
    let late = bench.run(manager.get("a", || Ok(bench.world.options(devices[0].clone()))));
    assert!(matches!(late, Err(ManagerError::Gone)), "{late:?}");
}

#[test]
fn manager_waits_for_what_is_being_opened_when_it_shuts_down() {
    let bench = Bench::new();
    let manager = NvmeManager::new();
    let slow = ControllerConfig { ready_after: std::time::Duration::from_secs(2), ..ControllerConfig::default() };
    let device = bench.device(slow);
    bench.run(async {
        let opening = manager.get("a", || Ok(bench.world.options(device.clone())));
        let mut opening = pin!(opening);
        assert!(poll_once(&mut opening).await.is_none());
        let (driver, ()) = zip(opening, manager.shutdown(|_| ShutdownMode::Reset)).await;
        assert_eq!(driver.expect("it was opened").state(), ControllerState::ShutDown);
    });
    assert!(!Cc::from(device.read32(offset::CC).expect("CC")).en());
}
