//! Storage that finishes commands later: when the test says so, in whatever order it likes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use doorbell_device::inprocess::{Run, SoftController};
use doorbell_device::{Device, HostMemory};
use doorbell_emulator::{
    Backend, BackendError, ControllerConfig, Data, Ended, Lane, NamespaceConfig, Operation, Storage, Subsystem, Ticket,
};
use nvme_spec::admin::{AbortCdw10, DeleteQueueCdw10, FormatNvmCdw10};
use nvme_spec::nvm::{DsmCdw11, DsmRange};
use nvme_spec::registers::{Cc, Csts};
use nvme_spec::{AdminOpcode, Cdw0, Command, Completion, DataPointer, NvmOpcode, Status, StatusField};

use crate::harness::{Host, blocks, bytes, io_command, memory_with, pattern};

/// Storage of 256 blocks of 4096 bytes.
const SIZE: u64 = 256 * 4096;

/// What the test and the storage share.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    bytes: Vec<u8>,
    /// It has nothing but bytes.
    plain: bool,
    /// What was taken and not ended, in order.
    taken: Vec<(Ticket, Taken)>,
    ended: Vec<Ended>,
    waker: Option<Waker>,
    lanes: usize,
    flushes: usize,
    forgotten: Vec<(u64, u64)>,
}

enum Taken {
    Read(u64, Vec<(HostMemory, usize, usize)>),
    Write(u64, Vec<u8>, bool),
    CompareAndWrite(u64, Vec<u8>, Vec<u8>),
    Zero(Vec<(u64, u64)>),
    Flush,
    Forget,
}

impl Slow {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn waiting(&self) -> usize {
        self.lock().taken.len()
    }

    /// Ends the operation at an index, with a status in place of its own if one is given.
    fn end(&self, index: usize, status: Option<StatusField>) {
        let waker = self.lock().end(index, status);
        waker.wake();
    }

    fn end_all(&self) {
        while self.waiting() > 0 {
            self.end(0, None);
        }
    }
}

impl Inner {
    fn end(&mut self, index: usize, status: Option<StatusField>) -> Waker {
        let (ticket, operation) = self.taken.remove(index);
        let status = status.unwrap_or_else(|| StatusField::new().with_status(self.carry_out(operation)));
        self.ended.push(Ended { ticket, status });
        self.waker.clone().unwrap()
    }

    fn carry_out(&mut self, operation: Taken) -> Status {
        let at = |offset: u64| offset as usize;
        match operation {
            Taken::Read(offset, pieces) => {
                let mut from = &self.bytes[at(offset)..];
                for (memory, offset, len) in pieces {
                    memory.write_at(offset, &from[..len]).unwrap();
                    from = &from[len..];
                }
            }
            Taken::Write(offset, bytes, _) => self.bytes[at(offset)..][..bytes.len()].copy_from_slice(&bytes),
            Taken::CompareAndWrite(offset, old, new) => {
                let place = &mut self.bytes[at(offset)..][..old.len()];
                if place != old {
                    return Status::COMPARE_FAILURE;
                }
                place.copy_from_slice(&new);
            }
            Taken::Zero(ranges) => {
                for (offset, len) in ranges {
                    self.bytes[at(offset)..][..len as usize].fill(0);
                }
            }
            Taken::Flush => self.flushes += 1,
            Taken::Forget => {}
        }
        Status::SUCCESS
    }
}

impl Backend for Slow {
    fn size(&self) -> u64 {
        self.lock().bytes.len() as u64
    }

    fn read_bytes(&self, _offset: u64, _to: &mut [u8]) -> Result<(), BackendError> {
        panic!("it has lanes")
    }

    fn write_bytes(&mut self, _offset: u64, _from: &[u8]) -> Result<(), BackendError> {
        panic!("it has lanes")
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        self.lock().bytes[offset as usize..][..len as usize].fill(0);
        Ok(())
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        self.lock().bytes.resize(size as usize, 0);
        Ok(())
    }

    fn finishes_later(&self) -> bool {
        true
    }

    fn is_plain(&self) -> bool {
        self.lock().plain
    }

    fn is_idle(&self) -> bool {
        self.lock().taken.is_empty()
    }

