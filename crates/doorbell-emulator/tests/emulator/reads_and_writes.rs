//! Data: PRPs of all shapes, ranges, limits.

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use nvme_spec::identify::IdentifyNamespace;
use nvme_spec::{Command, DataPointer, NvmOpcode, Status};

use crate::harness::{Host, blocks, bytes, host, pattern};

#[test]
fn what_was_written_is_read() {
    let mut host = host();
    for (lba, count) in [(0, 1), (7, 2), (100, 3), (1000, 64), (15_872, 512)] {
        let data = pattern(lba, count * 4096);
        assert_eq!(host.write(lba, &data), Status::SUCCESS);
        assert_eq!(host.read(lba, data.len()).unwrap(), data);
    }
    assert_eq!(host.read(50, 4096).unwrap(), vec![0; 4096]);
}

#[test]
fn ranges_end_with_the_namespace() {
    let mut host = host();
    let last = (64 << 20) / 4096 - 1;
    assert_eq!(host.read(last, 4096).unwrap().len(), 4096);
    assert_eq!(host.read(last, 8192).unwrap_err(), Status::LBA_OUT_OF_RANGE);
    assert_eq!(host.read(last + 1, 4096).unwrap_err(), Status::LBA_OUT_OF_RANGE);
    assert_eq!(host.read(u64::MAX, 4096).unwrap_err(), Status::LBA_OUT_OF_RANGE);
    assert_eq!(host.write(u64::MAX, &[0; 8192]), Status::LBA_OUT_OF_RANGE);
}

#[test]
fn more_than_mdts_is_refused() {
    let mut host = Host::new(ControllerConfig { mdts: 1, ..Default::default() });
    assert_eq!(host.write(0, &[0; 8192]), Status::SUCCESS);
    assert_eq!(host.write(0, &[0; 12_288]), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn misplaced_prps_are_refused() {
    let mut host = host();
    let buffer = host.allocate(1 << 16);
    let at = buffer.iova();
    let read = |host: &mut Host, count, prp1, prp2| {
        host.io(&Command { dptr: DataPointer::prp(prp1, prp2), ..blocks(NvmOpcode::READ, 0, count) })
    };
    assert_eq!(read(&mut host, 1, at + 1, 0), Status::PRP_OFFSET_INVALID);
    assert_eq!(read(&mut host, 1, at + 4, at + 4096), Status::SUCCESS);
    assert_eq!(read(&mut host, 2, at, at + 4096 + 8), Status::PRP_OFFSET_INVALID);
    assert_eq!(read(&mut host, 3, at, at + 4096 + 4), Status::PRP_OFFSET_INVALID);
    // A list whose entries are not at the start of a page.
    buffer.host().write_at(4096, &(at + 8).to_le_bytes()).unwrap();
    assert_eq!(read(&mut host, 3, at, at + 4096), Status::PRP_OFFSET_INVALID);
    assert_eq!(read(&mut host, 1, 0, 0), Status::DATA_TRANSFER_ERROR);
    assert_eq!(read(&mut host, 3, at, 0x10_0000), Status::DATA_TRANSFER_ERROR);
    // Nothing of a write that cannot be fetched in full is stored.
    let write = Command { dptr: DataPointer::prp(at, 0x10_0000), ..blocks(NvmOpcode::WRITE, 9, 2) };
    buffer.host().write_at(0, &[7; 4096]).unwrap();
    assert_eq!(host.io(&write), Status::DATA_TRANSFER_ERROR);
    assert_eq!(host.read(9, 4096).unwrap(), vec![0; 4096]);
}

#[test]
fn lists_begin_anywhere_and_chain() {
    let mut host = Host::new(ControllerConfig { mdts: 0, ..Default::default() });
    let count = 1500u64;
    let data = pattern(5, count as usize * 4096);
    let buffer = host.allocate((count as usize + 1) * 4096);
    let offset = 512;
    buffer.host().write_at(offset, &data).unwrap();
    let first = buffer.iova() + offset as u64;
    let pages: Vec<u64> = (1..=count).map(|page| buffer.iova() + page * 4096).collect();
    // The first list page is entered three entries before its end: two pages, then the way on.
    let (early, late) = pages.split_at(2);
    let lists = host.lists(late);
    let entry = host.allocate(4096);
    for (index, page) in early.iter().chain([&lists[0].iova()]).enumerate() {
        entry.host().write_at(4096 - 24 + index * 8, &page.to_le_bytes()).unwrap();
    }
    let dptr = DataPointer::prp(first, entry.iova() + 4096 - 24);
    host.io_ok(&Command { dptr, ..blocks(NvmOpcode::WRITE, 0, count as u32) });
    buffer.host().zero(0, buffer.len()).unwrap();
    host.io_ok(&Command { dptr, ..blocks(NvmOpcode::READ, 0, count as u32) });
    assert!(bytes(&buffer, buffer.len())[offset..][..data.len()] == data);
}

#[test]
fn large_pages_hold_more() {
    let mut host = Host::new(ControllerConfig { mpsmin: 4, mdts: 5, ..Default::default() });
    assert_eq!(host.page, 65_536);
    for count in [1, 15, 16, 17, 32, 33, 512] {
        let data = pattern(count, count as usize * 4096);
        assert_eq!(host.write(0, &data), Status::SUCCESS);
        assert!(host.read(0, data.len()).unwrap() == data);
    }
}

#[test]
fn storage_that_keeps_nothing() {
    let subsystem = Subsystem::default();
    let zero = subsystem.add_namespace(NamespaceConfig::zero(1 << 50)).unwrap();
    let null = subsystem.add_namespace(NamespaceConfig::null(1 << 50)).unwrap();
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let buffer = host.allocate(4096);
    for (nsid, read) in [(zero, 0), (null, 9)] {
        buffer.host().write_at(0, &[9; 4096]).unwrap();
        let to =
            |opcode, iova, count| Command { nsid, dptr: DataPointer::prp(iova, 0), ..blocks(opcode, 1 << 40, count) };
        host.io_ok(&to(NvmOpcode::WRITE, buffer.iova(), 8));
        host.io_ok(&to(NvmOpcode::READ, buffer.iova(), 1));
        let mut expected = vec![9; 4096];
        expected[..512].fill(read);
        assert_eq!(bytes(&buffer, 4096), expected);
        // Memory that is not there is missed, whether anything would be written to it or not.
        assert_eq!(host.io(&to(NvmOpcode::READ, 0x1000, 1)), Status::DATA_TRANSFER_ERROR);
        // What was written was forgotten.
        assert_eq!(host.io(&to(NvmOpcode::COMPARE, buffer.iova(), 8)), Status::COMPARE_FAILURE);
        let identify: IdentifyNamespace = host.identify_as(0, nsid);
        assert_eq!(identify.dlfeat.read_behavior(), if nsid == zero { 1 } else { 0 });
    }
}

#[test]
fn namespaces_that_are_not_there() {
    let mut host = host();
    let command = |nsid| Command { nsid, ..blocks(NvmOpcode::READ, 0, 1) };
    assert_eq!(host.io(&command(0)), Status::INVALID_NAMESPACE_OR_FORMAT);
    assert_eq!(host.io(&command(2)), Status::INVALID_FIELD_IN_COMMAND);
    assert_eq!(host.io(&command(4097)), Status::INVALID_NAMESPACE_OR_FORMAT);
    assert_eq!(host.io(&command(u32::MAX)), Status::INVALID_NAMESPACE_OR_FORMAT);
}
