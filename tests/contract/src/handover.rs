//! Another driver goes on with the controller: in a process of its own, were this not a test.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use doorbell::{
    CompletionMode, ControllerEvent, ControllerState, DriverOptions, ExclusiveQueue, GuestMemory, HostId,
    InheritedResult, Namespace, NotYet, NvmeDriver, RequestError, RestoreError, Restored, ShadowDoorbells, StateError,
};
use doorbell_device::DmaMemory;
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, SglSupport};
use futures_lite::future::poll_once;
use nvme_spec::feature::FeatureId;
use nvme_spec::registers::{Cc, offset};
use nvme_spec::{AdminOpcode, NvmOpcode, Status};
use proptest::prelude::*;

use crate::bench::{Bench, pattern};
use crate::hands::{Watched, contents, fill, gpns, join_all, poll, whole};
use crate::spy::Spy;

const SECOND: Duration = Duration::from_secs(1);

/// Commands of an opcode take so long.
fn slow(spy: &Spy, opcode: NvmOpcode, by: Duration) {
    let plan = FaultPlan::on(CommandMatch::io(opcode.0), Fault::delay(by));
    spy.device().with_controller(|controller| controller.set_faults(plan));
}

fn no_faults(spy: &Spy) {
    spy.device().with_controller(|controller| controller.set_faults(FaultPlan::default()));
}

fn options(bench: &Bench, spy: &Arc<Spy>) -> DriverOptions {
    bench.world.options(spy.clone())
}

/// Another driver takes over.
fn hand_over(bench: &Bench, driver: &NvmeDriver, to: DriverOptions) -> Restored {
    let saved = driver.save().expect("saved");
    let restored = bench.run(to.restore(saved.state(), saved.memory().to_vec())).expect("restored");
    saved.hand_over();
    restored
}

fn namespace(bench: &Bench, driver: &NvmeDriver) -> Namespace {
    bench.run(driver.namespace(1)).expect("namespace 1")
}

#[track_caller]
fn ended<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

#[track_caller]
fn assert_handed_over<T: std::fmt::Debug>(result: Result<T, RequestError>) {
    assert!(matches!(result, Err(RequestError::HandedOver)), "{result:?}");
}

#[test]
fn h1_the_controller_stays_enabled_and_no_command_is_needed() {
    for mode in [CompletionMode::Interrupt, CompletionMode::CallerPolls, CompletionMode::Adaptive] {
        let bench = Bench::new();
        let w = Watched::with(&bench, ControllerConfig::default(), |options| options.completion(mode));
        let data = pattern(1, 64 << 10);
        bench.run(w.namespace.write_slice(0, 100, false, &data)).expect("written");
        bench.run(w.namespace.flush(1)).expect("flushed");
        bench.world.settle();
        w.spy.clear();
        let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
        // The admin queue does nothing from now on.
        let stuck = FaultPlan::on(CommandMatch::admin(AdminOpcode::IDENTIFY.0), Fault::Drop);
        w.spy.device().with_controller(|controller| controller.set_faults(stuck));
        assert!(restored.commands.is_empty());
        let namespace = namespace(&bench, &restored.driver);
        let mut bytes = vec![0; 64 << 10];
        for cpu in 0..2 {
            bytes.fill(0);
            bench.run(namespace.read_slice(cpu, 100, &mut bytes)).expect("read");
            assert!(bytes == data);
        }
        assert!(w.spy.admin(AdminOpcode::CREATE_IO_SQ).is_empty());
        assert_eq!(restored.driver.inspect().controller.resets, 0);
        assert_eq!(w.driver.state(), ControllerState::HandedOver);
        assert_handed_over(bench.run(w.namespace.flush(0)));
        assert!(bench.run(w.driver.namespace(1)).is_err());
    }
}

#[test]
fn h1_the_old_driver_touches_no_register_after() {
    use doorbell_device::wrap::{Tracer, What};
    let bench = Bench::new();
    let device = Tracer::new(bench.device(ControllerConfig::default()), 1000);
    let driver = bench.run(bench.world.options(device.clone()).open()).expect("it comes up");
    let held = namespace(&bench, &driver);
    bench.run(held.flush(0)).expect("flushed");
    let saved = driver.save().expect("saved");
    let restored = bench.run(bench.world.options(device.clone()).restore(saved.state(), saved.memory().to_vec()));
    let restored = restored.expect("restored");
    saved.hand_over();
    device.clear();
    drop(held);
    bench.run(driver.shutdown());
    bench.world.settle();
    let written =
        device.events().into_iter().any(|event| matches!(event.what, What::Write { offset: at, .. } if at < 0x1000));
    assert!(!written);
    let cc = Cc::from(doorbell_device::Device::read32(&*device, offset::CC).expect("CC"));
    assert!(cc.en());
    bench.run(namespace(&bench, &restored.driver).flush(0)).expect("flushed");
}

#[test]
fn h1_the_old_driver_writes_to_no_memory_of_the_new_one() {
    let bench = Bench::new();
    // Two pages: whoever is second waits.
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.bounce_pool(8 << 10));
    bench.run(w.namespace.flush(0)).expect("a queue");
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let (mut bytes, old, new) = (vec![0; 8 << 10], pattern(5, 512), pattern(6, 512));
    let mut read = w.namespace.read_slice(0, 8, &mut bytes);
    assert!(poll(&mut read).is_pending());
    let mut waits = Box::pin(w.namespace.compare_and_write(0, 100, &old, &new, false));
    assert!(poll(&mut waits).is_pending());
    let saved = w.driver.save().expect("saved");
    let memory = saved.memory().to_vec();
    let restored = bench.run(options(&bench, &w.spy).restore(saved.state(), memory.clone())).expect("restored");
    saved.hand_over();
    let before = content(&memory);
    assert_handed_over(ended(poll(&mut read)));
    drop(read);
    // The read's pages are free, as far as this driver knows.
    assert_handed_over(ended(poll(&mut waits)));
    assert!(content(&memory) == before, "the memory is another's");
    drop(restored);
}

