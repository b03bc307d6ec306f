//! The bytes that controllers of others sent, read with this crate's structures: QEMU's controller and the Linux kernel's
//! NVMe target. What is asserted is what captures/capture.sh and captures/guest.sh configured them to be, so a field that
//! is laid out wrongly here does not go unnoticed.

use nvme_spec::feature::{FeatureId, HostBehavior, InterruptVectorConfiguration, NumberOfQueues, Timestamp};
use nvme_spec::identify::{
    CommandSetCombinations, ControllerList, ControllerType, Descriptors, IdentifyController, IdentifyControllerNvm,
    IdentifyNamespace, IdentifyNamespaceIndependent, IdentifyNamespaceNvm, NamespaceIds, NamespaceList, PiFormat,
    PiType, cns::csi,
};
use nvme_spec::log::{
    CommandEffects, ErrorEntry, FirmwareSlots, HealthLog, LogId, ReservationNotice, ReservationNotification,
    SupportedLogPages,
};
use nvme_spec::registers::{Aqa, Cap, Cc, Cmbloc, Cmbsz, Csts, Version, offset};
use nvme_spec::reservation::{RegisteredControllerExtended, ReportHeaderExtended, ReservationType};
use nvme_spec::{AdminOpcode, NvmOpcode, Status, StatusField};
use zerocopy::FromBytes;

macro_rules! bytes {
    ($name:literal) => {
        include_bytes!(concat!("captures/", $name)).as_slice()
    };
}

macro_rules! captured {
    ($type:ty, $name:literal) => {
        <$type>::read_from_bytes(bytes!($name)).expect($name)
    };
}

/// The UUIDs of the command line, which differ in the last byte.
fn uuid(last: u8) -> Option<[u8; 16]> {
    let mut uuid = [0x11, 0x11, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0];
    uuid[15] = last;
    Some(uuid)
}

/// The NGUIDs of the command line, likewise.
fn nguid(last: u8) -> [u8; 16] {
    let mut nguid: [u8; 16] = core::array::from_fn(|i| u8::try_from(i).unwrap() + 1);
    nguid[15] = last;
    nguid
}

