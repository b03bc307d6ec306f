//! C: living with change.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use doorbell::{Namespace, NvmeDriver, RequestError, Runtime};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig};
use futures_lite::future::{poll_once, zip};
use nvme_spec::identify::cns::Cns;
use nvme_spec::log::LogId;
use nvme_spec::{AdminOpcode, Status};

use crate::bench::{Bench, Device};
use crate::odd::{identify, refused};

const MIB: u64 = 1 << 20;

/// A driver with a handle for namespace 1, and its device.
pub(crate) fn up(bench: &Bench) -> (Device, NvmeDriver, Namespace) {
    let device = bench.device(ControllerConfig::default());
    let driver = bench.run(bench.world.options(device.clone()).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    (device, driver, namespace)
}

fn get_log(lid: LogId) -> CommandMatch {
    CommandMatch { cdw10: Some(lid.0.into()), ..CommandMatch::admin(AdminOpcode::GET_LOG_PAGE.0) }
}

#[test]
fn c1_just_the_namespace_that_changed_is_identified() {
    let bench = Bench::new();
    bench.subsystem.add_namespace(NamespaceConfig::ram(MIB)).expect("another");
    let (device, driver, first) = up(&bench);
    let second = bench.run(driver.namespace(2)).expect("namespace 2");
    let others = FaultPlan::on(CommandMatch { nsid: Some(1), ..identify(Cns::NAMESPACE) }, Fault::Fatal);
    device.with_controller(|controller| controller.set_faults(others));
    bench.subsystem.resize_namespace(2, 2 * MIB).expect("resized");
    bench.world.settle();
    assert_eq!((first.block_count(), second.block_count()), (32768, 4096));
    bench.run(first.flush(0)).expect("the controller is well");
}

#[test]
fn c1_more_than_1024_changes_lose_none() {
    let bench = Bench::new();
    for _ in 2..=1200 {
        bench.subsystem.add_namespace(NamespaceConfig::null(MIB)).expect("a namespace");
    }
    let (_device, driver, first) = up(&bench);
    let last = bench.run(driver.namespace(1200)).expect("the last one");
    for nsid in 1..=1200 {
        bench.subsystem.resize_namespace(nsid, 2 * MIB).expect("resized");
    }
    bench.world.settle();
    assert_eq!((first.block_count(), last.block_count()), (4096, 4096));
}

#[test]
fn c1_a_change_while_the_handle_is_made_is_not_missed() {
    let bench = Bench::new();
    // What Identify reads first is a second old when it arrives.
    let late = FaultPlan::on(identify(Cns::NAMESPACE).times(1), Fault::delay(Duration::from_secs(1)));
    let driver = bench.driver(ControllerConfig { faults: late, ..ControllerConfig::default() });
    let namespace = bench.run(async {
        let mut opening = pin!(driver.namespace(1));
        assert!(poll_once(&mut opening).await.is_none());
        bench.world.sleep(Duration::from_millis(1)).await;
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        opening.await.expect("a namespace")
    });
    bench.world.settle();
    assert_eq!(namespace.block_count(), 2048);
}

#[test]
fn c1_a_change_before_the_watcher_runs_is_not_missed() {
    let bench = Bench::new();
    bench.run(async {
        let options = bench.options(ControllerConfig::default());
        let mut opening = pin!(options.open());
        // Up to each moment of the bring-up, as far as time tells them apart.
        let _ = poll_once(&mut opening).await;
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        let driver = opening.await.expect("it comes up");
        let namespace = driver.namespace(1).await.expect("namespace 1");
        assert_eq!(namespace.block_count(), 2048);
        bench.subsystem.resize_namespace(1, 2 * MIB).expect("resized");
        assert_eq!(namespace.wait_resize(2048).await.expect("told"), 4096);
    });
}

#[test]
fn c1_an_old_answer_does_not_replace_a_newer_one() {
    let bench = Bench::new();
    let (device, _driver, namespace) = up(&bench);
    let late = FaultPlan::on(identify(Cns::NAMESPACE).times(1), Fault::delay(Duration::from_secs(5)));
    device.with_controller(|controller| controller.set_faults(late));
    for size in [2, 3] {
        bench.subsystem.resize_namespace(1, size * MIB).expect("resized");
        bench.world.settle();
    }
    bench.run(bench.world.sleep(Duration::from_secs(10)));
    assert_eq!(namespace.block_count(), 3 * 2048);
}

#[test]
fn c2_a_resize_wakes_everyone_who_waits_with_another_number() {
    let bench = Bench::new();
    let (_device, _driver, namespace) = up(&bench);
    let namespace = Arc::new(namespace);
    let heard = Arc::new(AtomicU64::new(0));
    for _ in 0..5 {
        let (namespace, heard) = (namespace.clone(), heard.clone());
        let wait = async move {
            let size = namespace.wait_resize(32768).await.expect("a new size");
            heard.fetch_add(size, Ordering::SeqCst);
        };
        bench.world.runtime().spawn("waiter", Box::pin(wait));
    }
    bench.world.settle();
    assert_eq!(heard.load(Ordering::SeqCst), 0);
    bench.subsystem.resize_namespace(1, MIB).expect("resized");
    bench.world.settle();
    assert_eq!(heard.load(Ordering::SeqCst), 5 * 2048);
    // A number that is not the current one: nothing to wait for. The current one: for the next change.
    assert_eq!(bench.run(namespace.wait_resize(32768)).expect("at once"), 2048);
    let mut wait = pin!(namespace.wait_resize(2048));
    assert!(bench.run(poll_once(&mut wait)).is_none());
    bench.subsystem.resize_namespace(1, 2 * MIB).expect("resized");
    assert_eq!(bench.run(wait).expect("told"), 4096);
}

#[test]
fn c2_waiting_for_a_size_ends_with_the_namespace_or_the_driver() {
    let bench = Bench::new();
    let (_device, driver, namespace) = up(&bench);
    bench.run(async {
        let mut wait = pin!(namespace.wait_resize(32768));
        assert!(poll_once(&mut wait).await.is_none());
        bench.subsystem.remove_namespace(1).expect("removed");
        let error = wait.await.expect_err("removed");
        assert_eq!(error.status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT));
    });
    drop(namespace);
    bench.subsystem.add_namespace(NamespaceConfig::ram(MIB).nsid(1)).expect("added");
    bench.world.settle();
    let namespace = bench.run(driver.namespace(1)).expect("another");
    bench.run(async {
        let wait = async { namespace.wait_resize(2048).await };
        let end = async {
            bench.world.sleep(Duration::from_secs(1)).await;
            driver.shutdown().await;
        };
        let (error, ()) = zip(wait, end).await;
        assert!(matches!(error, Err(RequestError::Gone)), "{error:?}");
    });
}

