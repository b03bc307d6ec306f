//! A file by io_uring.

use std::fs::File;
use std::os::unix::fs::FileExt;

use doorbell_device::inprocess::Run;
use doorbell_device::{Device, DmaMemory};
use doorbell_emulator::{
    CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, Patch, RingBackend, Storage, Subsystem,
};
use nvme_spec::admin::FormatNvmCdw10;
use nvme_spec::identify::PiType;
use nvme_spec::nvm::{CopyRange, DsmCdw11, DsmRange};
use nvme_spec::{AdminOpcode, Command, Completion, DataPointer, NvmOpcode, Status};

use crate::harness::{Host, blocks, bytes, io_command, memory_with, pattern};

const BLOCKS: u64 = 1024;

/// A host with a file for a namespace; none where the system does not let us, as in many containers.
fn ring(run: Run) -> Option<(Host, File)> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(BLOCKS * 4096).unwrap();
    let backend = match RingBackend::new(file.try_clone().unwrap()) {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => return None,
        other => other.unwrap(),
    };
    let storage = Storage::Custom(Box::new(backend));
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::new(storage).block_size(4096)).unwrap();
    let mut host = Host::run_as(&subsystem, ControllerConfig::default(), run);
    host.enable();
    host.create_queue_pair(1, 128);
    Some((host, file))
}

/// The next completion of the I/O queue.
fn next(host: &mut Host) -> Completion {
    loop {
        host.step();
        if let Some(completion) = host.ring(1).pop() {
            return completion;
        }
        std::thread::yield_now();
    }
}

fn run(host: &mut Host, command: &Command) -> Status {
    let cid = host.submit(1, command);
    let completion = next(host);
    assert_eq!(completion.cid, cid);
    completion.status.status()
}

fn transfer(host: &Host, opcode: NvmOpcode, lba: u64, memory: &DmaMemory) -> (Command, Vec<DmaMemory>) {
    let (dptr, lists) = host.prp(memory, 0, memory.len() as u64);
    (Command { dptr, ..blocks(opcode, lba, (memory.len() / 4096) as u32) }, lists)
}

fn write(host: &mut Host, lba: u64, data: &[u8], fua: bool) {
    let memory = memory_with(host, data);
    let (mut command, _lists) = transfer(host, NvmOpcode::WRITE, lba, &memory);
    command.cdw12 |= u32::from(fua) << 30;
    assert_eq!(run(host, &command), Status::SUCCESS);
}

fn read(host: &mut Host, lba: u64, count: usize) -> Vec<u8> {
    let memory = host.allocate(count * 4096);
    let (command, _lists) = transfer(host, NvmOpcode::READ, lba, &memory);
    assert_eq!(run(host, &command), Status::SUCCESS);
    bytes(&memory, count * 4096)
}

#[test]
fn what_is_written_is_in_the_file_and_read_again() {
    let Some((mut host, file)) = ring(Run::Stepped) else { return };
    for (index, count) in [1usize, 2, 3, 64, 512].into_iter().enumerate() {
        let data = pattern(index as u64 + 1, count * 4096);
        write(&mut host, 7, &data, index % 2 == 0);
        let mut there = vec![0; data.len()];
        file.read_exact_at(&mut there, 7 * 4096).unwrap();
        assert!(there == data && read(&mut host, 7, count) == data, "{count} blocks");
    }
    assert_eq!(run(&mut host, &io_command(NvmOpcode::FLUSH)), Status::SUCCESS);
}

