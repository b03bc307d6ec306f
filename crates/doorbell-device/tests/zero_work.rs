//! The zero-work device, driven as a driver would.

mod common;

use common::Driver;
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_device::{Device, DeviceError};
use nvme_spec::identify::{IdentifyController, IdentifyNamespace};
use nvme_spec::registers::{Cap, Cc, Csts, offset};
use nvme_spec::{AdminOpcode, Cdw0, Command, Status};
use std::sync::Arc;
use zerocopy::FromBytes;

fn bring_up(options: Options) -> (Arc<ZeroWork>, Driver) {
    let device = ZeroWork::new(options).unwrap();
    (device.clone(), Driver::new(device))
}

fn identify(driver: &mut Driver, cns: u32, nsid: u32) -> (Status, Vec<u8>) {
    let command = Command { nsid, cdw10: cns, ..Command::default() };
    let (completion, data) = driver.admin_read(AdminOpcode::IDENTIFY, command);
    (completion.status.status(), data)
}

fn read_command(cid: u16) -> Command {
    Command { cdw0: Cdw0::new().with_opcode(2).with_cid(cid), nsid: 1, ..Command::default() }
}

fn status(device: &ZeroWork) -> Csts {
    Csts::from_bits(device.read32(offset::CSTS).unwrap())
}

