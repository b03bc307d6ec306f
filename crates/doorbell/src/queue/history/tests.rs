use nvme_spec::Cdw0;

use super::*;

fn command(opcode: NvmOpcode, lba: u64, blocks: u32) -> Command {
    let mut command =
        Command { cdw0: Cdw0::new().with_opcode(opcode.0), nsid: 1, cdw12: blocks - 1, ..Command::default() };
    command.set_cdw10_11(lba);
    command
}

fn past(sequence: u64, in_flight: bool, command: Command) -> Past {
    Past { cid: sequence as u16, in_flight, sequence, command }
}

/// What may be sent again of one queue's commands, given as their numbers.
fn alone(slots: Vec<Past>) -> Vec<u16> {
    let submitted = slots.iter().map(|past| past.sequence).max().unwrap_or(0);
    let history = History { queue: 1, submitted, slots };
    replayable(&[history], &Moments::default(), |_| true).into_iter().map(|(_, cid)| cid).collect()
}

#[test]
fn reads_go_out_again_whatever_happened_since() {
    let slots = vec![
        past(7, true, command(NvmOpcode::READ, 0, 8)),
        past(9, true, command(NvmOpcode::COMPARE, 0, 8)),
        past(20, false, command(NvmOpcode::WRITE, 0, 8)),
    ];
    assert_eq!(alone(slots), [7, 9]);
}

#[test]
fn a_write_goes_out_again_if_nothing_changed_its_blocks_since() {
    let write = |sequence, in_flight, lba| past(sequence, in_flight, command(NvmOpcode::WRITE, lba, 8));
    assert_eq!(alone(vec![write(1, true, 0)]), [1]);
    assert_eq!(alone(vec![write(1, true, 0), write(2, false, 8)]), [1], "other blocks");
    assert_eq!(alone(vec![write(1, true, 0), write(2, false, 7)]), [0u16; 0], "one block is newer");
    assert_eq!(alone(vec![write(2, true, 0), write(1, false, 0)]), [2], "what was before is overwritten anyway");
    assert_eq!(alone(vec![write(1, true, 0), write(2, true, 4)]), [2], "the later of two in flight");
}

#[test]
fn a_write_does_not_go_out_again_if_something_since_is_forgotten() {
    let first = past(1, true, command(NvmOpcode::WRITE, 0, 8));
    let third = past(3, false, command(NvmOpcode::READ, 0, 8));
    assert_eq!(alone(vec![first.clone(), third.clone()]), [0u16; 0], "who knows what the second was");
    let second = past(2, false, command(NvmOpcode::FLUSH, 0, 1));
    assert_eq!(alone(vec![first, second, third]), [1]);
}

#[test]
fn commands_whose_blocks_are_not_known_count_as_all_blocks() {
    for opcode in [NvmOpcode::DSM, NvmOpcode::COPY, NvmOpcode(0x99)] {
        let slots = vec![past(1, true, command(NvmOpcode::WRITE, 0, 8)), past(2, false, command(opcode, 900, 1))];
        assert_eq!(alone(slots), [0u16; 0], "{opcode}");
    }
    let slots = vec![past(1, true, command(NvmOpcode::DSM, 0, 1)), past(2, false, command(NvmOpcode::WRITE, 9, 1))];
    assert_eq!(alone(slots), [0u16; 0]);
    assert_eq!(alone(vec![past(1, true, command(NvmOpcode::DSM, 0, 1))]), [1]);
}

#[test]
fn what_must_never_go_out_again_does_not() {
    let never = [
        NvmOpcode::FLUSH,
        NvmOpcode::COPY,
        NvmOpcode::WRITE_UNCORRECTABLE,
        NvmOpcode::RESERVATION_REGISTER,
        NvmOpcode::RESERVATION_ACQUIRE,
        NvmOpcode::RESERVATION_RELEASE,
        NvmOpcode(0x99),
    ];
    for opcode in never {
        assert_eq!(alone(vec![past(1, true, command(opcode, 0, 1))]), [0u16; 0], "{opcode}");
    }
    for fuse in [Cdw0::FUSE_FIRST, Cdw0::FUSE_SECOND] {
        let mut fused = command(NvmOpcode::COMPARE, 0, 1);
        fused.cdw0.set_fuse(fuse);
        assert_eq!(alone(vec![past(1, true, fused)]), [0u16; 0]);
    }
    let format = Command { cdw0: Cdw0::new().with_opcode(AdminOpcode::FORMAT_NVM.0), ..Command::default() };
    let admin = History { queue: 0, submitted: 1, slots: vec![past(1, true, format)] };
    assert!(replayable(&[admin], &Moments::default(), |_| true).is_empty());
}

#[test]
fn a_write_that_another_host_may_have_overwritten_stays() {
    let write = History { queue: 1, submitted: 1, slots: vec![past(1, true, command(NvmOpcode::WRITE, 0, 8))] };
    assert!(replayable(&[write], &Moments::default(), |_| false).is_empty());
}

#[test]
fn other_queues_count_from_the_last_moment_before_the_command() {
    let write = || History { queue: 1, submitted: 5, slots: vec![past(5, true, command(NvmOpcode::WRITE, 0, 8))] };
    let other = |slots: Vec<Past>| History { queue: 2, submitted: 100, slots };
    let may = |moments: &Moments, slots| !replayable(&[write(), other(slots)], moments, |_| true).is_empty();
    let overlapping = || past(99, false, command(NvmOpcode::WRITE, 0, 8));
    let read = || past(100, false, command(NvmOpcode::READ, 0, 8));

    let mut moments = Moments::default();
    assert!(!may(&moments, vec![overlapping(), read()]), "nobody looked: all of the other queue's life counts");
    moments.add(BTreeMap::from([(1, 4), (2, 98)]));
    assert!(!may(&moments, vec![overlapping(), read()]), "it may have come after");
    assert!(!may(&moments, vec![read()]), "the 99th is forgotten");
    moments.add(BTreeMap::from([(1, 4), (2, 99)]));
    assert!(may(&moments, vec![overlapping(), read()]), "it came before");
    moments.add(BTreeMap::from([(1, 5), (2, 100)]));
    assert!(may(&moments, vec![read()]), "a later moment says nothing");
    let format = Command { cdw0: Cdw0::new().with_opcode(AdminOpcode::FORMAT_NVM.0), ..Command::default() };
    let admin = History { queue: 0, submitted: 1, slots: vec![past(1, false, format)] };
    let all = [admin, write(), other(vec![read()])];
    assert!(replayable(&all, &moments, |_| true).is_empty(), "a format since, for all that is known");
}