/// What all this memory holds.
fn content(memory: &[DmaMemory]) -> Vec<Vec<u8>> {
    let mut all = memory.iter().map(|memory| vec![0; memory.len()]).collect::<Vec<_>>();
    for (memory, bytes) in memory.iter().zip(&mut all) {
        memory.host().read_at(0, bytes).expect("it is readable");
    }
    all
}

#[test]
fn h1_nothing_is_written_before_it_is_taken_over() {
    let bench = Bench::new();
    let shadowed = |options: DriverOptions| options.shadow_doorbells(ShadowDoorbells::WhereOffered);
    let w = Watched::with(&bench, ControllerConfig::default(), shadowed);
    for cpu in 0..2 {
        bench.run(w.namespace.write_slice(cpu, 0, false, &pattern(7, 4096))).expect("written");
    }
    let saved = w.driver.save().expect("saved");
    let memory = saved.memory().to_vec();
    let before = content(&memory);
    let prepared = shadowed(options(&bench, &w.spy)).prepare_restore(saved.state(), memory.clone()).expect("prepared");
    assert!(content(&memory) == before, "it is the old one's still");
    drop(prepared);
    drop(saved);
    assert!(content(&memory) == before, "it is the old one's for good");
    bench.run(w.namespace.flush(0)).expect("it goes on");
}

#[test]
fn h1_shadow_doorbells_go_on() {
    let bench = Bench::new();
    let shadowed = |options: DriverOptions| options.shadow_doorbells(ShadowDoorbells::WhereOffered);
    let w = Watched::with(&bench, ControllerConfig::default(), shadowed);
    let data = pattern(4, 4096);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    let restored = hand_over(&bench, &w.driver, shadowed(options(&bench, &w.spy)));
    assert!(restored.driver.inspect().controller.shadow_doorbells.is_some());
    let namespace = namespace(&bench, &restored.driver);
    for cpu in 0..2 {
        for _ in 0..300 {
            let mut bytes = vec![0; 4096];
            bench.run(namespace.read_slice(cpu, 0, &mut bytes)).expect("read");
            assert!(bytes == data);
        }
    }
    assert!(w.spy.admin(AdminOpcode::DOORBELL_BUFFER_CONFIG).is_empty());
    bench.run(restored.driver.reset_controller()).expect("reset");
    bench.run(namespace.flush(0)).expect("flushed");
}

#[test]
fn h2_what_was_in_flight_ends_there_and_nowhere_else() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let (data, pages) = (pattern(3, 16 << 10), gpns(0, 4));
    fill(&w.memory, &pages, 0, &data);
    slow(&w.spy, NvmOpcode::WRITE, SECOND);
    let mut write = w.namespace.write(0, 8, 32, false, &w.memory, whole(&pages)).tag(77);
    assert!(poll(&mut write).is_pending());
    let read_pages = gpns(8, 4);
    let mut read = w.namespace.read(1, 8, 32, &w.memory, whole(&read_pages)).tag(78);
    bench.run(w.namespace.flush(1)).expect("a queue");
    slow(&w.spy, NvmOpcode::READ, 2 * SECOND);
    assert!(poll(&mut read).is_pending());
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    assert_handed_over(bench.run(&mut write));
    assert_handed_over(bench.run(&mut read));
    let mut commands = restored.commands;
    commands.sort_by_key(|command| command.tag());
    let [write, read] = <[_; 2]>::try_from(commands).expect("two commands");
    assert_eq!((write.tag(), write.blocks(), write.command().nsid), (77, Some((8, 32)), 1));
    assert_eq!((read.tag(), read.blocks()), (78, Some((8, 32))));
    bench.run(write).completion.expect("written");
    bench.run(read).completion.expect("read");
    // The guest's memory is the new driver's now.
    let memory: &GuestMemory = &restored.guest_memory[0];
    let namespace = namespace(&bench, &restored.driver);
    no_faults(&w.spy);
    let to = gpns(16, 4);
    bench.run(namespace.read(0, 8, 32, memory, whole(&to))).expect("read");
    assert!(contents(memory, &to, 0, data.len()) == data);
    assert_eq!(restored.driver.inspect().queues.iter().map(|queue| queue.counters.bounced).sum::<u64>(), 0);
}

#[test]
fn h2_an_admin_command_that_is_never_answered_is_noticed_there() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let stuck =
        FaultPlan::on(CommandMatch { count: Some(1), ..CommandMatch::admin(AdminOpcode::IDENTIFY.0) }, Fault::Drop);
    w.spy.device().with_controller(|controller| controller.set_faults(stuck));
    let mut list = pin!(w.driver.namespaces());
    assert!(bench.run(poll_once(&mut list)).is_none());
    bench.world.settle();
    let mut restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    let command = restored.commands.pop().expect("one command");
    assert_eq!((command.queue(), restored.commands.len()), (0, 0));
    let begun = bench.world.now();
    assert!(bench.run(command).completion.is_err());
    assert_eq!((bench.world.now() - begun).as_secs(), 60);
    let namespace = namespace(&bench, &restored.driver);
    bench.run(namespace.flush(0)).expect("flushed");
    assert_eq!(restored.driver.inspect().controller.resets, 1);
}

