//! Reservations over several controllers and hosts.

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::admin::get_log_page;
use nvme_spec::event::{AsyncEvent, EventKind};
use nvme_spec::feature::FeatureId;
use nvme_spec::log::{LogId, ReservationNotice, ReservationNotification};
use nvme_spec::nvm::{DsmCdw11, DsmRange};
use nvme_spec::reservation::{
    AcquireAction, AcquireCdw10, ChangePtpl, RegisterAction, RegisterCdw10, RegisteredController,
    RegisteredControllerExtended, ReleaseAction, ReleaseCdw10, ReportHeader, ReservationType,
};
use nvme_spec::{AdminOpcode, Command, DataPointer, NvmOpcode, Status};
use zerocopy::FromBytes;

use crate::features::{get, set};
use crate::harness::{Host, blocks, bytes, io_command, memory_with};

const OK: Status = Status::SUCCESS;
const CONFLICT: Status = Status::RESERVATION_CONFLICT;
const INVALID: Status = Status::INVALID_FIELD_IN_COMMAND;

const TYPES: [ReservationType; 6] = [
    ReservationType::WRITE_EXCLUSIVE,
    ReservationType::EXCLUSIVE_ACCESS,
    ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
    ReservationType::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
    ReservationType::WRITE_EXCLUSIVE_ALL_REGISTRANTS,
    ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
];
const WRITE_EXCLUSIVE: ReservationType = TYPES[0];
const REGISTRANTS_ONLY: ReservationType = TYPES[2];

/// Hosts 1, 2, ..., each with a controller of one subsystem.
fn hosts<const N: usize>() -> [Host; N] {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    std::array::from_fn(|index| {
        let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
        set_id(&mut host, index as u8 + 1);
        host
    })
}

fn set_id(host: &mut Host, id: u8) {
    assert_eq!(set_id_bytes(host, &[id; 16]), OK);
}

fn set_id_bytes(host: &mut Host, id: &[u8]) -> Status {
    let buffer = memory_with(host, id);
    let command = set(FeatureId::HOST_IDENTIFIER, u32::from(id.len() == 16));
    let dptr = DataPointer::prp(buffer.iova(), 0);
    host.admin(&Command { dptr, ..command }).status.status()
}

fn with_keys(host: &mut Host, opcode: NvmOpcode, cdw10: u32, keys: [u64; 2]) -> Status {
    let buffer = memory_with(host, &keys);
    host.io(&Command { cdw10, dptr: DataPointer::prp(buffer.iova(), 0), ..io_command(opcode) })
}

fn change_key(host: &mut Host, action: RegisterAction, ignore: bool, current: u64, new: u64) -> Status {
    let cdw10 = RegisterCdw10::new().with_rrega(action).with_iekey(ignore);
    with_keys(host, NvmOpcode::RESERVATION_REGISTER, cdw10.into_bits(), [current, new])
}

fn register(host: &mut Host, key: u64) -> Status {
    change_key(host, RegisterAction::REGISTER, false, 0, key)
}

fn acquire(host: &mut Host, action: AcquireAction, kind: ReservationType, key: u64, other: u64) -> Status {
    let cdw10 = AcquireCdw10::new().with_racqa(action).with_rtype(kind);
    with_keys(host, NvmOpcode::RESERVATION_ACQUIRE, cdw10.into_bits(), [key, other])
}

fn release(host: &mut Host, action: ReleaseAction, kind: ReservationType, key: u64) -> Status {
    let cdw10 = ReleaseCdw10::new().with_rrela(action).with_rtype(kind);
    with_keys(host, NvmOpcode::RESERVATION_RELEASE, cdw10.into_bits(), [key, 0])
}

struct Report {
    header: ReportHeader,
    /// Controller, whether it holds the reservation, first byte of the host identifier, key.
    registered: Vec<(u16, bool, u8, u64)>,
}

