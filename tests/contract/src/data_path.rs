//! D1 to D4: which way data goes, and what is refused before anything is sent.

use doorbell::{ErrorClass, GuestMemory, LargeTransferError, PagedRange, RequestError, SplitPlan};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, LbaRange, NamespaceConfig, SglSupport};
use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{NvmOpcode, Status};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Watched, contents, fill, gpns, join_all, poll, whole};

/// A controller that takes PRPs alone, so that what a command names can be looked at.
fn prps() -> ControllerConfig {
    ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() }
}

#[test]
fn d1_the_device_gets_the_iovas_of_the_guests_own_pages() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let pages = [7, 3];
    let data = pattern(1, 8192);
    fill(&w.memory, &pages, 0, &data);
    bench.run(w.namespace.write(0, 16, 16, false, &w.memory, whole(&pages))).expect("written");
    bench.run(w.namespace.read(0, 16, 16, &w.memory, whole(&[9, 5]))).expect("read");
    assert_eq!(contents(&w.memory, &[9, 5], 0, 8192), data);
    assert_eq!(w.bounced(), 0);
    let io = w.spy.io();
    assert_eq!(io.len(), 2);
    for ((_, command), gpns) in io.iter().zip([[7u64, 3], [9, 5]]) {
        // Memory of the guest's own, at both places: a byte changed there is a byte the guest sees.
        for (iova, gpn) in [(command.dptr.prp1(), gpns[0]), (command.dptr.prp2(), gpns[1])] {
            w.spy.device().dma_space().view().write(iova, b"from the device").expect("reachable");
            assert_eq!(contents(&w.memory, &[gpn], 0, 15), b"from the device");
        }
    }
}

#[test]
fn d1_contiguous_guest_memory_is_one_sgl_data_block() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let pages = gpns(8, 16);
    bench.run(w.namespace.read(0, 0, 128, &w.memory, whole(&pages))).expect("read");
    let read = w.spy.of(NvmOpcode::READ).remove(0);
    assert_eq!(read.cdw0.psdt(), 1, "an SGL");
    assert_eq!(w.bounced(), 0);
}

#[test]
fn d1_a_command_goes_out_on_the_target_cpus_queue() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.cpus(3));
    let pages = gpns(0, 1);
    for cpu in [2, 0, 1, 2] {
        w.spy.clear();
        bench.run(w.namespace.read(cpu, 0, 8, &w.memory, whole(&pages))).expect("read");
        let queue = w.driver.inspect().cpus.iter().find(|view| view.cpu == cpu).expect("it has a queue").queue;
        assert_eq!(w.spy.io().iter().map(|(queue, _)| *queue).collect::<Vec<_>>(), [queue]);
    }
    let mut queues: Vec<u16> = w.driver.inspect().cpus.iter().map(|view| view.queue).collect();
    queues.sort_unstable();
    assert_eq!(queues, [1, 2, 3]);
    let result = bench.run(w.namespace.read(3, 0, 8, &w.memory, whole(&pages)));
    assert!(matches!(result, Err(RequestError::NoSuchCpu { cpu: 3, count: 3 })), "{result:?}");
}

#[test]
fn d1_fua_is_a_bit_of_the_write_and_of_nothing_else() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let pages = gpns(0, 1);
    for fua in [true, false] {
        w.spy.clear();
        bench.run(w.namespace.write(0, 0, 8, fua, &w.memory, whole(&pages))).expect("written");
        bench.run(w.namespace.read(0, 0, 8, &w.memory, whole(&pages))).expect("read");
        let bits: Vec<bool> = w.spy.io().iter().map(|(_, c)| ReadWriteCdw12::from(c.cdw12).fua()).collect();
        assert_eq!(bits, [fua, false]);
    }
}

