//! Namespaces that come, go and change while controllers run; Format NVM; files.

use doorbell_device::inprocess::Run;
use doorbell_emulator::{ControllerConfig, EmulatorError, NamespaceConfig, Subsystem, SubsystemConfig, emulated};
use nvme_spec::admin::FormatNvmCdw10;
use nvme_spec::identify::{ControllerList, IdentifyNamespace, NamespaceIds, NamespaceList, PiType};
use nvme_spec::log::LogId;
use nvme_spec::{AdminOpcode, Command, DataPointer, NSID_ALL, NvmOpcode, Status};
use zerocopy::FromBytes;

use crate::harness::{Host, blocks, bytes, pattern};

fn two() -> (Subsystem, Host, Host) {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    let first = Host::with_queue(&subsystem, ControllerConfig::default());
    let second = Host::with_queue(&subsystem, ControllerConfig::default());
    (subsystem, first, second)
}

fn active(host: &mut Host) -> Vec<u32> {
    host.identify_as::<NamespaceList>(2, 0).iter().collect()
}

fn changed(host: &mut Host) -> Vec<u32> {
    let buffer = host.allocate(4096);
    let command = nvme_spec::admin::get_log_page(LogId::CHANGED_NAMESPACES, NSID_ALL, 4096, 0);
    host.admin_ok(&Command { dptr: DataPointer::prp(buffer.iova(), 0), ..command });
    NamespaceList::read_from_bytes(&bytes(&buffer, 4096)).unwrap().iter().collect()
}