fn report(host: &mut Host) -> Report {
    let buffer = host.allocate(4096);
    host.io_ok(&Command {
        cdw10: 1023,
        cdw11: 1,
        dptr: DataPointer::prp(buffer.iova(), 0),
        ..io_command(NvmOpcode::RESERVATION_REPORT)
    });
    let bytes = bytes(&buffer, 4096);
    let header = ReportHeader::read_from_prefix(&bytes).unwrap().0;
    let each = bytes[64..].chunks(64).take(header.regctl().into());
    let registered = each.map(|entry| {
        let entry = RegisteredControllerExtended::read_from_bytes(entry).unwrap();
        (entry.cntlid, entry.rcsts.holder(), entry.hostid[0], entry.rkey)
    });
    Report { header, registered: registered.collect() }
}

#[test]
fn registering() {
    let [mut a, mut b] = hosts();
    assert_eq!(register(&mut a, 0xa), OK);
    assert_eq!(register(&mut a, 0xa), OK);
    assert_eq!(register(&mut a, 0xb), CONFLICT);
    assert_eq!(change_key(&mut a, RegisterAction::REPLACE, false, 0xb, 0xc), CONFLICT);
    assert_eq!(change_key(&mut a, RegisterAction::REPLACE, false, 0xa, 0xc), OK);
    assert_eq!(change_key(&mut a, RegisterAction::REPLACE, true, 0, 0xd), OK);
    assert_eq!(change_key(&mut b, RegisterAction::REPLACE, false, 0, 0xe), CONFLICT);
    assert_eq!(change_key(&mut b, RegisterAction::REPLACE, true, 0, 0xe), OK);
    assert_eq!(change_key(&mut b, RegisterAction(3), true, 0, 0xe), INVALID);
    let Report { header, registered } = report(&mut a);
    assert_eq!((header.generation, header.rtype, header.ptpls), (5, ReservationType::NONE, 0));
    assert_eq!(registered, [(0, false, 1, 0xd), (1, false, 2, 0xe)]);
    assert_eq!(change_key(&mut b, RegisterAction::UNREGISTER, false, 0xd, 0), CONFLICT);
    assert_eq!(change_key(&mut b, RegisterAction::UNREGISTER, false, 0xe, 0), OK);
    assert_eq!(change_key(&mut b, RegisterAction::UNREGISTER, false, 0xe, 0), CONFLICT);
    assert_eq!(change_key(&mut a, RegisterAction::UNREGISTER, true, 0, 0), OK);
    assert!(report(&mut a).registered.is_empty());
}

/// Which commands a host gets through: reads, and writes.
fn access(host: &mut Host) -> (bool, bool) {
    let zeroes = [0; 4096];
    let reads = [
        host.read(0, 4096).err().unwrap_or(OK),
        host.transfer(NvmOpcode::COMPARE, 0, zeroes.to_vec()).0,
        host.io(&blocks(NvmOpcode::VERIFY, 0, 1)),
    ];
    let list = memory_with(host, &DsmRange::new(0, 1));
    let dsm = Command {
        cdw11: DsmCdw11::new().with_ad(true).into_bits(),
        dptr: DataPointer::prp(list.iova(), 0),
        ..io_command(NvmOpcode::DSM)
    };
    let copy_list = memory_with(host, &nvme_spec::nvm::CopyRange::new(8, 1));
    let copy = Command { dptr: DataPointer::prp(copy_list.iova(), 0), ..io_command(NvmOpcode::COPY) };
    let writes = [
        host.write(0, &zeroes),
        host.io(&blocks(NvmOpcode::WRITE_ZEROES, 0, 1)),
        host.io(&dsm),
        host.io(&copy),
        host.io(&io_command(NvmOpcode::FLUSH)),
    ];
    let all = |statuses: &[Status]| {
        let first = statuses[0];
        assert!(statuses.iter().all(|status| *status == first), "{statuses:?}");
        assert!([OK, CONFLICT].contains(&first));
        first == OK
    };
    (all(&reads), all(&writes))
}

