//! R: sharing with other hosts.

use doorbell::{ControllerEvent, DriverError, ErrorClass, HostId, Namespace, NvmeDriver, RequestError};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::feature::FeatureId;
use nvme_spec::log::ReservationNotice;
use nvme_spec::reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationType};
use nvme_spec::{AdminOpcode, NvmOpcode, Status};

use crate::bench::Bench;
use crate::odd::{patch, refused};

const EXCLUSIVE: ReservationType = ReservationType::WRITE_EXCLUSIVE;

/// A host with a controller of its own.
fn host(bench: &Bench, id: HostId, config: ControllerConfig) -> (NvmeDriver, Namespace) {
    let driver = bench.run(bench.options(config).host_id(id).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    (driver, namespace)
}

fn long(id: u8) -> HostId {
    HostId::Extended([id; 16])
}

fn register(bench: &Bench, namespace: &Namespace, key: u64) {
    bench.run(namespace.reservation_register(0, RegisterAction::REGISTER, None, key, None)).expect("registered");
}

fn report_with(faults: FaultPlan) -> Result<doorbell::ReservationReport, RequestError> {
    let bench = Bench::new();
    let (_driver, namespace) = host(&bench, long(1), ControllerConfig { faults, ..ControllerConfig::default() });
    register(&bench, &namespace, 1);
    bench.run(namespace.reservation_report_extended(0))
}

/// A report says that so many controllers are registered.
fn registered(count: u16) -> Fault {
    patch(5, &count.to_le_bytes())
}

fn reports() -> CommandMatch {
    CommandMatch::io(NvmOpcode::RESERVATION_REPORT.0)
}

#[test]
fn r1_a_report_has_every_registered_controller() {
    let bench = Bench::new();
    let (_driver, first) = host(&bench, long(1), ControllerConfig::default());
    let (_other, second) = host(&bench, long(2), ControllerConfig::default());
    register(&bench, &first, 11);
    register(&bench, &second, 22);
    bench.run(first.reservation_acquire(0, AcquireAction::ACQUIRE, 11, 0, EXCLUSIVE)).expect("acquired");
    let report = bench.run(second.reservation_report_extended(1)).expect("a report");
    assert_eq!((report.header.rtype, report.header.regctl(), report.extended), (EXCLUSIVE, 2, true));
    let found: Vec<_> = report.controllers.iter().map(|c| (c.hostid, c.rkey, c.rcsts.holder())).collect();
    assert_eq!(found, [([1; 16], 11, true), ([2; 16], 22, false)]);
}

#[test]
fn r1_a_report_larger_than_the_buffer_is_asked_for_again() {
    let bench = Bench::new();
    let device = bench.device(ControllerConfig::default());
    // Registrations outlive the controller's resets: the same one is a hundred hosts in turn.
    for id in 1..=100 {
        let options = bench.world.options(device.clone()).host_id(long(id));
        let driver = bench.run(options.open()).expect("it comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        register(&bench, &namespace, id.into());
        if id == 100 {
            let report = bench.run(namespace.reservation_report_extended(0)).expect("a report");
            let keys: Vec<u64> = report.controllers.iter().map(|controller| controller.rkey).collect();
            assert_eq!(keys, (1..=100).collect::<Vec<_>>());
        }
        drop(namespace);
        bench.run(driver.shutdown());
    }
}

#[test]
fn r1_a_report_that_keeps_growing_is_an_error() {
    let plan = (1..100).fold(FaultPlan::default(), |plan, n| plan.and_on(reports().times(1), registered(70 * n)));
    let error = report_with(plan).expect_err("it never ends");
    assert!(matches!(error, RequestError::Misbehaved(_)), "{error:?}");
    // Growing a few times is in order.
    let plan = (1..4).fold(FaultPlan::default(), |plan, n| plan.and_on(reports().times(1), registered(70 * n)));
    assert_eq!(report_with(plan).expect("a report").controllers.len(), 1);
}

#[test]
fn r1_a_report_beyond_the_largest_transfer_is_an_error() {
    let error = report_with(FaultPlan::on(reports(), registered(u16::MAX))).expect_err("4 MiB");
    assert!(matches!(error, RequestError::TooLarge { len, .. } if len == 64 + 64 * 65535), "{error:?}");
}

#[test]
fn r1_the_short_form_is_widened() {
    let bench = Bench::new();
    let id = HostId::Short(*b"hostname");
    let (_driver, namespace) = host(&bench, id, ControllerConfig::default());
    register(&bench, &namespace, 5);
    let report = bench.run(namespace.reservation_report_extended(0)).expect("a report");
    assert!(!report.extended);
    assert_eq!(report.controllers.len(), 1);
    assert_eq!(report.controllers[0].hostid, *b"hostname\0\0\0\0\0\0\0\0");
    assert_eq!(report.controllers[0].rkey, 5);
}

#[test]
fn r2_registering_without_a_current_key_ignores_the_existing_one() {
    let bench = Bench::new();
    let (_driver, namespace) = host(&bench, long(1), ControllerConfig::default());
    let replace =
        |current, new| bench.run(namespace.reservation_register(0, RegisterAction::REPLACE, current, new, None));
    let key = || bench.run(namespace.reservation_report_extended(0)).expect("a report").controllers[0].rkey;
    register(&bench, &namespace, 1);
    assert_eq!(replace(Some(9), 2).expect_err("not the key").class(), ErrorClass::Conflict);
    replace(Some(1), 2).expect("replaced");
    assert_eq!(key(), 2);
    replace(None, 3).expect("replaced");
    assert_eq!(key(), 3);
    // Key 0 is a key: not the one.
    assert_eq!(replace(Some(0), 4).expect_err("not the key").class(), ErrorClass::Conflict);
    let unregister = RegisterAction::UNREGISTER;
    bench.run(namespace.reservation_register(0, unregister, Some(3), 0, None)).expect("unregistered");
    assert!(bench.run(namespace.reservation_report_extended(0)).expect("a report").controllers.is_empty());
}

#[test]
fn r2_persistence_is_left_cleared_or_set() {
    let bench = Bench::new();
    let (_driver, namespace) = host(&bench, long(1), ControllerConfig::default());
    register(&bench, &namespace, 1);
    for (ptpl, state) in [(None, 0), (Some(true), 1), (None, 1), (Some(false), 0), (None, 0)] {
        let replace = namespace.reservation_register(0, RegisterAction::REPLACE, Some(1), 1, ptpl);
        bench.run(replace).expect("replaced");
        let report = bench.run(namespace.reservation_report_extended(0)).expect("a report");
        assert_eq!(report.header.ptpls, state, "after {ptpl:?}");
    }
}

#[test]
fn r2_a_reservation_is_acquired_preempted_and_released() {
    let bench = Bench::new();
    let (_driver, first) = host(&bench, long(1), ControllerConfig::default());
    let (_other, second) = host(&bench, long(2), ControllerConfig::default());
    register(&bench, &first, 11);
    register(&bench, &second, 22);
    let rtype = || bench.run(first.reservation_report_extended(0)).expect("a report").header.rtype;
    let access = ReservationType::EXCLUSIVE_ACCESS;
    bench.run(first.reservation_acquire(0, AcquireAction::ACQUIRE, 11, 0, EXCLUSIVE)).expect("acquired");
    assert_eq!(rtype(), EXCLUSIVE);
    let wrong = bench.run(second.reservation_acquire(0, AcquireAction::ACQUIRE, 22, 0, access));
    assert_eq!(wrong.expect_err("held").class(), ErrorClass::Conflict);
    bench.run(second.reservation_acquire(0, AcquireAction::PREEMPT, 22, 11, access)).expect("preempted");
    assert_eq!(rtype(), access);
    let wrong = bench.run(second.reservation_release(0, ReleaseAction::RELEASE, 22, EXCLUSIVE));
    assert!(wrong.is_err(), "of another type");
    bench.run(second.reservation_release(0, ReleaseAction::RELEASE, 22, access)).expect("released");
    assert_eq!(rtype(), ReservationType::NONE);
    bench.run(second.reservation_release(0, ReleaseAction::CLEAR, 22, access)).expect("cleared");
    assert!(bench.run(first.reservation_report_extended(0)).expect("a report").controllers.is_empty());
}

#[test]
fn r3_the_host_identifier_is_set_before_registering() {
    for (id, reported) in [
        (long(0xa5), [0xa5; 16]),
        (HostId::Short([0xc3; 8]), {
            let mut id = [0; 16];
            id[..8].fill(0xc3);
            id
        }),
    ] {
        let bench = Bench::new();
        let (_driver, namespace) = host(&bench, id, ControllerConfig::default());
        register(&bench, &namespace, 1);
        let report = bench.run(namespace.reservation_report_extended(0)).expect("a report");
        assert_eq!(report.controllers[0].hostid, reported);
    }
}

#[test]
fn r3_a_host_identifier_that_cannot_be_set_fails_the_bring_up() {
    let bench = Bench::new();
    // It would otherwise register as somebody else.
    let config = ControllerConfig { host_id_128: false, ..ControllerConfig::default() };
    let result = bench.run(bench.options(config).host_id(long(1)).open());
    assert!(matches!(result, Err(DriverError::Command { .. })), "{result:?}");
    let set = CommandMatch {
        cdw10: Some(FeatureId::HOST_IDENTIFIER.0.into()),
        ..CommandMatch::admin(AdminOpcode::SET_FEATURES.0)
    };
    let faults = FaultPlan::on(set, refused(Status::INVALID_FIELD_IN_COMMAND));
    let config = ControllerConfig { faults, ..ControllerConfig::default() };
    assert!(bench.run(bench.options(config.clone()).host_id(HostId::Short([1; 8])).open()).is_err());
    bench.run(bench.options(config).open()).expect("it is not set unless asked for");
}

#[test]
fn r4_a_conflict_can_be_matched_on() {
    let bench = Bench::new();
    let (_driver, first) = host(&bench, long(1), ControllerConfig::default());
    let (_other, second) = host(&bench, long(2), ControllerConfig::default());
    register(&bench, &first, 11);
    bench.run(first.reservation_acquire(0, AcquireAction::ACQUIRE, 11, 0, EXCLUSIVE)).expect("acquired");
    let error = bench.run(second.write_slice(0, 0, false, &[1; 512])).expect_err("somebody else's");
    assert_eq!(error.status(), Some(Status::RESERVATION_CONFLICT));
    assert_eq!(error.class(), ErrorClass::Conflict);
    bench.run(second.read_slice(0, 0, &mut [0; 512])).expect("reading is allowed");
    bench.run(first.write_slice(0, 0, false, &[1; 512])).expect("the holder's");
}

#[test]
fn r4_notices_reach_who_waits_for_them() {
    let bench = Bench::new();
    let (driver, first) = host(&bench, long(1), ControllerConfig::default());
    let (_other, second) = host(&bench, long(2), ControllerConfig::default());
    let mut events = driver.events();
    register(&bench, &second, 22);
    // Several times: the notices of one reading are all told, and later ones come again.
    for _ in 0..3 {
        for _ in 0..3 {
            register(&bench, &first, 11);
            bench.run(second.reservation_acquire(0, AcquireAction::PREEMPT, 22, 11, EXCLUSIVE)).expect("preempted");
        }
        for _ in 0..3 {
            match bench.run(events.next()) {
                Some(ControllerEvent::Reservation(notice)) => {
                    assert_eq!(notice.kind, ReservationNotice::REGISTRATION_PREEMPTED);
                    assert_eq!(notice.nsid, 1);
                }
                event => panic!("{event:?}"),
            }
        }
        assert!(events.try_next().is_none());
    }
}
