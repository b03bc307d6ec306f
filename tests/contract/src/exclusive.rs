//! Q8: queues with one owner.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell::{
    Completed, ErrorClass, ExclusiveQueue, MemoryError, NvmeDriver, RequestError, ShadowDoorbells, ShutdownMode,
};
use doorbell_device::wrap::DmaLedger;
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig};
use nvme_spec::{AdminOpcode, NvmOpcode, Status};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Watched, contents, fill, gpns, whole};
use crate::spy::vector;

fn watched(bench: &Bench) -> Watched {
    watched_with(bench, 1)
}

fn watched_with(bench: &Bench, queues: u32) -> Watched {
    Watched::with(bench, ControllerConfig::default(), |options| {
        options.cpus(1).exclusive_queues(queues).depth(8).max_transfer(256 << 10)
    })
}

fn own(bench: &Bench, driver: &NvmeDriver) -> ExclusiveQueue {
    bench.run(driver.exclusive_queue()).expect("an exclusive queue")
}

/// Polls until nothing is left to happen.
fn all(bench: &Bench, queue: &mut ExclusiveQueue) -> BTreeMap<u64, Completed> {
    let mut found = BTreeMap::new();
    for _ in 0..8 {
        bench.world.settle();
        for completed in queue.poll() {
            let token = completed.token;
            assert!(found.insert(token, completed).is_none(), "token {token} came back twice");
        }
    }
    found
}

/// Time for a queue without an owner to go.
fn later(bench: &Bench) {
    bench.run(bench.world.sleep(Duration::from_millis(10)));
    bench.world.settle();
}

fn error(completed: &Completed) -> &RequestError {
    completed.result.as_ref().expect_err("it failed")
}

#[test]
fn q8_what_is_submitted_comes_back_with_its_token() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let (pages, many) = (gpns(0, 1), gpns(10, 20));
    let (small, large) = (pattern(1, 4096), pattern(2, 20 * 4096));
    fill(&w.memory, &pages, 0, &small);
    fill(&w.memory, &many, 0, &large);
    queue.write(&w.namespace, 70, 8, 8, true, &w.memory, whole(&pages)).expect("submitted");
    queue.write(&w.namespace, 71, 100, 160, false, &w.memory, whole(&many)).expect("submitted");
    queue.read(&w.namespace, 72, 0, 0, &w.memory, whole(&pages)).expect("nothing to do");
    let written = all(&bench, &mut queue);
    assert_eq!(written.keys().copied().collect::<Vec<_>>(), [70, 71, 72]);
    queue.flush(&w.namespace, 3).expect("submitted");
    let (to, into) = (gpns(40, 1), gpns(50, 20));
    queue.read(&w.namespace, 1, 8, 8, &w.memory, whole(&to)).expect("submitted");
    queue.read(&w.namespace, u64::MAX, 100, 160, &w.memory, whole(&into)).expect("submitted");
    queue.compare(&w.namespace, 5, 8, 8, &w.memory, whole(&into)).expect("submitted");
    let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
    queue.read_buffer(&w.namespace, 4, 8, 8, buffer).map_err(|(_, error)| error).expect("submitted");
    let mut read = all(&bench, &mut queue);
    assert_eq!(read.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5, u64::MAX]);
    assert_eq!(error(&read[&5]).class(), ErrorClass::Miscompare);
    for token in [1, 3, 4, u64::MAX] {
        assert!(read[&token].result.is_ok(), "{:?}", read[&token]);
    }
    assert_eq!(contents(&w.memory, &to, 0, 4096), small);
    assert_eq!(contents(&w.memory, &into, 0, 20 * 4096), large);
    let buffer = read.get_mut(&4).and_then(|completed| completed.buffer.take()).expect("the buffer comes back");
    assert_eq!(buffer.to_vec(), small);
    // FUA, and the queue it went out on.
    let writes = w.spy.of(NvmOpcode::WRITE);
    assert_eq!(writes[0].cdw12 >> 30 & 1, 1);
    assert_eq!(writes[1].cdw12 >> 30 & 1, 0);
    assert!(w.spy.io().iter().all(|(id, _)| *id == queue.id()));
}