#[test]
fn it_is_identified() {
    let (device, mut driver) = bring_up(Options { block_shift: 9, block_count: 1000, ..Options::default() });
    let cap = Cap::from_bits(device.read64(offset::CAP).unwrap());
    assert_eq!((cap.max_queue_entries(), cap.min_page_size()), (4096, 4096));
    assert_eq!(device.interrupt_count(), 0);

    let (_, data) = identify(&mut driver, 1, 0);
    let controller = IdentifyController::read_from_bytes(&data).unwrap();
    assert_eq!((controller.nn, controller.mn.as_str()), (1, "Doorbell zero-work device"));
    assert_eq!(controller.max_transfer_bytes(4096), Some(2 << 20));

    let (_, data) = identify(&mut driver, 0, 1);
    let namespace = IdentifyNamespace::read_from_bytes(&data).unwrap();
    assert_eq!((namespace.nsze, namespace.lba_format().unwrap().data_size()), (1000, Some(512)));

    let (_, data) = identify(&mut driver, 2, 0);
    assert_eq!(data[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(&mut driver, 2, 1).1, [0; 4096]);
    assert_eq!(identify(&mut driver, 3, 1).1[..2], [1, 8]);
    for (cns, nsid) in [(5, 1), (6, 0), (7, 0), (8, 1)] {
        assert_eq!(identify(&mut driver, cns, nsid).0, Status::SUCCESS, "CNS {cns}");
    }
    assert_eq!(identify(&mut driver, 0, 2).0, Status::INVALID_NAMESPACE_OR_FORMAT);
    assert_eq!(identify(&mut driver, 0x55, 1).0, Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn admin_commands_are_answered_and_event_requests_held() {
    let (_device, mut driver) = bring_up(Options::default());
    let queues = Command { cdw10: 7, cdw11: 0x00ff_00ff, ..Command::default() };
    assert_eq!(driver.admin(AdminOpcode::SET_FEATURES, queues).dw0, 63 | 63 << 16);
    let temperature = Command { cdw10: 4, ..Command::default() };
    let refused = driver.admin(AdminOpcode::SET_FEATURES, temperature).status.status();
    assert_eq!(refused, Status::INVALID_FIELD_IN_COMMAND);

    driver.send(AdminOpcode::ASYNC_EVENT_REQUEST, Command::default());
    assert_eq!(driver.admin.pop(), None);
    // 512 bytes of SMART data.
    let log = Command { nsid: u32::MAX, cdw10: 2 | 127 << 16, ..Command::default() };
    assert!(driver.admin_read(AdminOpcode::GET_LOG_PAGE, log).0.status.is_success());
    let too_long = Command { cdw10: 2 | 1024 << 16, ..Command::default() };
    assert!(!driver.admin_read(AdminOpcode::GET_LOG_PAGE, too_long).0.status.is_success());
    // More than one time round the queue.
    for _ in 0..100 {
        assert!(driver.admin(AdminOpcode::ABORT, Command::default()).status.is_success());
    }
}

#[test]
fn commands_complete_when_told_and_not_before() {
    let (device, mut driver) = bring_up(Options::default());
    assert_eq!(device.complete(1, 1), 0);
    let mut pair = driver.create_pair(1, 8);
    let queue = device.queue(1).unwrap();
    let mut cid = 0;
    for round in 0..50 {
        let count = 1 + round % 7;
        for n in 0..count {
            pair.push(&read_command(cid + n));
        }
        assert_eq!(queue.complete(usize::MAX), 0, "the doorbell has not rung");
        pair.ring();
        assert_eq!(pair.pop(), None);
        assert_eq!(queue.pending(), usize::from(count));
        assert_eq!(queue.complete(1), 1);
        assert_eq!(device.complete(1, usize::MAX), usize::from(count) - 1);
        for n in 0..count {
            let completion = pair.pop().unwrap();
            assert_eq!((completion.cid, completion.sqid), (cid + n, 1));
            assert!(completion.status.is_success());
        }
        assert_eq!(pair.pop(), None);
        cid += count;
    }
}

#[test]
fn a_full_completion_queue_is_not_overrun() {
    let (device, mut driver) = bring_up(Options::default());
    let mut pair = driver.create_pair(1, 4);
    for cid in 0..3 {
        pair.push(&read_command(cid));
    }
    pair.ring();
    assert_eq!(device.complete(1, usize::MAX), 3);
    for cid in 3..6 {
        pair.push(&read_command(cid));
    }
    pair.ring();
    assert_eq!(device.complete(1, usize::MAX), 0);
    assert_eq!(pair.pop().unwrap().cid, 0);
    assert_eq!(device.complete(1, usize::MAX), 1);
    assert_eq!(pair.pop().unwrap().cid, 1);
    assert!(!status(&device).cfs());
}

#[test]
fn a_doorbell_past_its_queue_is_fatal() {
    let (device, mut driver) = bring_up(Options::default());
    let pair = driver.create_pair(1, 4);
    pair.sq_doorbell.ring(4);
    assert_eq!(device.complete(1, 1), 0);
    assert!(status(&device).cfs());
}

#[test]
fn queues_come_and_go() {
    let (device, mut driver) = bring_up(Options { queues: 2, ..Options::default() });
    let mut pair = driver.create_pair(2, 4096);
    let queue = device.queue(2).unwrap();
    let of = |qid: u32| Command { cdw10: qid, ..Command::default() };
    let in_use = driver.admin(AdminOpcode::DELETE_IO_CQ, of(2)).status.status();
    assert_eq!(in_use, Status::INVALID_QUEUE_DELETION);
    assert!(driver.admin(AdminOpcode::DELETE_IO_SQ, of(2)).status.is_success());
    assert!(driver.admin(AdminOpcode::DELETE_IO_CQ, of(2)).status.is_success());
    pair.push(&read_command(1));
    pair.ring();
    assert_eq!((queue.complete(1), device.complete(2, 1)), (0, 0));
    assert!(device.queue(2).is_none());

    let mut pair = driver.create_pair(2, 16);
    pair.push(&read_command(1));
    pair.ring();
    assert_eq!(device.complete(2, 9), 1);
    let qid_3 = Command { cdw10: 3 | 7 << 16, cdw11: 1, ..Command::default() };
    let refused = driver.admin(AdminOpcode::CREATE_IO_CQ, qid_3).status.status();
    assert_eq!(refused, Status::INVALID_QUEUE_IDENTIFIER);
    let too_large = Command { cdw10: 1 | 4096 << 16, cdw11: 1, ..Command::default() };
    let refused = driver.admin(AdminOpcode::CREATE_IO_CQ, too_large).status.status();
    assert_eq!(refused, Status::INVALID_QUEUE_SIZE);
}

#[test]
fn disabling_forgets_the_queues() {
    let (device, mut driver) = bring_up(Options::default());
    let mut pair = driver.create_pair(1, 8);
    let queue = device.queue(1).unwrap();
    pair.push(&read_command(1));
    pair.ring();
    device.write32(offset::CC, Cc::new().into_bits()).unwrap();
    assert!(!status(&device).rdy());
    assert_eq!(queue.complete(1), 0);
    assert!(device.queue(1).is_none());

    let mut driver = Driver::new(device.clone());
    driver.create_pair(1, 8);
    device.reset().unwrap();
    assert!(device.queue(1).is_none());
    assert_eq!(status(&device), Csts::new());
    Driver::new(device);
}

#[test]
fn an_interrupt_is_raised_where_asked_for() {
    let (device, mut driver) = bring_up(Options { interrupts: 2, ..Options::default() });
    let of_admin = device.interrupt(0).unwrap();
    assert!(of_admin.take() == 0);
    driver.admin(AdminOpcode::ABORT, Command::default());
    assert!(of_admin.take() == 1);
    assert!(matches!(device.interrupt(2), Err(DeviceError::BadVector { vector: 2, count: 2 })));
}

#[test]
fn memory_given_back_is_not_reached() {
    let device = ZeroWork::new(Options::default()).unwrap();
    let driver = Driver::new(device.clone());
    drop(driver);
    let faults = device.dma_space().fault_count();
    device.write32(offset::CC, 0).unwrap();
    device.write32(offset::CC, Cc::new().with_en(true).into_bits()).unwrap();
    assert!(status(&device).cfs());
    assert!(device.dma_space().fault_count() > faults);
}

#[test]
fn namespaces_are_told_apart() {
    let (_device, mut driver) = bring_up(Options { namespaces: 3, ..Options::default() });
    let (_, list) = identify(&mut driver, 2, 0);
    assert_eq!(list[..16], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(identify(&mut driver, 2, 2).1[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
    let identifiers: Vec<_> = (1..=3).map(|nsid| identify(&mut driver, 3, nsid).1).collect();
    assert!(identifiers[0] != identifiers[1] && identifiers[1] != identifiers[2]);
    assert_eq!(identify(&mut driver, 0, 4).0, Status::INVALID_NAMESPACE_OR_FORMAT);
}

#[test]
fn commands_are_completed_once_there_are_enough() {
    for enough in [1, 3] {
        let (device, mut driver) = bring_up(Options { completes_at: enough, ..Options::default() });
        assert_eq!(device.completes_inline(), enough == 1);
        let mut pair = driver.create_pair(1, 16);
        for cid in 0..enough as u16 {
            assert_eq!(pair.pop(), None, "{cid} of {enough}");
            pair.push(&read_command(cid));
            pair.ring();
        }
        for cid in 0..enough as u16 {
            assert_eq!(pair.pop().map(|completion| completion.cid), Some(cid));
        }
        assert_eq!(pair.pop(), None);
    }
}