#[test]
fn c4_a_reidentify_that_fails_for_now_is_tried_again() {
    for cns in [Cns::NAMESPACE, Cns::NAMESPACE_DESCRIPTORS] {
        for status in [Status::INTERNAL_ERROR, Status::NAMESPACE_NOT_READY] {
            let bench = Bench::new();
            let (device, driver, namespace) = up(&bench);
            let faults = FaultPlan::on(identify(cns).times(20), Fault::fail(status));
            device.with_controller(|controller| controller.set_faults(faults));
            let before = driver.inspect().admin.queue.counters.submitted;
            bench.subsystem.resize_namespace(1, MIB).expect("resized");
            bench.run(bench.world.sleep(Duration::from_secs(60)));
            assert!(!namespace.is_removed(), "{cns} {status}");
            assert_eq!(namespace.block_count(), 32768);
            // Ever more slowly: no storm of commands.
            let tries = driver.inspect().admin.queue.counters.submitted - before;
            assert!((8..40).contains(&tries), "{tries} commands in a minute");
            assert_eq!(bench.run(namespace.wait_resize(32768)).expect("in the end"), 2048);
        }
    }
}

#[test]
fn c4_a_changed_list_that_cannot_be_read_loses_nothing() {
    for fault in [Fault::fail(Status::INTERNAL_ERROR), refused(Status::INVALID_LOG_PAGE)] {
        let bench = Bench::new();
        let (device, _driver, namespace) = up(&bench);
        let faults = FaultPlan::on(get_log(LogId::CHANGED_NAMESPACES).times(5), fault)
            .and_on(identify(Cns::ACTIVE_NAMESPACES).times(3), Fault::fail(Status::INTERNAL_ERROR));
        device.with_controller(|controller| controller.set_faults(faults));
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        assert_eq!(bench.run(namespace.wait_resize(32768)).expect("told"), 2048);
    }
}

