//! SGLs: every descriptor, and every way to get one wrong.

use doorbell_device::DmaMemory;
use doorbell_emulator::{ControllerConfig, SglSupport};
use nvme_spec::sgl::SglDescriptor;
use nvme_spec::{Cdw0, Command, DataPointer, NvmOpcode, Status};

use crate::harness::{Host, blocks, bytes, host, pattern};

fn sgl(command: Command, descriptor: SglDescriptor) -> Command {
    Command { cdw0: command.cdw0.with_psdt(Cdw0::PSDT_SGL), dptr: DataPointer::sgl(descriptor), ..command }
}

fn list(host: &Host, descriptors: &[SglDescriptor]) -> DmaMemory {
    let memory = host.allocate(descriptors.len().max(1) * 16);
    memory.host().write_at(0, zerocopy::IntoBytes::as_bytes(descriptors)).unwrap();
    memory
}

const READ: NvmOpcode = NvmOpcode::READ;

#[test]
fn one_block_says_it_all() {
    let mut host = host();
    let data = pattern(1, 8192);
    let buffer = host.allocate(3 * 4096);
    buffer.host().write_at(3, &data).unwrap();
    let block = SglDescriptor::data_block(buffer.iova() + 3, 8192);
    host.io_ok(&sgl(blocks(NvmOpcode::WRITE, 4, 2), block));
    assert!(host.read(4, 8192).unwrap() == data);
    buffer.host().zero(0, 3 * 4096).unwrap();
    host.io_ok(&sgl(blocks(READ, 4, 2), block));
    assert!(bytes(&buffer, 3 * 4096)[3..][..8192] == data);
}

#[test]
fn segments_lead_on_and_buckets_swallow() {
    let mut host = host();
    let data = pattern(2, 4 * 4096);
    host.write(0, &data);
    let buffer = host.allocate(4 * 4096);
    let at = buffer.iova();
    let last = list(&host, &[SglDescriptor::bit_bucket(4096), SglDescriptor::data_block(at + 100, 5000)]);
    let middle = list(
        &host,
        &[
            SglDescriptor::data_block(at + 8000, 1000),
            SglDescriptor::data_block(at, 0),
            SglDescriptor::last_segment(last.iova(), 32),
        ],
    );
    let first = list(
        &host,
        &[
            SglDescriptor::bit_bucket(1000),
            SglDescriptor::data_block(at + 10_000, 5288),
            SglDescriptor::segment(middle.iova(), 48),
        ],
    );
    host.io_ok(&sgl(blocks(READ, 0, 4), SglDescriptor::segment(first.iova(), 48)));
    let got = bytes(&buffer, 4 * 4096);
    assert!(got[10_000..15_288] == data[1000..6288]);
    assert!(got[8000..9000] == data[6288..7288]);
    assert!(got[100..5100] == data[11_384..16_384]);
    assert!(got[..100].iter().all(|byte| *byte == 0));
}

#[test]
fn buckets_are_nothing_in_a_write() {
    let mut host = host();
    let data = pattern(2, 4096);
    let buffer = host.allocate(4096);
    buffer.host().write_at(0, &data).unwrap();
    let segment = list(&host, &[SglDescriptor::bit_bucket(77), SglDescriptor::data_block(buffer.iova(), 4096)]);
    host.io_ok(&sgl(blocks(NvmOpcode::WRITE, 0, 1), SglDescriptor::last_segment(segment.iova(), 32)));
    assert!(host.read(0, 4096).unwrap() == data);
}

