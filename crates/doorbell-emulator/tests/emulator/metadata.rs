//! Metadata and protection information.

use doorbell_device::DmaMemory;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SharedRamBackend, Storage, Subsystem};
use nvme_spec::identify::{IdentifyNamespace, PiType};
use nvme_spec::nvm::{CopyRange, PrInfo, ReadWriteCdw12};
use nvme_spec::{Command, DataPointer, NvmOpcode, Status};

use crate::harness::{Host, blocks, bytes, io_command, memory_with, pattern};
use crate::saved::replace;

const BLOCK: usize = 512;

fn protected(kind: PiType, inline: bool) -> Host {
    let subsystem = Subsystem::default();
    let namespace = NamespaceConfig { inline_metadata: inline, ..NamespaceConfig::ram(1 << 20).protection(kind) };
    subsystem.add_namespace(namespace).unwrap();
    Host::with_queue(&subsystem, ControllerConfig::default())
}

const CHECK_ALL: PrInfo = PrInfo::from_bits(0b0111);

fn prinfo(command: Command, prinfo: PrInfo, reference: u32) -> Command {
    let cdw12 = ReadWriteCdw12::from(command.cdw12).with_prinfo(prinfo.into_bits());
    // Application tag ABCDh, all bits of it checked.
    Command { cdw12: cdw12.into_bits(), cdw14: reference, cdw15: 0xffff_abcd, ..command }
}

/// Protection information as the host makes it.
fn pi(data: &[u8], application: u16, reference: u32) -> [u8; 8] {
    let mut crc = 0u16;
    for byte in data {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 };
        }
    }
    let mut pi = [0; 8];
    pi[..2].copy_from_slice(&crc.to_be_bytes());
    pi[2..4].copy_from_slice(&application.to_be_bytes());
    pi[4..].copy_from_slice(&reference.to_be_bytes());
    pi
}

struct Buffers {
    data: DmaMemory,
    metadata: DmaMemory,
}

impl Buffers {
    fn new(host: &Host, data: &[u8], metadata: &[u8]) -> Self {
        Self { data: memory_with(host, data), metadata: memory_with(host, metadata) }
    }

    fn on(&self, command: Command) -> Command {
        Command { dptr: DataPointer::prp(self.data.iova(), 0), mptr: self.metadata.iova(), ..command }
    }
}

#[test]
fn the_format_says_so() {
    let mut host = protected(PiType::TYPE1, false);
    let page: IdentifyNamespace = host.identify_as(0, 1);
    assert_eq!(page.lba_format().unwrap().ms(), 8);
    assert_eq!((page.dps.pi_type(), page.flbas.metadata_inline()), (PiType::TYPE1, false));
}

#[test]
fn the_controller_makes_checks_and_strips_it() {
    let mut host = protected(PiType::TYPE1, false);
    let data = pattern(1, 4 * BLOCK);
    let buffers = Buffers::new(&host, &data, &[0; 32]);
    let pract = CHECK_ALL.with_pract(true);
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::WRITE, 9, 4)), pract, 9));
    buffers.data.host().zero(0, 4 * BLOCK).unwrap();
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 9, 4)), pract, 9));
    assert_eq!(bytes(&buffers.data, 4 * BLOCK), data);
    // Without PRACT the same comes with what the controller made.
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 9, 4)), CHECK_ALL, 9));
    let metadata = bytes(&buffers.metadata, 32);
    for (index, data) in data.chunks(BLOCK).enumerate() {
        assert_eq!(metadata[index * 8..][..8], pi(data, 0xabcd, 9 + index as u32));
    }
    // A wrong first tag is a wrong command; a wrong application tag is wrong data.
    let wrong = prinfo(buffers.on(blocks(NvmOpcode::READ, 9, 4)), pract, 8);
    assert_eq!(host.io(&wrong), Status::INVALID_PROTECTION_INFORMATION);
    let mut wrong = prinfo(buffers.on(blocks(NvmOpcode::READ, 9, 4)), pract, 9);
    wrong.cdw15 = 0xffff_abce;
    assert_eq!(host.io(&wrong), Status::END_TO_END_APPLICATION_TAG_CHECK_ERROR);
    wrong.cdw15 = 0xfff0_abce;
    host.io_ok(&wrong);
    host.io_ok(&prinfo(blocks(NvmOpcode::VERIFY, 9, 4), CHECK_ALL, 9));
}

#[test]
fn unwritten_blocks_are_not_checked() {
    let mut host = protected(PiType::TYPE1, false);
    let buffers = Buffers::new(&host, &[1; BLOCK], &[0; 8]);
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 5, 1)), CHECK_ALL, 5));
    assert_eq!(bytes(&buffers.metadata, 8), [0xff; 8]);
    assert_eq!(bytes(&buffers.data, BLOCK), [0; BLOCK]);
}

#[test]
fn wrong_information_is_not_stored() {
    for inline in [false, true] {
        let mut host = protected(PiType::TYPE1, inline);
        let data = pattern(2, BLOCK);
        for (information, status) in [
            (pi(&data, 0xabcd, 7), Status::SUCCESS),
            (pi(&[1; BLOCK], 0xabcd, 7), Status::END_TO_END_GUARD_CHECK_ERROR),
            (pi(&data, 0xabcc, 7), Status::END_TO_END_APPLICATION_TAG_CHECK_ERROR),
            (pi(&data, 0xabcd, 8), Status::END_TO_END_REFERENCE_TAG_CHECK_ERROR),
        ] {
            let mut wire = data.clone();
            if inline {
                wire.extend_from_slice(&information);
            }
            let buffers = Buffers::new(&host, &wire, &information);
            let command = prinfo(buffers.on(blocks(NvmOpcode::WRITE, 7, 1)), CHECK_ALL, 7);
            assert_eq!(host.io(&command), status);
            let unchecked = prinfo(buffers.on(blocks(NvmOpcode::COMPARE, 7, 1)), PrInfo::new(), 7);
            let compared = if status.is_success() { Status::SUCCESS } else { Status::COMPARE_FAILURE };
            assert_eq!(host.io(&unchecked), compared);
        }
    }
}

