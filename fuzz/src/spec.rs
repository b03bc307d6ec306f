//! Every structure of `nvme-spec`, read from whatever bytes.
//!
//! Nothing panics, what is computed from the fields is within its bounds, and what can be written again is the same bytes.

use std::fmt::Debug;

use nvme_spec::event::AsyncEvent;
use nvme_spec::feature::{AsyncEventConfiguration, FeatureId, HostBehavior, NumberOfQueues, Timestamp};
use nvme_spec::identify::*;
use nvme_spec::log::{
    CommandEffects, ErrorEntry, FirmwareSlots, HealthLog, LogId, ReservationNotification, SupportedLogPages,
};
use nvme_spec::nvm::{CopyRange, CopyRange64, DsmRange, ReadWriteCdw12};
use nvme_spec::registers::{Aqa, Cap, Cc, Crto, Csts, Version, cq_head_doorbell, sq_tail_doorbell};
use nvme_spec::reservation::{RegisteredController, RegisteredControllerExtended, ReportHeader};
use nvme_spec::sgl::SglDescriptor;
use nvme_spec::{AdminOpcode, Command, Completion, DataPointer, NvmOpcode, Status, StatusField, admin};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes that a device or a host sent; the first tells what they are taken for.
pub fn spec(data: &[u8]) {
    let [kind, bytes @ ..] = data else { return };
    match kind % 12 {
        0 => queue_entries(bytes),
        1 => statuses(bytes),
        2 => registers(bytes),
        3 => controller(bytes),
        4 => namespace(bytes),
        5 => descriptors(bytes),
        6 => lists(bytes),
        7 => logs(bytes),
        8 => features(bytes),
        9 => reservations(bytes),
        10 => ranges(bytes),
        _ => codes(bytes),
    }
}

/// The structure at the beginning of the bytes, which are followed by as many zeroes as it takes.
fn read<T: FromBytes + IntoBytes + Immutable + KnownLayout + Debug>(bytes: &[u8]) -> T {
    let mut all = bytes.get(..size_of::<T>()).unwrap_or(bytes).to_vec();
    all.resize(size_of::<T>(), 0);
    let value = T::read_from_bytes(&all).expect("as many bytes as it has");
    assert_eq!(value.as_bytes(), all);
    let _ = format!("{value:?} {value:#?}");
    value
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut number = [0; N];
    number.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    number
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(number(bytes))
}

fn queue_entries(bytes: &[u8]) {
    let command: Command = read(bytes);
    assert_eq!(Command::from_words(command.to_words()), command);
    assert_eq!(command.dptr.as_sgl().to_words(), [command.dptr.prp1(), command.dptr.prp2()]);
    let mut other = command;
    other.set_cdw10_11(command.cdw10_11());
    assert_eq!(other, command);
    assert!((4..=1 << 34).contains(&admin::log_page_bytes(&command)));
    let completion: Completion = read(bytes);
    assert_eq!(Completion::from_words(completion.to_words()), completion);
    assert_eq!(Completion::phase_of_word1(completion.to_words()[1]), completion.status.phase());
    assert_eq!(completion.result() as u32, completion.dw0);
    let descriptor: SglDescriptor = read(bytes);
    assert_eq!(SglDescriptor::from_words(descriptor.to_words()), descriptor);
    assert_eq!(DataPointer::sgl(descriptor).as_sgl(), descriptor);
    let (length, key) = descriptor.keyed();
    assert_eq!(SglDescriptor::keyed_data_block(descriptor.address, length, key).keyed(), (length, key));
}

fn statuses(bytes: &[u8]) {
    let field = StatusField::from_bits(u16::from_le_bytes(number(bytes)));
    let status = field.status();
    assert_eq!(field.with_status(status), field);
    assert_eq!(Status::new(status.sct(), status.sc()), status);
    assert_eq!(status.is_success(), field.is_success());
    assert_eq!(status.name().is_some(), status.meaning().is_some());
    assert_eq!(status.name().is_some(), Status::known().any(|known| known == status));
    assert!(!status.to_string().is_empty() && !status.type_name().is_empty());
}

fn registers(bytes: &[u8]) {
    let bits = u64_of(bytes);
    let (cap, low, qid) = (Cap::from_bits(bits), bits as u32, (bits >> 40) as u16);
    assert!(cap.min_page_size() >= 4096 && cap.max_page_size() <= 1 << 27);
    assert!((1..=65_536).contains(&cap.max_queue_entries()));
    assert!(cap.timeout_ms() <= 127_500);
    assert!(sq_tail_doorbell(qid, cap.dstrd()) < cq_head_doorbell(qid, cap.dstrd()));
    assert_eq!(cap.into_bits(), bits);
    assert!(Cc::from_bits(low).page_size() >= 4096);
    let event = AsyncEvent::from_bits(low);
    assert_eq!(AsyncEvent::of(event.kind(), event.log_page()).kind(), event.kind());
    let (csts, aqa, crto) = (Csts::from_bits(low), Aqa::from_bits(low), Crto::from_bits(low));
    let _ = format!("{cap:?} {csts:?} {aqa:?} {crto:?} {event:?} {} {:?}", Version::from_bits(low), Cc::from_bits(low));
}