#[test]
fn every_mistake_has_its_status() {
    let mut host = host();
    let buffer = host.allocate(8192);
    let at = buffer.iova();
    let data = SglDescriptor::data_block(at, 4096);
    let half = SglDescriptor::data_block(at, 2048);
    let good = list(&host, &[half, half]);
    let try_one = |host: &mut Host, descriptor| host.io(&sgl(blocks(READ, 0, 1), descriptor));
    assert_eq!(try_one(&mut host, data), Status::SUCCESS);
    assert_eq!(try_one(&mut host, half), Status::DATA_SGL_LENGTH_INVALID);
    assert_eq!(try_one(&mut host, SglDescriptor::data_block(at, 8192)), Status::SUCCESS);
    let unsupported = Status::SGL_DESCRIPTOR_TYPE_INVALID;
    assert_eq!(try_one(&mut host, SglDescriptor::data_block_at_offset(0, 4096)), unsupported);
    assert_eq!(try_one(&mut host, SglDescriptor::keyed_data_block(at, 4096, 1)), unsupported);
    assert_eq!(try_one(&mut host, SglDescriptor::transport_data_block(4096)), unsupported);
    assert_eq!(try_one(&mut host, SglDescriptor::data_block(0x1000, 4096)), Status::DATA_TRANSFER_ERROR);
    let wrong_segment = Status::INVALID_SGL_SEGMENT_DESCRIPTOR;
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(good.iova(), 32)), Status::SUCCESS);
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(good.iova(), 16)), Status::DATA_SGL_LENGTH_INVALID);
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(good.iova(), 0)), wrong_segment);
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(good.iova(), 40)), wrong_segment);
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(good.iova() + 4, 32)), wrong_segment);
    assert_eq!(try_one(&mut host, SglDescriptor::last_segment(0x1000, 32)), Status::DATA_TRANSFER_ERROR);
    // A segment that is not the last one has to lead on, and only at its end; the last one must not.
    let on = SglDescriptor::last_segment(good.iova(), 32);
    let quarter = SglDescriptor::data_block(at, 1024);
    for (segment, descriptors, status) in [
        (true, vec![quarter, quarter], wrong_segment),
        (true, vec![on, quarter], Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS),
        (true, vec![quarter, on], Status::SUCCESS),
        (false, vec![quarter, on], wrong_segment),
    ] {
        let memory = list(&host, &descriptors);
        let make = if segment { SglDescriptor::segment } else { SglDescriptor::last_segment };
        assert_eq!(try_one(&mut host, make(memory.iova(), 32)), status);
    }
}

#[test]
fn a_list_in_a_circle_ends() {
    let mut host = host();
    let memory = host.allocate(4096);
    let again = SglDescriptor::segment(memory.iova(), 16);
    memory.host().write_at(0, zerocopy::IntoBytes::as_bytes(&again)).unwrap();
    assert_eq!(host.io(&sgl(blocks(READ, 0, 1), again)), Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS);
    let huge = SglDescriptor::last_segment(memory.iova(), !15);
    assert_eq!(host.io(&sgl(blocks(READ, 0, 1), huge)), Status::INVALID_NUMBER_OF_SGL_DESCRIPTORS);
}

#[test]
fn support_can_be_limited() {
    let mut ours = Host::new(ControllerConfig { sgl: SglSupport::Dwords, ..Default::default() });
    let buffer = ours.allocate(8192);
    let at = buffer.iova();
    let mut try_one = |descriptor| ours.io(&sgl(blocks(READ, 0, 1), descriptor));
    assert_eq!(try_one(SglDescriptor::data_block(at + 4, 4096)), Status::SUCCESS);
    assert_eq!(try_one(SglDescriptor::data_block(at + 2, 4096)), Status::SGL_DATA_BLOCK_GRANULARITY_INVALID);
    assert_eq!(try_one(SglDescriptor::data_block(at, 8192)), Status::DATA_SGL_LENGTH_INVALID);
    assert_eq!(try_one(SglDescriptor::bit_bucket(4096)), Status::SGL_DESCRIPTOR_TYPE_INVALID);
    let mut host = Host::new(ControllerConfig { sgl: SglSupport::None, ..Default::default() });
    let block = SglDescriptor::data_block(host.allocate(4096).iova(), 4096);
    assert_eq!(host.io(&sgl(blocks(READ, 0, 1), block)), Status::INVALID_FIELD_IN_COMMAND);
    let reserved = Command { cdw0: blocks(READ, 0, 1).cdw0.with_psdt(3), ..blocks(READ, 0, 1) };
    assert_eq!(host.io(&reserved), Status::INVALID_FIELD_IN_COMMAND);
}