#[test]
fn who_may_do_what_under_each_type() {
    // Holder, another registrant, and a host that is not registered: whether each reads and writes.
    let expected = [
        [(true, true), (true, false), (true, false)],
        [(true, true), (false, false), (false, false)],
        [(true, true), (true, true), (true, false)],
        [(true, true), (true, true), (false, false)],
        [(true, true), (true, true), (true, false)],
        [(true, true), (true, true), (false, false)],
    ];
    for (kind, expected) in TYPES.into_iter().zip(expected) {
        let [mut holder, mut registrant, mut stranger] = hosts();
        register(&mut holder, 1);
        register(&mut registrant, 2);
        assert_eq!(acquire(&mut holder, AcquireAction::ACQUIRE, kind, 1, 0), OK);
        let got = [&mut holder, &mut registrant, &mut stranger].map(access);
        assert_eq!(got, expected, "{kind}");
        assert_eq!(acquire(&mut stranger, AcquireAction::ACQUIRE, kind, 0, 0), CONFLICT);
        assert_eq!(release(&mut stranger, ReleaseAction::CLEAR, kind, 0), CONFLICT);
        // Format NVM writes, too.
        let format = Command { nsid: 1, cdw10: 1, ..AdminOpcode::FORMAT_NVM.command() };
        stranger.admin_fails(&format, CONFLICT);
    }
}

#[test]
fn acquiring_and_releasing() {
    for kind in TYPES {
        let [mut a, mut b] = hosts();
        register(&mut a, 1);
        register(&mut b, 2);
        let for_all = kind.0 >= 5;
        assert_eq!(acquire(&mut a, AcquireAction::ACQUIRE, kind, 9, 0), CONFLICT);
        assert_eq!(acquire(&mut a, AcquireAction::ACQUIRE, kind, 1, 0), OK);
        assert_eq!(acquire(&mut a, AcquireAction::ACQUIRE, kind, 1, 0), OK);
        let other = TYPES[(kind.0 as usize) % 6];
        assert_eq!(acquire(&mut a, AcquireAction::ACQUIRE, other, 1, 0), CONFLICT);
        let shared = if for_all { OK } else { CONFLICT };
        assert_eq!(acquire(&mut b, AcquireAction::ACQUIRE, kind, 2, 0), shared);
        let Report { header, registered } = report(&mut b);
        assert_eq!(header.rtype, kind);
        assert_eq!(registered, [(0, true, 1, 1), (1, for_all, 2, 2)]);
        // A registrant that does not hold it releases nothing.
        if !for_all {
            assert_eq!(release(&mut b, ReleaseAction::RELEASE, kind, 2), OK);
            assert_eq!(report(&mut a).header.rtype, kind);
        }
        assert_eq!(release(&mut a, ReleaseAction::RELEASE, other, 1), INVALID);
        assert_eq!(release(&mut a, ReleaseAction::RELEASE, kind, 1), OK);
        assert_eq!(report(&mut a).header.rtype, ReservationType::NONE);
        assert_eq!(release(&mut a, ReleaseAction::RELEASE, kind, 1), OK);
        assert_eq!(acquire(&mut a, AcquireAction::ACQUIRE, ReservationType(7), 1, 0), INVALID);
        assert_eq!(acquire(&mut a, AcquireAction(3), kind, 1, 0), INVALID);
        assert_eq!(release(&mut a, ReleaseAction(2), kind, 1), INVALID);
    }
}

#[test]
fn ignoring_keys_is_for_registering_only() {
    let [mut a] = hosts();
    register(&mut a, 1);
    let cdw10 = AcquireCdw10::new().with_iekey(true).with_rtype(WRITE_EXCLUSIVE);
    assert_eq!(with_keys(&mut a, NvmOpcode::RESERVATION_ACQUIRE, cdw10.into_bits(), [1, 0]), INVALID);
    let cdw10 = ReleaseCdw10::new().with_iekey(true).with_rtype(WRITE_EXCLUSIVE);
    assert_eq!(with_keys(&mut a, NvmOpcode::RESERVATION_RELEASE, cdw10.into_bits(), [1, 0]), INVALID);
}