    fn lane(&self, waker: Waker) -> Option<Box<dyn Lane>> {
        let mut inner = self.lock();
        inner.waker = Some(waker);
        inner.lanes += 1;
        drop(inner);
        Some(Box::new(SlowLane(self.clone())))
    }
}

struct SlowLane(Slow);

impl Drop for SlowLane {
    fn drop(&mut self) {
        self.0.lock().lanes -= 1;
    }
}

impl Lane for SlowLane {
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status> {
        let places = |data: Data<'_>| -> Result<Vec<_>, Status> {
            let place = |piece: doorbell_emulator::Piece<'_>| {
                let part = piece.memory.unwrap();
                (part.host.clone(), part.offset, piece.len)
            };
            data.pieces().map(|piece| piece.map(place)).collect()
        };
        let taken = match operation {
            Operation::Read { offset, to, .. } => Taken::Read(offset, places(to)?),
            Operation::Write { offset, from, fua } => Taken::Write(offset, from.copy()?, fua),
            Operation::CompareAndWrite { offset, compare, write, .. } => {
                Taken::CompareAndWrite(offset, compare.copy()?, write.copy()?)
            }
            Operation::WriteZeroes { offset, len, .. } => Taken::Zero(vec![(offset, len)]),
            Operation::Deallocate { ranges } => Taken::Zero(ranges.to_vec()),
            Operation::Flush => Taken::Flush,
            _ => return Err(Status::INVALID_COMMAND_OPCODE),
        };
        self.0.lock().taken.push((ticket, taken));
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        ended.append(&mut self.0.lock().ended);
    }

    fn forget(&mut self, ticket: Ticket, iova: u64, len: u64) -> bool {
        let mut inner = self.0.lock();
        inner.forgotten.push((iova, len));
        inner.taken.push((ticket, Taken::Forget));
        false
    }
}

fn namespace(slow: &Slow) -> NamespaceConfig {
    NamespaceConfig::new(Storage::Custom(Box::new(slow.clone()))).block_size(4096)
}

/// A host whose namespace 1 is slow.
fn slow() -> (Host, Slow) {
    slow_with(ControllerConfig::default())
}

fn slow_with(config: ControllerConfig) -> (Host, Slow) {
    slow_as(config, false)
}

fn slow_as(config: ControllerConfig, plain: bool) -> (Host, Slow) {
    let slow = Slow::default();
    {
        let mut inner = slow.lock();
        (inner.bytes, inner.plain) = (vec![0; SIZE as usize], plain);
    }
    let subsystem = Subsystem::default();
    subsystem.add_namespace(namespace(&slow)).unwrap();
    (Host::with_queue(&subsystem, config), slow)
}

fn completions(host: &mut Host, qid: u16) -> Vec<Completion> {
    host.step();
    std::iter::from_fn(|| host.ring(qid).pop()).collect()
}

fn read_into(host: &Host, lba: u64, count: u32) -> (Command, doorbell_device::DmaMemory) {
    let buffer = host.allocate(count as usize * 4096);
    buffer.host().write_at(0, &vec![0xa5; count as usize * 4096]).unwrap();
    let (dptr, lists) = host.prp(&buffer, 0, u64::from(count) * 4096);
    assert!(lists.is_empty());
    (Command { dptr, ..blocks(NvmOpcode::READ, lba, count) }, buffer)
}

#[test]
fn s1_commands_end_when_storage_says_so_in_any_order() {
    let (mut host, slow) = slow();
    let data = pattern(1, 8192);
    slow.lock().bytes[4096..][..8192].copy_from_slice(&data);
    let (first, one) = read_into(&host, 1, 1);
    let (second, two) = read_into(&host, 2, 1);
    let (first, second) = (host.submit(1, &first), host.submit(1, &second));
    assert!(completions(&mut host, 1).is_empty());
    assert_eq!((slow.waiting(), bytes(&one, 4096)), (2, vec![0xa5; 4096]));
    slow.end(1, None);
    let ended = completions(&mut host, 1);
    assert_eq!(ended.iter().map(|c| (c.cid, c.status.is_success())).collect::<Vec<_>>(), [(second, true)]);
    assert_eq!((bytes(&two, 4096), bytes(&one, 4096)), (data[4096..].to_vec(), vec![0xa5; 4096]));
    slow.end(0, None);
    assert_eq!(completions(&mut host, 1)[0].cid, first);
    assert_eq!(bytes(&one, 4096), data[..4096]);
}