#[test]
fn c4_invalid_namespace_for_good_is_removal_and_for_now_is_not() {
    for (fault, removed) in [
        (refused(Status::INVALID_NAMESPACE_OR_FORMAT), true),
        (Fault::fail(Status::INVALID_NAMESPACE_OR_FORMAT), false),
    ] {
        let bench = Bench::new();
        let (device, _driver, namespace) = up(&bench);
        device.with_controller(|c| c.set_faults(FaultPlan::on(identify(Cns::NAMESPACE).times(1), fault)));
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        bench.run(bench.world.sleep(Duration::from_secs(5)));
        assert_eq!(namespace.is_removed(), removed);
        assert_eq!(bench.run(namespace.wait_resize(32768)).ok(), (!removed).then_some(2048));
    }
}

#[test]
fn c5_the_watchers_end_when_the_driver_goes() {
    let bench = Bench::new();
    let (device, driver, namespace) = up(&bench);
    bench.run(namespace.flush(0)).expect("a queue");
    let mut events = driver.events();
    bench.run(async {
        let mut resize = pin!(namespace.wait_resize(32768));
        let mut removal = pin!(namespace.wait_removed());
        let mut event = pin!(events.next());
        assert!(poll_once(&mut resize).await.is_none());
        assert!(poll_once(&mut removal).await.is_none());
        assert!(poll_once(&mut event).await.is_none());
        drop(driver);
        assert!(matches!(resize.await, Err(RequestError::Gone)));
        removal.await;
        assert!(matches!(event.await, Some(doorbell::ControllerEvent::Gone)));
    });
    assert!(bench.run(events.next()).is_none());
    bench.run(bench.world.sleep(Duration::from_millis(1)));
    assert_eq!(bench.world.runtime().task_count(), 0);
    // The handle alone keeps the driver's memory, and the device none of it.
    drop(namespace);
    assert_eq!(device.with_controller(|controller| controller.io_queues()), (0, 0));
    assert_eq!(Arc::strong_count(&device), 2, "the world's and this test's");
}

#[test]
fn c5_a_watcher_that_backs_off_keeps_nothing_alive() {
    let bench = Bench::new();
    let (device, driver, namespace) = up(&bench);
    let faults = FaultPlan::on(identify(Cns::NAMESPACE), Fault::fail(Status::INTERNAL_ERROR))
        .and_on(get_log(LogId::SMART), Fault::fail(Status::INTERNAL_ERROR));
    device.with_controller(|controller| controller.set_faults(faults));
    bench.subsystem.resize_namespace(1, MIB).expect("resized");
    let event = nvme_spec::event::EventKind::SPARE_BELOW_THRESHOLD;
    device.with_controller(|controller| controller.raise_event(event, LogId::SMART));
    bench.run(bench.world.sleep(Duration::from_secs(20)));
    drop((driver, namespace));
    bench.run(bench.world.sleep(Duration::from_millis(10)));
    assert_eq!(bench.world.runtime().task_count(), 0);
    assert_eq!(Arc::strong_count(&device), 2, "the world's and this test's");
}
