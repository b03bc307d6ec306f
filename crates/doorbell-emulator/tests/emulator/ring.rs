//! A file by io_uring.

use std::fs::File;
use std::os::unix::fs::FileExt;

use doorbell_device::inprocess::Run;
use doorbell_device::{Device, DmaMemory};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, RingBackend, Storage, Subsystem};
use nvme_spec::admin::FormatNvmCdw10;
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
    // What there is not.
    assert_eq!(run(&mut host, &blocks(NvmOpcode::WRITE_UNCORRECTABLE, 0, 1)), Status::INVALID_COMMAND_OPCODE);
    let format = FormatNvmCdw10::new().with_lbafl(0);
    host.admin_fails(
        &Command { nsid: 1, cdw10: format.into(), ..AdminOpcode::FORMAT_NVM.command() },
        Status::INVALID_FORMAT,
    );
}

#[test]
fn commands_that_touch_are_whole() {
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
