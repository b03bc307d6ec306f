//! The I/O commands other than Read and Write.

use doorbell_emulator::{AtomicUnits, ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::nvm::{CopyRange, DsmCdw11, DsmRange, ReadWriteCdw12};
use nvme_spec::{Cdw0, Command, DataPointer, NSID_ALL, NvmOpcode, Status};
use zerocopy::IntoBytes;

use crate::harness::{Host, blocks, bytes, host, io_command, memory_with, pattern};

const BLOCK: usize = 4096;

fn with(namespace: NamespaceConfig, config: ControllerConfig) -> Host {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(namespace).unwrap();
    Host::with_queue(&subsystem, config)
}

#[test]
fn unknown_commands_are_refused() {
    let mut host = host();
    for opcode in [0x03, 0x06, 0x12, 0x18, 0x1d, 0x79, 0x80, 0xff] {
        assert_eq!(host.io(&io_command(NvmOpcode(opcode))), Status::INVALID_COMMAND_OPCODE);
    }
}

#[test]
fn flush_of_one_and_of_all() {
    let mut ours = host();
    ours.io_ok(&io_command(NvmOpcode::FLUSH));
    ours.io_ok(&Command { nsid: NSID_ALL, ..io_command(NvmOpcode::FLUSH) });
    assert_eq!(ours.io(&Command { nsid: 2, ..io_command(NvmOpcode::FLUSH) }), Status::INVALID_FIELD_IN_COMMAND);
    let mut host = Host::new(ControllerConfig { flush_all: false, ..Default::default() });
    let all = Command { nsid: NSID_ALL, ..io_command(NvmOpcode::FLUSH) };
    assert_eq!(host.io(&all), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn compare_says_whether_it_is_the_same() {
    let mut host = host();
    let data = pattern(1, 40 * BLOCK);
    host.write(3, &data);
    assert_eq!(host.transfer(NvmOpcode::COMPARE, 3, data.clone()).0, Status::SUCCESS);
    let mut other = data;
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(host.transfer(NvmOpcode::COMPARE, 3, other).0, Status::COMPARE_FAILURE);
    assert_eq!(host.transfer(NvmOpcode::COMPARE, 1 << 40, vec![0; BLOCK]).0, Status::LBA_OUT_OF_RANGE);
}

/// Sends both halves under one doorbell, and gives their statuses.
fn pair(host: &mut Host, first: Command, second: Command) -> (Status, Status) {
    let cids = [host.cid(), host.cid()];
    let ring = host.ring(1);
    for (command, cid) in [first, second].into_iter().zip(cids) {
        ring.push(&Command { cdw0: command.cdw0.with_cid(cid), ..command });
    }
    ring.ring();
    host.step();
    let completions = cids.map(|cid| {
        let completion = host.ring(1).pop().unwrap();
        assert_eq!(completion.cid, cid);
        completion.status.status()
    });
    (completions[0], completions[1])
}

fn fused(command: Command, fuse: u8) -> Command {
    Command { cdw0: command.cdw0.with_fuse(fuse), ..command }
}

#[test]
fn compare_and_write_is_all_or_nothing() {
    let mut host = host();
    let (old, new) = (pattern(1, BLOCK), pattern(2, BLOCK));
    host.write(5, &old);
    let compare = memory_with(&host, old.as_slice());
    let write = memory_with(&host, new.as_slice());
    let halves = |count| {
        let first = Command { dptr: DataPointer::prp(compare.iova(), 0), ..blocks(NvmOpcode::COMPARE, 5, count) };
        let second = Command { dptr: DataPointer::prp(write.iova(), 0), ..blocks(NvmOpcode::WRITE, 5, count) };
        (fused(first, Cdw0::FUSE_FIRST), fused(second, Cdw0::FUSE_SECOND))
    };
    let (first, second) = halves(1);
    assert_eq!(pair(&mut host, first, second), (Status::SUCCESS, Status::SUCCESS));
    assert_eq!(host.read(5, BLOCK).unwrap(), new);
    // It is no longer what it was.
    let failed = (Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED);
    assert_eq!(pair(&mut host, first, second), failed);
    // Other ranges, other namespaces, other commands, too long.
    let refused = (Status::INVALID_FIELD_IN_COMMAND, Status::ABORTED_FAILED_FUSED);
    let elsewhere = Command { cdw10: 6, ..second };
    assert_eq!(pair(&mut host, first, elsewhere), refused);
    assert_eq!(pair(&mut host, first, Command { nsid: 2, ..second }), refused);
    let reads = fused(blocks(NvmOpcode::READ, 5, 1), Cdw0::FUSE_SECOND);
    assert_eq!(pair(&mut host, first, reads), refused);
    let (first, second) = halves(129);
    let exceeded = (Status::ATOMIC_WRITE_UNIT_EXCEEDED, Status::ABORTED_FAILED_FUSED);
    assert_eq!(pair(&mut host, first, second), exceeded);
}

#[test]
fn half_a_pair_is_no_pair() {
    let mut host = host();
    let flush = io_command(NvmOpcode::FLUSH);
    let first = fused(flush, Cdw0::FUSE_FIRST);
    let second = fused(flush, Cdw0::FUSE_SECOND);
    assert_eq!(host.io(&first), Status::ABORTED_MISSING_FUSED);
    assert_eq!(host.io(&second), Status::ABORTED_MISSING_FUSED);
    assert_eq!(pair(&mut host, first, flush), (Status::ABORTED_MISSING_FUSED, Status::SUCCESS));
    assert_eq!(pair(&mut host, first, first), (Status::ABORTED_MISSING_FUSED, Status::ABORTED_MISSING_FUSED));
}

#[test]
fn the_namespaces_own_atomic_unit_counts() {
    // 0's based: two blocks. 0 would say that the controller's own unit counts.
    let atomic = Some(AtomicUnits { nawun: 0, nawupf: 0, nacwu: 1 });
    let namespace = NamespaceConfig { atomic, ..NamespaceConfig::ram(1 << 20).block_size(4096) };
    let mut host = with(namespace, ControllerConfig::default());
    let first = fused(blocks(NvmOpcode::COMPARE, 0, 3), Cdw0::FUSE_FIRST);
    let second = fused(blocks(NvmOpcode::WRITE, 0, 3), Cdw0::FUSE_SECOND);
    assert_eq!(pair(&mut host, first, second).0, Status::ATOMIC_WRITE_UNIT_EXCEEDED);
}

#[test]
fn write_zeroes_and_its_limit() {
    let mut host = Host::new(ControllerConfig { wzsl: 2, ..Default::default() });
    host.write(0, &pattern(1, 8 * BLOCK));
    for (lba, deac) in [(1, false), (4, true)] {
        let mut command = blocks(NvmOpcode::WRITE_ZEROES, lba, 2);
        command.cdw12 = ReadWriteCdw12::from(command.cdw12).with_deac(deac).into_bits();
        host.io_ok(&command);
    }
    let mut expected = pattern(1, 8 * BLOCK);
    expected[BLOCK..3 * BLOCK].fill(0);
    expected[4 * BLOCK..6 * BLOCK].fill(0);
    assert!(host.read(0, 8 * BLOCK).unwrap() == expected);
    host.io_ok(&blocks(NvmOpcode::WRITE_ZEROES, 0, 4));
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_ZEROES, 0, 5)), Status::INVALID_FIELD_IN_COMMAND);
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_ZEROES, 16_383, 2)), Status::LBA_OUT_OF_RANGE);
}