fn notices(host: &mut Host) -> Vec<ReservationNotice> {
    let mut notices = Vec::new();
    loop {
        let buffer = host.allocate(64);
        let command = get_log_page(LogId::RESERVATION_NOTIFICATION, 0, 64, 0);
        host.admin_ok(&Command { dptr: DataPointer::prp(buffer.iova(), 0), ..command });
        let page = ReservationNotification::read_from_bytes(&bytes(&buffer, 64)).unwrap();
        if page.kind == ReservationNotice::EMPTY {
            assert_eq!(page, ReservationNotification::default());
            return notices;
        }
        assert_eq!(page.nsid, 1);
        notices.push(page.kind);
    }
}

#[test]
fn preempting() {
    const PREEMPT: AcquireAction = AcquireAction::PREEMPT;
    for kind in TYPES {
        let [mut a, mut b, mut c] = hosts();
        for (host, key) in [(&mut a, 1), (&mut b, 2), (&mut c, 2)] {
            register(host, key);
        }
        let for_all = kind.0 >= 5;
        acquire(&mut a, AcquireAction::ACQUIRE, kind, 1, 0);
        // Those with a key that holds nothing are unregistered, the reservation stays.
        assert_eq!(acquire(&mut a, PREEMPT, kind, 1, 2), OK);
        assert_eq!(report(&mut a).registered, [(0, true, 1, 1)]);
        assert_eq!(notices(&mut b), [ReservationNotice::REGISTRATION_PREEMPTED]);
        assert_eq!(notices(&mut a), []);
        assert_eq!(acquire(&mut a, PREEMPT, kind, 1, 77), CONFLICT);
        register(&mut b, 2);
        // The holder's key, or for all registrants 0, takes the reservation over.
        let key = if for_all { 0 } else { 1 };
        assert_eq!(acquire(&mut b, PREEMPT, REGISTRANTS_ONLY, 2, key), OK);
        let Report { header, registered } = report(&mut b);
        assert_eq!((header.rtype, registered), (REGISTRANTS_ONLY, vec![(1, true, 2, 2)]));
        assert_eq!(notices(&mut a), [ReservationNotice::REGISTRATION_PREEMPTED]);
        // Of one's own reservation: another type, and still registered.
        assert_eq!(acquire(&mut b, PREEMPT, WRITE_EXCLUSIVE, 2, 2), OK);
        let Report { header, registered } = report(&mut b);
        assert_eq!((header.rtype, registered), (WRITE_EXCLUSIVE, vec![(1, true, 2, 2)]));
        assert_eq!(acquire(&mut b, PREEMPT, kind, 2, 0), INVALID);
    }
}

#[test]
fn preempting_when_nothing_is_held() {
    let [mut a, mut b] = hosts();
    register(&mut a, 1);
    register(&mut b, 2);
    assert_eq!(acquire(&mut a, AcquireAction::PREEMPT_AND_ABORT, WRITE_EXCLUSIVE, 1, 2), OK);
    let Report { header, registered } = report(&mut a);
    assert_eq!((header.rtype, registered), (ReservationType::NONE, vec![(0, false, 1, 1)]));
}