#[test]
fn h2_results_that_had_come_cross_over_too() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let mut reads: Vec<_> = (0..8)
        .map(|lba| {
            let pages: &'static [u64] = Box::leak(Box::new([lba]));
            w.namespace.read(0, lba, 1, &w.memory, whole(pages)).tag(lba)
        })
        .collect();
    let plan = FaultPlan::on(
        CommandMatch {
            lba: Some(doorbell_emulator::LbaRange { first: 5, last: 5 }),
            ..CommandMatch::io(NvmOpcode::READ.0)
        },
        Fault::Fail { sct: 2, sc: 0x81, dnr: true, crd: 0, more: false },
    );
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    for read in &mut reads {
        assert!(poll(read).is_pending());
    }
    bench.world.settle();
    // All are there; the first two are claimed.
    for read in &mut reads[..2] {
        assert!(matches!(poll(read), Poll::Ready(Ok(()))));
    }
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    for read in &mut reads[2..] {
        assert_handed_over(bench.run(read));
    }
    let mut tags = Vec::new();
    for command in restored.commands {
        let tag = command.tag();
        let result = bench.run(command).completion;
        match result {
            Ok(_) => assert_ne!(tag, 5),
            Err(error) => assert_eq!((tag, error.status()), (5, Some(Status::UNRECOVERED_READ_ERROR))),
        }
        tags.push(tag);
    }
    tags.sort_unstable();
    assert_eq!(tags, [2, 3, 4, 5, 6, 7]);
    assert!(
        restored.driver.inspect().queues.iter().filter(|queue| queue.id != 0).all(|queue| queue.commands.is_empty())
    );
}

#[test]
fn h2_bounced_data_and_buffers_cross_over() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(9, 8192);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let mut bytes = vec![0; 8192];
    let mut bounced = w.namespace.read_slice(0, 0, &mut bytes).tag(1);
    assert!(poll(&mut bounced).is_pending());
    let buffer = w.driver.allocate_buffer(8192).expect("a buffer");
    let mut buffered = Box::pin(w.namespace.read_buffer(0, 0, 16, buffer).tag(2));
    assert!(poll(&mut buffered).is_pending());
    bench.world.settle();
    // A result that is there when it crosses over has its data too.
    no_faults(&w.spy);
    let mut more = vec![0; 4096];
    let mut there = w.namespace.read_slice(0, 4, &mut more).tag(3);
    assert!(poll(&mut there).is_pending());
    bench.world.settle();
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    let (_, result) = bench.run(&mut buffered);
    assert_handed_over(result);
    assert_handed_over(bench.run(&mut bounced));
    assert_handed_over(bench.run(&mut there));
    assert_eq!(restored.commands.len(), 3);
    for command in restored.commands {
        let tag = command.tag();
        let InheritedResult { completion, data: read, buffer, .. } = bench.run(command);
        completion.expect("read");
        match tag {
            1 => assert!(read.expect("what was read")[..8192] == data),
            2 => assert!(buffer.expect("the buffer").to_vec() == data),
            _ => assert!(read.expect("what was read")[..4096] == data[2048..6144]),
        }
    }
    let queues = restored.driver.inspect().queues;
    assert!(
        queues.iter().filter(|queue| queue.id != 0).all(|queue| queue.pool_in_use == 0 && queue.commands.is_empty())
    );
}

#[test]
fn h2_the_list_of_a_long_read_is_no_data() {
    let bench = Bench::new();
    let config = ControllerConfig { sgl: SglSupport::None, mdts: 10, ..ControllerConfig::default() };
    let w = Watched::with(&bench, config, |options| options.max_transfer(4 << 20));
    // More pages than a list of one page names: the same ones again and again.
    let (data, pages) = (pattern(5, 1 << 20), gpns(0, 256).repeat(3));
    fill(&w.memory, &pages, 0, &data);
    bench.run(w.namespace.write(0, 0, 6144, false, &w.memory, whole(&pages))).expect("written");
    fill(&w.memory, &pages, 0, &vec![0; data.len()]);
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let mut read = w.namespace.read(0, 0, 6144, &w.memory, whole(&pages));
    assert!(poll(&mut read).is_pending());
    bench.world.settle();
    let Restored { driver, mut commands, guest_memory, .. } = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    assert_handed_over(bench.run(&mut read));
    let command = commands.pop().expect("the read");
    assert!(!command.brings_data());
    let InheritedResult { completion, data: list, .. } = bench.run(command);
    completion.expect("read");
    assert!(list.is_none(), "what lies in the driver's pages says where the data went");
    assert!(contents(&guest_memory[0], &pages, 0, data.len()) == data);
    assert!(driver.inspect().queues.iter().all(|queue| queue.pool_in_use == 0));
}