#[test]
fn q8_a_full_queue_takes_more_once_it_was_polled() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    assert_eq!(queue.depth(), 8);
    let pages = gpns(0, 1);
    for round in 0..30 {
        for token in 0..8 {
            queue.read(&w.namespace, round * 8 + token, 0, 8, &w.memory, whole(&pages)).expect("there is room");
        }
        let refused = queue.read(&w.namespace, 9999, 0, 8, &w.memory, whole(&pages));
        assert!(matches!(refused, Err(RequestError::WouldWait)), "{refused:?}");
        assert_eq!(queue.poll().count(), 0, "the device has done nothing yet");
        // Half of them are taken at first, and the others are not lost.
        bench.world.settle();
        let first: Vec<u64> = queue.poll().take(4).map(|completed| completed.token).collect();
        queue.read(&w.namespace, 7777, 0, 8, &w.memory, whole(&pages)).expect("there is room");
        let mut rest: Vec<u64> = all(&bench, &mut queue).into_keys().collect();
        assert_eq!(rest.pop(), Some(7777));
        assert_eq!([first, rest].concat(), (round * 8..round * 8 + 8).collect::<Vec<_>>());
    }
}

#[test]
fn q8_it_counts_among_the_queues_and_is_given_back() {
    let bench = Bench::new();
    let w = watched_with(&bench, 2);
    let queues = || w.driver.inspect().queues.iter().map(|queue| queue.id).collect::<Vec<_>>();
    let (one, mut two) = (own(&bench, &w.driver), own(&bench, &w.driver));
    assert_eq!((one.id(), two.id()), (2, 3));
    assert_eq!(queues(), [1, 2, 3]);
    let creates = w.spy.admin(AdminOpcode::CREATE_IO_CQ);
    assert!(creates.iter().all(|create| vector(create).is_none()), "nobody waits for an interrupt");
    let refused = bench.run(w.driver.exclusive_queue());
    assert!(matches!(refused, Err(RequestError::NoMoreQueues { limit: 3 })), "{refused:?}");
    drop(one);
    later(&bench);
    assert_eq!(queues(), [1, 3]);
    assert_eq!(w.spy.device().with_controller(|controller| controller.io_queues()), (2, 2));
    assert_eq!(w.driver.inspect().controller.condemned_queues, 0);
    assert_eq!(own(&bench, &w.driver).id(), 2, "its identifier is free again");
    // Whoever goes away while waiting leaves nothing behind.
    later(&bench);
    for steps in 0..12 {
        let mut waiting = Box::pin(w.driver.exclusive_queue());
        for _ in 0..steps {
            if crate::hands::poll(&mut waiting).is_ready() {
                break;
            }
            bench.world.step_devices();
        }
        drop(waiting);
        later(&bench);
        assert_eq!(queues(), [1, 3], "dropped after {steps} steps");
    }
    two.flush(&w.namespace, 1).expect("submitted");
    assert!(all(&bench, &mut two)[&1].result.is_ok());
    let state = w.driver.inspect().queues.into_iter().find(|queue| queue.id == 3).expect("inspected");
    assert_eq!((state.counters.submitted, state.counters.completed, state.counters.doorbells), (1, 1, 2));
}

/// What the last queue of a number left in the shadows of its doorbells is nothing to the next.
#[test]
fn q8_the_next_queue_of_a_number_begins_anew() {
    let bench = Bench::new();
    let config = ControllerConfig { doorbell_buffer_config: true, ..ControllerConfig::default() };
    let w = Watched::with(&bench, config, |options| {
        options.cpus(1).exclusive_queues(1).depth(8).shadow_doorbells(ShadowDoorbells::WhereOffered)
    });
    let pages = gpns(0, 1);
    for commands in [1, 5, 2, 7] {
        let mut queue = own(&bench, &w.driver);
        assert_eq!(queue.id(), 2);
        for token in 0..commands {
            queue.read(&w.namespace, token, 0, 8, &w.memory, whole(&pages)).expect("submitted");
        }
        let found = all(&bench, &mut queue);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), (0..commands).collect::<Vec<_>>());
        assert!(found.values().all(|completed| completed.result.is_ok()), "{found:?}");
        drop(queue);
        later(&bench);
    }
    assert_eq!(w.driver.inspect().controller.resets, 0);
}