/// Writes and reads back, and says how many of the two commands were bounced.
fn bounces(bench: &Bench, w: &Watched, memory: &GuestMemory) -> u64 {
    let pages = [4, 2, 9];
    let data = pattern(3, 3 * 4096 - 1024);
    let range = PagedRange::new(512, data.len(), &pages).expect("a range");
    let blocks = data.len() as u32 / 512;
    let before = w.bounced();
    fill(memory, &pages, 512, &data);
    bench.run(w.namespace.write(0, 40, blocks, false, memory, range)).expect("written");
    memory.write_at(0, &vec![0; 64 * 4096]).expect("cleared");
    bench.run(w.namespace.read(0, 40, blocks, memory, range)).expect("read");
    assert_eq!(contents(memory, &pages, 512, data.len()), data);
    assert_eq!(contents(memory, &pages, 0, 512), [0; 512], "nothing before the range is touched");
    assert_eq!(contents(memory, &pages, 3 * 4096 - 512, 512), [0; 512], "nor after");
    w.bounced() - before
}

#[test]
fn d1_memory_that_the_device_cannot_reach_is_bounced() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    assert_eq!(bounces(&bench, &w, &guest(64)), 2, "not registered");
    assert_eq!(bounces(&bench, &w, &w.memory), 0, "registered");
    let (other, _) = (bench.driver(ControllerConfig::default()), ());
    let elsewhere = other.register_memory(&guest(64)).expect("registered");
    assert_eq!(bounces(&bench, &w, &elsewhere), 2, "registered with another driver");
}

#[test]
fn d1_everything_is_bounced_when_the_driver_is_told_to() {
    let bench = Bench::new();
    let w = Watched::with(&bench, ControllerConfig::default(), |options| options.always_bounce(true));
    assert_eq!(bounces(&bench, &w, &w.memory), 2);
    let buffer = w.driver.allocate_buffer(4096).expect("a buffer");
    let before = w.bounced();
    let (_, result) = bench.run(w.namespace.read_buffer(0, 0, 8, buffer));
    result.expect("read");
    assert_eq!(w.bounced(), before + 1);
}

#[test]
fn d2_zero_blocks_is_success_and_sends_nothing() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let empty = PagedRange::new(0, 0, &[]).expect("a range");
    bench.run(w.namespace.read(0, 5, 0, &w.memory, empty)).expect("nothing to do");
    bench.run(w.namespace.write(0, 5, 0, true, &w.memory, empty)).expect("nothing to do");
    bench.run(w.namespace.compare(0, 5, 0, &w.memory, empty)).expect("nothing to do");
    bench.run(w.namespace.read_slice(0, 5, &mut [])).expect("nothing to do");
    bench.run(w.namespace.write_slice(0, 5, false, &[])).expect("nothing to do");
    // On a CPU that has no queue yet none is made.
    bench.run(w.namespace.read(1, 5, 0, &w.memory, empty)).expect("nothing to do");
    let buffer = w.driver.allocate_buffer(512).expect("a buffer");
    let (buffer, result) = bench.run(w.namespace.read_buffer(0, 5, 0, buffer));
    result.expect("nothing to do");
    assert_eq!(buffer.len(), 512);
    bench.run(w.namespace.write_zeroes(0, 5, 0, false, false)).expect("nothing to do");
    bench.run(w.namespace.verify(0, 5, 0)).expect("nothing to do");
    bench.run(w.namespace.write_uncorrectable(0, 5, 0)).expect("nothing to do");
    bench.run(w.namespace.compare_and_write(0, 5, &[], &[], false)).expect("nothing to do");
    bench.run(w.namespace.copy(0, 5, &[])).expect("nothing to do");
    bench.run(w.namespace.read_large(0, 5, 0, &w.memory, empty, SplitPlan::default())).expect("nothing to do");
    assert!(w.spy.rings().is_empty(), "{:?}", w.spy.rings());
    assert_eq!(w.driver.inspect().queues.len(), 1);
}