#[test]
fn notices_reach_those_concerned() {
    let [mut a, mut b, mut c] = hosts();
    for (host, key) in [(&mut a, 1), (&mut b, 2)] {
        register(host, key);
    }
    b.submit(0, &AdminOpcode::ASYNC_EVENT_REQUEST.command());
    b.step();
    acquire(&mut a, AcquireAction::ACQUIRE, REGISTRANTS_ONLY, 1, 0);
    release(&mut a, ReleaseAction::RELEASE, REGISTRANTS_ONLY, 1);
    b.step();
    let event = AsyncEvent::from(b.ring(0).pop().unwrap().dw0);
    assert_eq!(event.kind(), EventKind::RESERVATION_LOG_PAGE_AVAILABLE);
    assert_eq!(event.log_page(), LogId::RESERVATION_NOTIFICATION);
    assert_eq!(notices(&mut b), [ReservationNotice::RESERVATION_RELEASED]);
    // Exclusive ones are nobody else's affair.
    acquire(&mut a, AcquireAction::ACQUIRE, WRITE_EXCLUSIVE, 1, 0);
    release(&mut a, ReleaseAction::RELEASE, WRITE_EXCLUSIVE, 1);
    assert_eq!(notices(&mut b), []);
    // The holder goes.
    acquire(&mut a, AcquireAction::ACQUIRE, REGISTRANTS_ONLY, 1, 0);
    change_key(&mut a, RegisterAction::UNREGISTER, false, 1, 0);
    assert_eq!(report(&mut b).header.rtype, ReservationType::NONE);
    register(&mut a, 1);
    assert_eq!(release(&mut a, ReleaseAction::CLEAR, ReservationType::NONE, 1), OK);
    let expected = [ReservationNotice::RESERVATION_RELEASED, ReservationNotice::RESERVATION_PREEMPTED];
    assert_eq!(notices(&mut b), expected);
    assert!(report(&mut b).registered.is_empty());
    assert_eq!(notices(&mut a), []);
    assert_eq!(notices(&mut c), []);
}

#[test]
fn masked_notices_do_not_come() {
    let [mut a, mut b] = hosts();
    register(&mut a, 1);
    register(&mut b, 2);
    let id = FeatureId::RESERVATION_NOTIFICATION_MASK;
    b.admin_ok(&Command { nsid: 1, ..set(id, 0b1000) });
    assert_eq!(b.admin_ok(&Command { nsid: 1, ..get(id, 0) }), 0b1000);
    release(&mut a, ReleaseAction::CLEAR, ReservationType::NONE, 1);
    assert_eq!(notices(&mut b), []);
}

#[test]
fn persistence_is_the_hosts_choice() {
    for ptpl in [false, true] {
        let [mut a] = hosts();
        let cdw10 = RegisterCdw10::new().with_cptpl(if ptpl { ChangePtpl::SET } else { ChangePtpl::CLEAR });
        with_keys(&mut a, NvmOpcode::RESERVATION_REGISTER, cdw10.into_bits(), [0, 1]);
        acquire(&mut a, AcquireAction::ACQUIRE, WRITE_EXCLUSIVE, 1, 0);
        let id = FeatureId::RESERVATION_PERSISTENCE;
        assert_eq!(a.admin_ok(&Command { nsid: 1, ..get(id, 0) }), u32::from(ptpl));
        let come_back = |host: &mut Host| {
            host.step();
            host.enable();
            host.create_queue_pair(1, 64);
            set_id(host, 1);
        };
        // A reset of the subsystem loses nothing.
        a.subsystem.reset();
        come_back(&mut a);
        assert_eq!(report(&mut a).header.rtype, WRITE_EXCLUSIVE);
        a.subsystem.power_cycle();
        come_back(&mut a);
        let Report { header, registered } = report(&mut a);
        let expected = if ptpl { (WRITE_EXCLUSIVE, 1, 1) } else { (ReservationType::NONE, 0, 0) };
        assert_eq!((header.rtype, header.ptpls, registered.len()), expected);
        a.admin_ok(&Command { nsid: 1, ..set(id, u32::from(!ptpl)) });
        assert_eq!(report(&mut a).header.ptpls, u8::from(!ptpl));
    }
}

