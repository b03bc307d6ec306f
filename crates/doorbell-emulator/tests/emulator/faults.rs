//! Fault plans: each kind.

use std::time::Duration;

use doorbell_device::Device;
use doorbell_emulator::{
    CommandMatch, ControllerConfig, Fault, FaultPlan, FaultRule, LbaRange, Patch, QueueMatch, Subsystem, When,
};
use nvme_spec::admin::AbortCdw10;
use nvme_spec::registers::offset;
use nvme_spec::{AdminOpcode, Command, Completion, NvmOpcode, Status};

use crate::harness::{Host, blocks, host, io_command, pattern};

fn with(plan: FaultPlan) -> Host {
    let host = host();
    host.device.with_controller(|controller| controller.set_faults(plan));
    host
}

fn flush() -> Command {
    io_command(NvmOpcode::FLUSH)
}

fn on_flush() -> CommandMatch {
    CommandMatch::io(NvmOpcode::FLUSH.0)
}

#[test]
fn rules_count() {
    let matches = CommandMatch { skip: 2, every: 3, count: Some(2), ..on_flush() };
    let mut host = with(FaultPlan::on(matches, Fault::fail(Status::INTERNAL_ERROR)));
    let failed: Vec<bool> = (0..12).map(|_| !host.io(&flush()).is_success()).collect();
    let expected: Vec<bool> = (0..12).map(|index| index == 2 || index == 5).collect();
    assert_eq!(failed, expected);
}

#[test]
fn rules_choose_commands() {
    let fail = Fault::fail(Status::INTERNAL_ERROR);
    let lba = CommandMatch { lba: Some(LbaRange { first: 10, last: 19 }), ..CommandMatch::default() };
    let mut host = with(FaultPlan::on(lba, fail.clone()));
    let fails = |host: &mut Host, lba, count| host.io(&blocks(NvmOpcode::VERIFY, lba, count)) != Status::SUCCESS;
    assert!(!fails(&mut host, 0, 10) && fails(&mut host, 0, 11) && fails(&mut host, 19, 1));
    assert!(!fails(&mut host, 20, 5) && fails(&mut host, 0, 100));
    let namespace = CommandMatch { nsid: Some(2), ..CommandMatch::default() };
    host.device.with_controller(|c| c.set_faults(FaultPlan::on(namespace, fail.clone())));
    assert_eq!(host.io(&flush()), Status::SUCCESS);
    let identify_controller = CommandMatch { cdw10: Some(1), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) };
    host.device.with_controller(|c| c.set_faults(FaultPlan::on(identify_controller, fail.clone())));
    assert!(host.identify(0, 1).is_ok() && host.identify(1, 0).is_err());
    let queue = CommandMatch { queue: Some(QueueMatch::Id(2)), ..CommandMatch::default() };
    host.device.with_controller(|c| c.set_faults(FaultPlan::on(queue, fail)));
    host.create_queue_pair(2, 4);
    assert_eq!(host.io(&flush()), Status::SUCCESS);
    assert_eq!(host.run(2, &flush()).status.status(), Status::INTERNAL_ERROR);
}

#[test]
fn failures_say_all_that_they_are_told_to() {
    let fault = Fault::Fail { sct: 3, sc: 3, dnr: true, crd: 2, more: true };
    let mut host = with(FaultPlan::on(on_flush(), fault));
    let status = host.run(1, &flush()).status;
    assert_eq!(
        (status.status(), status.dnr(), status.crd(), status.more()),
        (Status::ASYMMETRIC_ACCESS_TRANSITION, true, 2, true)
    );
}

#[test]
fn dropped_commands_never_come_back() {
    let write = CommandMatch::io(NvmOpcode::WRITE.0).times(1);
    let mut host = with(FaultPlan::on(write, Fault::Drop));
    let cid = host.submit(1, &blocks(NvmOpcode::WRITE, 0, 1));
    host.pass(Duration::from_secs(1000));
    assert!(host.ring(1).peek().is_none());
    // Not even when aborted.
    let abort = AbortCdw10::new().with_sqid(1).with_cid(cid);
    assert_eq!(host.admin_ok(&Command { cdw10: abort.into_bits(), ..AdminOpcode::ABORT.command() }), 1);
    assert_eq!(host.write(0, &[1; 4096]), Status::SUCCESS);
}

#[test]
fn delayed_commands_come_in_time_or_are_aborted() {
    let plan = FaultPlan::on(on_flush().times(2), Fault::delay(Duration::from_millis(5)));
    let mut host = with(plan);
    let first = host.submit(1, &flush());
    assert_eq!(host.step().wake_at, Some(Duration::from_millis(5)));
    let second = host.submit(1, &flush());
    host.pass(Duration::from_millis(4));
    assert!(host.ring(1).peek().is_none());
    // Those behind overtake.
    host.io_ok(&flush());
    let abort = AbortCdw10::new().with_sqid(1).with_cid(second);
    assert_eq!(host.admin_ok(&Command { cdw10: abort.into_bits(), ..AdminOpcode::ABORT.command() }), 0);
    let aborted = host.ring(1).pop().unwrap();
    assert_eq!((aborted.cid, aborted.status.status()), (second, Status::ABORT_REQUESTED));
    host.pass(Duration::from_millis(1));
    let done = host.ring(1).pop().unwrap();
    assert_eq!((done.cid, done.status.is_success()), (first, true));
}