#[test]
fn h2_an_exclusive_queue_crosses_with_its_commands() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.exclusive_queues(1));
    let (namespace, pages, data) = (&w.namespace, gpns(0, 1), pattern(7, 12 << 10));
    bench.run(namespace.write_slice(0, 0, false, &data)).expect("written");
    let mut queue = bench.run(w.driver.exclusive_queue()).expect("a queue");
    let tokens = |queue: &mut ExclusiveQueue| {
        let mut found: Vec<_> = queue.poll().map(|completed| (completed.token, completed.result.is_ok())).collect();
        found.sort_unstable();
        found
    };
    slow(&w.spy, NvmOpcode::READ, SECOND);
    queue.read(namespace, 1, 0, 8, &w.memory, whole(&pages)).expect("sent");
    let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
    queue.read_buffer(namespace, 2, 8, 8, buffer).map_err(|(_, error)| error).expect("sent");
    bench.world.settle();
    no_faults(&w.spy);
    queue.flush(namespace, 3).expect("sent");
    bench.world.settle();
    // Held still, nothing is found. What ends is found after, by whoever goes on.
    let saved = w.driver.save().expect("saved");
    assert_eq!(tokens(&mut queue), []);
    let refused = queue.flush(namespace, 4).expect_err("it is held still");
    assert!(matches!(refused, RequestError::WouldWait), "{refused}");
    drop(saved);
    let saved = w.driver.save().expect("saved");
    assert_eq!(tokens(&mut queue), [], "what has ended is nobody's until it is decided");
    drop(saved);
    assert_eq!(tokens(&mut queue), [(3, true)]);
    queue.flush(namespace, 5).expect("sent");
    bench.world.settle();
    drop(w.driver.save().expect("saved"));
    let to = options(&bench, &w.spy).exclusive_queues(1);
    let mut restored = hand_over(&bench, &w.driver, to);
    assert!(restored.commands.is_empty(), "they are their owner's");
    let mut new = restored.exclusive_queues.pop().expect("the queue");
    assert_eq!((new.id(), restored.exclusive_queues.len()), (queue.id(), 0));
    let ended: Vec<_> = queue.poll().collect();
    assert_eq!(ended.len(), 3);
    ended.into_iter().for_each(|completed| {
        assert!(matches!(completed.result.map_err(|error| *error), Err(RequestError::HandedOver)));
    });
    assert_eq!(tokens(&mut queue), [], "each came once");
    let gone = queue.flush(namespace, 6).expect_err("it was handed over");
    assert!(matches!(gone, RequestError::HandedOver), "{gone}");
    drop(queue);
    assert_eq!(tokens(&mut new), [(5, true)]);
    bench.run(bench.world.sleep(2 * SECOND));
    let mut ended: Vec<_> = new.poll().collect();
    ended.sort_by_key(|completed| completed.token);
    let [straight, buffered] = <[_; 2]>::try_from(ended).expect("two");
    assert_eq!((straight.token, buffered.token), (1, 2));
    straight.result.expect("read");
    buffered.result.expect("read");
    assert!(contents(&restored.guest_memory[0], &pages, 0, 4096) == data[..4096]);
    assert!(buffered.buffer.expect("it went along").to_vec() == data[4096..8192]);
    // It goes on as any other does, and is given back as any other is.
    let handle = self::namespace(&bench, &restored.driver);
    new.flush(&handle, 7).expect("sent");
    bench.world.settle();
    assert_eq!(tokens(&mut new), [(7, true)]);
    let ids = || restored.driver.inspect().queues.iter().map(|queue| queue.id).collect::<Vec<_>>();
    let id = new.id();
    drop(new);
    bench.run(bench.world.sleep(SECOND));
    assert!(!ids().contains(&id), "{:?}", ids());
    let again = bench.run(restored.driver.exclusive_queue()).expect("another");
    assert!(ids().contains(&again.id()));
}

#[test]
fn h2_what_nobody_claims_is_drained() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let mut buffers = vec![[0; 4096]; 6];
    let mut reads: Vec<_> = buffers.iter_mut().map(|bytes| w.namespace.read_slice(0, 0, bytes)).collect();
    for read in &mut reads {
        assert!(poll(read).is_pending());
    }
    // Two have gone before: nobody is offered them.
    reads.truncate(4);
    let Restored { driver, commands, .. } = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    assert_eq!(commands.len(), 4);
    drop(commands);
    let in_use = |driver: &NvmeDriver| driver.inspect().queues.iter().map(|queue| queue.pool_in_use).sum::<usize>();
    assert_eq!(in_use(&driver), 6);
    bench.run(bench.world.sleep(3 * SECOND));
    bench.world.settle();
    assert_eq!(in_use(&driver), 0);
    let queues = driver.inspect().queues;
    assert!(queues.iter().filter(|queue| queue.id != 0).all(|queue| queue.commands.is_empty()));
}

#[test]
fn h3_a_handover_that_fails_leaves_everything_as_it_was() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let pages: Vec<_> = (0..4).map(|page| gpns(page, 1)).collect();
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let mut in_flight = w.namespace.read(0, 0, 8, &w.memory, whole(&pages[0]));
    assert!(poll(&mut in_flight).is_pending());
    bench.world.settle();
    no_faults(&w.spy);
    let mut there = w.namespace.read(0, 0, 8, &w.memory, whole(&pages[1]));
    let mut dropped = w.namespace.read(0, 0, 8, &w.memory, whole(&pages[2]));
    assert!(poll(&mut there).is_pending() && poll(&mut dropped).is_pending());
    bench.world.settle();
    let saved = w.driver.save().expect("saved");
    assert_eq!(w.driver.save().expect_err("it is held still"), NotYet::Saving);
    // Nothing goes out, and nothing is answered, meanwhile.
    let mut new = w.namespace.read(0, 0, 8, &w.memory, whole(&pages[3]));
    w.spy.clear();
    bench.run(async {
        assert!(poll_once(&mut there).await.is_none());
        assert!(poll_once(&mut new).await.is_none());
        bench.world.sleep(5 * SECOND).await;
        assert!(poll_once(&mut in_flight).await.is_none());
        assert!(poll_once(&mut new).await.is_none());
    });
    drop(dropped);
    assert!(w.spy.io().is_empty());
    drop(saved);
    for result in bench.run(join_all([in_flight, there, new])) {
        result.expect("read");
    }
    assert_eq!((w.slots_taken(), w.driver.state()), (0, ControllerState::Running));
    // As often as one likes.
    drop(w.driver.save().expect("saved"));
    bench.run(w.namespace.flush(0)).expect("flushed");
}