#[test]
fn identifiers_are_all_of_one_length() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    let mut a = Host::with_queue(&subsystem, ControllerConfig::default());
    let mut b = Host::with_queue(&subsystem, ControllerConfig::default());
    set_id_bytes(&mut a, &[1; 8]);
    register(&mut a, 1);
    acquire(&mut a, AcquireAction::ACQUIRE, WRITE_EXCLUSIVE, 1, 0);
    let buffer = a.allocate(4096);
    let dptr = DataPointer::prp(buffer.iova(), 0);
    let short = Command { cdw10: 11, dptr, ..io_command(NvmOpcode::RESERVATION_REPORT) };
    a.io_ok(&short);
    let report = bytes(&buffer, 48);
    let entry = RegisteredController::read_from_bytes(&report[24..]).unwrap();
    assert_eq!((entry.cntlid, entry.hostid, entry.rkey), (0, 0x0101_0101_0101_0101, 1));
    let inconsistent = Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT;
    assert_eq!(a.io(&Command { cdw11: 1, ..short }), inconsistent);
    set_id_bytes(&mut b, &[1; 16]);
    assert_eq!(register(&mut b, 2), inconsistent);
}

#[test]
fn one_host_may_have_two_controllers() {
    let [mut a, mut b] = hosts();
    b.disable();
    b.enable();
    b.create_queue_pair(1, 64);
    set_id(&mut b, 1);
    register(&mut a, 1);
    acquire(&mut a, AcquireAction::ACQUIRE, TYPES[1], 1, 0);
    assert_eq!(access(&mut b), (true, true));
    assert_eq!(report(&mut b).registered, [(0, true, 1, 1), (1, true, 1, 1)]);
    // A controller that was reset is nobody's; the registration is the host's.
    a.disable();
    b.step();
    assert_eq!(report(&mut b).registered, [(1, true, 1, 1)]);
}

#[test]
fn a_host_without_identifier_is_forgotten_with_its_controller() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    let mut a = Host::with_queue(&subsystem, ControllerConfig::default());
    let mut b = Host::with_queue(&subsystem, ControllerConfig::default());
    register(&mut a, 1);
    acquire(&mut a, AcquireAction::ACQUIRE, TYPES[1], 1, 0);
    assert_eq!(access(&mut b), (false, false));
    a.disable();
    assert_eq!(access(&mut b), (true, true));
}

#[test]
fn reports_can_be_short() {
    let [mut a] = hosts();
    register(&mut a, 1);
    let buffer = a.allocate(4096);
    buffer.host().write_at(0, &[0xee; 64]).unwrap();
    let command = Command {
        cdw10: 5,
        cdw11: 1,
        dptr: DataPointer::prp(buffer.iova(), 0),
        ..io_command(NvmOpcode::RESERVATION_REPORT)
    };
    a.io_ok(&command);
    let bytes = bytes(&buffer, 64);
    assert_eq!(ReportHeader::read_from_prefix(&bytes).unwrap().0.regctl(), 1);
    assert_eq!(bytes[24..], [0xee; 40]);
}

#[test]
fn preempt_and_abort_ends_what_is_under_way() {
    use doorbell_emulator::{CommandMatch, Fault, FaultPlan};
    use std::time::Duration;
    let [mut a, mut b] = hosts();
    register(&mut a, 1);
    register(&mut b, 2);
    let slow = FaultPlan::on(CommandMatch::io(NvmOpcode::FLUSH.0), Fault::delay(Duration::from_secs(1)));
    b.device.with_controller(|controller| controller.set_faults(slow));
    let cid = b.submit(1, &io_command(NvmOpcode::FLUSH));
    b.step();
    assert!(b.ring(1).peek().is_none());
    assert_eq!(acquire(&mut a, AcquireAction::PREEMPT_AND_ABORT, WRITE_EXCLUSIVE, 1, 2), OK);
    b.step();
    let aborted = b.ring(1).pop().unwrap();
    assert_eq!((aborted.cid, aborted.status.status()), (cid, Status::ABORTED_PREEMPT_AND_ABORT));
}