#[test]
fn added_and_removed_for_every_controller() {
    let (subsystem, mut first, mut second) = two();
    assert_eq!(subsystem.add_namespace(NamespaceConfig::ram(1 << 20).nsid(7)).unwrap(), 7);
    assert_eq!(subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap(), 2);
    for host in [&mut first, &mut second] {
        assert_eq!(active(host), [1, 2, 7]);
        assert_eq!(changed(host), [2, 7]);
    }
    subsystem.remove_namespace(1).unwrap();
    for host in [&mut first, &mut second] {
        // Refused even before the controller has looked.
        let status = host.read(0, 4096).unwrap_err();
        assert!([Status::INVALID_FIELD_IN_COMMAND, Status::INVALID_NAMESPACE_OR_FORMAT].contains(&status));
        assert_eq!(active(host), [2, 7]);
        assert_eq!(changed(host), [1]);
        let gone: IdentifyNamespace = host.identify_as(0, 1);
        assert_eq!(gone, IdentifyNamespace::default());
        assert_eq!(host.identify(3, 1).unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
    }
    assert_eq!(subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap(), 1);
}

#[test]
fn what_one_writes_the_other_reads() {
    let (_, mut first, mut second) = two();
    let data = pattern(1, 8192);
    first.write(3, &data);
    assert_eq!(second.read(3, 8192).unwrap(), data);
}

#[test]
fn a_replacement_is_another_namespace() {
    let (subsystem, mut host, _) = two();
    host.write(0, &[1; 4096]);
    let before = NamespaceIds::parse(&host.identify(3, 1).unwrap());
    subsystem.replace_namespace(1, NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    let after = NamespaceIds::parse(&host.identify(3, 1).unwrap());
    assert!(before.eui64 != after.eui64 && before.nguid != after.nguid && before.uuid != after.uuid);
    assert_eq!(host.read(0, 4096).unwrap(), [0; 4096]);
    assert_eq!(changed(&mut host), [1]);
}

#[test]
fn resized_up_and_down() {
    let (subsystem, mut host, _) = two();
    host.write(255, &[1; 4096]);
    subsystem.resize_namespace(1, 2 << 20).unwrap();
    assert_eq!(host.identify_as::<IdentifyNamespace>(0, 1).nsze, 512);
    assert_eq!(host.read(255, 4096).unwrap(), [1; 4096]);
    assert_eq!(host.write(511, &[2; 4096]), Status::SUCCESS);
    subsystem.resize_namespace(1, 255 * 4096).unwrap();
    assert_eq!(host.read(255, 4096).unwrap_err(), Status::LBA_OUT_OF_RANGE);
    subsystem.resize_namespace(1, 1 << 20).unwrap();
    assert_eq!(host.read(255, 4096).unwrap(), [0; 4096]);
    assert_eq!(subsystem.block_count(1).unwrap(), 256);
    assert_eq!(changed(&mut host), [1]);
}

#[test]
fn attached_to_some() {
    let (subsystem, mut first, mut second) = two();
    subsystem.set_attached(1, 0, false).unwrap();
    assert!(active(&mut first).is_empty());
    assert_eq!(active(&mut second), [1]);
    assert_eq!(first.read(0, 4096).unwrap_err(), Status::INVALID_FIELD_IN_COMMAND);
    assert_eq!(first.identify_as::<NamespaceList>(0x10, 0).iter().collect::<Vec<_>>(), [1]);
    assert_eq!(first.identify_as::<ControllerList>(0x12, 1).iter().collect::<Vec<_>>(), [1]);
    assert_eq!(first.identify_as::<ControllerList>(0x13, 0).iter().collect::<Vec<_>>(), [0, 1]);
    subsystem.set_attached(1, 0, true).unwrap();
    assert_eq!(active(&mut first), [1]);
}

#[test]
fn owners_mistakes_are_errors() {
    let subsystem = Subsystem::new(SubsystemConfig { max_namespaces: 2, ..Default::default() });
    let message = |result: Result<u32, EmulatorError>| result.unwrap_err().to_string();
    let ram = NamespaceConfig::ram;
    assert_eq!(
        message(subsystem.add_namespace(ram(1 << 20).nsid(3))),
        "namespace identifier 3 is not possible, 1 to 2 are"
    );
    assert!(message(subsystem.add_namespace(ram(0))).contains("at least one block"));
    assert!(message(subsystem.add_namespace(ram(1000))).contains("not a multiple of the block size, 512"));
    assert!(message(subsystem.add_namespace(ram(1 << 63))).contains("less than 8 EiB"));
    assert!(message(subsystem.add_namespace(ram(1 << 20).with_format(512, 16))).contains("0 or 8 are possible"));
    assert!(message(subsystem.add_namespace(ram(1 << 20).with_format(256, 0))).contains("512 to 65536"));
    subsystem.add_namespace(ram(1 << 20).nsid(2)).unwrap();
    assert_eq!(message(subsystem.add_namespace(ram(1 << 20).nsid(2))), "namespace 2 exists already");
    subsystem.add_namespace(ram(1 << 20)).unwrap();
    assert!(message(subsystem.add_namespace(ram(1 << 20))).contains("all 2 namespaces"));
    assert_eq!(subsystem.remove_namespace(9).unwrap_err().to_string(), "there is no namespace 9");
}

#[test]
fn many_namespaces_are_listed_in_parts() {
    let subsystem = Subsystem::default();
    for _ in 0..4096 {
        subsystem.add_namespace(NamespaceConfig::ram(1 << 20).block_size(4096)).unwrap();
    }
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let mut nsids = Vec::new();
    loop {
        let list: NamespaceList = host.identify_as(2, nsids.last().copied().unwrap_or(0));
        nsids.extend(list.iter());
        if !list.is_full() {
            break;
        }
    }
    assert!(nsids.into_iter().eq(1..=4096));
    host.io_ok(&Command { nsid: 4096, ..blocks(NvmOpcode::VERIFY, 0, 1) });
    assert_eq!(host.identify(2, 0xffff_fffe).unwrap_err(), Status::INVALID_NAMESPACE_OR_FORMAT);
}

fn format(nsid: u32, cdw10: FormatNvmCdw10) -> Command {
    Command { nsid, cdw10: cdw10.into_bits(), ..AdminOpcode::FORMAT_NVM.command() }
}

#[test]
fn format_changes_blocks_and_loses_data() {
    let (_, mut first, mut second) = two();
    first.write(0, &[1; 4096]);
    let to_512 = FormatNvmCdw10::new().with_lbafl(0);
    first.admin_ok(&format(1, to_512));
    let page: IdentifyNamespace = second.identify_as(0, 1);
    assert_eq!((page.nsze, page.lba_format().unwrap().lbads()), (2048, 9));
    assert_eq!(changed(&mut second), [1]);
    assert!(changed(&mut first).is_empty());
    let protected = FormatNvmCdw10::new().with_lbafl(3).with_pi(PiType::TYPE1).with_mset(true);
    first.admin_ok(&format(NSID_ALL, protected));
    let page: IdentifyNamespace = first.identify_as(0, 1);
    assert_eq!((page.dps.pi_type(), page.flbas.metadata_inline()), (PiType::TYPE1, true));
    first.admin_ok(&format(1, FormatNvmCdw10::new().with_lbafl(1)));
    assert_eq!(first.read(0, 4096).unwrap(), [0; 4096]);
    first.admin_fails(&format(1, FormatNvmCdw10::new().with_lbafl(9)), Status::INVALID_FORMAT);
    let without_metadata = FormatNvmCdw10::new().with_lbafl(1).with_pi(PiType::TYPE1);
    first.admin_fails(&format(1, without_metadata), Status::INVALID_FORMAT);
    first.admin_fails(&format(1, FormatNvmCdw10::new().with_ses(2)), Status::INVALID_FIELD_IN_COMMAND);
    first.admin_fails(&format(2, to_512), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn a_file_keeps_its_data() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let open = || {
        let subsystem = Subsystem::default();
        subsystem.add_namespace(NamespaceConfig::file(file.path()).block_size(4096)).unwrap();
        Host::with_queue(&subsystem, ControllerConfig::default())
    };
    let data = pattern(1, 2 << 20);
    let mut host = open();
    assert_eq!(host.write(512, &data), Status::SUCCESS);
    host.io_ok(&Command { nsid: 1, ..AdminOpcode(0).command() });
    drop(host);
    let mut host = open();
    assert!(host.read(512, 2 << 20).unwrap() == data);
    assert_eq!(host.transfer(NvmOpcode::COMPARE, 512, data).0, Status::SUCCESS);
    host.io_ok(&blocks(NvmOpcode::WRITE_ZEROES, 512, 512));
    assert!(host.read(512, 2 << 20).unwrap().iter().all(|byte| *byte == 0));
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 8 << 20);
    host.subsystem.resize_namespace(1, 4 << 20).unwrap();
    assert_eq!(std::fs::metadata(file.path()).unwrap().len(), 4 << 20);
}

#[test]
fn a_threaded_controller_notices_by_itself() {
    use doorbell_device::Device;
    let subsystem = Subsystem::default();
    let device = emulated(&subsystem, ControllerConfig::default(), Run::Threaded).unwrap();
    assert!(device.address().starts_with("emulated:"));
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while std::time::Instant::now() < deadline {
        if device.with_controller(|controller| controller.namespace_count()) == 1 {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the namespace was not noticed");
}