#[test]
fn h3_a_result_that_is_claimed_while_it_is_held_still_is_not_lost() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let pages = gpns(0, 1);
    let mut failed = w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::fail(Status::UNRECOVERED_READ_ERROR));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    assert!(poll(&mut failed).is_pending());
    bench.world.settle();
    for _ in 0..3 {
        let saved = w.driver.save().expect("saved");
        assert!(poll(&mut failed).is_pending());
        drop(saved);
    }
    let error = bench.run(failed).expect_err("the status");
    assert_eq!(error.status(), Some(Status::UNRECOVERED_READ_ERROR));
    assert_eq!(w.slots_taken(), 0);
}

#[test]
fn h3_memory_that_is_registered_meanwhile_is_to_be_tried_again() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let saved = w.driver.save().expect("saved");
    let refused = w.driver.register_memory(&w.memory);
    assert!(matches!(refused, Err(RequestError::WouldWait)), "{refused:?}");
    drop(saved);
    w.driver.register_memory(&w.memory).expect("registered");
}

#[test]
fn h3_a_driver_that_is_dropped_or_shut_down_meanwhile_waits_for_the_decision() {
    for commit in [true, false] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        let saved = w.driver.save().expect("saved");
        let Watched { driver, namespace, spy, memory } = w;
        drop((namespace, memory));
        let ended = bench.run(async {
            let mut shutdown = pin!(driver.shutdown());
            assert!(poll_once(&mut shutdown).await.is_none());
            bench.world.sleep(SECOND).await;
            assert!(poll_once(&mut shutdown).await.is_none());
            if commit {
                saved.hand_over()
            } else {
                drop(saved)
            }
            shutdown.await;
            doorbell_device::Device::read32(&*spy, offset::CC).expect("CC")
        });
        assert_eq!(Cc::from(ended).en(), commit);
    }
}

#[test]
fn h3_a_reset_that_is_asked_for_meanwhile_waits_for_the_decision() {
    for commit in [true, false] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        let saved = w.driver.save().expect("saved");
        let mut reset = Box::pin(w.driver.reset_controller());
        bench.run(async {
            assert!(poll_once(&mut reset).await.is_none());
            bench.world.sleep(SECOND).await;
            assert!(poll_once(&mut reset).await.is_none());
        });
        let enabled = Cc::from(doorbell_device::Device::read32(&*w.spy, offset::CC).expect("CC")).en();
        assert!(enabled && w.driver.inspect().controller.resets == 0, "it may be another's to reset");
        if commit {
            let to = options(&bench, &w.spy);
            let restored = bench.run(to.restore(saved.state(), saved.memory().to_vec())).expect("restored");
            saved.hand_over();
            assert_handed_over(bench.run(reset));
            bench.run(namespace(&bench, &restored.driver).flush(0)).expect("flushed");
            assert_eq!(restored.driver.inspect().controller.resets, 0);
        } else {
            drop(saved);
            bench.run(reset).expect("reset");
            assert_eq!(w.driver.inspect().controller.resets, 1);
            bench.run(w.namespace.flush(0)).expect("flushed");
        }
    }
}

#[test]
fn h3_time_that_passes_meanwhile_is_not_the_device_s() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.admin_timeout(2 * SECOND));
    // A task of the driver asks, and waits for the answer.
    let asked = |fault: Fault, size: u64| {
        let plan = FaultPlan::on(CommandMatch::admin(AdminOpcode::IDENTIFY.0).times(1), fault);
        w.spy.device().with_controller(|controller| controller.set_faults(plan));
        bench.subsystem.resize_namespace(1, size).expect("resized");
        bench.run(bench.world.sleep(SECOND / 2));
        w.driver.save().expect("saved")
    };
    // It is answered while nobody listens, and held still for longer than it may take.
    let saved = asked(Fault::delay(SECOND), 8 << 20);
    bench.run(bench.world.sleep(10 * SECOND));
    drop(saved);
    bench.run(bench.world.sleep(10 * SECOND));
    assert_eq!((w.driver.inspect().controller.resets, w.namespace.block_count()), (0, 16384));
    // One that is not answered is noticed all the same.
    drop(asked(Fault::Drop, 4 << 20));
    bench.run(bench.world.sleep(10 * SECOND));
    assert_eq!((w.driver.inspect().controller.resets, w.namespace.block_count()), (1, 8192));
}

#[test]
fn h3_a_failure_meanwhile_is_dealt_with_by_who_goes_on() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.io_timeout(Some(SECOND)));
    let pages = gpns(0, 1);
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0).times(1), Fault::Fatal);
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let mut read = w.namespace.read(0, 0, 8, &w.memory, whole(&pages));
    assert!(poll(&mut read).is_pending());
    let saved = w.driver.save().expect("saved");
    let to = options(&bench, &w.spy).io_timeout(Some(SECOND));
    bench.world.settle();
    bench.run(bench.world.sleep(10 * SECOND));
    let error = bench.run(to.restore(saved.state(), saved.memory().to_vec())).expect_err("it failed meanwhile");
    assert!(matches!(error, RestoreError::NotAsLeft(_)), "{error}");
    drop(saved);
    bench.run(read).expect("sent once more after the reset");
    assert_eq!(w.driver.inspect().controller.resets, 1);
}

