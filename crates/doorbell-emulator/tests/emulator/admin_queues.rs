//! Creating and deleting I/O queues, and what is refused.

use doorbell_emulator::ControllerConfig;
use nvme_spec::admin::{CreateCqCdw11, create_io_cq, create_io_sq};
use nvme_spec::{AdminOpcode, Command, NvmOpcode, Status};

use crate::harness::{Host, host, io_command};

fn delete(opcode: AdminOpcode, qid: u16) -> Command {
    Command { cdw10: qid.into(), ..opcode.command() }
}

#[test]
fn every_mistake_has_its_status() {
    let mut host = Host::new(ControllerConfig { queue_pairs: 4, mqes: 63, vectors: 2, ..Default::default() });
    let memory = host.allocate(1 << 16);
    let at = memory.iova();
    let invalid = Status::INVALID_QUEUE_IDENTIFIER;
    host.admin_fails(&create_io_cq(0, 8, at, None), invalid);
    host.admin_fails(&create_io_cq(1, 8, at, None), invalid);
    host.admin_fails(&create_io_cq(5, 8, at, None), invalid);
    host.admin_fails(&create_io_cq(2, 1, at, None), Status::INVALID_QUEUE_SIZE);
    host.admin_fails(&create_io_cq(2, 65, at, None), Status::INVALID_QUEUE_SIZE);
    host.admin_fails(&create_io_cq(2, 8, at, Some(2)), Status::INVALID_INTERRUPT_VECTOR);
    host.admin_fails(&create_io_cq(2, 8, at + 64, None), Status::PRP_OFFSET_INVALID);
    let scattered = Command { cdw11: CreateCqCdw11::new().into_bits(), ..create_io_cq(2, 8, at, None) };
    host.admin_fails(&scattered, Status::INVALID_FIELD_IN_COMMAND);
    host.admin_ok(&create_io_cq(2, 64, at, Some(1)));

    host.admin_fails(&create_io_sq(2, 8, at, 0), invalid);
    host.admin_fails(&create_io_sq(2, 8, at, 5), invalid);
    host.admin_fails(&create_io_sq(2, 8, at, 3), Status::COMPLETION_QUEUE_INVALID);
    host.admin_fails(&create_io_sq(1, 8, at, 2), invalid);
    host.admin_fails(&create_io_sq(5, 8, at, 2), invalid);
    host.admin_fails(&create_io_sq(0, 8, at, 2), invalid);
    host.admin_fails(&create_io_sq(2, 1, at, 2), Status::INVALID_QUEUE_SIZE);
    host.admin_fails(&create_io_sq(2, 65, at, 2), Status::INVALID_QUEUE_SIZE);
    host.admin_fails(&create_io_sq(2, 8, at + 8, 2), Status::PRP_OFFSET_INVALID);
    host.admin_ok(&create_io_sq(2, 8, at + 4096, 2));
    host.admin_ok(&create_io_sq(3, 8, at + 8192, 2));

    host.admin_fails(&delete(AdminOpcode::DELETE_IO_CQ, 2), Status::INVALID_QUEUE_DELETION);
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_CQ, 0), invalid);
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_CQ, 4), invalid);
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_SQ, 0), invalid);
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_SQ, 4), invalid);
    host.admin_ok(&delete(AdminOpcode::DELETE_IO_SQ, 2));
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_SQ, 2), invalid);
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_CQ, 2), Status::INVALID_QUEUE_DELETION);
    host.admin_ok(&delete(AdminOpcode::DELETE_IO_SQ, 3));
    host.admin_ok(&delete(AdminOpcode::DELETE_IO_CQ, 2));
    host.admin_fails(&delete(AdminOpcode::DELETE_IO_CQ, 2), invalid);
}

#[test]
fn wrong_entry_sizes_are_invalid_queue_sizes() {
    let mut host = host();
    let memory = host.allocate(4096);
    host.write_cc(host.cc().with_iosqes(7).with_iocqes(5));
    host.admin_fails(&create_io_cq(2, 8, memory.iova(), None), Status::INVALID_QUEUE_SIZE);
    host.admin_fails(&create_io_sq(2, 8, memory.iova(), 1), Status::INVALID_QUEUE_SIZE);
}

#[test]
fn a_queue_made_again_starts_from_zero() {
    let mut host = host();
    for _ in 0..3 {
        for _ in 0..300 {
            host.io_ok(&io_command(NvmOpcode::FLUSH));
        }
        host.admin_ok(&delete(AdminOpcode::DELETE_IO_SQ, 1));
        host.admin_ok(&delete(AdminOpcode::DELETE_IO_CQ, 1));
        host.io.clear();
        host.create_queue_pair(1, 16);
    }
}

#[test]
fn unknown_admin_commands_are_refused() {
    let mut host = host();
    for opcode in [0x03, 0x0d, 0x10, 0x18, 0x7f, 0x84, 0xc0, 0xff] {
        host.admin_fails(&AdminOpcode(opcode).command(), Status::INVALID_COMMAND_OPCODE);
    }
    let sgl = Command { cdw0: AdminOpcode::IDENTIFY.command().cdw0.with_psdt(1), ..AdminOpcode::IDENTIFY.command() };
    host.admin_fails(&sgl, Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn a_full_completion_queue_waits() {
    let mut host = host();
    let size = 256;
    // As many commands as there are places, then one more: its completion waits for the host.
    for _ in 0..size - 1 {
        host.submit(1, &io_command(NvmOpcode::FLUSH));
    }
    host.step();
    host.submit(1, &io_command(NvmOpcode::FLUSH));
    assert!(!host.step().worked);
    for _ in 0..size - 1 {
        assert!(host.ring(1).pop().is_some());
    }
    assert!(host.ring(1).peek().is_none());
    assert!(host.step().worked);
    assert!(host.ring(1).pop().is_some());
}

#[test]
fn queues_may_lie_in_several_mappings() {
    let mut host = host();
    let space = host.device.dma_space().clone();
    let half = |iova| {
        let memory = doorbell_device::HostMemory::allocate(4096).unwrap();
        space.insert(iova, memory.clone(), doorbell_device::Access::ReadWrite).unwrap();
        memory
    };
    // 128 commands of 64 bytes, and 512 completions of 16: two pages each, each page a mapping of its own.
    let (sq, cq) = (1 << 40, 1 << 41);
    let (commands, completions) = ([half(sq), half(sq + 4096)], [half(cq), half(cq + 4096)]);
    host.admin_ok(&create_io_cq(2, 512, cq, None));
    host.admin_ok(&create_io_sq(2, 128, sq, 2));
    let tail = doorbell_device::Device::doorbell(&*host.device, 0x1010).unwrap();
    let mut cid = 0u16;
    for round in 1..=4 {
        for slot in 0..100 {
            let command = io_command(NvmOpcode::FLUSH);
            let place = (usize::from(cid) + slot) % 128;
            let command = Command { cdw0: command.cdw0.with_cid(cid + slot as u16), ..command };
            let bytes = command.to_words().map(u64::to_le_bytes).concat();
            commands[place / 64].write_at(place % 64 * 64, &bytes).unwrap();
        }
        cid += 100;
        tail.ring(u32::from(cid) % 128);
        while host.step().worked {}
        let last = usize::from(cid) - 1;
        let word = completions[last / 256].words()[last % 256 * 2 + 1].load(std::sync::atomic::Ordering::Acquire);
        assert_eq!((word >> 32) as u16, cid - 1, "round {round}");
    }
}
