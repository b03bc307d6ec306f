//! Odd but legal devices: those with few events, and events of every kind.

use std::time::Duration;

use doorbell::{ControllerEvent, EventListener};
use doorbell_emulator::{CommandMatch, Condition, ControllerConfig, Fault, FaultPlan};
use nvme_spec::event::{EventKind, EventType};
use nvme_spec::log::LogId;
use nvme_spec::{AdminOpcode, Status};

use crate::bench::{Bench, Device};
use crate::odd::refused;

fn up(bench: &Bench, config: ControllerConfig) -> (Device, doorbell::NvmeDriver) {
    let device = bench.device(config);
    let driver = bench.run(bench.world.options(device.clone()).open()).expect("it comes up");
    bench.world.settle();
    (device, driver)
}

fn next(bench: &Bench, events: &mut EventListener) -> ControllerEvent {
    bench.run(events.next()).expect("an event")
}

#[test]
fn odd_one_event_request_is_enough() {
    let bench = Bench::new();
    let (device, driver) = up(&bench, ControllerConfig { aerl: 0, ..ControllerConfig::default() });
    assert_eq!(driver.inspect().admin.pending.len(), 1);
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let mut events = driver.events();
    for size in 1..20 {
        bench.subsystem.resize_namespace(1, size << 20).expect("resized");
        let spare = if size % 2 == 0 { 5 } else { 100 };
        let condition = Condition { available_spare: spare, ..Condition::default() };
        device.with_controller(|controller| controller.set_condition(condition));
        bench.world.settle();
        assert_eq!(namespace.block_count(), size << 11);
    }
    let health = std::iter::from_fn(|| events.try_next()).filter(|e| matches!(e, ControllerEvent::Health(..)));
    assert_eq!(health.count(), 9);
}

#[test]
fn odd_as_many_event_requests_as_the_controller_takes_and_no_more_than_4() {
    for (aerl, expected) in [(0, 1), (1, 2), (3, 4), (255, 4)] {
        let bench = Bench::new();
        let (_device, driver) = up(&bench, ControllerConfig { aerl, ..ControllerConfig::default() });
        bench.world.settle();
        assert_eq!(driver.inspect().admin.pending.len(), expected);
    }
}

#[test]
fn odd_events_of_every_kind_are_told_and_cleared() {
    let bench = Bench::new();
    let (device, driver) = up(&bench, ControllerConfig::default());
    let mut events = driver.events();
    // Twice: the second only comes if the log page of the first was read.
    for round in 1..=2 {
        for kind in EventKind::KNOWN {
            let log = match EventType((kind.0 >> 8) as u8) {
                EventType::ERROR => LogId::ERROR,
                EventType::SMART => LogId::SMART,
                EventType::NOTICE => LogId::CHANGED_NAMESPACES,
                EventType::IO_COMMAND_SET => LogId::RESERVATION_NOTIFICATION,
                // Masked until a reset in the emulator, which knows no log page for these.
                _ => continue,
            };
            if matches!(*kind, EventKind::NAMESPACE_ATTRIBUTE_CHANGED | EventKind::RESERVATION_LOG_PAGE_AVAILABLE) {
                continue;
            }
            device.with_controller(|controller| controller.raise_event(*kind, log));
            let told = match next(&bench, &mut events) {
                ControllerEvent::Error(kind, Some(_)) | ControllerEvent::Health(kind, Some(_)) => kind,
                ControllerEvent::Notice(kind) | ControllerEvent::Sanitize(kind) => kind,
                event => panic!("{kind}: {event:?}"),
            };
            assert_eq!(told, *kind, "round {round}");
        }
    }
    let kind = EventKind(0x7ab);
    device.with_controller(|controller| controller.raise_event(kind, LogId(0xc0)));
    assert!(matches!(next(&bench, &mut events), ControllerEvent::Other(event) if event.kind() == kind));
    assert!(driver.inspect().admin.events[usize::from(EventType::VENDOR_SPECIFIC.0)] == 1);
}

#[test]
fn odd_an_event_whose_log_page_cannot_be_read_is_told_all_the_same() {
    let read = || CommandMatch { cdw10: Some(2), ..CommandMatch::admin(AdminOpcode::GET_LOG_PAGE.0) };
    let kind = EventKind::TEMPERATURE_THRESHOLD;
    for (fault, has_log) in [
        (FaultPlan::on(read().times(5), Fault::fail(Status::INTERNAL_ERROR)), true),
        (FaultPlan::on(read().times(1), refused(Status::INVALID_LOG_PAGE)), false),
    ] {
        let bench = Bench::new();
        let (device, driver) = up(&bench, ControllerConfig { faults: fault, ..ControllerConfig::default() });
        let mut events = driver.events();
        device.with_controller(|controller| controller.raise_event(kind, LogId::SMART));
        match next(&bench, &mut events) {
            ControllerEvent::Health(told, log) => assert_eq!((told, log.is_some()), (kind, has_log)),
            event => panic!("{event:?}"),
        }
    }
}

#[test]
fn odd_event_requests_that_fail_are_sent_again() {
    let bench = Bench::new();
    let requests = CommandMatch::admin(AdminOpcode::ASYNC_EVENT_REQUEST.0);
    let faults = FaultPlan::on(requests.times(6), Fault::fail(Status::INTERNAL_ERROR));
    let (_device, driver) = up(&bench, ControllerConfig { faults, ..ControllerConfig::default() });
    bench.run(bench.world.sleep(Duration::from_secs(5)));
    assert_eq!(driver.inspect().admin.pending.len(), 4);
    // A controller that takes fewer than it says has those that it takes.
    let bench = Bench::new();
    let requests = CommandMatch { skip: 1, ..CommandMatch::admin(AdminOpcode::ASYNC_EVENT_REQUEST.0) };
    let faults = FaultPlan::on(requests.times(3), Fault::fail(Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED));
    let (_device, driver) = up(&bench, ControllerConfig { faults, ..ControllerConfig::default() });
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.subsystem.resize_namespace(1, 1 << 20).expect("resized");
    bench.world.settle();
    assert_eq!((driver.inspect().admin.pending.len(), namespace.block_count()), (1, 2048));
}

#[test]
fn odd_a_listener_that_is_too_slow_is_told_how_much_it_missed() {
    let bench = Bench::new();
    let (_device, driver) = up(&bench, ControllerConfig::default());
    let mut events = driver.events();
    for n in 0..1100_u64 {
        bench.subsystem.resize_namespace(1, (n % 7 + 1) << 20).expect("resized");
        bench.world.settle();
    }
    assert!(matches!(events.try_next(), Some(ControllerEvent::Missed(76))));
    assert_eq!(std::iter::from_fn(|| events.try_next()).count(), 1024);
}
