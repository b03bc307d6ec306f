//! C3: a handle is of one disk; C6: waiting for what becomes of it.

use std::pin::pin;
use std::sync::Arc;

use doorbell::{ControllerEvent, ErrorClass, EventListener, LbaRange, Namespace, RequestError};
use doorbell_emulator::{Condition, FaultPlan, NamespaceConfig};
use futures_lite::future::poll_once;
use nvme_spec::Status;
use nvme_spec::event::EventKind;
use nvme_spec::identify::PiType;
use nvme_spec::identify::cns::Cns;
use nvme_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};

use crate::bench::{Bench, guest};
use crate::change::up;
use crate::odd::{identify, patch};

const MIB: u64 = 1 << 20;

/// Every command fails as it does without a namespace, and none is sent.
fn assert_removed(bench: &Bench, driver: &doorbell::NvmeDriver, namespace: &Namespace) {
    assert!(namespace.is_removed());
    bench.run(namespace.wait_removed());
    let sent = || driver.inspect().queues.iter().map(|queue| queue.counters.submitted).sum::<u64>();
    let before = sent();
    let memory = guest(1);
    let page = doorbell::PagedRange::new(0, 512, &[0]).expect("a range");
    let range = [LbaRange { lba: 0, block_count: 1 }];
    let (mut bytes, write) = (vec![0; 512], vec![1; 512]);
    let exclusive = ReservationType::WRITE_EXCLUSIVE;
    bench.run(async {
        let results: Vec<Result<(), RequestError>> = vec![
            namespace.read(0, 0, 1, &memory, page).await,
            namespace.write(0, 0, 1, false, &memory, page).await,
            namespace.compare(0, 0, 1, &memory, page).await,
            namespace.read_slice(0, 0, &mut bytes).await,
            namespace.write_slice(0, 0, false, &write).await,
            namespace.compare_slice(0, 0, &write).await,
            namespace.read_buffer(0, 0, 1, driver.allocate_buffer(512).expect("a buffer")).await.1,
            namespace.flush(0).await,
            namespace.write_zeroes(0, 0, 1, false, false).await,
            namespace.write_uncorrectable(0, 0, 1).await,
            namespace.verify(0, 0, 1).await,
            namespace.deallocate(0, &range).await,
            namespace.copy(0, 1, &range).await,
            namespace.compare_and_write(0, 0, &write, &write, false).await,
            namespace.reservation_report_extended(0).await.map(drop),
            namespace.reservation_register(0, RegisterAction::REGISTER, None, 1, None).await,
            namespace.reservation_acquire(0, AcquireAction::ACQUIRE, 1, 0, exclusive).await,
            namespace.reservation_release(0, ReleaseAction::RELEASE, 1, exclusive).await,
            namespace.wait_resize(0).await.map(drop),
        ];
        for (index, result) in results.into_iter().enumerate() {
            let error = result.expect_err("the namespace is removed");
            assert_eq!(error.status(), Some(Status::INVALID_NAMESPACE_OR_FORMAT), "command {index}: {error}");
            assert_eq!(error.class(), ErrorClass::Gone);
        }
    });
    assert_eq!(sent(), before, "nothing is sent");
}

#[test]
fn c3_a_removed_namespace_stays_removed_for_its_handle() {
    let bench = Bench::new();
    let (_device, driver, namespace) = up(&bench);
    bench.run(namespace.flush(0)).expect("there");
    bench.subsystem.remove_namespace(1).expect("removed");
    bench.world.settle();
    assert_removed(&bench, &driver, &namespace);
    // Also if one returns under its NSID, even the very same.
    bench.subsystem.add_namespace(NamespaceConfig::ram(16 * MIB).nsid(1)).expect("added");
    bench.world.settle();
    assert_removed(&bench, &driver, &namespace);
}