#[test]
fn d3_more_blocks_than_the_maximum_transfer_is_an_error_to_match_on() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig { mdts: 1, ..prps() });
    let max = w.namespace.max_transfer_block_count();
    assert_eq!(max, 16);
    let pages = gpns(0, 16);
    bench.run(w.namespace.read(0, 0, max, &w.memory, whole(&pages))).expect("just as many");
    w.spy.clear();
    for blocks in [max + 1, u32::MAX] {
        let result = bench.run(w.namespace.read(0, 0, blocks, &w.memory, whole(&pages)));
        let Err(RequestError::TooLarge { len, max: 16, unit: "blocks" }) = result else { panic!("{result:?}") };
        assert_eq!(len, u64::from(blocks));
    }
    let mut slice = vec![0; 17 * 512];
    let result = bench.run(w.namespace.read_slice(0, 0, &mut slice));
    assert!(matches!(result, Err(RequestError::TooLarge { .. })), "{result:?}");
    assert!(w.spy.rings().is_empty());
}

#[test]
fn d3_memory_shorter_than_the_transfer_is_an_error_to_match_on() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let pages = gpns(0, 1);
    let short = PagedRange::new(1, 4095, &pages).expect("a range");
    let result = bench.run(w.namespace.read(0, 0, 8, &w.memory, short));
    assert!(matches!(result, Err(RequestError::TooShort { len: 4095, needed: 4096 })), "{result:?}");
    let buffer = w.driver.allocate_buffer(100).expect("a buffer");
    let (buffer, result) = bench.run(w.namespace.write_buffer(0, 0, 1, false, buffer));
    assert!(matches!(result, Err(RequestError::TooShort { len: 100, needed: 512 })), "{result:?}");
    assert_eq!(buffer.len(), 100, "it comes back all the same");
    let result = bench.run(w.namespace.write_slice(0, 0, false, &[0; 700]));
    assert!(matches!(result, Err(RequestError::NotBlocks { len: 700, block_size: 512 })), "{result:?}");
    let plan = SplitPlan::default();
    let result = bench.run(w.namespace.read_large(0, 0, 8, &w.memory, short, plan));
    assert!(matches!(result, Err(LargeTransferError { source: RequestError::TooShort { .. }, .. })), "{result:?}");
    assert!(w.spy.rings().is_empty());
}

/// 64 blocks a command.
fn small_transfers() -> ControllerConfig {
    ControllerConfig { mdts: 3, ..prps() }
}

#[test]
fn d3_a_large_transfer_is_split_and_its_parts_are_in_flight_together() {
    let bench = Bench::new();
    let w = Watched::new(&bench, small_transfers());
    let pages = gpns(10, 100);
    let data = pattern(5, 100 * 4096);
    fill(&w.memory, &pages, 0, &data);
    let plan = SplitPlan::in_flight(4);
    let mut write = Box::pin(w.namespace.write_large(0, 3, 800, true, &w.memory, whole(&pages), plan));
    assert!(poll(&mut write).is_pending());
    assert_eq!(w.spy.of(NvmOpcode::WRITE).len(), 4, "four at once, before any is done");
    assert_eq!(w.slots_taken(), 4);
    bench.run(write).expect("written");
    let writes = w.spy.of(NvmOpcode::WRITE);
    let parts: Vec<(u64, u32)> =
        writes.iter().map(|c| (c.cdw10_11(), ReadWriteCdw12::from(c.cdw12).block_count())).collect();
    let expected: Vec<(u64, u32)> = (0..13).map(|i| (3 + i * 64, if i == 12 { 32 } else { 64 })).collect();
    assert_eq!(parts, expected);
    assert!(writes.iter().all(|c| ReadWriteCdw12::from(c.cdw12).fua()));

    w.memory.write_at(0, &vec![0; 256 * 4096]).expect("cleared");
    bench.run(w.namespace.read_large(0, 3, 800, &w.memory, whole(&pages), plan)).expect("read");
    assert_eq!(contents(&w.memory, &pages, 0, data.len()), data);
}

