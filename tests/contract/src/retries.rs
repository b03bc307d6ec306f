//! Commands that failed for a passing reason are sent again.

use std::pin::pin;
use std::time::Duration;

use doorbell::{DriverOptions, LbaRange, RequestError, Retries};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, QueueMatch};
use futures_lite::future::poll_once;
use nvme_spec::feature::FeatureId;
use nvme_spec::{AdminOpcode, Cdw0, Command, NvmOpcode, Status};

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, contents, fill, gpns, whole};

const MS: Duration = Duration::from_millis(1);

fn up(bench: &Bench, change: impl FnOnce(DriverOptions) -> DriverOptions) -> Watched {
    Watched::with(bench, ControllerConfig { crdt: [3, 20, 200], ..ControllerConfig::default() }, change)
}

fn faults(w: &Watched, plan: FaultPlan) {
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
}

/// The next so many I/O commands fail.
fn fail(w: &Watched, times: u64, how: Fault) {
    let any = CommandMatch { queue: Some(QueueMatch::Io), ..CommandMatch::default() };
    faults(w, FaultPlan::on(any.times(times), how));
}

/// Namespace Not Ready, with a retry delay.
fn not_ready(crd: u8, dnr: bool) -> Fault {
    let status = Status::NAMESPACE_NOT_READY;
    Fault::Fail { sct: status.sct(), sc: status.sc(), dnr, crd, more: false }
}

fn retried(w: &Watched) -> u64 {
    w.driver.inspect().queues.iter().map(|queue| queue.counters.retried).sum()
}

#[test]
fn f9_a_passing_failure_is_tried_again_after_a_growing_wait() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    fail(&w, 3, not_ready(0, false));
    let before = bench.world.now();
    let pages = gpns(0, 1);
    bench.run(w.namespace.read(0, 0, 8, &w.memory, whole(&pages))).expect("read");
    let took = bench.world.now() - before;
    assert!(took >= 70 * MS && took < 80 * MS, "{took:?}");
    assert_eq!((w.spy.io().len(), retried(&w)), (4, 3));
}

#[test]
fn f9_the_wait_is_the_one_that_the_controller_names() {
    for (crd, wait) in [(1, 300 * MS), (2, 2000 * MS)] {
        let bench = Bench::new();
        let w = up(&bench, |options| options);
        fail(&w, 1, not_ready(crd, false));
        let before = bench.world.now();
        bench.run(w.namespace.flush(0)).expect("flushed");
        let took = bench.world.now() - before;
        assert!(took >= wait && took < wait + 10 * MS, "{took:?}");
    }
    // Without being asked for them, the controller names none.
    let bench = Bench::new();
    let spy = crate::spy::Spy::new(bench.device(ControllerConfig { crdt: [1, 0, 0], ..ControllerConfig::default() }));
    let driver = bench.run(bench.world.options(spy.clone()).open()).expect("it comes up");
    let set = spy.admin(AdminOpcode::SET_FEATURES);
    assert!(set.iter().any(|command| command.cdw10 as u8 == FeatureId::HOST_BEHAVIOR_SUPPORT.0));
    let mut behavior = [0; 512];
    let get = driver.get_features(FeatureId::HOST_BEHAVIOR_SUPPORT, 0, 0, 0, &mut behavior);
    bench.run(get).expect("the feature");
    assert_eq!(behavior[0], 1, "ACRE");
}

#[test]
fn f9_no_longer_than_the_caller_would_wait() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    fail(&w, 1, not_ready(3, false));
    let error = bench.run(w.namespace.flush(0)).expect_err("20 s are too long");
    assert_eq!(error.status(), Some(Status::NAMESPACE_NOT_READY));
    let w = up(&bench, |options| options.retries(Retries::default().longest_wait(Duration::from_secs(20))));
    fail(&w, 1, not_ready(3, false));
    bench.run(w.namespace.flush(0)).expect("flushed");
}

#[test]
fn f9_no_more_often_than_the_caller_says() {
    for (retries, sent) in [(Retries::none(), 1), (Retries::default().times(2), 3), (Retries::default(), 6)] {
        let bench = Bench::new();
        let w = up(&bench, |options| options.retries(retries));
        fail(&w, 1000, not_ready(0, false));
        let mut bytes = [0; 512];
        bench.run(w.namespace.read_slice(0, 0, &mut bytes)).expect_err("it never passes");
        assert_eq!(w.spy.of(NvmOpcode::READ).len(), sent);
        bench.run(w.namespace.flush(0)).expect_err("it never passes");
        assert_eq!(w.spy.of(NvmOpcode::FLUSH).len(), sent);
    }
}