#[test]
fn uncorrectable_until_written() {
    let mut host = Host::new(ControllerConfig { wusl: 3, vsl: 3, ..Default::default() });
    let data = pattern(3, 8 * BLOCK);
    host.write(0, &data);
    host.io_ok(&blocks(NvmOpcode::WRITE_UNCORRECTABLE, 2, 3));
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_UNCORRECTABLE, 0, 9)), Status::INVALID_FIELD_IN_COMMAND);
    let failed = Status::UNRECOVERED_READ_ERROR;
    assert!(host.read(0, 2 * BLOCK).unwrap() == data[..2 * BLOCK]);
    assert_eq!(host.read(1, 2 * BLOCK).unwrap_err(), failed);
    assert_eq!(host.transfer(NvmOpcode::COMPARE, 4, vec![0; BLOCK]).0, failed);
    assert_eq!(host.io(&blocks(NvmOpcode::VERIFY, 0, 8)), failed);
    assert_eq!(host.io(&blocks(NvmOpcode::VERIFY, 0, 9)), Status::INVALID_FIELD_IN_COMMAND);
    host.write(3, &data[..BLOCK]);
    assert_eq!(host.read(3, BLOCK).unwrap(), data[..BLOCK]);
    assert_eq!(host.read(2, BLOCK).unwrap_err(), failed);
    host.io_ok(&blocks(NvmOpcode::WRITE_ZEROES, 2, 3));
    host.io_ok(&blocks(NvmOpcode::VERIFY, 0, 8));
}