#[test]
fn h4_namespaces_are_the_same_or_removed() {
    let bench = Bench::with(NamespaceConfig::ram(16 << 20));
    let second = bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("namespace 2");
    let w = Watched::new(&bench, ControllerConfig::default());
    let gone = bench.run(w.driver.namespace(second)).expect("namespace 2");
    bench.subsystem.remove_namespace(second).expect("removed");
    bench.run(gone.wait_removed());
    let saved = w.driver.save().expect("saved");
    bench.subsystem.resize_namespace(1, 32 << 20).expect("resized");
    let restored =
        bench.run(options(&bench, &w.spy).restore(saved.state(), saved.memory().to_vec())).expect("restored");
    saved.hand_over();
    let (first, gone) = bench.run(async {
        (
            restored.driver.namespace(1).await.expect("namespace 1"),
            restored.driver.namespace(second).await.expect("held"),
        )
    });
    assert!(gone.is_removed());
    assert_eq!(bench.run(first.wait_resize(32768)).expect("a size"), 65536);
    // Twice is once too often, as ever.
    assert!(bench.run(restored.driver.namespace(1)).is_err());
}

#[test]
fn h4_another_disk_that_came_meanwhile_is_not_written() {
    // A controller that tells of it, and one that does not: all is looked at in any case.
    for namespace_notices in [true, false] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig { namespace_notices, ..ControllerConfig::default() });
        let saved = w.driver.save().expect("saved");
        bench.subsystem.remove_namespace(1).expect("removed");
        bench
            .subsystem
            .add_namespace(NamespaceConfig { nsid: Some(1), ..NamespaceConfig::ram(16 << 20) })
            .expect("another");
        let restored =
            bench.run(options(&bench, &w.spy).restore(saved.state(), saved.memory().to_vec())).expect("restored");
        saved.hand_over();
        bench.world.settle();
        let namespace = namespace(&bench, &restored.driver);
        assert!(namespace.is_removed(), "notices: {namespace_notices}");
    }
}

#[test]
fn h5_events_are_not_lost() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let saved = w.driver.save().expect("saved");
    // While nobody watches.
    let added = bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("namespace 2");
    bench.world.settle();
    let restored =
        bench.run(options(&bench, &w.spy).restore(saved.state(), saved.memory().to_vec())).expect("restored");
    let mut events = restored.driver.events();
    saved.hand_over();
    bench.world.settle();
    let told = |events: &mut doorbell::EventListener, nsid| {
        std::iter::from_fn(|| events.try_next()).any(|e| matches!(e, ControllerEvent::NamespaceAdded(n) if n == nsid))
    };
    assert!(told(&mut events, added));
    // And they keep coming.
    let another = bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).expect("namespace 3");
    bench.world.settle();
    assert!(told(&mut events, another));
    assert!(w.spy.admin(AdminOpcode::ABORT).is_empty());
}

#[test]
fn h5_features_and_the_host_identifier_are_set_again_after_a_reset() {
    let bench = Bench::new();
    let id = HostId::Extended([7; 16]);
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.host_id(id));
    bench.run(w.driver.set_features(FeatureId::ARBITRATION, false, 0, 3, &[])).expect("set");
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    bench.run(restored.driver.reset_controller()).expect("reset");
    let value = bench.run(restored.driver.get_features(FeatureId::ARBITRATION, 0, 0, 0, &mut [])).expect("the feature");
    assert_eq!(value & 7, 3);
    let mut bytes = [0; 16];
    bench.run(restored.driver.get_features(FeatureId::HOST_IDENTIFIER, 0, 0, 1, &mut bytes)).expect("the identifier");
    assert_eq!(bytes, [7; 16]);
    let namespace = namespace(&bench, &restored.driver);
    bench.run(namespace.flush(0)).expect("flushed");
}

#[test]
fn h6_io_waits_for_inherited_writes_of_its_blocks_alone() {
    for first in [false, true] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        let (old, new) = (pattern(1, 4096), pattern(2, 4096));
        let pages = gpns(0, 1);
        fill(&w.memory, &pages, 0, &old);
        slow(&w.spy, NvmOpcode::WRITE, 5 * SECOND);
        let mut write = w.namespace.write(0, 0, 8, false, &w.memory, whole(&pages));
        assert!(poll(&mut write).is_pending());
        bench.world.settle();
        let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy).inherited_first(first));
        no_faults(&w.spy);
        let (namespace, before) = (namespace(&bench, &restored.driver), bench.world.now());
        let took = || bench.world.now() - before;
        // Other blocks.
        bench.run(namespace.write_slice(0, 8, false, &new)).expect("written");
        assert_eq!(took() >= 4 * SECOND, first, "{:?}", took());
        // The same: by another queue, through the pool.
        bench.run(namespace.write_slice(1, 7, false, &new)).expect("written");
        assert!(took() >= 4 * SECOND, "{:?}", took());
        let mut bytes = vec![0; 8192];
        bench.run(namespace.read_slice(0, 0, &mut bytes)).expect("read");
        assert!(bytes[..7 * 512] == old[..7 * 512] && bytes[7 * 512..15 * 512] == new);
        // With nothing inherited any more, straight again.
        bench.world.settle();
        let memory = &restored.guest_memory[0];
        let again = bench.world.now();
        bench.run(namespace.read(0, 0, 8, memory, whole(&pages))).expect("read");
        assert_eq!(bench.world.now(), again);
        drop(restored.commands);
    }
}