#[test]
fn q8_what_cannot_go_out_is_refused_unsent() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    w.spy.clear();
    let pages = gpns(0, 1);
    let not_registered = guest(4);
    let mut read = |lba, blocks, memory, pages| queue.read(&w.namespace, 1, lba, blocks, memory, whole(pages));
    assert!(matches!(read(0, 8, &not_registered, &pages), Err(RequestError::NotDirect)));
    assert!(matches!(read(1 << 40, 8, &w.memory, &pages), Err(RequestError::OutOfRange { .. })));
    assert!(matches!(read(0, 9, &w.memory, &pages), Err(RequestError::TooShort { .. })));
    let (many, nowhere) = (gpns(0, 128), gpns(100_000, 1));
    assert!(matches!(read(0, 1024, &w.memory, &many), Err(RequestError::TooLarge { .. })));
    let absent = read(0, 8, &w.memory, &nowhere);
    assert!(matches!(absent, Err(RequestError::Memory(MemoryError::NotPresent { .. }))), "{absent:?}");
    let short = w.driver.allocate_buffer(4096).expect("a buffer");
    let (buffer, error) = queue.read_buffer(&w.namespace, 1, 0, 9, short).expect_err("too short");
    assert!(matches!(error, RequestError::TooShort { .. }), "{error:?}");
    assert_eq!(buffer.len(), 4096);
    let others = Watched::new(&bench, ControllerConfig::default());
    let refused = queue.flush(&others.namespace, 1);
    assert!(matches!(refused, Err(RequestError::BadParameter { .. })), "{refused:?}");
    let refused = queue.read(&others.namespace, 1, 0, 8, &others.memory, whole(&pages));
    assert!(matches!(refused, Err(RequestError::BadParameter { .. })), "{refused:?}");
    bench.run(w.driver.unregister_memory(&w.memory));
    let refused = queue.read(&w.namespace, 1, 0, 8, &w.memory, whole(&pages));
    assert!(matches!(refused, Err(RequestError::Memory(MemoryError::Unregistered))), "{refused:?}");
    assert!(w.spy.rings().is_empty());
    assert!(all(&bench, &mut queue).is_empty());
}

#[test]
fn q8_an_error_status_comes_back_with_its_token() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::fail(Status::UNRECOVERED_READ_ERROR));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let pages = gpns(0, 1);
    for token in 0..3 {
        queue.read(&w.namespace, token, 0, 8, &w.memory, whole(&pages)).expect("submitted");
    }
    let found = all(&bench, &mut queue);
    assert_eq!(error(&found[&0]).class(), ErrorClass::Medium);
    assert!(found[&1].result.is_ok() && found[&2].result.is_ok());
}