#[test]
fn f9_what_is_final_is_not_tried_again() {
    let aborted = Fault::fail(Status::ABORT_REQUESTED);
    let medium = Fault::fail(Status::UNRECOVERED_READ_ERROR);
    for how in [not_ready(0, true), not_ready(1, true), aborted, medium] {
        let bench = Bench::new();
        let w = up(&bench, |options| options);
        fail(&w, 1000, how.clone());
        bench.run(w.namespace.read_slice(0, 0, &mut [0; 512])).expect_err("it failed");
        bench.run(w.namespace.flush(0)).expect_err("it failed");
        assert_eq!(w.spy.io().len(), 2, "{how:?}");
    }
}

#[test]
fn f9_a_delay_says_that_it_passes_whatever_the_status() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    let status = Status::UNRECOVERED_READ_ERROR;
    fail(&w, 1, Fault::Fail { sct: status.sct(), sc: status.sc(), dnr: false, crd: 1, more: false });
    bench.run(w.namespace.read_slice(0, 0, &mut [0; 512])).expect("read");
}

#[test]
fn f9_raw_commands_and_fused_pairs_go_out_once() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    fail(&w, 1000, not_ready(0, false));
    let flush = Command { cdw0: Cdw0::new().with_opcode(NvmOpcode::FLUSH.0), ..Command::default() };
    bench.run(w.namespace.command_in(0, flush, &mut [])).expect_err("it failed");
    assert_eq!(w.spy.io().len(), 1);
    let data = pattern(1, 512);
    bench.run(w.namespace.compare_and_write(0, 0, &[0; 512], &data, false)).expect_err("it failed");
    assert_eq!(w.spy.io().len(), 3);
}

#[test]
fn f9_every_kind_of_command_comes_through() {
    let bench = Bench::new();
    let w = up(&bench, |options| options.bounce_pool(32 << 10));
    let (data, pages) = (pattern(7, 256 << 10), gpns(0, 64));
    fill(&w.memory, &pages, 0, &data);
    let each = CommandMatch { queue: Some(QueueMatch::Io), every: 2, ..CommandMatch::default() };
    faults(&w, FaultPlan::on(each, not_ready(0, false)));
    let (namespace, memory) = (&w.namespace, &w.memory);
    bench.run(async {
        namespace.write(0, 0, 512, true, memory, whole(&pages)).await.expect("written");
        let to = gpns(64, 64);
        namespace.read(0, 0, 512, memory, whole(&to)).await.expect("read");
        assert!(contents(memory, &to, 0, data.len()) == data);
        let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
        let (buffer, result) = namespace.read_buffer(0, 0, 8, buffer).await;
        result.expect("read");
        let mut bytes = vec![0; 4096];
        buffer.read_at(0, &mut bytes).expect("in the buffer");
        assert!(bytes == data[..4096]);
        // In pieces through the pool.
        let mut bytes = vec![0; 256 << 10];
        namespace.read_slice(0, 0, &mut bytes).await.expect("read");
        assert!(bytes == data);
        namespace.compare_slice(0, 0, &data).await.expect("the same");
        namespace.copy(0, 1000, &[LbaRange { lba: 0, block_count: 8 }]).await.expect("copied");
        namespace.write_zeroes(0, 2000, 8, false, false).await.expect("zeroed");
        namespace.deallocate(0, &[LbaRange { lba: 3000, block_count: 8 }]).await.expect("deallocated");
        namespace.reservation_report_extended(0).await.expect("a report");
    });
    assert!(retried(&w) >= 9, "{}", retried(&w));
}

#[test]
fn f9_nobody_waits_for_a_driver_that_shuts_down() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    fail(&w, 1000, not_ready(2, false));
    let Watched { driver, namespace, .. } = w;
    let (read, flush) = bench.run(async {
        let mut bytes = [0; 512];
        let mut read = pin!(namespace.read_slice(0, 0, &mut bytes));
        let mut flush = pin!(namespace.flush(0));
        assert!(poll_once(&mut read).await.is_none());
        assert!(poll_once(&mut flush).await.is_none());
        bench.world.sleep(500 * MS).await;
        assert!(poll_once(&mut read).await.is_none() && poll_once(&mut flush).await.is_none());
        driver.shutdown().await;
        (read.await, flush.await)
    });
    assert!(matches!(read, Err(RequestError::Gone)), "{read:?}");
    assert!(matches!(flush, Err(RequestError::Gone)), "{flush:?}");
}

#[test]
fn f9_a_future_that_goes_while_it_waits_leaves_nothing_behind() {
    let bench = Bench::new();
    let w = up(&bench, |options| options);
    fail(&w, 1, not_ready(2, false));
    let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
    bench.run(async {
        let mut read = Box::pin(w.namespace.read_buffer(0, 0, 8, buffer));
        assert!(poll_once(&mut read).await.is_none());
        bench.world.sleep(500 * MS).await;
        assert!(poll_once(&mut read).await.is_none());
        assert_eq!(w.slots_taken(), 0);
    });
    bench.world.settle();
    assert_eq!((w.slots_taken(), w.spy.io().len()), (0, 1));
}