#[test]
fn other_commands_do_what_they_say() {
    let Some((mut host, _file)) = ring(Run::Stepped) else { return };
    let data = pattern(9, 4 * 4096);
    write(&mut host, 10, &data, false);
    let memory = memory_with(&host, &data[..]);
    let (compare, _lists) = transfer(&host, NvmOpcode::COMPARE, 10, &memory);
    assert_eq!(run(&mut host, &compare), Status::SUCCESS);
    let (differs, _lists) = transfer(&host, NvmOpcode::COMPARE, 11, &memory);
    assert_eq!(run(&mut host, &differs), Status::COMPARE_FAILURE);
    assert_eq!(run(&mut host, &blocks(NvmOpcode::VERIFY, 10, 4)), Status::SUCCESS);
    assert_eq!(run(&mut host, &blocks(NvmOpcode::WRITE_ZEROES, 10, 1)), Status::SUCCESS);
    let ranges = memory_with(&host, &[DsmRange::new(12, 1), DsmRange::new(900, 1)][..]);
    let deallocate = Command {
        cdw10: 1,
        cdw11: DsmCdw11::new().with_ad(true).into(),
        dptr: DataPointer::prp(ranges.iova(), 0),
        ..io_command(NvmOpcode::DSM)
    };
    assert_eq!(run(&mut host, &deallocate), Status::SUCCESS);
    let mut expected = data.clone();
    expected[..4096].fill(0);
    expected[2 * 4096..3 * 4096].fill(0);
    assert_eq!(read(&mut host, 10, 4), expected);
    let sources = memory_with(&host, &[CopyRange::new(11, 1), CopyRange::new(13, 1)][..]);
    let mut copy = Command { dptr: DataPointer::prp(sources.iova(), 0), cdw12: 1, ..io_command(NvmOpcode::COPY) };
    copy.set_cdw10_11(500);
    assert_eq!(run(&mut host, &copy), Status::SUCCESS);
    assert_eq!(read(&mut host, 500, 2), [&data[4096..8192], &data[3 * 4096..]].concat());
}

#[test]
fn s4_blocks_marked_as_uncorrectable_are_so_until_they_are_written() {
    let Some((mut host, _file)) = ring(Run::Stepped) else { return };
    let memory = memory_with(&host, &pattern(5, 4096)[..]);
    let (read_one, _lists) = transfer(&host, NvmOpcode::READ, 21, &memory);
    let (compare, _lists) = transfer(&host, NvmOpcode::COMPARE, 21, &memory);
    let sources = memory_with(&host, &[CopyRange::new(20, 3)][..]);
    let copy_to = |lba| {
        let dptr = DataPointer::prp(sources.iova(), 0);
        let mut copy = Command { dptr, ..io_command(NvmOpcode::COPY) };
        copy.set_cdw10_11(lba);
        copy
    };
    let zeroed = memory_with(&host, &[DsmRange::new(19, 1), DsmRange::new(20, 4)][..]);
    let deallocate = Command {
        cdw10: 1,
        cdw11: DsmCdw11::new().with_ad(true).into(),
        dptr: DataPointer::prp(zeroed.iova(), 0),
        ..io_command(NvmOpcode::DSM)
    };
    let (write_one, _lists) = transfer(&host, NvmOpcode::WRITE, 21, &memory);
    let mut copy = copy_to(0);
    copy.set_cdw10_11(21);
    let elsewhere = memory_with(&host, &[CopyRange::new(500, 1)][..]);
    copy.dptr = DataPointer::prp(elsewhere.iova(), 0);
    for mends in [write_one, blocks(NvmOpcode::WRITE_ZEROES, 20, 2), deallocate, copy] {
        assert_eq!(run(&mut host, &blocks(NvmOpcode::WRITE_UNCORRECTABLE, 21, 1)), Status::SUCCESS);
        for reads in [read_one, compare, blocks(NvmOpcode::VERIFY, 20, 3), copy_to(600)] {
            assert_eq!(run(&mut host, &reads), Status::UNRECOVERED_READ_ERROR);
        }
        assert_eq!(run(&mut host, &mends), Status::SUCCESS);
        assert_eq!(run(&mut host, &blocks(NvmOpcode::VERIFY, 20, 3)), Status::SUCCESS);
    }
}

