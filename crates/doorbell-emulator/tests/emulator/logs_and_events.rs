//! Log pages, asynchronous events, Abort.

use doorbell_emulator::{Condition, ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::admin::{AbortCdw10, GetLogPageCdw10, get_log_page};
use nvme_spec::event::{AsyncEvent, EventKind};
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::NamespaceList;
use nvme_spec::log::{CommandEffects, ErrorEntry, FirmwareSlots, HealthLog, LogId, SupportedLogPages};
use nvme_spec::{AdminOpcode, Command, DataPointer, NSID_ALL, NvmOpcode, Status};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::features::set;
use crate::harness::{Host, blocks, bytes, host, pattern};

fn log(host: &mut Host, command: Command, len: usize) -> Result<Vec<u8>, Status> {
    let buffer = host.allocate(len);
    let (dptr, _lists) = host.prp(&buffer, 0, len as u64);
    match host.admin(&Command { dptr, ..command }).status.status() {
        Status::SUCCESS => Ok(bytes(&buffer, len)),
        status => Err(status),
    }
}

fn page<T: FromBytes + KnownLayout + Immutable>(host: &mut Host, lid: LogId) -> T {
    let len = size_of::<T>();
    T::read_from_bytes(&log(host, get_log_page(lid, NSID_ALL, len as u64, 0), len).unwrap()).unwrap()
}

fn request(host: &mut Host) -> u16 {
    let cid = host.submit(0, &AdminOpcode::ASYNC_EVENT_REQUEST.command());
    host.step();
    cid
}

fn event(host: &mut Host) -> Option<(u16, AsyncEvent)> {
    host.step();
    let completion = host.ring(0).pop()?;
    assert!(completion.status.is_success());
    Some((completion.cid, AsyncEvent::from(completion.dw0)))
}

#[test]
fn smart_counts_what_was_done() {
    let mut host = host();
    let before: HealthLog = page(&mut host, LogId::SMART);
    assert_eq!((before.temperature(), before.available_spare, before.power_cycles.get()), (298, 100, 1));
    for lba in 0..250 {
        host.write(lba, &[1; 4096]);
        host.read(lba, 4096).unwrap();
    }
    host.read(0, 4096).unwrap();
    let after: HealthLog = page(&mut host, LogId::SMART);
    assert_eq!((after.host_writes.get(), after.host_reads.get()), (250, 251));
    // Units of 512,000 bytes, rounded up.
    assert_eq!((after.data_units_written.get(), after.data_units_read.get()), (2, 3));
    host.io_ok(&blocks(NvmOpcode::WRITE_UNCORRECTABLE, 0, 1));
    host.read(0, 4096).unwrap_err();
    host.subsystem.power_cycle();
    host.step();
    host.enable();
    let last: HealthLog = page(&mut host, LogId::SMART);
    assert_eq!((last.media_errors.get(), last.error_log_entries.get()), (1, 1));
    assert_eq!((last.power_cycles.get(), last.unsafe_shutdowns.get()), (2, 1));
    let of_one = log(&mut host, get_log_page(LogId::SMART, 1, 512, 0), 512);
    assert_eq!(of_one.unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn errors_are_logged_newest_first() {
    let mut host = Host::new(ControllerConfig { elpe: 3, ..Default::default() });
    for lba in 0..6 {
        host.read(1 << 40 | lba, 4096).unwrap_err();
    }
    let log = log(&mut host, get_log_page(LogId::ERROR, NSID_ALL, 4 * 64, 0), 4 * 64).unwrap();
    let entries: Vec<ErrorEntry> = log.chunks(64).map(|e| ErrorEntry::read_from_bytes(e).unwrap()).collect();
    let counts: Vec<(u64, u64)> = entries.iter().map(|e| (e.error_count, e.lba)).collect();
    assert_eq!(counts, [(6, 1 << 40 | 5), (5, 1 << 40 | 4), (4, 1 << 40 | 3), (3, 1 << 40 | 2)]);
    assert_eq!((entries[0].sqid, entries[0].nsid), (1, 1));
    assert_eq!(entries[0].status.status(), Status::LBA_OUT_OF_RANGE);
}

#[test]
fn pages_can_be_read_in_parts_and_beyond_their_end() {
    let mut host = host();
    let whole = log(&mut host, get_log_page(LogId::COMMANDS_SUPPORTED_AND_EFFECTS, 0, 4096, 0), 4096).unwrap();
    let part = log(&mut host, get_log_page(LogId::COMMANDS_SUPPORTED_AND_EFFECTS, 0, 512, 1024), 512).unwrap();
    assert_eq!(part, whole[1024..1536]);
    let beyond = log(&mut host, get_log_page(LogId::SMART, 0, 65_536, 508), 65_536).unwrap();
    assert!(beyond.iter().all(|byte| *byte == 0));
    for offset in [516, 1 << 40, 2] {
        let refused = log(&mut host, get_log_page(LogId::SMART, 0, 4, offset), 4);
        assert_eq!(refused.unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
    }
    let huge = log(&mut host, get_log_page(LogId::SMART, 0, 1 << 34, 0), 4096);
    assert_eq!(huge.unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
    let unknown = log(&mut host, get_log_page(LogId::SANITIZE_STATUS, 0, 512, 0), 512);
    assert_eq!(unknown.unwrap_err(), Status::INVALID_LOG_PAGE);
}

#[test]
fn what_is_supported_is_said() {
    let mut host = Host::new(ControllerConfig { format: false, ..Default::default() });
    let pages: SupportedLogPages = page(&mut host, LogId::SUPPORTED_LOG_PAGES);
    let supported: Vec<u8> = (0..=255).filter(|lid| pages.supports(LogId(*lid))).collect();
    assert_eq!(supported, [0, 1, 2, 3, 4, 5, 0x80]);
    let buffer = host.allocate(4096);
    let dptr = DataPointer::prp(buffer.iova(), 0);
    let command = Command { dptr, ..get_log_page(LogId::COMMANDS_SUPPORTED_AND_EFFECTS, 0, 4096, 0) };
    host.admin_ok(&command);
    let effects = CommandEffects::read_from_bytes(&bytes(&buffer, 4096)).unwrap();
    assert!(effects.of_io(NvmOpcode::COPY).csupp() && effects.of_io(NvmOpcode::COPY).lbcc());
    assert!(!effects.of_admin(AdminOpcode::FORMAT_NVM).csupp());
    let slots: FirmwareSlots = page(&mut host, LogId::FIRMWARE_SLOT);
    assert_eq!((slots.afi.active(), slots.frs[0].as_str()), (1, "1.0"));
}

#[test]
fn a_namespace_event_comes_once_until_its_log_is_read() {
    let mut host = host();
    let cids = [request(&mut host), request(&mut host), request(&mut host)];
    let add = |host: &Host| host.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    add(&host);
    let (cid, first) = event(&mut host).unwrap();
    assert_eq!((cid, first.kind()), (cids[0], EventKind::NAMESPACE_ATTRIBUTE_CHANGED));
    assert_eq!(first.log_page(), LogId::CHANGED_NAMESPACES);
    add(&host);
    assert_eq!(event(&mut host), None);
    // Reading it with Retain Asynchronous Event changes nothing.
    let command = get_log_page(LogId::CHANGED_NAMESPACES, NSID_ALL, 4096, 0);
    let retain = GetLogPageCdw10::from(command.cdw10).with_rae(true);
    let list = log(&mut host, Command { cdw10: retain.into_bits(), ..command }, 4096).unwrap();
    assert!(NamespaceList::read_from_bytes(&list).unwrap().iter().eq([2, 3]));
    assert_eq!(event(&mut host), None);
    let list: NamespaceList = page(&mut host, LogId::CHANGED_NAMESPACES);
    assert!(list.iter().eq([2, 3]));
    assert_eq!(event(&mut host), None);
    host.subsystem.remove_namespace(2).unwrap();
    assert_eq!(event(&mut host).unwrap().0, cids[1]);
    let list: NamespaceList = page(&mut host, LogId::CHANGED_NAMESPACES);
    assert!(list.iter().eq([2]));
}

#[test]
fn an_event_waits_for_its_request() {
    let mut host = host();
    host.subsystem.resize_namespace(1, 1 << 20).unwrap();
    host.step();
    let cid = host.submit(0, &AdminOpcode::ASYNC_EVENT_REQUEST.command());
    assert_eq!(event(&mut host).unwrap().0, cid);
}

#[test]
fn more_than_1024_changes_are_just_that() {
    let subsystem = Subsystem::default();
    let mut host = Host::enabled(&subsystem, ControllerConfig::default());
    for _ in 0..1024 {
        subsystem.add_namespace(NamespaceConfig::null(1 << 20)).unwrap();
    }
    host.step();
    let retain = |lid| {
        let command = get_log_page(lid, NSID_ALL, 4096, 0);
        Command { cdw10: GetLogPageCdw10::from(command.cdw10).with_rae(true).into_bits(), ..command }
    };
    let list = log(&mut host, retain(LogId::CHANGED_NAMESPACES), 4096).unwrap();
    assert!(NamespaceList::read_from_bytes(&list).unwrap().is_full());
    subsystem.add_namespace(NamespaceConfig::null(1 << 20)).unwrap();
    let list: NamespaceList = page(&mut host, LogId::CHANGED_NAMESPACES);
    assert!(list.is_overflow());
    assert_eq!(page::<NamespaceList>(&mut host, LogId::CHANGED_NAMESPACES).iter().count(), 0);
}

#[test]
fn unwanted_events_do_not_come() {
    let mut host = host();
    host.admin_ok(&set(FeatureId::ASYNC_EVENT_CONFIGURATION, 0));
    request(&mut host);
    host.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    host.device.with_controller(|c| c.set_condition(Condition { temperature: 400, ..Condition::default() }));
    assert_eq!(event(&mut host), None);
    // The log has it all the same.
    assert!(page::<NamespaceList>(&mut host, LogId::CHANGED_NAMESPACES).iter().eq([2]));
    assert!(page::<HealthLog>(&mut host, LogId::SMART).critical_warning.temperature());
}

#[test]
fn health_is_an_event_when_it_changes() {
    let mut host = host();
    let (first, second) = (request(&mut host), request(&mut host));
    host.admin_ok(&set(FeatureId::TEMPERATURE_THRESHOLD, 310));
    let heat = |host: &Host, temperature| {
        host.device.with_controller(|c| c.set_condition(Condition { temperature, ..Condition::default() }));
    };
    heat(&host, 309);
    assert_eq!(event(&mut host), None);
    heat(&host, 310);
    let (cid, hot) = event(&mut host).unwrap();
    assert_eq!((cid, hot.kind(), hot.log_page()), (first, EventKind::TEMPERATURE_THRESHOLD, LogId::SMART));
    heat(&host, 300);
    heat(&host, 320);
    assert_eq!(event(&mut host), None);
    page::<HealthLog>(&mut host, LogId::SMART);
    assert_eq!(event(&mut host), None);
    host.device.with_controller(|c| {
        c.set_condition(Condition { available_spare: 9, ..Condition::default() });
    });
    let (cid, spare) = event(&mut host).unwrap();
    assert_eq!((cid, spare.kind()), (second, EventKind::SPARE_BELOW_THRESHOLD));
}

#[test]
fn a_doorbell_that_cannot_be_is_an_error_event() {
    let mut host = host();
    request(&mut host);
    host.ring(1).tail_bell.ring(256);
    let (_, event) = event(&mut host).unwrap();
    assert_eq!((event.kind(), event.log_page()), (EventKind::INVALID_DOORBELL_VALUE, LogId::ERROR));
    let log = log(&mut host, get_log_page(LogId::ERROR, NSID_ALL, 64, 0), 64).unwrap();
    assert_eq!(ErrorEntry::read_from_bytes(&log).unwrap().sqid, 0xffff);
    // Nothing was taken, and a right value goes on.
    assert!(host.ring(1).peek().is_none());
    host.ring(1).ring();
    host.write(0, &pattern(1, 4096));
}

#[test]
fn requests_are_limited() {
    for aerl in [0, 3] {
        let mut host = Host::new(ControllerConfig { aerl, ..Default::default() });
        for _ in 0..=aerl {
            request(&mut host);
            assert!(host.ring(0).peek().is_none());
        }
        let one_more = AdminOpcode::ASYNC_EVENT_REQUEST.command();
        host.admin_fails(&one_more, Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED);
    }
}

#[test]
fn requests_can_be_aborted_and_end_with_a_reset() {
    let mut host = host();
    let cid = request(&mut host);
    let abort = |sqid, cid| Command {
        cdw10: AbortCdw10::new().with_sqid(sqid).with_cid(cid).into_bits(),
        ..AdminOpcode::ABORT.command()
    };
    let abort_cid = host.submit(0, &abort(0, cid));
    host.step();
    let aborted = host.ring(0).pop().unwrap();
    assert_eq!((aborted.cid, aborted.status.status()), (cid, Status::ABORT_REQUESTED));
    let done = host.ring(0).pop().unwrap();
    assert_eq!((done.cid, done.dw0), (abort_cid, 0));
    // Nothing there to abort.
    assert_eq!(host.admin_ok(&abort(0, cid)), 1);
    assert_eq!(host.admin_ok(&abort(1, 3)), 1);
    host.admin_fails(&abort(9, 3), Status::INVALID_FIELD_IN_COMMAND);
    request(&mut host);
    host.disable();
    host.enable();
    host.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    assert_eq!(event(&mut host), None);
}