#[test]
fn h6_an_exclusive_queue_overtakes_no_inherited_write() {
    for first in [false, true] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        let (pages, many) = (gpns(0, 1), gpns(4, 4));
        fill(&w.memory, &pages, 0, &pattern(1, 4096));
        slow(&w.spy, NvmOpcode::WRITE, 5 * SECOND);
        let mut write = w.namespace.write(0, 0, 8, false, &w.memory, whole(&pages));
        assert!(poll(&mut write).is_pending());
        bench.world.settle();
        let to = options(&bench, &w.spy).inherited_first(first).exclusive_queues(1);
        let restored = hand_over(&bench, &w.driver, to);
        no_faults(&w.spy);
        let namespace = namespace(&bench, &restored.driver);
        let mut queue = bench.run(restored.driver.exclusive_queue()).expect("an exclusive queue");
        let memory = &restored.guest_memory[0];
        let waits = |result| assert!(matches!(result, Err(RequestError::WouldWait)), "{result:?}");
        waits(queue.read(&namespace, 1, 7, 8, memory, whole(&pages)));
        waits(queue.read(&namespace, 2, 7, 32, memory, whole(&many)));
        waits(queue.flush(&namespace, 3));
        match queue.read(&namespace, 4, 8, 8, memory, whole(&pages)) {
            Ok(()) => assert!(!first),
            other => {
                assert!(first);
                waits(other);
            }
        }
        bench.run(bench.world.sleep(6 * SECOND));
        queue.read(&namespace, 5, 7, 32, memory, whole(&many)).expect("it goes out");
        queue.flush(&namespace, 6).expect("it goes out");
        bench.world.settle();
        let tokens: Vec<_> = queue.poll().inspect(|done| assert!(done.result.is_ok())).map(|done| done.token).collect();
        assert_eq!(tokens, if first { vec![5, 6] } else { vec![4, 5, 6] });
        drop(restored.commands);
    }
}

#[test]
fn h6_io_of_a_later_handle_waits_too() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let (old, new) = (pattern(1, 4096), pattern(2, 512));
    slow(&w.spy, NvmOpcode::WRITE, 5 * SECOND);
    let pages = gpns(0, 1);
    fill(&w.memory, &pages, 0, &old);
    let mut write = w.namespace.write(0, 0, 8, false, &w.memory, whole(&pages));
    assert!(poll(&mut write).is_pending());
    bench.world.settle();
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy));
    no_faults(&w.spy);
    // The one that was inherited goes, and another is made.
    drop(namespace(&bench, &restored.driver));
    let namespace = namespace(&bench, &restored.driver);
    let before = bench.world.now();
    bench.run(namespace.write_slice(1, 7, false, &new)).expect("written");
    assert!(bench.world.now() - before >= 4 * SECOND);
    let mut bytes = vec![0; 4096];
    bench.run(namespace.read_slice(0, 0, &mut bytes)).expect("read");
    assert!(bytes[..3584] == old[..3584] && bytes[3584..] == new);
    drop(restored.commands);
}

#[test]
fn h7_another_number_of_cpus_is_fine() {
    for cpus in [1, 2, 8] {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        let pages: Vec<_> = (0..4).map(|page| gpns(page, 1)).collect();
        bench.run(w.namespace.flush(1)).expect("a queue");
        slow(&w.spy, NvmOpcode::READ, SECOND);
        let mut reads: Vec<_> =
            (0..4).map(|i| w.namespace.read(i as u32 % 2, 0, 8, &w.memory, whole(&pages[i]))).collect();
        reads.iter_mut().for_each(|read| assert!(poll(read).is_pending()));
        let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy).cpus(cpus));
        let results: Vec<_> = bench.run(join_all(restored.commands));
        assert_eq!(results.len(), 4);
        assert!(results.iter().all(|result| result.completion.is_ok()));
        let namespace = namespace(&bench, &restored.driver);
        for cpu in 0..cpus {
            bench.run(namespace.flush(cpu)).expect("flushed");
        }
        assert!(matches!(bench.run(namespace.flush(cpus)), Err(RequestError::NoSuchCpu { .. })));
        bench.run(restored.driver.shutdown());
    }
}

#[test]
fn h7_queues_of_missing_cpus_are_looked_at() {
    let bench = Bench::new();
    let w =
        Watched::with(&bench, ControllerConfig::default(), |options| options.completion(CompletionMode::CallerPolls));
    let pages: Vec<_> = (0..2).map(|page| gpns(page, 1)).collect();
    bench.run(w.namespace.flush(0)).expect("a queue");
    bench.run(w.namespace.flush(1)).expect("a queue");
    slow(&w.spy, NvmOpcode::READ, SECOND);
    let mut reads: Vec<_> = (0..2).map(|i| w.namespace.read(i as u32, 0, 8, &w.memory, whole(&pages[i]))).collect();
    reads.iter_mut().for_each(|read| assert!(poll(read).is_pending()));
    let restored = hand_over(&bench, &w.driver, options(&bench, &w.spy).cpus(1));
    bench.run(bench.world.sleep(2 * SECOND));
    // One a queue, also of the CPU that there is no more.
    assert_eq!(restored.driver.poll(), 2);
    assert!(bench.run(join_all(restored.commands)).iter().all(|result| result.completion.is_ok()));
}

