//! D10: the commands besides read, write and deallocate.

use doorbell::{ErrorClass, LbaRange, Namespace, RequestError};
use doorbell_emulator::{AtomicUnits, CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, SglSupport};
use nvme_spec::identify::Oncs;
use nvme_spec::nvm::ReadWriteCdw12;
use nvme_spec::{Cdw0, Command, NvmOpcode, Status};

use crate::bench::{Bench, pattern};
use crate::hands::{Counter, Watched, gpns, poll, whole};

fn prps() -> ControllerConfig {
    ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() }
}

fn read(bench: &Bench, namespace: &Namespace, lba: u64, blocks: usize) -> Vec<u8> {
    let mut bytes = vec![0; blocks * 512];
    bench.run(namespace.read_slice(0, lba, &mut bytes)).expect("read");
    bytes
}

/// First block and number of blocks of each command.
fn parts(commands: &[Command]) -> Vec<(u64, u32)> {
    commands.iter().map(|c| (c.cdw10_11(), ReadWriteCdw12::from(c.cdw12).block_count())).collect()
}

#[test]
fn d10_flush_goes_out_on_the_target_cpu() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    bench.run(w.namespace.flush(1)).expect("flushed");
    let io = w.spy.io();
    assert_eq!(io.len(), 1);
    assert_eq!((io[0].0, io[0].1.cdw0.opcode(), io[0].1.nsid), (2, NvmOpcode::FLUSH.0, 1));
}

#[test]
fn d10_write_zeroes_makes_blocks_read_as_zeroes() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    for (deallocate, fua) in [(false, false), (true, false), (false, true)] {
        let data = pattern(1, 10 * 512);
        bench.run(w.namespace.write_slice(0, 20, false, &data)).expect("written");
        w.spy.clear();
        bench.run(w.namespace.write_zeroes(0, 22, 5, deallocate, fua)).expect("zeroed");
        let command = w.spy.of(NvmOpcode::WRITE_ZEROES).remove(0);
        let cdw12 = ReadWriteCdw12::from(command.cdw12);
        assert_eq!((cdw12.deac(), cdw12.fua()), (deallocate, fua));
        let back = read(&bench, &w.namespace, 20, 10);
        assert_eq!(back[..1024], data[..1024]);
        assert_eq!(back[1024..7 * 512], [0; 5 * 512]);
        assert_eq!(back[7 * 512..], data[7 * 512..]);
    }
}

#[test]
fn d10_write_uncorrectable_and_verify_agree_with_read() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    bench.run(w.namespace.verify(0, 0, 100)).expect("all is well");
    bench.run(w.namespace.write_uncorrectable(0, 50, 3)).expect("marked");
    let error = bench.run(w.namespace.verify(0, 0, 100)).expect_err("blocks 50 to 52 cannot be read");
    assert_eq!(error.class(), ErrorClass::Medium);
    let mut bytes = vec![0; 512];
    let error = bench.run(w.namespace.read_slice(0, 52, &mut bytes)).expect_err("it cannot be read");
    assert_eq!((error.class(), error.status()), (ErrorClass::Medium, Some(Status::UNRECOVERED_READ_ERROR)));
    bench.run(w.namespace.verify(0, 53, 47)).expect("the rest is well");
    bench.run(w.namespace.write_slice(0, 50, false, &[1; 3 * 512])).expect("written");
    bench.run(w.namespace.verify(0, 0, 100)).expect("all is well again");
}

#[test]
fn d10_compare_tells_whether_blocks_are_equal() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let data = pattern(2, 4096);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    w.memory.write_at(4096, &data).expect("guest memory");
    let pages = gpns(1, 1);
    bench.run(w.namespace.compare(0, 0, 8, &w.memory, whole(&pages))).expect("equal");
    w.memory.write_at(4096 + 4095, &[data[4095] ^ 1]).expect("guest memory");
    let error = bench.run(w.namespace.compare(0, 0, 8, &w.memory, whole(&pages))).expect_err("they differ");
    assert_eq!(error.class(), ErrorClass::Miscompare);
    assert_eq!(w.bounced(), 1, "the guest's pages are compared in place");
}

