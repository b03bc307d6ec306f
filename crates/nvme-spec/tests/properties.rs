//! Properties of whatever bytes a device may send: everything survives a round trip, and nothing panics.

use nvme_spec::event::AsyncEvent;
use nvme_spec::identify::{Descriptors, IdentifyController, IdentifyNamespace, NamespaceIds};
use nvme_spec::nvm::{CopyRange, ReadWriteCdw12};
use nvme_spec::registers::{Cap, Cc, cq_head_doorbell, sq_tail_doorbell};
use nvme_spec::reservation::ReportHeader;
use nvme_spec::sgl::SglDescriptor;
use nvme_spec::{Command, Completion, DataPointer, Status, StatusField, admin, log::LogId};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

fn page() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 4096)
}

proptest! {
    #[test]
    fn commands_and_completions_are_their_words(sqe: [u64; 8], cqe: [u64; 2]) {
        let command = Command::from_words(sqe);
        prop_assert_eq!(command.as_bytes(), sqe.as_bytes());
        prop_assert_eq!(command.to_words(), sqe);
        let completion = Completion::from_words(cqe);
        prop_assert_eq!(completion.as_bytes(), cqe.as_bytes());
        prop_assert_eq!(completion.to_words(), cqe);
        prop_assert_eq!(Completion::phase_of_word1(cqe[1]), completion.status.phase());
        prop_assert_eq!(completion.status.is_success(), completion.status.status().is_success());
        prop_assert_eq!(DataPointer(cqe).as_sgl().to_words(), cqe);
    }

    #[test]
    fn keyed_blocks_keep_what_fits(address: u64, length in 0..1u32 << 24, key: u32) {
        let descriptor = SglDescriptor::keyed_data_block(address, length, key);
        prop_assert_eq!(descriptor.keyed(), (length, key));
        prop_assert_eq!(SglDescriptor::from_words(descriptor.to_words()), descriptor);
    }

    #[test]
    fn statuses_keep_type_and_code(bits: u16) {
        let field = StatusField::from_bits(bits);
        let status = field.status();
        prop_assert_eq!((status.sct(), status.sc()), (field.sct(), field.sc()));
        prop_assert_eq!(field.with_status(status), field);
        prop_assert_eq!(Status::new(status.sct(), status.sc()), status);
        prop_assert_eq!(status.name().is_some(), status.meaning().is_some());
        prop_assert!(!status.to_string().is_empty());
    }

    #[test]
    fn descriptor_lists_of_any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        // Each descriptor takes four bytes at least.
        prop_assert!(Descriptors::new(&bytes).count() <= bytes.len() / 4);
        let _ = NamespaceIds::parse(&bytes);
    }

    #[test]
    fn identifiers_survive_their_list(
        eui64: Option<[u8; 8]>, nguid: Option<[u8; 16]>, uuid: Option<[u8; 16]>, csi: Option<u8>,
    ) {
        let ids = NamespaceIds {
            eui64: eui64.filter(|id| *id != [0; 8]),
            nguid: nguid.filter(|id| *id != [0; 16]),
            uuid: uuid.filter(|id| *id != [0; 16]),
            csi,
        };
        prop_assert_eq!(NamespaceIds::parse(&ids.to_list()), ids);
    }

    #[test]
    fn identify_data_of_any_bytes(bytes in page()) {
        let controller = IdentifyController::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(controller.as_bytes(), &bytes[..]);
        prop_assert!(controller.power_states().len() <= 32);
        let _ = (controller.max_transfer_bytes(4096), controller.sn.as_str(), controller.subnqn.as_str());
        let _ = format!("{controller:?}");
        let namespace = IdentifyNamespace::read_from_bytes(&bytes).unwrap();
        prop_assert_eq!(namespace.as_bytes(), &bytes[..]);
        prop_assert!((1..=64).contains(&namespace.lba_formats().len()));
        if let Some(format) = namespace.lba_format() {
            prop_assert!(format.data_size().is_none_or(|size| size >= 512));
        }
        let _ = format!("{namespace:?}");
    }

    #[test]
    fn registers_of_any_bits(cap: u64, cc: u32, event: u32, qid: u16, header: [u8; 24]) {
        let cap = Cap::from_bits(cap);
        prop_assert!(cap.min_page_size() >= 4096 && cap.max_page_size() <= 1 << 27);
        prop_assert!((1..=65_536).contains(&cap.max_queue_entries()));
        prop_assert!(sq_tail_doorbell(qid, cap.dstrd()) < cq_head_doorbell(qid, cap.dstrd()));
        prop_assert_eq!(Cc::from_bits(cc).into_bits(), cc);
        let event = AsyncEvent::from_bits(event);
        prop_assert_eq!(AsyncEvent::of(event.kind(), event.log_page()).kind(), event.kind());
        let header = ReportHeader::read_from_bytes(&header).unwrap();
        prop_assert!(header.report_len(true) <= 64 * 65_536);
    }

    #[test]
    fn counts_are_zeroes_based(blocks in 1..=65_536u32, entries in 2..=65_536u32, bytes in 1..=1u64 << 34) {
        let range = CopyRange::new(0, blocks);
        prop_assert_eq!(range.block_count(), blocks);
        prop_assert_eq!(ReadWriteCdw12::new().with_nlb(range.nlb).block_count(), blocks);
        prop_assert_eq!(admin::create_io_cq(1, entries, 0, None).cdw10 >> 16, entries - 1);
        let asked = admin::log_page_bytes(&admin::get_log_page(LogId::ERROR, 0, bytes, 0));
        prop_assert!(asked >= bytes && asked < bytes + 4);
    }
}