fn controller(bytes: &[u8]) {
    let controller: IdentifyController = read(bytes);
    assert!(controller.power_states().len() <= 32);
    assert!((1..=256).contains(&controller.max_async_events()) && (1..=256).contains(&controller.error_log_entries()));
    for page_size in [4096, 1 << 27] {
        assert!(controller.max_transfer_bytes(page_size).is_none_or(|bytes| bytes >= 2 * page_size as u64));
    }
    for text in [controller.sn.as_str(), controller.mn.as_str(), controller.fr.as_str(), controller.subnqn.as_str()] {
        assert!(text.len() <= 256);
    }
    assert_eq!(u128::from_le_bytes(controller.tnvmcap.0), controller.tnvmcap.get());
    let _ = controller.tnvmcap.saturating_u64();
    read::<IdentifyControllerNvm>(bytes);
}

fn namespace(bytes: &[u8]) {
    let namespace: IdentifyNamespace = read(bytes);
    assert!((1..=64).contains(&namespace.lba_formats().len()));
    if let Some(format) = namespace.lba_format() {
        assert!(format.data_size().is_none_or(|size| (512..=1 << 63).contains(&size)));
    }
    let _ = (namespace.nsfeat.has_optimal_fields(), namespace.nsfeat.has_npdg(), namespace.nsfeat.has_npdgl());
    let nvm: IdentifyNamespaceNvm = read(bytes);
    for format in nvm.elbaf {
        assert!(format.pif().size().is_none_or(|size| size == 8 || size == 16));
    }
    read::<IdentifyNamespaceIndependent>(bytes);
}

fn descriptors(bytes: &[u8]) {
    // Each takes four bytes at least.
    assert!(Descriptors::new(bytes).count() <= bytes.len() / 4);
    for descriptor in Descriptors::new(bytes) {
        let _ = format!("{descriptor:?}");
    }
    let ids = NamespaceIds::parse(bytes);
    assert_eq!(NamespaceIds::parse(&ids.to_list()), ids);
}

fn lists(bytes: &[u8]) {
    let namespaces: NamespaceList = read(bytes);
    assert_eq!(namespaces.iter().count() == 1024, namespaces.is_full());
    let again: NamespaceList = namespaces.iter().collect();
    assert!(again.iter().eq(namespaces.iter()) && again.is_overflow() == namespaces.is_overflow());
    let controllers: ControllerList = read(bytes);
    let again: ControllerList = controllers.iter().collect();
    assert!(again.iter().eq(controllers.iter()) && usize::from(again.count) == controllers.iter().count());
    assert!(read::<CommandSetCombinations>(bytes).iter().all(|sets| sets != 0));
}

fn logs(bytes: &[u8]) {
    let _ = read::<HealthLog>(bytes).temperature();
    read::<ErrorEntry>(bytes);
    read::<FirmwareSlots>(bytes);
    read::<ReservationNotification>(bytes);
    let (effects, pages) = (read::<CommandEffects>(bytes), read::<SupportedLogPages>(bytes));
    for code in 0..=u8::MAX {
        let _ = (effects.of_admin(AdminOpcode(code)), effects.of_io(NvmOpcode(code)), pages.supports(LogId(code)));
    }
    let (len, offset) = (u64_of(bytes), u64_of(bytes.get(8..).unwrap_or_default()));
    let command = admin::get_log_page(LogId(bytes.first().copied().unwrap_or_default()), 1, len, offset);
    let asked = admin::log_page_bytes(&command);
    assert!(asked >= len.min(1 << 34) && asked <= len.clamp(4, 1 << 34) + 3);
}

fn features(bytes: &[u8]) {
    read::<HostBehavior>(bytes);
    assert!(read::<Timestamp>(bytes).millis() < 1 << 48);
    let low = u64_of(bytes) as u32;
    assert!(NumberOfQueues::from(low).pairs() <= 65_536);
    let _ = format!("{:?} {:?}", NumberOfQueues::from(low), AsyncEventConfiguration::from(low));
}

fn reservations(bytes: &[u8]) {
    let header: ReportHeader = read(bytes);
    for extended in [false, true] {
        assert!(header.report_len(extended) <= 64 * 65_536);
    }
    let registrant: RegisteredController = read(bytes);
    let wide = registrant.widen();
    assert_eq!((wide.cntlid, wide.rcsts, wide.rkey), (registrant.cntlid, registrant.rcsts, registrant.rkey));
    read::<RegisteredControllerExtended>(bytes);
}

fn ranges(bytes: &[u8]) {
    let range: CopyRange = read(bytes);
    assert_eq!(CopyRange::new(range.slba, range.block_count()).nlb, range.nlb);
    read::<CopyRange64>(bytes);
    read::<DsmRange>(bytes);
    assert!((1..=65_536).contains(&ReadWriteCdw12::from(u64_of(bytes) as u32).block_count()));
}

fn codes(bytes: &[u8]) {
    for code in bytes.iter().copied() {
        let _ = (AdminOpcode(code).direction(), NvmOpcode(code).direction());
        let _ = (AdminOpcode(code).is_vendor_specific(), NvmOpcode(code).is_vendor_specific());
        let (log, feature, cns) = (LogId(code), FeatureId(code), cns::Cns(code));
        let _ = format!("{} {} {log} {feature} {cns}", AdminOpcode(code), NvmOpcode(code));
    }
}