#[test]
fn d10_what_the_controller_does_not_report_is_refused_unsent() {
    let bench = Bench::new();
    let config = ControllerConfig { oncs: Oncs::new(), compare_and_write: false, ..prps() };
    let w = Watched::new(&bench, config);
    let one = [LbaRange { lba: 0, block_count: 1 }];
    let bytes = [0; 512];
    let pages = gpns(0, 1);
    let results = [
        bench.run(w.namespace.write_zeroes(0, 0, 1, false, false)),
        bench.run(w.namespace.write_uncorrectable(0, 0, 1)),
        bench.run(w.namespace.verify(0, 0, 1)),
        bench.run(w.namespace.compare(0, 0, 1, &w.memory, whole(&pages))),
        bench.run(w.namespace.compare_slice(0, 0, &bytes)),
        bench.run(w.namespace.compare_and_write(0, 0, &bytes, &bytes, false)),
        bench.run(w.namespace.copy(0, 10, &one)),
        bench.run(w.namespace.deallocate(0, &one)),
    ];
    for result in results {
        let Err(error @ RequestError::Unsupported(_)) = result else { panic!("{result:?}") };
        assert_eq!(error.class(), ErrorClass::Invalid);
    }
    assert!(w.spy.rings().is_empty());
    bench.run(w.namespace.flush(0)).expect("flush needs no leave");
}

#[test]
fn d10_commands_are_split_at_their_own_limits() {
    // 2 pages, 4 pages and 1 page of 4 KiB.
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig { wzsl: 1, wusl: 2, vsl: 3, ..prps() });
    bench.run(w.namespace.write_slice(0, 0, false, &vec![5; 100 * 512])).expect("written");
    bench.run(w.namespace.write_zeroes(0, 3, 50, false, false)).expect("zeroed");
    bench.run(w.namespace.write_uncorrectable(0, 3, 70)).expect("marked");
    assert!(bench.run(w.namespace.verify(0, 3, 1)).is_err());
    bench.run(w.namespace.write_zeroes(0, 3, 70, false, false)).expect("zeroed");
    w.spy.clear();
    bench.run(w.namespace.verify(0, 0, 130)).expect("all is well");
    assert_eq!(parts(&w.spy.of(NvmOpcode::VERIFY)), [(0, 64), (64, 64), (128, 2)]);
    w.spy.clear();
    bench.run(w.namespace.write_zeroes(0, 3, 50, false, false)).expect("zeroed");
    assert_eq!(parts(&w.spy.of(NvmOpcode::WRITE_ZEROES)), [(3, 16), (19, 16), (35, 16), (51, 2)]);
    bench.run(w.namespace.write_uncorrectable(0, 3, 70)).expect("marked");
    assert_eq!(parts(&w.spy.of(NvmOpcode::WRITE_UNCORRECTABLE)), [(3, 32), (35, 32), (67, 6)]);
    let back = read(&bench, &w.namespace, 73, 27);
    assert!(back.iter().all(|byte| *byte == 5), "nothing past the end");
}

#[test]
fn d10_the_units_of_the_limits_are_the_controllers_smallest_page() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig { mpsmin: 2, wzsl: 1, ..prps() });
    bench.run(w.namespace.write_zeroes(0, 0, 65, false, false)).expect("zeroed");
    assert_eq!(parts(&w.spy.of(NvmOpcode::WRITE_ZEROES)), [(0, 64), (64, 1)]);
}

#[test]
fn d10_without_a_limit_only_the_commands_field_is_one() {
    let bench = Bench::with(NamespaceConfig::null(1 << 40));
    let w = Watched::new(&bench, prps());
    bench.run(w.namespace.write_zeroes(0, 1, 65536 * 2 + 1, true, false)).expect("zeroed");
    assert_eq!(parts(&w.spy.of(NvmOpcode::WRITE_ZEROES)), [(1, 65536), (65537, 65536), (131073, 1)]);
}

#[test]
fn d10_the_halves_of_a_fused_pair_are_adjacent_under_one_doorbell() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.depth(3));
    let old = pattern(1, 2 * 512);
    bench.run(w.namespace.write_slice(0, 9, false, &old)).expect("written");
    let mut held = old;
    // Around the ring several times, so that a pair also wraps.
    for round in 0..9 {
        w.spy.clear();
        let new = pattern(10 + round, 2 * 512);
        bench.run(w.namespace.compare_and_write(0, 9, &held, &new, round % 2 == 0)).expect("equal, so written");
        let rings = w.spy.rings();
        assert_eq!(rings.len(), 1, "one doorbell");
        let [first, second] = rings[0].commands[..] else { panic!("two commands: {rings:?}") };
        assert_eq!((first.cdw0.opcode(), first.cdw0.fuse()), (NvmOpcode::COMPARE.0, Cdw0::FUSE_FIRST));
        assert_eq!((second.cdw0.opcode(), second.cdw0.fuse()), (NvmOpcode::WRITE.0, Cdw0::FUSE_SECOND));
        assert_eq!(parts(&[first, second]), [(9, 2), (9, 2)]);
        assert_eq!(ReadWriteCdw12::from(second.cdw12).fua(), round % 2 == 0);
        held = new;
        assert_eq!(read(&bench, &w.namespace, 9, 2), held);
    }
}