/// The value of a feature, as nvme-cli printed it.
fn feature(listing: &str, id: FeatureId) -> u32 {
    let prefix = format!("get-feature:0x{:02x} ", id.0);
    let line = listing.lines().find(|line| line.starts_with(&prefix) && line.contains("Current")).unwrap();
    let value = line.rsplit(':').next().unwrap();
    u32::from_str_radix(value.trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn qemu_controller() {
    let id = captured!(IdentifyController, "qemu/id-ctrl");
    assert_eq!((id.vid, id.ssvid), (0x1b36, 0x1af4));
    assert_eq!(id.sn.as_str(), "DOORBELL-CAPTURE-1");
    assert_eq!(id.mn.as_str(), "Captured");
    assert_eq!(id.fr.as_str(), "1.2.3");
    assert_eq!(id.ieee, [0x00, 0x54, 0x52]);
    assert_eq!(id.max_transfer_bytes(4096), Some(128 << 10));
    assert_eq!(id.ver, Version::V1_4);
    assert_eq!(id.cntrltype, ControllerType::IO);
    assert!(id.cmic.multi_controller() && !id.cmic.sriov());
    assert!(id.oaes.namespace_attribute() && !id.oaes.discovery_log());
    assert!(id.ctratt.extended_lba_formats() && id.ctratt.endurance_groups());
    assert!(id.oacs.format() && id.oacs.namespace_management() && id.oacs.doorbell_buffer_config());
    assert!(!id.oacs.self_test() && !id.oacs.firmware());
    assert_eq!(id.max_async_events(), 8);
    assert!(id.frmw.first_slot_read_only() && id.frmw.slots() == 1);
    assert!(id.lpa.extended() && id.lpa.effects() && !id.lpa.telemetry());
    assert_eq!((id.wctemp, id.cctemp), (343, 373));
    assert_eq!((id.sqes.required(), id.sqes.maximum()), (6, 6));
    assert_eq!((id.cqes.required(), id.cqes.maximum()), (4, 4));
    assert_eq!(id.nn, 256);
    assert!(id.oncs.compare() && id.oncs.dataset_management() && id.oncs.write_zeroes() && id.oncs.copy());
    assert!(!id.oncs.write_uncorrectable() && !id.oncs.reservations());
    assert!(id.vwc.present() && id.vwc.flush_all() == 3);
    assert_eq!(id.cdfs, 0b1111);
    assert!(id.sgls.supported() == 1 && id.sgls.metadata_sgl() && !id.sgls.keyed());
    assert_eq!(id.subnqn.as_str(), "nqn.2019-08.org.qemu:captures");
    assert_eq!(id.power_states().len(), 1);
    assert_eq!((id.psd[0].mp, id.psd[0].enlat, id.psd[0].exlat), (0x9c4, 16, 4));

    let id = captured!(IdentifyController, "qemu-default/id-ctrl");
    assert_eq!(id.sn.as_str(), "DOORBELL-CAPTURE-2");
    assert_eq!(id.mn.as_str(), "QEMU NVMe Ctrl");
    assert_eq!((id.mdts, id.aerl), (7, 3));
    assert!(!id.cmic.multi_controller());
}

#[test]
fn qemu_nvm_command_set_limits() {
    // QEMU's deallocation limits follow from the largest block's format and MDTS or the disk's size.
    let id = captured!(IdentifyControllerNvm, "qemu/nvm-id-ctrl");
    assert_eq!((id.vsl, id.dmrl), (6, 255));
    assert_eq!(id.dmsl, u64::from(id.dmrsl) * u64::from(id.dmrl));
    let id = captured!(IdentifyControllerNvm, "qemu-default/nvm-id-ctrl");
    assert_eq!((id.vsl, id.dmrl), (7, 255));
    assert_eq!(id.dmsl, u64::from(id.dmrsl) * u64::from(id.dmrl));
}

#[test]
fn qemu_namespace_lists() {
    let list = captured!(NamespaceList, "qemu/list-ns");
    assert_eq!(list.iter().collect::<Vec<_>>(), [1, 2, 5, 6, 9]);
    assert_eq!(captured!(NamespaceList, "qemu-default/list-ns").iter().collect::<Vec<_>>(), [1]);
    assert_eq!(captured!(ControllerList, "qemu/list-ctrl").iter().collect::<Vec<_>>(), [0]);
    let sets = captured!(CommandSetCombinations, "qemu/command-sets");
    assert_eq!(sets.iter().collect::<Vec<_>>(), [1 << csi::NVM | 1 << csi::ZONED]);
}

#[test]
fn qemu_namespace_of_512_byte_blocks() {
    let id = captured!(IdentifyNamespace, "qemu/id-ns-1");
    assert_eq!((id.nsze, id.ncap), (131_072, 131_072));
    let format = id.lba_format().unwrap();
    assert_eq!((format.data_size(), format.ms()), (Some(512), 0));
    assert_eq!(id.lba_formats().len(), 8);
    assert_eq!(id.dps.pi_type(), PiType::NONE);
    assert!(id.mc.inline() && id.mc.separate());
    assert!(id.dpc.type1() && id.dpc.type2() && id.dpc.type3() && id.dpc.first() && id.dpc.last());
    assert!(id.nsfeat.dulbe() && !id.nsfeat.thin() && !id.nsfeat.atomic());
    assert!(id.nmic.shared());
    assert!(id.dlfeat.write_zeroes_deallocate() && id.dlfeat.read_behavior() == 1);
    assert_eq!((id.mssrl, id.mcl, id.msrc), (128, 128, 127));
    assert_eq!(id.endgid, 1);
    assert_eq!(id.eui64, 0x1122_3344_5566_7701_u64.to_be_bytes());
    assert_eq!(id.nguid, [0; 16]);

    let ids = NamespaceIds::parse(bytes!("qemu/ns-descs-1"));
    assert_eq!(ids, NamespaceIds { eui64: Some(id.eui64), nguid: None, uuid: uuid(1), csi: Some(csi::NVM) });
    assert!(Descriptors::new(bytes!("qemu/ns-descs-1")).all(|descriptor| descriptor.is_ok()));
    let independent = captured!(IdentifyNamespaceIndependent, "qemu/independent-id-ns-1");
    assert!(independent.nstat.ready() && independent.nmic.shared() && independent.endgid == 1);
}

#[test]
fn qemu_namespace_of_4_kib_blocks() {
    let id = captured!(IdentifyNamespace, "qemu/id-ns-2");
    assert_eq!(id.nsze, 16_384);
    assert_eq!(id.flbas.index_low(), 4);
    assert_eq!(id.lba_format().unwrap().data_size(), Some(4096));
    assert!(id.nsfeat.atomic());
    assert_eq!((id.nawun, id.nawupf), (7, 3));
    assert_eq!((id.mssrl, id.mcl, id.msrc), (64, 256, 31));
    assert_eq!(id.nguid, nguid(2));
    // A granularity of 64 KiB is 16 blocks, 0's based in the one place and not in the other.
    assert!(id.nsfeat.has_npdg() && id.nsfeat.has_npdgl());
    assert_eq!((id.npdg, id.npda), (15, 15));
    assert_eq!(captured!(IdentifyNamespaceNvm, "qemu/nvm-id-ns-2").npdgl, 16);
    let ids = NamespaceIds::parse(bytes!("qemu/ns-descs-2"));
    assert_eq!(ids, NamespaceIds { eui64: None, nguid: Some(id.nguid), uuid: uuid(2), csi: Some(csi::NVM) });
}

#[test]
fn qemu_namespaces_with_protection_information() {
    let id = captured!(IdentifyNamespace, "qemu/id-ns-5");
    let format = id.lba_format().unwrap();
    assert_eq!((format.data_size(), format.ms()), (Some(512), 8));
    assert!(!id.flbas.metadata_inline());
    assert_eq!(id.dps.pi_type(), PiType::TYPE1);
    assert!(id.dps.first());
    assert_eq!(id.nsze, (64 << 20) / (512 + 8));
    let elbaf = captured!(IdentifyNamespaceNvm, "qemu/nvm-id-ns-5").elbaf[usize::from(id.lba_format_index())];
    assert_eq!((elbaf.pif(), elbaf.sts()), (PiFormat::GUARD_16, 0));

    let id = captured!(IdentifyNamespace, "qemu/id-ns-6");
    let format = id.lba_format().unwrap();
    assert_eq!((format.data_size(), format.ms()), (Some(4096), 16));
    assert!(id.flbas.metadata_inline());
    assert_eq!(id.dps.pi_type(), PiType::TYPE3);
    assert!(!id.dps.first());
    let elbaf = captured!(IdentifyNamespaceNvm, "qemu/nvm-id-ns-6").elbaf[usize::from(id.lba_format_index())];
    assert_eq!(elbaf.pif(), PiFormat::GUARD_64);
    assert_eq!(elbaf.pif().size(), Some(format.ms()));
}

#[test]
fn qemu_namespaces_of_other_kinds() {
    let id = captured!(IdentifyNamespace, "qemu/id-ns-9");
    assert!(!id.nmic.shared());
    let ids = NamespaceIds::parse(bytes!("qemu/ns-descs-9"));
    assert_eq!((ids.uuid, ids.csi), (uuid(9), Some(csi::ZONED)));
    // Without any identifier on the command line there is none but the command set.
    let ids = NamespaceIds::parse(bytes!("qemu-default/ns-descs-1"));
    assert_eq!(ids, NamespaceIds { csi: Some(csi::NVM), ..NamespaceIds::default() });
}

#[test]
fn qemu_registers() {
    let dword = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let registers = bytes!("qemu/registers");
    let cap = Cap::from_bits(u64::from(dword(registers, 4)) << 32 | u64::from(dword(registers, offset::CAP)));
    assert_eq!(cap.max_queue_entries(), 1024);
    assert!(cap.cqr() && cap.cmbs() && !cap.pmrs() && !cap.nssrs());
    assert_eq!((cap.dstrd(), cap.timeout_ms()), (0, 7500));
    assert_eq!((cap.min_page_size(), cap.max_page_size()), (4096, 65_536));
    assert_eq!(cap.css(), Cap::CSS_NVM | Cap::CSS_IOCS);
    assert_eq!(Version::from_bits(dword(registers, offset::VS)), Version::V1_4);
    // What Linux programmed: all command sets, 4 KiB pages, the NVM command set's entry sizes, 32 admin entries.
    let cc = Cc::from_bits(dword(registers, offset::CC));
    assert_eq!(cc, Cc::new().with_en(true).with_css(Cc::CSS_ALL).with_iosqes(6).with_iocqes(4));
    assert_eq!(Csts::from_bits(dword(registers, offset::CSTS)), Csts::new().with_rdy(true));
    assert_eq!(Aqa::from_bits(dword(registers, offset::AQA)), Aqa::new().with_asqs(31).with_acqs(31));
    let size = Cmbsz::from_bits(dword(registers, offset::CMBSZ));
    assert_eq!(size.sz() << (12 + 4 * size.szu()), 2 << 20);
    assert!(size.sqs() && !size.cqs() && size.lists() && size.rds() && size.wds());
    assert_eq!(Cmbloc::from_bits(dword(registers, offset::CMBLOC)).bir(), 2);

    let cap = Cap::from_bits(u64::from_le_bytes(bytes!("qemu-default/registers")[..8].try_into().unwrap()));
    assert!(cap.max_queue_entries() == 2048 && !cap.cmbs());
}

#[test]
fn qemu_logs() {
    let health = captured!(HealthLog, "qemu/smart-log");
    assert_eq!(health.temperature(), 0x143);
    assert!(health.host_reads.get() > 0);
    assert_eq!(health.power_cycles.get(), 0);
    let slots = captured!(FirmwareSlots, "qemu/fw-log");
    assert_eq!(slots.afi.active(), 1);
    assert_eq!(slots.frs[0].as_str(), "1.0"); // whatever the controller's revision
    assert_eq!(slots.frs[1].as_str(), "");
    let effects = captured!(CommandEffects, "qemu/effects-log");
    assert!(effects.of_admin(AdminOpcode::IDENTIFY).csupp());
    let attach = effects.of_admin(AdminOpcode::NAMESPACE_ATTACHMENT);
    assert!(attach.nic() && attach.ccc() && !attach.lbcc());
    assert!(effects.of_io(NvmOpcode::WRITE).lbcc() && !effects.of_io(NvmOpcode::READ).lbcc());
    assert!(!effects.of_io(NvmOpcode::WRITE_UNCORRECTABLE).csupp());
    assert_eq!(captured!(NamespaceList, "qemu/changed-ns-log").iter().count(), 0);
}

#[test]
fn qemu_features() {
    let listing = include_str!("captures/qemu/features");
    assert_eq!(NumberOfQueues::from_bits(feature(listing, FeatureId::NUMBER_OF_QUEUES)).pairs(), 8);
    let vector = feature(listing, FeatureId::INTERRUPT_VECTOR_CONFIGURATION);
    let vector = InterruptVectorConfiguration::from_bits(vector);
    assert!(vector.iv() == 0 && vector.cd());
    assert_eq!(feature(listing, FeatureId::TEMPERATURE_THRESHOLD), 343);
    let time = captured!(Timestamp, "qemu/feature-timestamp");
    assert_eq!(time.attributes.origin(), 1); // Linux has set it, from its clock
    assert!(time.millis() > 1_700_000_000_000);
    // Linux takes the delays of Command Retry only where the controller has some, and knows extended LBA formats.
    let behavior = captured!(HostBehavior, "qemu/feature-host-behavior");
    assert_eq!((behavior.acre, behavior.lbafee), (0, 1));
}

#[test]
fn qemu_failures_are_called_as_others_call_them() {
    let mut seen = 0;
    for line in include_str!("captures/qemu/failures").lines() {
        let (_, status) = line.split_once("NVMe status: ").expect(line);
        let (name, rest) = status.split_once(':').expect(line);
        let (_, bits) = rest.rsplit_once("(0x").expect(line);
        // Without the phase tag.
        let field = StatusField::from_bits(u16::from_str_radix(bits.trim_end_matches(')'), 16).unwrap() << 1);
        assert_eq!(field.status().name(), Some(name));
        assert!(field.dnr() && !field.more());
        seen += 1;
    }
    assert_eq!(seen, 7);
}

#[test]
fn linux_target() {
    let id = captured!(IdentifyController, "nvmet/id-ctrl");
    assert_eq!(id.sn.as_str(), "CAPTURE");
    assert_eq!(id.mn.as_str(), "Captured target");
    assert_eq!(id.subnqn.as_str(), "captures");
    assert_eq!(id.ver, Version::of(2, 1, 0));
    assert!(id.cmic.ana() && id.ctratt.host_id_128() && id.ctratt.traffic_based_keep_alive());
    assert!(id.oncs.reservations() && id.oncs.write_zeroes() && !id.oncs.copy());
    assert_eq!((id.kas, id.anatt, id.anagrpmax, id.nanagrpid), (10, 10, 128, 128));
    assert_eq!((id.nn, id.mnan, id.error_log_entries()), (1024, 1024, 128));
    assert_eq!((id.ioccsz, id.iorcsz), (4, 1));
    assert!(id.nwpc.write_protect());

    assert_eq!(captured!(NamespaceList, "nvmet/list-ns").iter().collect::<Vec<_>>(), [3]);
    let ns = captured!(IdentifyNamespace, "nvmet/id-ns-3");
    assert_eq!(ns.nsze, (250 << 30) / 512);
    assert_eq!(ns.lba_format().unwrap().data_size(), Some(512));
    assert_eq!((ns.nguid, ns.anagrpid), (nguid(3), 1));
    assert!(ns.rescap.write_exclusive() && ns.rescap.ignore_existing_key_1_3());
    assert!(!ns.rescap.persist_through_power_loss());
    let ids = NamespaceIds::parse(bytes!("nvmet/ns-descs-3"));
    assert_eq!(ids, NamespaceIds { eui64: None, nguid: Some(nguid(3)), uuid: uuid(3), csi: Some(csi::NVM) });
    let independent = captured!(IdentifyNamespaceIndependent, "nvmet/independent-id-ns-3");
    assert!(independent.nstat.ready() && independent.anagrpid == 1);
}

#[test]
fn linux_target_logs() {
    let pages = captured!(SupportedLogPages, "nvmet/supported-log-pages");
    assert!(pages.supports(LogId::ERROR) && pages.supports(LogId::RESERVATION_NOTIFICATION));
    assert!(!pages.supports(LogId::PERSISTENT_EVENT));
    // The newest error is that of a log page or feature that it does not have: a wrong field in dword 10.
    let entry = ErrorEntry::read_from_prefix(bytes!("nvmet/error-log")).unwrap().0;
    assert!(entry.error_count > 0);
    assert_eq!(entry.sqid, 0);
    assert_eq!(entry.status.status(), Status::INVALID_FIELD_IN_COMMAND);
    assert!(entry.status.dnr());
    assert_eq!((entry.parameter_error_location.byte(), entry.parameter_error_location.bit()), (40, 0));
    let effects = captured!(CommandEffects, "nvmet/effects-log");
    assert!(effects.of_io(NvmOpcode::RESERVATION_REPORT).csupp() && effects.of_admin(AdminOpcode::KEEP_ALIVE).csupp());
    let notice = captured!(ReservationNotification, "nvmet/resv-notification-log");
    assert_eq!((notice.kind, notice.available), (ReservationNotice::EMPTY, 0));
}

#[test]
fn linux_target_reservations() {
    let (none, _) = ReportHeaderExtended::read_from_prefix(bytes!("nvmet/resv-report-none")).unwrap();
    assert_eq!((none.header.rtype, none.header.regctl()), (ReservationType::NONE, 0));

    let (report, rest) = ReportHeaderExtended::read_from_prefix(bytes!("nvmet/resv-report")).unwrap();
    assert_eq!(report.header.generation, 1);
    assert_eq!(report.header.rtype, ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY);
    assert_eq!((report.header.regctl(), report.header.ptpls), (1, 0));
    assert_eq!(report.header.report_len(true), 128);
    let (registrant, _) = RegisteredControllerExtended::read_from_prefix(rest).unwrap();
    assert!(registrant.rcsts.holder());
    assert_eq!(registrant.rkey, 0x1234_5678_90ab_cdef);
    assert_eq!(Some(registrant.hostid), uuid(0xaa));
}