#[test]
fn type_3_has_no_reference_to_check() {
    let mut host = protected(PiType::TYPE3, false);
    let data = pattern(2, BLOCK);
    let buffers = Buffers::new(&host, &data, &pi(&data, 0xabcd, 12_345));
    let command = buffers.on(blocks(NvmOpcode::WRITE, 7, 1));
    let check = PrInfo::new().with_check_guard(true).with_check_application(true);
    host.io_ok(&prinfo(command, check, 7));
    assert_eq!(host.io(&prinfo(command, CHECK_ALL, 7)), Status::INVALID_PROTECTION_INFORMATION);
}

#[test]
fn type_2_counts_from_where_the_host_says() {
    let mut host = protected(PiType::TYPE2, false);
    let buffers = Buffers::new(&host, &pattern(2, 2 * BLOCK), &[0; 16]);
    let pract = CHECK_ALL.with_pract(true);
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::WRITE, 7, 2)), pract, 1000));
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 8, 1)), pract, 1001));
    let wrong = prinfo(buffers.on(blocks(NvmOpcode::READ, 8, 1)), pract, 1000);
    assert_eq!(host.io(&wrong), Status::END_TO_END_REFERENCE_TAG_CHECK_ERROR);
}

#[test]
fn zeroes_and_copies_have_information_too() {
    let mut host = protected(PiType::TYPE1, false);
    let pract = CHECK_ALL.with_pract(true);
    host.io_ok(&prinfo(blocks(NvmOpcode::WRITE_ZEROES, 4, 2), pract, 4));
    let buffers = Buffers::new(&host, &[1; 2 * BLOCK], &[0; 16]);
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 4, 2)), CHECK_ALL, 4));
    let zeroes = [0; BLOCK];
    assert_eq!(bytes(&buffers.metadata, 16), [pi(&zeroes, 0xabcd, 4), pi(&zeroes, 0xabcd, 5)].concat());

    let data = pattern(3, 2 * BLOCK);
    let source = Buffers::new(&host, &data, &[0; 16]);
    host.io_ok(&prinfo(source.on(blocks(NvmOpcode::WRITE, 10, 2)), pract, 10));
    let range = CopyRange { eilbrt: 10, elbat: 0xabcd, elbatm: 0xffff, ..CopyRange::new(10, 2) };
    let list = memory_with(&host, &range);
    let mut copy = Command {
        cdw12: 0b1111 << 12 | 0b1111 << 26,
        cdw14: 20,
        cdw15: 0xffff_abcd,
        dptr: DataPointer::prp(list.iova(), 0),
        ..io_command(NvmOpcode::COPY)
    };
    copy.set_cdw10_11(20);
    host.io_ok(&copy);
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::READ, 20, 2)), CHECK_ALL, 20));
    assert_eq!(bytes(&buffers.data, 2 * BLOCK), data);
    copy.cdw12 = 0b1111 << 12 | 0b0111 << 26;
    assert_eq!(host.io(&copy), Status::INVALID_FIELD_IN_COMMAND);
}

#[test]
fn metadata_without_protection_is_the_hosts() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20).with_format(512, 8)).unwrap();
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let buffers = Buffers::new(&host, &pattern(1, BLOCK), b"whatever");
    host.io_ok(&prinfo(buffers.on(blocks(NvmOpcode::WRITE, 1, 1)), CHECK_ALL, 99));
    buffers.metadata.host().zero(0, 8).unwrap();
    host.io_ok(&buffers.on(blocks(NvmOpcode::READ, 1, 1)));
    assert_eq!(bytes(&buffers.metadata, 8), b"whatever");
    let misplaced = Command { mptr: 2, ..buffers.on(blocks(NvmOpcode::READ, 1, 1)) };
    assert_eq!(host.io(&misplaced), Status::INVALID_FIELD_IN_COMMAND);
    let nowhere = Command { mptr: 0, ..buffers.on(blocks(NvmOpcode::READ, 1, 1)) };
    assert_eq!(host.io(&nowhere), Status::DATA_TRANSFER_ERROR);
}

#[test]
fn it_crosses_to_another_process() {
    let memory = || Storage::Custom(Box::new(SharedRamBackend::new(1 << 20).unwrap()));
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::new(memory()).with_format(512, 8)).unwrap();
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let buffers = Buffers::new(&host, &pattern(1, BLOCK), b"whatever");
    host.io_ok(&buffers.on(blocks(NvmOpcode::WRITE, 2047, 1)));
    replace(&mut host);
    let mut read = |lba| {
        host.io_ok(&buffers.on(blocks(NvmOpcode::READ, lba, 1)));
        (bytes(&buffers.data, BLOCK), bytes(&buffers.metadata, 8))
    };
    assert_eq!(read(2047), (pattern(1, BLOCK), b"whatever".to_vec()));
    assert_eq!(read(7), (vec![0; BLOCK], vec![0xff; 8]), "what was never written");
}