#[test]
fn h7_it_crosses_over_again_and_again_under_load() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(5, 1 << 20);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    slow(&w.spy, NvmOpcode::READ, Duration::from_micros(300));
    let (spy, mut driver) = (w.spy.clone(), w.driver);
    let mut memory = w.memory.clone();
    drop(w.namespace);
    for round in 0..50u64 {
        let namespace = namespace(&bench, &driver);
        let pages: Vec<_> = (0..32).map(|page| gpns(page, 1)).collect();
        let mut reads: Vec<_> = (0..32u64)
            .map(|i| {
                namespace.read((i % 2) as u32, (round * 7 + i * 8) % 2040, 8, &memory, whole(&pages[i as usize])).tag(i)
            })
            .collect();
        let mut done = 0;
        bench.run(async {
            for (index, read) in reads.iter_mut().enumerate() {
                done += u64::from(poll_once(&mut *read).await.is_some());
                if index % 5 == 0 {
                    bench.world.sleep(Duration::from_micros(40)).await;
                }
            }
        });
        for read in &mut reads {
            if let Poll::Ready(result) = poll(read) {
                result.expect("read");
                done += 1;
            }
        }
        let restored = hand_over(&bench, &driver, options(&bench, &spy));
        drop(reads);
        assert_eq!(done + restored.commands.len() as u64, 32, "round {round}");
        for command in restored.commands {
            let (tag, (lba, _)) = (command.tag(), command.blocks().expect("a read"));
            bench.run(command).completion.expect("read");
            let expected = &data[lba as usize * 512..][..4096];
            assert!(contents(&restored.guest_memory[0], &gpns(tag, 1), 0, 4096) == expected, "round {round}");
        }
        drop(namespace);
        driver = restored.driver;
        memory = restored.guest_memory[0].clone();
    }
    assert_eq!(driver.inspect().controller.resets, 0);
    bench.run(driver.shutdown());
}

#[test]
fn h8_what_cannot_be_saved_says_so() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    // CPU 1 has no queue yet.
    let plan = FaultPlan::on(CommandMatch::admin(AdminOpcode::CREATE_IO_CQ.0), Fault::delay(SECOND));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let mut bytes = [0; 512];
    let mut first: Pin<Box<_>> = Box::pin(w.namespace.read_slice(1, 0, &mut bytes));
    bench.run(async {
        assert!(poll_once(&mut first).await.is_none());
        bench.world.sleep(SECOND / 2).await;
    });
    assert_eq!(w.driver.save().expect_err("a queue is being made"), NotYet::MakingQueue);
    bench.run(first).expect("read");
    // Resetting.
    let (mut reset, mut seen) = (Box::pin(w.driver.reset_controller()), None);
    bench.run(async {
        for _ in 0..100 {
            if poll_once(&mut reset).await.is_some() {
                break;
            }
            if let Err(not_yet) = w.driver.save() {
                seen = Some(not_yet);
            }
            futures_lite::future::yield_now().await;
        }
    });
    assert_eq!(seen, Some(NotYet::Recovering));
    drop(reset);
    bench.run(bench.world.sleep(10 * SECOND));
    drop(w.driver.save().expect("saved"));
    let state = w.driver.save().map(|saved| saved.state().to_vec()).expect("saved");
    assert!(state.len() > 4096);
    let driver = w.driver;
    bench.run(driver.end(doorbell::ShutdownMode::Reset));
    assert_eq!(driver.save().expect_err("it ended"), NotYet::Ended);
}

#[test]
fn h8_states_that_are_none_are_refused() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let saved = w.driver.save().expect("saved");
    let restore =
        |state: &[u8], memory| bench.run(options(&bench, &w.spy).restore(state, memory)).expect_err("refused");
    let memory = || saved.memory().to_vec();
    assert!(matches!(restore(b"doorbells ring", memory()), RestoreError::State(StateError::Damaged(_))));
    assert!(matches!(restore(b"something else", memory()), RestoreError::State(StateError::Foreign)));
    let mut damaged = saved.state().to_vec();
    damaged[5000] ^= 1;
    assert!(matches!(restore(&damaged, memory()), RestoreError::State(StateError::Damaged(_))));
    let mut newer = saved.state().to_vec();
    newer[12] = 200;
    assert!(matches!(restore(&newer, memory()), RestoreError::State(StateError::TooNew { oldest: 200, .. })));
    assert!(matches!(restore(saved.state(), Vec::new()), RestoreError::Memory { index: 0, .. }));
    let mut swapped = memory();
    swapped.swap(0, 1);
    assert!(matches!(restore(saved.state(), swapped), RestoreError::Memory { .. }));
    // Another controller.
    let other = bench.device(ControllerConfig { mqes: 63, ..ControllerConfig::default() });
    let error = bench.run(bench.world.options(other).restore(saved.state(), memory())).expect_err("another");
    assert!(matches!(error, RestoreError::NotAsLeft(_)), "{error}");
    // All of that harmed nobody.
    drop(saved);
    bench.run(w.namespace.flush(0)).expect("flushed");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn h8_no_state_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let bench = Bench::new();
        let w = Watched::new(&bench, ControllerConfig::default());
        slow(&w.spy, NvmOpcode::READ, SECOND);
        let mut bytes = [0; 4096];
        let mut read = w.namespace.read_slice(0, 0, &mut bytes);
        prop_assert!(poll(&mut read).is_pending());
        let saved = w.driver.save().expect("saved");
        let mut state = saved.state().to_vec();
        for (index, value) in changes {
            // Past the identify data, of which any is as good as another.
            let at = 4200 + index.index(state.len() - 4200);
            state[at] = value;
        }
        let crc = crc32fast::hash(&state[20..]);
        state[16..20].copy_from_slice(&crc.to_le_bytes());
        let restored = bench.run(options(&bench, &w.spy).restore(&state, saved.memory().to_vec()));
        drop(restored);
    }
}
