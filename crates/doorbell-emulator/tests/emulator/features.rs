//! Get and Set Features.

use std::time::Duration;

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::admin::{GetFeaturesCdw10, SetFeaturesCdw10};
use nvme_spec::feature::{FeatureId, HostBehavior, NumberOfQueues, Timestamp};
use nvme_spec::{AdminOpcode, Command, Completion, DataPointer, Status};
use zerocopy::{FromBytes, IntoBytes};

use crate::harness::{Host, bytes, host, memory_with};

pub(crate) fn get(fid: FeatureId, select: u8) -> Command {
    let cdw10 = GetFeaturesCdw10::new().with_fid(fid).with_sel(select);
    Command { cdw10: cdw10.into_bits(), ..AdminOpcode::GET_FEATURES.command() }
}

pub(crate) fn set(fid: FeatureId, value: u32) -> Command {
    let cdw10 = SetFeaturesCdw10::new().with_fid(fid);
    Command { cdw10: cdw10.into_bits(), cdw11: value, ..AdminOpcode::SET_FEATURES.command() }
}

fn save(fid: FeatureId, value: u32) -> Command {
    Command { cdw10: SetFeaturesCdw10::new().with_fid(fid).with_sv(true).into_bits(), ..set(fid, value) }
}

const SELECT: [u8; 4] = [0, 1, 2, 3];