#[test]
fn d3_a_plan_of_no_parts_still_moves_the_data() {
    let bench = Bench::new();
    let w = Watched::new(&bench, small_transfers());
    let pages = gpns(0, 16);
    let mut plan = SplitPlan::in_flight(0);
    assert_eq!(plan.in_flight, 1);
    plan.in_flight = 0;
    bench.run(w.namespace.read_large(0, 0, 128, &w.memory, whole(&pages), plan)).expect("read");
    assert_eq!(w.spy.of(NvmOpcode::READ).len(), 2);
}

#[test]
fn d3_when_a_part_fails_it_is_said_which_and_what_is_done() {
    let bench = Bench::new();
    let bad = LbaRange { first: 300, last: 300 };
    let faults =
        FaultPlan::on(CommandMatch { lba: Some(bad), ..CommandMatch::default() }, Fault::fail(Status::WRITE_FAULT));
    let w = Watched::new(&bench, ControllerConfig { faults, ..small_transfers() });
    let pages = gpns(0, 100);
    let data = pattern(7, 100 * 4096);
    fill(&w.memory, &pages, 0, &data);
    for in_flight in [1, 3, 8, 100] {
        w.spy.clear();
        let plan = SplitPlan::in_flight(in_flight);
        let write = w.namespace.write_large(0, 0, 800, false, &w.memory, whole(&pages), plan);
        let error = bench.run(write).expect_err("block 300 fails");
        assert_eq!((error.lba, error.done_blocks), (256, 256), "blocks 256 to 319 are the part that failed");
        assert_eq!(error.source.class(), ErrorClass::Medium);
        assert!(error.to_string().contains("256"), "{error}");
        assert_eq!(w.slots_taken(), 0, "every part that was in flight was waited for");
        let sent = w.spy.of(NvmOpcode::WRITE).len();
        assert!((5..=4 + in_flight).contains(&sent) || sent == 13, "none is sent after the failure: {sent}");
        if in_flight == 1 {
            assert_eq!(sent, 5);
        }
        let mut back = vec![0; 256 * 512];
        bench.run(join_all(
            back.chunks_mut(64 * 512).enumerate().map(|(i, part)| w.namespace.read_slice(0, i as u64 * 64, part)),
        ));
        assert!(back == data[..back.len()], "what is said to be done is done");
    }
}

#[test]
fn d3_of_several_parts_that_fail_the_first_is_reported() {
    let bench = Bench::new();
    let at = |lba| CommandMatch { lba: Some(LbaRange { first: lba, last: lba }), ..CommandMatch::default() };
    // The earlier part fails later.
    let faults = FaultPlan::on(at(200), Fault::fail(Status::WRITE_FAULT));
    let w = Watched::new(&bench, ControllerConfig { faults, ..small_transfers() });
    let pages = gpns(0, 100);
    let slow = FaultPlan::on(
        at(100),
        Fault::CorruptCompletion {
            cid: None,
            sqid: None,
            sqhd: None,
            // Success becomes an internal error: bit 3 of the status code and the rest, above the phase tag.
            status_xor: 0x06 << 1,
            dw0: None,
        },
    );
    let both = slow.and_on(at(200), Fault::fail(Status::WRITE_FAULT));
    w.spy.device().with_controller(|controller| controller.set_faults(both));
    let write = w.namespace.write_large(0, 0, 800, false, &w.memory, whole(&pages), SplitPlan::default());
    let error = bench.run(write).expect_err("two parts fail");
    assert_eq!((error.lba, error.done_blocks), (64, 64));
    assert_eq!(error.source.status(), Some(Status::INTERNAL_ERROR));
}

