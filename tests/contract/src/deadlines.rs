//! How long a command may take, and who says so.

use std::time::Duration;

use doorbell::{DriverOptions, RequestError};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::{AdminOpcode, NvmOpcode, Status};

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, gpns, whole};

const SECOND: Duration = Duration::from_secs(1);

fn up(bench: &Bench, change: impl FnOnce(DriverOptions) -> DriverOptions) -> Watched {
    Watched::with(bench, ControllerConfig::default(), change)
}

/// The next so many commands of an opcode take long.
fn slow(watched: &Watched, opcode: NvmOpcode, times: u64, by: Duration) {
    let plan = FaultPlan::on(CommandMatch::io(opcode.0).times(times), Fault::delay(by));
    watched.spy.device().with_controller(|controller| controller.set_faults(plan));
}

fn aborts(watched: &Watched) -> usize {
    watched.spy.admin(AdminOpcode::ABORT).len()
}

#[track_caller]
fn assert_aborted(result: Result<(), RequestError>) {
    assert_eq!(result.expect_err("aborted").status(), Some(Status::ABORT_REQUESTED));
}

#[test]
fn f8_a_transfer_has_a_limit_of_its_own() {
    for bounce in [false, true] {
        let bench = Bench::new();
        let w = up(&bench, |options| options.always_bounce(bounce));
        let pages = gpns(0, 1);
        // Sooner than the next sweep, as it would be without.
        slow(&w, NvmOpcode::READ, 1, 1000 * SECOND);
        let before = bench.world.now();
        let limit = Duration::from_millis(200);
        let read = w.namespace.read(0, 0, 8, &w.memory, whole(&pages)).timeout(Some(limit));
        assert_aborted(bench.run(read));
        let took = bench.world.now() - before;
        assert!(took >= limit && took <= limit * 3 / 2, "{took:?}");
        assert_eq!(aborts(&w), 1);
    }
}

#[test]
fn f8_a_buffer_s_transfer_has_one_too() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    slow(&w, NvmOpcode::READ, 1, 1000 * SECOND);
    let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
    let (buffer, result) = bench.run(w.namespace.read_buffer(0, 0, 8, buffer).timeout(Some(SECOND)));
    assert_aborted(result);
    assert_eq!(buffer.len(), 4096);
}

#[test]
fn f8_without_a_limit_it_may_take_as_long_as_it_likes() {
    let bench = Bench::new();
    let w = up(&bench, |options| options.io_timeout(Some(SECOND)));
    slow(&w, NvmOpcode::WRITE, 1, 100 * SECOND);
    let data = pattern(1, 512);
    bench.run(w.namespace.write_slice(0, 0, false, &data).timeout(None)).expect("written");
    assert_eq!(aborts(&w), 0);
}

#[test]
fn f8_an_opcode_has_a_limit_of_its_own() {
    let bench = Bench::new();
    let w = up(&bench, |options| {
        let options = options.io_timeout_of(NvmOpcode::FLUSH, None).io_timeout_of(NvmOpcode::VERIFY, Some(2 * SECOND));
        options.io_timeout(Some(10 * SECOND))
    });
    slow(&w, NvmOpcode::FLUSH, 1, 100 * SECOND);
    bench.run(w.namespace.flush(0)).expect("flushed");
    assert_eq!(aborts(&w), 0);
    for (opcode, limit) in [(NvmOpcode::VERIFY, 2 * SECOND), (NvmOpcode::READ, 10 * SECOND)] {
        slow(&w, opcode, 1, 1000 * SECOND);
        let before = bench.world.now();
        let result = match opcode {
            NvmOpcode::VERIFY => bench.run(w.namespace.verify(0, 0, 1)),
            _ => bench.run(w.namespace.read_slice(0, 0, &mut [0; 512])),
        };
        assert_aborted(result);
        let took = bench.world.now() - before;
        assert!(took >= limit && took <= limit + SECOND, "{took:?}");
    }
    assert_eq!(aborts(&w), 2);
}

#[test]
fn f8_a_limit_is_not_the_next_command_s() {
    let bench = Bench::new();
    // One slot, so that all have the same.
    let w = up(&bench, |options| options.depth(1));
    bench.run(w.namespace.read_slice(0, 0, &mut [0; 512]).timeout(Some(SECOND))).expect("read");
    slow(&w, NvmOpcode::READ, 1, 30 * SECOND);
    bench.run(w.namespace.read_slice(0, 0, &mut [0; 512])).expect("read");
    assert_eq!(aborts(&w), 0);
}

#[test]
fn f8_identifiers_that_come_again_are_not_the_same_command() {
    let bench = Bench::new();
    let w = up(&bench, |options| options.depth(4096).io_timeout(Some(SECOND)));
    let pages = gpns(0, 1);
    let last = || w.spy.io().last().expect("a command").1.cdw0.cid();
    bench.run(async {
        let read = || w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
        read().await.expect("read");
        let (identifier, mut period) = (last(), 0);
        while period == 0 || last() != identifier {
            w.spy.clear();
            read().await.expect("read");
            period += 1;
        }
        for _ in 0..20 {
            for _ in 1..period {
                read().await.expect("read");
            }
            // Nearly each sweep, of which there is one every 125 ms, finds the same identifier.
            slow(&w, NvmOpcode::READ, 1, Duration::from_millis(120));
            w.spy.clear();
            read().await.expect("read");
            assert_eq!(last(), identifier);
        }
    });
    assert_eq!(aborts(&w), 0);
}