#[test]
fn current_default_and_saved_values_differ() {
    let mut host = host();
    let id = FeatureId::INTERRUPT_COALESCING;
    let [current, default, saved, capabilities] = SELECT;
    let values = |host: &mut Host| [current, default, saved].map(|select| host.admin_ok(&get(id, select)));
    assert_eq!(values(&mut host), [0, 0, 0]);
    host.admin_ok(&set(id, 0x0105));
    assert_eq!(values(&mut host), [0x0105, 0, 0]);
    host.admin_ok(&save(id, 0x0203));
    assert_eq!(values(&mut host), [0x0203, 0, 0x0203]);
    host.admin_ok(&set(id, 7));
    host.disable();
    host.enable();
    assert_eq!(values(&mut host), [0x0203, 0, 0x0203]);
    // Saveable and changeable.
    assert_eq!(host.admin_ok(&get(id, capabilities)), 0b101);
    host.admin_fails(&get(id, 4), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn select_and_save_can_be_missing() {
    let oncs = ControllerConfig::default().oncs.with_save_select(false);
    let mut host = Host::new(ControllerConfig { oncs, ..Default::default() });
    host.admin_ok(&get(FeatureId::ARBITRATION, 0));
    host.admin_fails(&get(FeatureId::ARBITRATION, 1), Status::INVALID_FIELD_IN_COMMAND);
    host.admin_fails(&save(FeatureId::ARBITRATION, 0), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn what_cannot_be_is_refused() {
    let mut host = host();
    let invalid = Status::INVALID_FIELD_IN_COMMAND;
    for id in [0x00, 0x0d, 0x0f, 0x10, 0x19, 0xc0] {
        host.admin_fails(&get(FeatureId(id), 0), invalid);
        host.admin_fails(&set(FeatureId(id), 0), invalid);
    }
    host.admin_fails(&set(FeatureId::POWER_MANAGEMENT, 1), invalid);
    host.admin_fails(&set(FeatureId::VOLATILE_WRITE_CACHE, 2), invalid);
    host.admin_fails(&set(FeatureId::ASYNC_EVENT_CONFIGURATION, 1 << 9), invalid);
    host.admin_fails(&Command { nsid: 1, ..set(FeatureId::ERROR_RECOVERY, 1 << 16) }, invalid);
    host.admin_fails(&save(FeatureId::NUMBER_OF_QUEUES, 0), Status::FEATURE_IDENTIFIER_NOT_SAVEABLE);
    let for_one = Command { nsid: 1, ..set(FeatureId::ARBITRATION, 0) };
    host.admin_fails(&for_one, Status::FEATURE_NOT_NAMESPACE_SPECIFIC);
    host.admin_fails(&Command { nsid: 9, ..set(FeatureId::ERROR_RECOVERY, 5) }, invalid);
    host.admin_fails(&get(FeatureId::ERROR_RECOVERY, 0), Status::INVALID_NAMESPACE_OR_FORMAT);
}

#[test]
fn queues_are_counted_before_there_are_any() {
    let config = ControllerConfig { queue_pairs: 3, ..Default::default() };
    let mut host = Host::enabled(&Subsystem::default(), config);
    let id = FeatureId::NUMBER_OF_QUEUES;
    let ask = NumberOfQueues::new().with_nsq(99).with_ncq(99).into_bits();
    assert_eq!(NumberOfQueues::from(host.admin_ok(&set(id, ask))).pairs(), 3);
    host.admin_fails(&set(id, 0xffff), Status::INVALID_FIELD_IN_COMMAND);
    host.create_queue_pair(1, 4);
    host.admin_fails(&set(id, ask), Status::COMMAND_SEQUENCE_ERROR);
    assert_eq!(NumberOfQueues::from(host.admin_ok(&get(id, 0))).pairs(), 3);
}

#[test]
fn namespaces_have_values_of_their_own() {
    let subsystem = Subsystem::default();
    for _ in 0..3 {
        subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    }
    let mut host = Host::enabled(&subsystem, ControllerConfig::default());
    let id = FeatureId::ERROR_RECOVERY;
    host.admin_ok(&Command { nsid: 2, ..set(id, 5) });
    let value = |host: &mut Host, nsid| host.admin_ok(&Command { nsid, ..get(id, 0) });
    assert_eq!([1, 2, 3].map(|nsid| value(&mut host, nsid)), [0, 5, 0]);
    host.admin_ok(&Command { nsid: u32::MAX, ..set(id, 6) });
    assert_eq!([1, 2, 3].map(|nsid| value(&mut host, nsid)), [6, 6, 6]);
}

fn get_data(host: &mut Host, command: Command, len: usize) -> Result<Vec<u8>, Status> {
    let buffer = host.allocate(4096);
    let completion: Completion = host.admin(&Command { dptr: DataPointer::prp(buffer.iova(), 0), ..command });
    match completion.status.status() {
        Status::SUCCESS => Ok(bytes(&buffer, len)),
        status => Err(status),
    }
}

fn set_data(host: &mut Host, command: Command, data: &[u8]) -> Status {
    let buffer = memory_with(host, data);
    host.admin(&Command { dptr: DataPointer::prp(buffer.iova(), 0), ..command }).status.status()
}

#[test]
fn timestamp_goes_on() {
    let mut host = host();
    host.pass(Duration::from_millis(1500));
    let get = get(FeatureId::TIMESTAMP, 0);
    let read = |host: &mut Host| Timestamp::read_from_bytes(&get_data(host, get, 8).unwrap()).unwrap();
    assert_eq!((read(&mut host).millis(), read(&mut host).attributes.origin()), (1500, 0));
    let set = set(FeatureId::TIMESTAMP, 0);
    assert_eq!(set_data(&mut host, set, Timestamp::from_millis(1 << 40).as_bytes()), Status::SUCCESS);
    host.pass(Duration::from_millis(20));
    assert_eq!((read(&mut host).millis(), read(&mut host).attributes.origin()), ((1 << 40) + 20, 1));
}

#[test]
fn host_behavior_is_checked_and_kept() {
    let mut host = host();
    let (get, set) = (get(FeatureId::HOST_BEHAVIOR_SUPPORT, 0), set(FeatureId::HOST_BEHAVIOR_SUPPORT, 0));
    let mut behavior = HostBehavior { acre: 1, lbafee: 1, ..HostBehavior::default() };
    assert_eq!(set_data(&mut host, set, behavior.as_bytes()), Status::SUCCESS);
    assert_eq!(get_data(&mut host, get, 512).unwrap(), behavior.as_bytes());
    behavior.acre = 2;
    assert_eq!(set_data(&mut host, set, behavior.as_bytes()), Status::INVALID_FIELD_IN_COMMAND);
    host.disable();
    host.enable();
    assert_eq!(get_data(&mut host, get, 512).unwrap(), [0; 512]);
}

#[test]
fn a_host_says_once_who_it_is() {
    let mut host = host();
    let id = FeatureId::HOST_IDENTIFIER;
    let (short, long) = (set(id, 0), set(id, 1));
    assert_eq!(get_data(&mut host, get(id, 0), 8).unwrap(), [0; 8]);
    assert_eq!(set_data(&mut host, long, &[7; 16]), Status::SUCCESS);
    assert_eq!(set_data(&mut host, long, &[7; 16]), Status::SUCCESS);
    assert_eq!(set_data(&mut host, long, &[8; 16]), Status::COMMAND_SEQUENCE_ERROR);
    let get_long = Command { cdw11: 1, ..get(id, 0) };
    assert_eq!(get_data(&mut host, get_long, 16).unwrap(), [7; 16]);
    assert_eq!(get_data(&mut host, get(id, 0), 8).unwrap_err(), Status::HOST_IDENTIFIER_INCONSISTENT_FORMAT);
    host.disable();
    host.enable();
    assert_eq!(set_data(&mut host, short, &[9; 8]), Status::SUCCESS);
    assert_eq!(get_data(&mut host, get(id, 0), 8).unwrap(), [9; 8]);
    let mut old = Host::new(ControllerConfig { host_id_128: false, ..Default::default() });
    assert_eq!(set_data(&mut old, long, &[7; 16]), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn write_protection() {
    let mut host = host();
    let id = FeatureId::NAMESPACE_WRITE_PROTECTION;
    host.admin_ok(&Command { nsid: 1, ..set(id, 1) });
    assert_eq!(host.admin_ok(&Command { nsid: 1, ..get(id, 0) }), 1);
    assert_eq!(host.write(0, &[0; 4096]), Status::NAMESPACE_IS_WRITE_PROTECTED);
    host.admin_fails(&Command { nsid: 1, ..set(id, 3) }, Status::INVALID_FIELD_IN_COMMAND);
    host.admin_ok(&Command { nsid: 1, ..set(id, 0) });
    assert_eq!(host.write(0, &[0; 4096]), Status::SUCCESS);
}