fn dsm(host: &mut Host, ranges: &[DsmRange], deallocate: bool) -> Status {
    let list = memory_with(host, ranges);
    host.io(&Command {
        cdw10: ranges.len() as u32 - 1,
        cdw11: DsmCdw11::new().with_ad(deallocate).into_bits(),
        dptr: DataPointer::prp(list.iova(), 0),
        ..io_command(NvmOpcode::DSM)
    })
}

#[test]
fn deallocated_blocks_read_as_zero() {
    let mut host = host();
    let data = pattern(4, 16 * BLOCK);
    host.write(0, &data);
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 16)], false), Status::SUCCESS);
    assert!(host.read(0, 16 * BLOCK).unwrap() == data);
    let ranges = [DsmRange::new(1, 2), DsmRange::new(5, 0), DsmRange::new(10, 4)];
    assert_eq!(dsm(&mut host, &ranges, true), Status::SUCCESS);
    let mut expected = data;
    expected[BLOCK..3 * BLOCK].fill(0);
    expected[10 * BLOCK..14 * BLOCK].fill(0);
    assert!(host.read(0, 16 * BLOCK).unwrap() == expected);
    let many: Vec<DsmRange> = (0..256).map(|index| DsmRange::new(index, 1)).collect();
    assert_eq!(dsm(&mut host, &many, true), Status::SUCCESS);
    assert!(host.read(0, 16 * BLOCK).unwrap().iter().all(|byte| *byte == 0));
    // One range outside, and none of them is done.
    host.write(0, &expected);
    let outside = [DsmRange::new(0, 1), DsmRange::new(16_384, 1)];
    assert_eq!(dsm(&mut host, &outside, true), Status::LBA_OUT_OF_RANGE);
    assert!(host.read(0, 16 * BLOCK).unwrap() == expected);
}

#[test]
fn range_limits() {
    let mut host = Host::new(ControllerConfig { dmrl: 2, dmrsl: 8, dmsl: 12, ..Default::default() });
    let exceeded = Status::COMMAND_SIZE_LIMIT_EXCEEDED;
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 8), DsmRange::new(8, 4)], true), Status::SUCCESS);
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 9)], true), exceeded);
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 8), DsmRange::new(8, 5)], true), exceeded);
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 1); 3], true), exceeded);
}

fn copy(host: &mut Host, to: u64, ranges: &[CopyRange]) -> Status {
    let list = memory_with(host, ranges);
    let mut command = Command {
        cdw12: ranges.len() as u32 - 1,
        dptr: DataPointer::prp(list.iova(), 0),
        ..io_command(NvmOpcode::COPY)
    };
    command.set_cdw10_11(to);
    host.io(&command)
}

