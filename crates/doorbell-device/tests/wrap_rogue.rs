//! A controller that lies.

mod common;

use std::sync::Arc;

use common::{Driver, Pair};
use doorbell_device::Device;
use doorbell_device::wrap::{Rogue, RogueError, RogueQueue};
use doorbell_device::zero_work::{Options, ZeroWork};
use nvme_spec::registers::{Cc, offset};
use nvme_spec::{AdminOpcode, Cdw0, Command, Completion, Status, StatusField};

fn bring_up() -> (Arc<ZeroWork>, Arc<Rogue>, Driver) {
    let bottom = ZeroWork::new(Options { interrupts: 1, ..Options::default() }).unwrap();
    let device = Rogue::new(bottom.clone());
    (bottom, device.clone(), Driver::new(device))
}

fn submit(pair: &mut Pair, cid: u16) {
    pair.push(&Command { cdw0: Cdw0::new().with_opcode(2).with_cid(cid), nsid: 1, ..Command::default() });
    pair.ring();
}

#[test]
fn it_finds_the_queues() {
    let (_bottom, device, mut driver) = bring_up();
    let admin = RogueQueue { qid: 0, iova: driver.admin.cq.iova(), entries: 32, vector: Some(0) };
    assert_eq!(device.queues(), [admin]);
    // More than one time round the admin queue.
    for _ in 0..20 {
        let pair = driver.create_pair(3, 16);
        let queue = RogueQueue { qid: 3, iova: pair.cq.iova(), entries: 16, vector: None };
        assert_eq!(device.queues(), [admin, queue]);
        for opcode in [AdminOpcode::DELETE_IO_SQ, AdminOpcode::DELETE_IO_CQ] {
            driver.admin(opcode, Command { cdw10: 3, ..Command::default() });
        }
        assert_eq!(device.queues(), [admin]);
    }
    device.write32(offset::CC, Cc::new().into_bits()).unwrap();
    assert_eq!(device.queues(), []);
    // The halves of a 64-bit register may be written one by one.
    device.write32(offset::ACQ, 0x5000).unwrap();
    device.write32(offset::ACQ + 4, 1).unwrap();
    device.write32(offset::CC, Cc::new().with_en(true).into_bits()).unwrap();
    assert_eq!(device.queues()[0].iova, 0x1_0000_5000);
}

#[test]
fn a_lie_is_what_the_driver_sees_next() {
    let (bottom, device, mut driver) = bring_up();
    let mut pair = driver.create_pair(1, 4);
    let lie = Completion {
        cid: 0xbeef,
        sqid: 7,
        sqhd: 999,
        status: StatusField::new().with_status(Status::INTERNAL_ERROR),
        ..Completion::default()
    };
    // Each place of the queue, several times round, after as many honest completions.
    for round in 0..40 {
        for cid in 0..round % 3 {
            submit(&mut pair, cid);
            assert_eq!(bottom.complete(1, 1), 1);
            assert_eq!(pair.pop().unwrap().cid, cid);
        }
        let head = pair.head;
        assert_eq!(device.post(1, lie), Ok(head));
        let seen = pair.pop().unwrap();
        assert_eq!((seen.cid, seen.sqid, seen.sqhd), (0xbeef, 7, 999));
        assert_eq!(seen.status.status(), Status::INTERNAL_ERROR);
        // The device below knows nothing of it: its next completion goes to the same place. Step back with it.
        pair.head = head;
        pair.phase ^= head == 3;
        pair.cq_doorbell.ring(head);
        submit(&mut pair, 77);
        assert_eq!(bottom.complete(1, 1), 1);
        assert_eq!(pair.pop().unwrap().cid, 77);
    }
}

#[test]
fn what_was_posted_is_rewritten() {
    let (bottom, device, mut driver) = bring_up();
    let mut pair = driver.create_pair(1, 4);
    assert_eq!(device.posted(1, 0), Err(RogueError::NotPosted { qid: 1, back: 0 }));
    for round in 0..9u16 {
        for cid in [10, 11, 12] {
            submit(&mut pair, cid + round * 16);
        }
        assert_eq!(bottom.complete(1, 3), 3);
        assert_eq!(device.posted(1, 0).unwrap().cid, 12 + round * 16);
        device.rewrite(1, 1, |completion| completion.cid = 0x7777).unwrap();
        let seen = [(); 3].map(|()| pair.pop().unwrap().cid);
        assert_eq!(seen, [10 + round * 16, 0x7777, 12 + round * 16]);
        assert_eq!(pair.pop(), None);
    }
    assert!(device.posted(1, 3).is_ok());
    assert_eq!(device.posted(1, 4), Err(RogueError::NotPosted { qid: 1, back: 4 }));
    assert_eq!(device.posted(1, u32::MAX), Err(RogueError::NotPosted { qid: 1, back: u32::MAX }));
}

#[test]
fn bytes_with_the_wrong_phase_are_not_seen() {
    let (_bottom, device, mut driver) = bring_up();
    let mut pair = driver.create_pair(1, 4);
    let mut bytes = [0x55; 16];
    bytes[14] = 0;
    device.post_bytes(1, bytes).unwrap();
    assert_eq!(pair.pop(), None);
    bytes[14] = 1;
    device.post_bytes(1, bytes).unwrap();
    assert_eq!(pair.pop().unwrap().cid, 0x5555);
}

#[test]
fn a_lie_is_signalled() {
    let (_bottom, device, mut driver) = bring_up();
    let vector = device.interrupt(0).unwrap();
    vector.take();
    device.post(0, Completion { cid: 9, ..Completion::default() }).unwrap();
    assert_eq!((vector.take(), driver.admin.pop().unwrap().cid), (1, 9));
}

#[test]
fn memory_that_is_unmapped_is_not_written() {
    let (_bottom, device, mut driver) = bring_up();
    let pair = driver.create_pair(1, 4);
    let weak = pair.cq.host().clone();
    drop(pair);
    assert_eq!(device.post(1, Completion { cid: 1, ..Completion::default() }), Err(RogueError::NotMapped { qid: 1 }));
    assert!(weak.words()[..8].iter().all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0));
    assert_eq!(device.post(9, Completion::default()), Err(RogueError::NoSuchQueue { qid: 9 }));
}