#[test]
fn a_fault_plan_spoils_its_data() {
    let Some((mut host, file)) = ring(Run::Stepped) else { return };
    let spoil = |opcode: NvmOpcode, offset| {
        let patch = Patch { offset, set: vec![], xor: vec![0xff] };
        FaultPlan::on(CommandMatch::io(opcode.0).times(1), Fault::CorruptData(patch))
    };
    let data = pattern(8, 8192);
    host.device.with_controller(|controller| controller.set_faults(spoil(NvmOpcode::WRITE, 5)));
    write(&mut host, 40, &data, true);
    let mut stored = data;
    stored[5] ^= 0xff;
    let mut there = vec![0; stored.len()];
    file.read_exact_at(&mut there, 40 * 4096).unwrap();
    assert!(there == stored && read(&mut host, 40, 2) == stored);
    host.device.with_controller(|controller| controller.set_faults(spoil(NvmOpcode::READ, 4096)));
    let mut expected = stored.clone();
    expected[4096] ^= 0xff;
    assert!(read(&mut host, 40, 2) == expected && read(&mut host, 40, 2) == stored);
}

fn format_to(host: &mut Host, lbaf: u8) -> Status {
    let format = FormatNvmCdw10::new().with_lbafl(lbaf).with_pi(PiType(u8::from(lbaf > 1)));
    let cid = host.submit(0, &Command { nsid: 1, cdw10: format.into(), ..AdminOpcode::FORMAT_NVM.command() });
    loop {
        host.step();
        if let Some(completion) = host.ring(0).pop() {
            assert_eq!(completion.cid, cid);
            return completion.status.status();
        }
    }
}

#[test]
fn a_format_with_protection_information_and_back() {
    let Some((mut host, _file)) = ring(Run::Stepped) else { return };
    let data = pattern(3, 4 * 4096);
    write(&mut host, 30, &data, false);
    assert_eq!(format_to(&mut host, 3), Status::SUCCESS);
    // PRACT: the controller makes it, and finds it as it made it.
    let memory = memory_with(&host, &data[..]);
    let back = host.allocate(4 * 4096);
    let (mut empty, _lists) = transfer(&host, NvmOpcode::READ, 30, &back);
    empty.cdw12 |= 1 << 29;
    assert_eq!(run(&mut host, &empty), Status::SUCCESS);
    assert_eq!(bytes(&back, 4 * 4096), vec![0; 4 * 4096], "a format leaves nothing");
    for (opcode, memory) in [(NvmOpcode::WRITE, &memory), (NvmOpcode::READ, &back)] {
        let (mut command, _lists) = transfer(&host, opcode, 30, memory);
        command.cdw12 |= 0xf << 26;
        command.cdw14 = 30;
        assert_eq!(run(&mut host, &command), Status::SUCCESS);
        command.cdw14 = 31;
        assert_eq!(run(&mut host, &command), Status::INVALID_PROTECTION_INFORMATION);
    }
    assert_eq!(bytes(&back, 4 * 4096), data);
    assert_eq!(format_to(&mut host, 1), Status::SUCCESS);
    write(&mut host, 30, &data, false);
    assert_eq!(read(&mut host, 29, 4), [&[0; 4096], &data[..3 * 4096]].concat());
}

#[test]
fn s4_commands_that_touch_are_whole() {
    let Some((mut host, _file)) = ring(Run::Stepped) else { return };
    const COUNT: usize = 16;
    let memory: Vec<_> = (0..8u8).map(|seed| memory_with(&host, &vec![seed; COUNT * 4096][..])).collect();
    let results: Vec<_> = (0..8).map(|_| host.allocate(COUNT * 4096)).collect();
    let mut lists = Vec::new();
    for _ in 0..20 {
        for (from, to) in memory.iter().zip(&results) {
            for (opcode, data) in [(NvmOpcode::WRITE, from), (NvmOpcode::READ, to)] {
                let (command, list) = transfer(&host, opcode, 3, data);
                host.submit(1, &command);
                lists.extend(list);
            }
        }
        for _ in 0..16 {
            assert!(next(&mut host).status.is_success());
        }
        for result in &results {
            let data = bytes(result, COUNT * 4096);
            assert!(data.iter().all(|byte| *byte == data[0]), "a read saw half of a write");
        }
    }
}

#[test]
fn the_kernel_wakes_a_controller_that_sleeps() {
    let Some((mut host, _file)) = ring(Run::Threaded) else { return };
    for lba in 0..50 {
        let data = pattern(lba + 1, 4096);
        write(&mut host, lba, &data, true);
        assert_eq!(read(&mut host, lba, 1), data);
    }
    host.device.reset().unwrap();
}