#[test]
fn d4_blocks_outside_the_namespace_are_refused_unsent() {
    let bench = Bench::with(NamespaceConfig::ram(1000 * 512));
    let w = Watched::new(&bench, prps());
    let pages = gpns(0, 32);
    bench.run(w.namespace.read(0, 999, 1, &w.memory, whole(&pages))).expect("the last block");
    bench.run(w.namespace.read(0, 800, 200, &w.memory, whole(&pages))).expect("up to the end");
    w.spy.clear();
    let outside =
        [(1000, 1), (999, 2), (900, 101), (u64::MAX, 1), (u64::MAX - 7, 8), (u64::MAX - 7, 9), (1 << 63, 100)];
    for (lba, blocks) in outside {
        let refused = |result: Result<(), RequestError>| {
            let Err(error) = result else { panic!("blocks {lba}+{blocks} are outside") };
            assert_eq!(error.class(), ErrorClass::OutOfRange, "{error}");
            let RequestError::OutOfRange { capacity: 1000, .. } = error else { panic!("{error:?}") };
        };
        let range = whole(&pages);
        refused(bench.run(w.namespace.read(0, lba, blocks, &w.memory, range)));
        refused(bench.run(w.namespace.write(0, lba, blocks, false, &w.memory, range)));
        refused(bench.run(w.namespace.compare(0, lba, blocks, &w.memory, range)));
        let count = u64::from(blocks);
        refused(bench.run(w.namespace.write_zeroes(0, lba, count, false, false)));
        refused(bench.run(w.namespace.write_uncorrectable(0, lba, count)));
        refused(bench.run(w.namespace.verify(0, lba, count)));
        let blocks = doorbell::LbaRange { lba, block_count: count };
        refused(bench.run(w.namespace.deallocate(0, &[doorbell::LbaRange { lba: 0, block_count: 1 }, blocks])));
        refused(bench.run(w.namespace.copy(0, 0, &[blocks])));
        refused(bench.run(w.namespace.copy(0, lba, &[doorbell::LbaRange { lba: 0, block_count: count }])));
        let bytes = vec![0; blocks.block_count as usize * 512];
        refused(bench.run(w.namespace.compare_and_write(0, lba, &bytes, &bytes, false)));
        let large = w.namespace.read_large(0, lba, count, &w.memory, range, SplitPlan::default());
        refused(bench.run(large).map_err(|error| error.source));
    }
    for count in [u64::MAX, u64::MAX - 5] {
        let result = bench.run(w.namespace.write_zeroes(0, 10, count, false, false));
        assert!(matches!(result, Err(RequestError::OutOfRange { .. })), "{result:?}");
        let range = doorbell::LbaRange { lba: 10, block_count: count };
        let result = bench.run(w.namespace.copy(0, 0, &[range, range]));
        assert!(matches!(result, Err(RequestError::OutOfRange { .. })), "{result:?}");
        let result = bench.run(w.namespace.deallocate(0, &[range]));
        assert!(matches!(result, Err(RequestError::OutOfRange { .. })), "{result:?}");
    }
    assert!(w.spy.rings().is_empty());
}

#[test]
fn d4_the_bounds_follow_the_namespaces_size() {
    let bench = Bench::with(NamespaceConfig::ram(1000 * 512));
    let w = Watched::new(&bench, prps());
    let pages = gpns(0, 1);
    assert!(bench.run(w.namespace.read(0, 1500, 1, &w.memory, whole(&pages))).is_err());
    bench.subsystem.resize_namespace(1, 2000 * 512).expect("resized");
    assert_eq!(bench.run(w.namespace.wait_resize(1000)).expect("resized"), 2000);
    bench.run(w.namespace.read(0, 1500, 1, &w.memory, whole(&pages))).expect("there now");
    bench.subsystem.resize_namespace(1, 100 * 512).expect("resized");
    assert_eq!(bench.run(w.namespace.wait_resize(2000)).expect("resized"), 100);
    w.spy.clear();
    let result = bench.run(w.namespace.read(0, 999, 1, &w.memory, whole(&pages)));
    assert!(matches!(result, Err(RequestError::OutOfRange { capacity: 100, .. })), "{result:?}");
    assert!(w.spy.rings().is_empty());
}