#[test]
fn c3_another_identity_or_format_is_another_disk() {
    type Change = fn(&Bench);
    let changes: [Change; 4] = [
        |bench| bench.subsystem.replace_namespace(1, NamespaceConfig::ram(16 * MIB)).expect("replaced"),
        |bench| bench.subsystem.format_namespace(1, 1, false, PiType::NONE).expect("formatted"),
        |bench| bench.subsystem.format_namespace(1, 2, false, PiType::NONE).expect("formatted"),
        |bench| bench.subsystem.format_namespace(1, 2, false, PiType::TYPE1).expect("formatted"),
    ];
    for (index, change) in changes.iter().enumerate() {
        let bench = Bench::new();
        let (_device, driver, namespace) = up(&bench);
        bench.run(namespace.flush(0)).expect("there");
        change(&bench);
        bench.world.settle();
        assert!(namespace.is_removed(), "change {index}");
        assert_eq!(namespace.block_size(), 512);
        assert_removed(&bench, &driver, &namespace);
    }
}

#[test]
fn c3_each_identifier_counts() {
    // EUI-64, NGUID and UUID among the descriptors.
    for offset in [4, 16, 36] {
        let bench = Bench::new();
        let (device, _driver, namespace) = up(&bench);
        let other = FaultPlan::on(identify(Cns::NAMESPACE_DESCRIPTORS), patch(offset, &[0xee; 4]));
        device.with_controller(|controller| controller.set_faults(other));
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        bench.world.settle();
        assert!(namespace.is_removed(), "identifier at {offset}");
    }
    // The same ones: the same disk, of another size.
    let bench = Bench::new();
    let (_device, _driver, namespace) = up(&bench);
    bench.subsystem.resize_namespace(1, MIB).expect("resized");
    bench.world.settle();
    assert!(!namespace.is_removed());
}

fn next(bench: &Bench, events: &mut EventListener) -> ControllerEvent {
    bench.run(events.next()).expect("an event")
}

#[test]
fn c6_namespaces_that_come_change_and_go_are_told_of() {
    let bench = Bench::new();
    bench.subsystem.add_namespace(NamespaceConfig::ram(MIB)).expect("another");
    let (_device, driver, namespace) = up(&bench);
    let mut events = driver.events();
    bench.subsystem.add_namespace(NamespaceConfig::ram(MIB).nsid(9)).expect("added");
    assert!(matches!(next(&bench, &mut events), ControllerEvent::NamespaceAdded(9)));
    // Whether it has a handle or not.
    for nsid in [1, 2, 9] {
        bench.subsystem.resize_namespace(nsid, 2 * MIB).expect("resized");
        assert!(matches!(next(&bench, &mut events), ControllerEvent::NamespaceChanged(n) if n == nsid));
    }
    bench.subsystem.replace_namespace(1, NamespaceConfig::ram(MIB)).expect("replaced");
    assert!(matches!(next(&bench, &mut events), ControllerEvent::NamespaceRemoved(1)));
    assert!(matches!(next(&bench, &mut events), ControllerEvent::NamespaceAdded(1)));
    bench.subsystem.remove_namespace(2).expect("removed");
    assert!(matches!(next(&bench, &mut events), ControllerEvent::NamespaceRemoved(2)));
    assert!(events.try_next().is_none() && namespace.is_removed());
}

#[test]
fn c6_removal_can_be_waited_for() {
    let bench = Bench::new();
    let (_device, _driver, namespace) = up(&bench);
    let namespace = Arc::new(namespace);
    bench.run(async {
        let mut removal = pin!(namespace.wait_removed());
        assert!(poll_once(&mut removal).await.is_none());
        bench.subsystem.resize_namespace(1, MIB).expect("resized");
        namespace.wait_resize(32768).await.expect("resized");
        assert!(poll_once(&mut removal).await.is_none());
        bench.subsystem.remove_namespace(1).expect("removed");
        removal.await;
    });
}

#[test]
fn c6_health_events_come_with_their_log() {
    let bench = Bench::new();
    let (device, driver, _namespace) = up(&bench);
    let mut events = driver.events();
    // A second one of the same type comes only because the log page was read.
    for spare in [5, 100, 4] {
        let condition = Condition { available_spare: spare, ..Condition::default() };
        device.with_controller(|controller| controller.set_condition(condition));
        if spare == 100 {
            continue;
        }
        match next(&bench, &mut events) {
            ControllerEvent::Health(EventKind::SPARE_BELOW_THRESHOLD, Some(log)) => {
                assert_eq!(log.available_spare, spare);
            }
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(driver.inspect().admin.events[1], 2);
}