#[test]
fn deleting_the_queue_ends_what_is_delayed() {
    let mut host = with(FaultPlan::on(on_flush(), Fault::delay(Duration::from_secs(1))));
    let cid = host.submit(1, &flush());
    host.step();
    host.admin_ok(&Command { cdw10: 1, ..AdminOpcode::DELETE_IO_SQ.command() });
    let done = host.ring(1).pop().unwrap();
    assert_eq!((done.cid, done.status.status()), (cid, Status::ABORTED_SQ_DELETION));
}

#[test]
fn completions_are_doubled_and_spoilt() {
    let plan = FaultPlan::on(on_flush().times(1), Fault::Duplicate).and_on(
        on_flush(),
        Fault::CorruptCompletion {
            cid: Some(0xbeef),
            sqid: Some(77),
            sqhd: Some(0x1234),
            status_xor: 0x4002,
            dw0: Some(5),
        },
    );
    let mut host = with(plan);
    let cid = host.submit(1, &flush());
    host.step();
    let twice: Vec<u16> = std::iter::from_fn(|| host.ring(1).pop()).map(|completion| completion.cid).collect();
    assert_eq!(twice, [cid, cid]);
    host.submit(1, &flush());
    host.step();
    let Completion { dw0, sqhd, sqid, cid, status, .. } = host.ring(1).pop().unwrap();
    assert_eq!((dw0, sqhd, sqid, cid), (5, 0x1234, 77, 0xbeef));
    assert_eq!((status.status(), status.more()), (Status::INVALID_COMMAND_OPCODE, true));
}

#[test]
fn data_is_spoilt_both_ways() {
    let patch = |offset| Fault::CorruptData(Patch { offset, set: vec![1, 2, 3], xor: vec![0xff] });
    let read = CommandMatch::io(NvmOpcode::READ.0).times(1);
    let write = CommandMatch::io(NvmOpcode::WRITE.0).times(1);
    let mut host = with(FaultPlan::on(read, patch(4095)).and_on(write, patch(5)));
    let data = pattern(1, 8192);
    host.write(0, &data);
    let mut stored = data;
    stored[5..8].copy_from_slice(&[0xfe, 2, 3]);
    let mut expected = stored.clone();
    expected[4095..4098].copy_from_slice(&[0xfe, 2, 3]);
    assert!(host.read(0, 8192).unwrap() == expected);
    assert!(host.read(0, 8192).unwrap() == stored);
    // What Identify says can be changed to anything: here, no namespace size.
    let identify = CommandMatch::admin(AdminOpcode::IDENTIFY.0);
    let plan = FaultPlan::on(identify, Fault::CorruptData(Patch { set: vec![0; 8], ..Patch::default() }));
    host.device.with_controller(|controller| controller.set_faults(plan));
    assert_eq!(host.identify(0, 1).unwrap()[..8], [0; 8]);
}

#[test]
fn interrupts_get_lost() {
    let mut host = with(FaultPlan::on(on_flush().times(1), Fault::LoseInterrupt));
    let interrupt = host.device.interrupt(0).unwrap();
    interrupt.take();
    host.io_ok(&flush());
    assert_eq!(interrupt.take(), 0);
    host.io_ok(&flush());
    assert_eq!(interrupt.take(), 1);
}

#[test]
fn the_controller_gets_stuck_fails_or_goes() {
    for (fault, fatal) in [(Fault::Stuck, false), (Fault::Fatal, true)] {
        let mut host = with(FaultPlan::on(on_flush().times(1), fault));
        host.submit(1, &flush());
        host.submit(1, &flush());
        host.step();
        host.submit(0, &AdminOpcode::IDENTIFY.command());
        host.step();
        assert!(host.ring(1).peek().is_none() && host.ring(0).peek().is_none());
        assert_eq!((host.csts().cfs(), host.csts().rdy()), (fatal, true));
        host.disable();
        host.enable();
        assert!(!host.csts().cfs() && host.identify(1, 0).is_ok());
    }
    let host = with(FaultPlan { rules: vec![FaultRule { when: When::At { microseconds: 7 }, then: Fault::Gone }] });
    assert_eq!(host.step().wake_at, Some(Duration::from_micros(7)));
    host.device.step(Duration::from_micros(7));
    assert_eq!(host.device.read32(offset::CSTS).unwrap(), u32::MAX);
    assert_eq!(host.device.read64(offset::CAP).unwrap(), u64::MAX);
}

#[test]
fn a_stuck_controller_waits_for_nothing_that_is_past() {
    let slow = Fault::delay(Duration::from_micros(10));
    let mut host = with(FaultPlan::on(on_flush().times(1), slow).and_on(on_flush().times(1), Fault::Stuck));
    host.submit(1, &flush());
    host.submit(1, &flush());
    host.step();
    let activity = host.device.step(Duration::from_micros(20));
    assert_eq!(activity.wake_at, None, "what was due at 10 us never comes");
}

#[test]
fn it_may_not_become_ready() {
    let rule = FaultRule { when: When::Enabled { skip: 0, count: Some(1) }, then: Fault::NotReady };
    let config = ControllerConfig { faults: FaultPlan { rules: vec![rule] }, ..Default::default() };
    let mut host = Host::off(&Subsystem::default(), config);
    host.set_up_admin();
    host.write_cc(host.cc());
    host.pass(Duration::from_secs(60));
    assert!(!host.csts().rdy() && !host.csts().cfs());
    host.disable();
    host.enable();
}

#[test]
fn latency_is_for_all() {
    let latency = Some(Duration::from_micros(80));
    let mut host = Host::new(ControllerConfig { latency, ..Default::default() });
    host.submit(1, &flush());
    host.pass(Duration::from_micros(79));
    assert!(host.ring(1).peek().is_none());
    host.pass(Duration::from_micros(80));
    assert!(host.ring(1).pop().is_some());
}