#[test]
fn d10_a_miscompare_writes_nothing_and_says_so() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    let held = pattern(1, 512);
    bench.run(w.namespace.write_slice(0, 9, false, &held)).expect("written");
    let error = bench.run(w.namespace.compare_and_write(0, 9, &[0; 512], &[1; 512], false)).expect_err("it differs");
    assert_eq!((error.class(), error.status()), (ErrorClass::Miscompare, Some(Status::COMPARE_FAILURE)));
    assert_eq!(read(&bench, &w.namespace, 9, 1), held);
    assert_eq!(w.slots_taken(), 0, "both halves are done");
}

/// Both or neither: with one slot free nothing is sent, and nobody gets between the halves.
#[test]
fn d10_a_fused_pair_waits_for_two_slots_at_once() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.depth(2));
    let pages = gpns(0, 1);
    let mut first = w.namespace.read(0, 0, 1, &w.memory, whole(&pages));
    assert!(poll(&mut first).is_pending());
    let counter = Counter::new();
    let mut pair = Box::pin(w.namespace.compare_and_write(0, 0, &[0; 512], &[1; 512], false));
    assert!(counter.poll(&mut pair).is_pending());
    let mut late = w.namespace.read(0, 1, 1, &w.memory, whole(&pages));
    assert!(poll(&mut late).is_pending());
    assert_eq!(w.spy.rings().len(), 1, "there is one slot, which is not enough, and nobody overtakes");
    bench.world.settle();
    assert!(poll(&mut first).is_ready());
    assert!(counter.count() > 0);
    bench.run(async { pair.await.and(late.await) }).expect("done");
    assert_eq!(w.spy.rings().iter().map(|ring| ring.commands.len()).collect::<Vec<_>>(), [1, 2, 1]);
}

#[test]
fn d10_a_fused_pair_on_a_queue_of_one_command_is_refused() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.depth(1));
    let result = bench.run(w.namespace.compare_and_write(0, 0, &[0; 512], &[1; 512], false));
    assert!(matches!(result, Err(RequestError::Unsupported(_))), "{result:?}");
    assert!(w.spy.rings().is_empty());
}

#[test]
fn d10_a_fused_pair_larger_than_acwu_is_refused_unsent() {
    let own = AtomicUnits { nawun: 7, nawupf: 7, nacwu: 1 };
    for (atomic, allowed) in [(None, 4), (Some(own), 2), (Some(AtomicUnits { nacwu: 0, ..own }), 4)] {
        let bench = Bench::with(NamespaceConfig { atomic, ..NamespaceConfig::ram(1 << 20) });
        let w = Watched::new(&bench, ControllerConfig { acwu: 3, ..prps() });
        let (old, new) = (vec![0; 8 * 512], vec![1; 8 * 512]);
        let fits = allowed * 512;
        bench.run(w.namespace.compare_and_write(0, 0, &old[..fits], &new[..fits], false)).expect("just as many");
        w.spy.clear();
        let too_many = fits + 512;
        let result = bench.run(w.namespace.compare_and_write(0, 8, &old[..too_many], &new[..too_many], false));
        let Err(RequestError::TooLarge { len, max, unit: "blocks" }) = result else { panic!("{result:?}") };
        assert_eq!((len, max), (allowed as u64 + 1, allowed as u64));
        let result = bench.run(w.namespace.compare_and_write(0, 8, &old[..1024], &new[..512], false));
        assert!(matches!(result, Err(RequestError::TooShort { .. })), "{result:?}");
        let result = bench.run(w.namespace.compare_and_write(0, 8, &old[..100], &new[..100], false));
        assert!(matches!(result, Err(RequestError::NotBlocks { .. })), "{result:?}");
        assert!(w.spy.rings().is_empty());
    }
}

#[test]
fn d10_a_part_that_fails_ends_the_command() {
    let bench = Bench::new();
    let match_second = CommandMatch { skip: 1, ..CommandMatch::io(NvmOpcode::WRITE_ZEROES.0) };
    let faults = FaultPlan::on(match_second, Fault::fail(Status::WRITE_FAULT));
    let w = Watched::new(&bench, ControllerConfig { wzsl: 1, faults, ..prps() });
    let error = bench.run(w.namespace.write_zeroes(0, 0, 100, false, false)).expect_err("the second part fails");
    assert_eq!(error.status(), Some(Status::WRITE_FAULT));
    assert_eq!(w.spy.of(NvmOpcode::WRITE_ZEROES).len(), 2);
}