/// The owner goes away with commands in flight: their memory stays until the device is done, and so does the queue.
#[test]
fn q8_what_is_left_in_flight_keeps_its_memory() {
    let bench = Bench::new();
    let ledger = DmaLedger::new(bench.device(ControllerConfig::default()));
    let driver =
        bench.run(bench.world.options(ledger.clone()).cpus(1).exclusive_queues(1).open()).expect("it comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let memory = driver.register_memory(&guest(4)).expect("registered");
    let mut queue = own(&bench, &driver);
    bench.world.settle();
    let buffer = driver.allocate_buffer(4096).expect("a buffer");
    let mapped = ledger.live_ranges().len();
    queue.read_buffer(&namespace, 0, 0, 8, buffer).map_err(|(_, error)| error).expect("submitted");
    queue.read(&namespace, 1, 0, 8, &memory, whole(&gpns(0, 1))).expect("submitted");
    drop((queue, memory));
    assert_eq!(ledger.live_ranges().len(), mapped, "the device still works on it");
    later(&bench);
    assert!(ledger.live_ranges().len() <= mapped - 4, "buffer, guest memory, queue and pool went");
    assert_eq!(driver.inspect().queues.len(), 0);
}

#[test]
fn q8_after_a_reset_everything_comes_back_once() {
    let bench = Bench::with(NamespaceConfig { shared: true, ..NamespaceConfig::ram(16 << 20) });
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let pages = gpns(0, 1);
    queue.read(&w.namespace, 1, 0, 8, &w.memory, whole(&pages)).expect("submitted");
    queue.write(&w.namespace, 2, 64, 8, false, &w.memory, whole(&pages)).expect("submitted");
    queue.flush(&w.namespace, 3).expect("submitted");
    let mut reset = Box::pin(w.driver.reset_controller());
    assert!(crate::hands::poll(&mut reset).is_pending());
    bench.run(reset).expect("the controller is back");
    let found = all(&bench, &mut queue);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    for completed in found.values() {
        let interrupted =
            matches!(completed.result.as_ref().err().map(|error| &**error), Some(RequestError::Interrupted));
        assert!(completed.result.is_ok() || interrupted, "{completed:?}");
    }
    queue.read(&w.namespace, 4, 0, 8, &w.memory, whole(&pages)).expect("submitted");
    assert!(all(&bench, &mut queue)[&4].result.is_ok());
}

/// Commands that the device never answers are replayed or end by the reset that the watchdog asks for.
#[test]
fn q8_a_command_that_is_never_answered_ends() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::FLUSH.0).times(1), Fault::Drop);
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    queue.flush(&w.namespace, 1).expect("submitted");
    bench.run(bench.world.sleep(Duration::from_secs(3600)));
    let found: Vec<_> = queue.poll().collect();
    assert_eq!(found.len(), 1);
    assert!(found[0].result.is_err(), "{found:?}");
}

#[test]
fn q8_at_the_end_all_that_is_left_comes_back() {
    for polled in [false, true] {
        let bench = Bench::new();
        let w = watched(&bench);
        let mut queue = own(&bench, &w.driver);
        let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::Drop);
        w.spy.device().with_controller(|controller| controller.set_faults(plan));
        let pages = gpns(0, 1);
        let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
        queue.read_buffer(&w.namespace, 1, 0, 8, buffer).map_err(|(_, error)| error).expect("submitted");
        queue.read(&w.namespace, 2, 0, 8, &w.memory, whole(&pages)).expect("submitted");
        if polled {
            assert!(all(&bench, &mut queue).is_empty());
        }
        bench.run(w.driver.end(ShutdownMode::Reset));
        let mut found = all(&bench, &mut queue);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2]);
        for completed in found.values() {
            assert!(matches!(error(completed), RequestError::Gone), "{completed:?}");
        }
        assert!(found.get_mut(&1).and_then(|completed| completed.buffer.take()).is_some());
        let refused = queue.flush(&w.namespace, 3);
        assert!(matches!(refused, Err(RequestError::Gone)), "{refused:?}");
    }
}

/// Somebody else may look, too: the watchdog does, and whoever polls all queues.
#[test]
fn q8_what_others_find_comes_to_the_owner() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let pages = gpns(0, 1);
    for token in 0..5 {
        queue.read(&w.namespace, token, 0, 8, &w.memory, whole(&pages)).expect("submitted");
    }
    while bench.world.step_devices() {}
    assert_eq!(w.driver.poll(), 5);
    queue.read(&w.namespace, 5, 0, 8, &w.memory, whole(&pages)).expect("submitted");
    assert_eq!(all(&bench, &mut queue).into_keys().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

/// Neither a poll nor a command allocates.
#[test]
fn q8_nothing_is_allocated() {
    let bench = Bench::new();
    let w = watched(&bench);
    let mut queue = own(&bench, &w.driver);
    let (pages, memory) = (gpns(0, 1), Arc::new(w.memory.clone()));
    let round = |queue: &mut ExclusiveQueue| {
        let submitting = allocation_counter::measure(|| {
            for token in 0..8 {
                queue.read(&w.namespace, token, 0, 8, &memory, whole(&pages)).expect("submitted");
            }
        });
        bench.world.settle();
        let polling = allocation_counter::measure(|| assert_eq!(queue.poll().count(), 8));
        // The spy allocates as its doorbell rings, so only polling counts here.
        let _ = submitting;
        polling.count_total
    };
    round(&mut queue);
    assert_eq!(round(&mut queue), 0);
}