#[test]
fn s2_what_is_asked_of_storage_is_what_the_host_asked() {
    let (mut host, slow) = slow();
    let data = pattern(2, 4096);
    let memory = memory_with(&host, &data[..]);
    let mut write = Command { dptr: DataPointer::prp(memory.iova(), 0), ..blocks(NvmOpcode::WRITE, 3, 1) };
    write.cdw12 |= 1 << 30;
    host.submit(1, &write);
    host.step();
    assert!(
        matches!(&slow.lock().taken[0].1, Taken::Write(offset, bytes, true) if (*offset, bytes) == (3 * 4096, &data))
    );
    slow.end_all();
    assert!(completions(&mut host, 1)[0].status.is_success());
    assert_eq!(slow.lock().bytes[3 * 4096..][..4096], data);
    let ranges = memory_with(&host, &[DsmRange::new(3, 1), DsmRange::new(9, 2)][..]);
    let deallocate = Command {
        cdw10: 1,
        cdw11: DsmCdw11::new().with_ad(true).into(),
        dptr: DataPointer::prp(ranges.iova(), 0),
        ..io_command(NvmOpcode::DSM)
    };
    host.submit(1, &deallocate);
    host.submit(1, &io_command(NvmOpcode::FLUSH));
    host.submit(1, &Command { nsid: u32::MAX, ..io_command(NvmOpcode::FLUSH) });
    host.step();
    assert!(matches!(&slow.lock().taken[0].1, Taken::Zero(ranges) if ranges == &[(3 * 4096, 4096), (9 * 4096, 8192)]));
    slow.end_all();
    assert_eq!(completions(&mut host, 1).len(), 3);
    assert_eq!(slow.lock().bytes[3 * 4096..][..4096], [0; 4096]);
    assert_eq!(slow.lock().flushes, 2);
    // What lies outside, or storage cannot do, is refused at once.
    assert_eq!(host.io(&blocks(NvmOpcode::WRITE_ZEROES, 255, 2)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(host.io(&blocks(NvmOpcode::VERIFY, 0, 1)), Status::INVALID_COMMAND_OPCODE);
    assert_eq!(slow.waiting(), 0);
}

#[test]
fn s1_statuses_of_storage_are_those_of_commands() {
    let (mut host, slow) = slow();
    for (status, dnr) in [(Status::UNRECOVERED_READ_ERROR, true), (Status::NAMESPACE_NOT_READY, false)] {
        let (read, _buffer) = read_into(&host, 0, 1);
        host.submit(1, &read);
        host.step();
        slow.end(0, Some(StatusField::new().with_status(status).with_dnr(dnr)));
        let ended = completions(&mut host, 1)[0];
        assert_eq!((ended.status.status(), ended.status.dnr()), (status, dnr));
    }
}

#[test]
fn s1_a_fused_pair_is_one_operation() {
    let (mut host, slow) = slow();
    let (old, new) = (memory_with(&host, &[0u8; 4096][..]), memory_with(&host, &pattern(3, 4096)[..]));
    let half = |memory: &doorbell_device::DmaMemory, opcode, fuse| {
        let command = blocks(opcode, 7, 1);
        Command { cdw0: command.cdw0.with_fuse(fuse), dptr: DataPointer::prp(memory.iova(), 0), ..command }
    };
    let mut statuses = || {
        for command in
            [half(&old, NvmOpcode::COMPARE, Cdw0::FUSE_FIRST), half(&new, NvmOpcode::WRITE, Cdw0::FUSE_SECOND)]
        {
            let cid = host.cid();
            host.ring(1).push(&Command { cdw0: command.cdw0.with_cid(cid), ..command });
        }
        host.ring(1).ring();
        assert!(completions(&mut host, 1).is_empty());
        assert_eq!(slow.waiting(), 1);
        slow.end_all();
        completions(&mut host, 1).iter().map(|c| c.status.status()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(), [Status::SUCCESS, Status::SUCCESS]);
    assert_eq!(statuses(), [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED]);
    assert_eq!(slow.lock().bytes[7 * 4096..][..4096], pattern(3, 4096));
}

#[test]
fn s3_a_controller_is_not_disabled_before_storage_is_done() {
    let (mut host, slow) = slow();
    slow.lock().bytes.fill(0x77);
    let (read, buffer) = read_into(&host, 0, 2);
    host.submit(1, &read);
    host.step();
    host.write_cc(host.cc().with_en(false));
    host.step();
    assert!(host.csts().rdy(), "a read is under way");
    slow.end_all();
    host.step();
    assert!(!host.csts().rdy());
    assert_eq!(bytes(&buffer, 4096), [0x77; 4096], "it was written before the reset was reported");
    assert!(host.io[0].pop().is_none(), "nobody is told of a command of before");
    // As good as new.
    host.enable();
    host.create_queue_pair(1, 8);
    host.submit(1, &io_command(NvmOpcode::FLUSH));
    host.step();
    slow.end_all();
    assert!(completions(&mut host, 1)[0].status.is_success());
}

#[test]
fn s3_a_function_reset_waits_for_storage() {
    for run in [Run::Stepped, Run::Threaded] {
        let (mut host, slow) = slow_run(run);
        let (read, _buffer) = read_into(&host, 0, 1);
        host.submit(1, &read);
        wait_until(&host, || slow.waiting() == 1);
        let done = Arc::new(AtomicBool::new(false));
        let ending = std::thread::spawn({
            let (slow, done) = (slow.clone(), done.clone());
            move || {
                done.store(true, Ordering::SeqCst);
                slow.end_all();
            }
        });
        host.device.reset().unwrap();
        assert!(done.load(Ordering::SeqCst) && slow.waiting() == 0, "{run:?}");
        assert_eq!(host.csts(), Csts::new());
        ending.join().unwrap();
    }
}

/// As [`slow`], and run differently.
fn slow_run(run: Run) -> (Host, Slow) {
    let slow = Slow::default();
    slow.lock().bytes = vec![0; SIZE as usize];
    let subsystem = Subsystem::default();
    subsystem.add_namespace(namespace(&slow)).unwrap();
    let mut host = Host::run_as(&subsystem, ControllerConfig::default(), run);
    host.enable();
    host.create_queue_pair(1, 64);
    (host, slow)
}

fn wait_until(host: &Host, mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        host.step();
        std::thread::yield_now();
    }
}

#[test]
fn storage_wakes_a_controller_that_sleeps() {
    let (mut host, slow) = slow_run(Run::Threaded);
    for _ in 0..20 {
        let cid = host.submit(1, &io_command(NvmOpcode::FLUSH));
        while slow.waiting() == 0 {
            std::thread::yield_now();
        }
        // Long enough for its thread to sleep; if it does not yet, the more is tried.
        std::thread::sleep(std::time::Duration::from_millis(1));
        slow.end_all();
        let completion = std::iter::repeat_with(|| host.ring(1).pop()).flatten().next().unwrap();
        assert_eq!(completion.cid, cid);
    }
}

#[test]
fn s3_a_queue_is_deleted_after_its_commands() {
    let (mut host, slow) = slow();
    host.create_queue_pair(2, 8);
    let (read, _buffer) = read_into(&host, 0, 1);
    let (mine, others) = (host.submit(1, &read), host.submit(2, &read));
    host.step();
    let delete =
        |qid| Command { cdw10: DeleteQueueCdw10::new().with_qid(qid).into(), ..AdminOpcode::DELETE_IO_SQ.command() };
    let deletion = host.submit(0, &delete(1));
    assert!(completions(&mut host, 0).is_empty(), "its command is under way");
    // No more are taken, and it is as good as gone.
    host.submit(1, &read);
    host.admin_fails(&delete(1), Status::INVALID_QUEUE_IDENTIFIER);
    assert_eq!(slow.waiting(), 2);
    slow.end(0, None);
    let ended = completions(&mut host, 1);
    assert_eq!(ended.iter().map(|c| (c.cid, c.status.is_success())).collect::<Vec<_>>(), [(mine, true)]);
    let ended = completions(&mut host, 0);
    assert_eq!(ended.iter().map(|c| (c.cid, c.status.is_success())).collect::<Vec<_>>(), [(deletion, true)]);
    slow.end_all();
    assert_eq!(completions(&mut host, 2)[0].cid, others);
}

#[test]
fn s1_an_abort_leaves_storage_its_commands() {
    let (mut host, slow) = slow();
    let (read, _buffer) = read_into(&host, 0, 1);
    let cid = host.submit(1, &read);
    host.step();
    let abort = AbortCdw10::new().with_sqid(1).with_cid(cid);
    let result = host.admin_ok(&Command { cdw10: abort.into(), ..AdminOpcode::ABORT.command() });
    assert_eq!(result & 1, 1, "it was not aborted");
    slow.end_all();
    let ended = completions(&mut host, 1);
    assert_eq!(ended.iter().map(|c| (c.cid, c.status.is_success())).collect::<Vec<_>>(), [(cid, true)], "once");
}

#[test]
fn s2_without_a_volatile_cache_every_write_is_durable() {
    for (volatile_write_cache, fua, durable) in [(true, false, false), (true, true, true), (false, false, true)] {
        let (mut host, slow) = slow_with(ControllerConfig { volatile_write_cache, ..ControllerConfig::default() });
        let data = memory_with(&host, &pattern(1, 4096)[..]);
        let mut write = Command { dptr: DataPointer::prp(data.iova(), 0), ..blocks(NvmOpcode::WRITE, 3, 1) };
        write.cdw12 |= u32::from(fua) << 30;
        host.submit(1, &write);
        host.step();
        assert!(matches!(&slow.lock().taken[..], [(_, Taken::Write(_, _, asked))] if *asked == durable));
        slow.end_all();
    }
}

#[test]
fn s2_a_shutdown_flushes_and_waits() {
    let (mut host, slow) = slow();
    let (read, _buffer) = read_into(&host, 0, 1);
    let cid = host.submit(1, &read);
    host.step();
    host.write_cc(host.cc().with_shn(Cc::SHN_NORMAL));
    host.step();
    assert_eq!((host.csts().shst(), slow.waiting()), (Csts::SHST_OCCURRING, 2));
    slow.end(0, None);
    assert_eq!(completions(&mut host, 1)[0].cid, cid);
    assert_eq!(host.csts().shst(), Csts::SHST_OCCURRING);
    slow.end_all();
    host.step();
    assert_eq!(host.csts().shst(), Csts::SHST_COMPLETE);
    assert_eq!(slow.lock().flushes, 1);
}

#[test]
fn s4_a_format_is_refused_while_commands_are_outstanding() {
    let slow = Slow::default();
    {
        let mut inner = slow.lock();
        (inner.bytes, inner.plain) = (pattern(4, SIZE as usize), true);
    }
    let subsystem = Subsystem::default();
    subsystem.add_namespace(namespace(&slow)).unwrap();
    let mut host = Host::with_queue(&subsystem, ControllerConfig::default());
    let (read, buffer) = read_into(&host, 1, 1);
    host.submit(1, &read);
    assert!(completions(&mut host, 1).is_empty());
    let format = FormatNvmCdw10::new().with_lbafl(0);
    let format = Command { nsid: 1, cdw10: format.into(), ..AdminOpcode::FORMAT_NVM.command() };
    host.admin_fails(&format, Status::COMMAND_SEQUENCE_ERROR);
    slow.end_all();
    assert!(completions(&mut host, 1)[0].status.is_success());
    assert_eq!(bytes(&buffer, 4096), pattern(4, SIZE as usize)[4096..8192]);
    host.submit(0, &format);
    assert!(completions(&mut host, 0)[0].status.is_success());
    assert!(slow.lock().bytes.iter().all(|byte| *byte == 0), "a format leaves nothing");
}

#[test]
fn s4_marked_blocks_stay_so_until_a_write_of_them_has_ended_well() {
    let (mut host, slow) = slow_as(ControllerConfig::default(), true);
    let mark = blocks(NvmOpcode::WRITE_UNCORRECTABLE, 3, 1);
    host.submit(1, &mark);
    assert!(completions(&mut host, 1)[0].status.is_success());
    let (read, _buffer) = read_into(&host, 3, 1);
    let data = memory_with(&host, &pattern(7, 4096)[..]);
    let write = Command { dptr: DataPointer::prp(data.iova(), 0), ..blocks(NvmOpcode::WRITE, 3, 1) };
    for mends in [write, blocks(NvmOpcode::WRITE_ZEROES, 2, 4)] {
        for (ends, expected) in
            [(Status::WRITE_FAULT, Status::UNRECOVERED_READ_ERROR), (Status::SUCCESS, Status::SUCCESS)]
        {
            host.submit(1, &mends);
            assert!(completions(&mut host, 1).is_empty());
            host.submit(1, &read);
            assert_eq!(completions(&mut host, 1)[0].status.status(), Status::UNRECOVERED_READ_ERROR, "not written yet");
            slow.end(0, Some(StatusField::new().with_status(ends)));
            assert_eq!(completions(&mut host, 1)[0].status.status(), ends);
            host.submit(1, &read);
            host.step();
            slow.end_all();
            assert_eq!(completions(&mut host, 1)[0].status.status(), expected);
        }
        host.submit(1, &mark);
        assert!(completions(&mut host, 1)[0].status.is_success());
    }
}

#[test]
fn storage_that_is_not_bytes_alone_keeps_its_format() {
    let (mut host, _slow) = slow();
    let format = FormatNvmCdw10::new().with_lbafl(0);
    let format = Command { nsid: 1, cdw10: format.into(), ..AdminOpcode::FORMAT_NVM.command() };
    host.admin_fails(&format, Status::INVALID_FORMAT);
}

#[test]
fn s1_a_removed_namespace_ends_what_it_has() {
    let (mut host, slow) = slow();
    let (read, _buffer) = read_into(&host, 0, 1);
    let cid = host.submit(1, &read);
    host.step();
    host.subsystem.remove_namespace(1).unwrap();
    assert!(!host.io(&read).is_success());
    assert_eq!(slow.lock().lanes, 1, "its way in stays until it is not used");
    slow.end_all();
    assert_eq!(completions(&mut host, 1)[0].cid, cid);
    assert_eq!(slow.lock().lanes, 0);
}

#[test]
fn a_resize_is_followed() {
    let (mut host, slow) = slow();
    host.subsystem.resize_namespace(1, 2 * SIZE).unwrap();
    let (read, buffer) = read_into(&host, 511, 1);
    host.submit(1, &read);
    host.step();
    slow.end_all();
    assert!(completions(&mut host, 1)[0].status.is_success());
    assert_eq!(bytes(&buffer, 4096), [0; 4096]);
}

#[test]
fn s3_memory_is_forgotten_when_nothing_names_it() {
    let (mut host, slow) = slow();
    let (read, buffer) = read_into(&host, 0, 1);
    host.submit(1, &read);
    host.step();
    let (iova, len) = (buffer.iova(), 4096);
    let mark = host.device.with_controller(|controller| controller.forget_memory(iova, len));
    let passed = |host: &Host| {
        host.device.with_controller(|controller| {
            controller.hear_from_storage();
            controller.has_passed(mark)
        })
    };
    assert_eq!(slow.lock().forgotten, [(iova, len)]);
    // The one that names it, and the storage's own share of it, in any order; later ones do not matter.
    let (later, _other) = read_into(&host, 0, 1);
    host.submit(1, &later);
    host.step();
    slow.end(1, None);
    assert!(!passed(&host), "a read is under way");
    slow.end(0, None);
    assert!(passed(&host));
    assert_eq!(slow.waiting(), 1);
}

#[test]
fn s5_a_host_cannot_have_any_number_outstanding() {
    let (mut host, slow) = slow();
    let mut sent = 0;
    // Half of the queue at a time, which the controller takes at once.
    for _ in 0..64 {
        for _ in 0..128 {
            host.submit(1, &io_command(NvmOpcode::FLUSH));
            sent += 1;
        }
        host.step();
    }
    assert_eq!((sent, slow.waiting()), (8192, 4096));
    assert!(host.device.with_controller(|controller| controller.is_at_rest()));
}