#[test]
fn copies_ranges_one_after_the_other() {
    let mut host = host();
    let data = pattern(6, 200 * BLOCK);
    host.write(100, &data);
    let ranges = [CopyRange::new(110, 100), CopyRange::new(100, 3)];
    assert_eq!(copy(&mut host, 1000, &ranges), Status::SUCCESS);
    let expected = [&data[10 * BLOCK..110 * BLOCK], &data[..3 * BLOCK]].concat();
    assert!(host.read(1000, 103 * BLOCK).unwrap() == expected);
    assert_eq!(copy(&mut host, 16_380, &ranges), Status::LBA_OUT_OF_RANGE);
    assert_eq!(copy(&mut host, 0, &[CopyRange::new(16_380, 5)]), Status::LBA_OUT_OF_RANGE);
    host.io_ok(&blocks(NvmOpcode::WRITE_UNCORRECTABLE, 100, 1));
    assert_eq!(copy(&mut host, 0, &ranges), Status::UNRECOVERED_READ_ERROR);
    let list = memory_with(&host, ranges.as_slice());
    let unknown_format =
        Command { cdw12: 1 << 8, dptr: DataPointer::prp(list.iova(), 0), ..io_command(NvmOpcode::COPY) };
    assert_eq!(host.io(&unknown_format), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn copy_limits() {
    let namespace = NamespaceConfig { mssrl: 4, mcl: 6, msrc: 1, ..NamespaceConfig::ram(1 << 20).block_size(4096) };
    let mut host = with(namespace, ControllerConfig::default());
    let exceeded = Status::COMMAND_SIZE_LIMIT_EXCEEDED;
    assert_eq!(copy(&mut host, 100, &[CopyRange::new(0, 4), CopyRange::new(8, 2)]), Status::SUCCESS);
    assert_eq!(copy(&mut host, 100, &[CopyRange::new(0, 5)]), exceeded);
    assert_eq!(copy(&mut host, 100, &[CopyRange::new(0, 4), CopyRange::new(8, 3)]), exceeded);
    assert_eq!(copy(&mut host, 100, &[CopyRange::new(0, 1); 3]), exceeded);
}

#[test]
fn a_read_only_namespace_refuses_what_writes() {
    let namespace = NamespaceConfig { read_only: true, ..NamespaceConfig::ram(1 << 20).block_size(4096) };
    let mut host = with(namespace, ControllerConfig::default());
    let refused = Status::NAMESPACE_IS_WRITE_PROTECTED;
    assert_eq!(host.write(0, &[1; BLOCK]), refused);
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_ZEROES, 0, 1)), refused);
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_UNCORRECTABLE, 0, 1)), refused);
    assert_eq!(dsm(&mut host, &[DsmRange::new(0, 1)], true), refused);
    assert_eq!(copy(&mut host, 0, &[CopyRange::new(8, 1)]), refused);
    assert_eq!(host.read(0, BLOCK).unwrap(), vec![0; BLOCK]);
    let page = host.identify(0, 1).unwrap();
    assert_eq!(page[99], 1);
}

#[test]
fn data_can_be_a_single_buffer_at_an_odd_dword() {
    let mut host = host();
    let buffer = host.allocate(3 * 4096);
    buffer.host().write_at(20, pattern(9, 8192).as_bytes()).unwrap();
    let (dptr, _lists) = host.prp(&buffer, 20, 8192);
    host.io_ok(&Command { dptr, ..blocks(NvmOpcode::WRITE, 0, 2) });
    buffer.host().zero(0, 12_288).unwrap();
    host.io_ok(&Command { dptr, ..blocks(NvmOpcode::READ, 0, 2) });
    assert!(bytes(&buffer, 12_288)[20..][..8192] == pattern(9, 8192));
}
