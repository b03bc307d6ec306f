//! D11: deallocating ranges.

use doorbell::{LbaRange, RequestError};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, SglSupport};
use nvme_spec::nvm::{DsmCdw10, DsmCdw11};
use nvme_spec::{NvmOpcode, Status};

use crate::bench::Bench;
use crate::hands::Watched;

fn range(lba: u64, block_count: u64) -> LbaRange {
    LbaRange { lba, block_count }
}

fn prps() -> ControllerConfig {
    ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() }
}

/// How many ranges each command carried.
fn shapes(w: &Watched) -> Vec<u32> {
    let commands = w.spy.of(NvmOpcode::DSM);
    assert!(commands.iter().all(|c| DsmCdw11::from(c.cdw11).ad()), "with the deallocate attribute");
    commands.iter().map(|c| u32::from(DsmCdw10::from(c.cdw10).nr()) + 1).collect()
}

/// Deallocates, and looks that just those blocks read as zeroes.
fn deallocates(bench: &Bench, w: &Watched, ranges: &[LbaRange]) -> Vec<u32> {
    const BLOCKS: usize = 4096;
    let full = vec![7; 512 << 10];
    for at in 0..4 {
        bench.run(w.namespace.write_slice(0, at * 1024, false, &full)).expect("written");
    }
    w.spy.clear();
    bench.run(w.namespace.deallocate(0, ranges)).expect("deallocated");
    let shapes = shapes(w);
    let mut expected = vec![7; BLOCKS];
    for r in ranges {
        expected[r.lba as usize..(r.lba + r.block_count) as usize].fill(0);
    }
    let mut back = vec![0; full.len()];
    for at in 0..4usize {
        bench.run(w.namespace.read_slice(0, at as u64 * 1024, &mut back)).expect("read");
        for (i, block) in back.chunks(512).enumerate() {
            assert!(block.iter().all(|byte| *byte == expected[at * 1024 + i]), "block {}", at * 1024 + i);
        }
    }
    shapes
}

fn watched(bench: &Bench, config: ControllerConfig) -> Watched {
    Watched::new(bench, config)
}

#[test]
fn d11_no_range_and_no_blocks_is_success_and_sends_nothing() {
    let bench = Bench::new();
    let w = watched(&bench, prps());
    bench.run(w.namespace.deallocate(0, &[])).expect("nothing to do");
    bench.run(w.namespace.deallocate(0, &[range(5, 0), range(0, 0)])).expect("nothing to do");
    bench.run(w.namespace.deallocate(1, &[])).expect("nothing to do");
    assert!(w.spy.rings().is_empty());
    assert_eq!(w.driver.inspect().queues.len(), 1, "not even a queue");
}

#[test]
fn d11_just_the_ranges_are_deallocated() {
    let bench = Bench::new();
    let w = watched(&bench, prps());
    assert_eq!(deallocates(&bench, &w, &[range(5, 3), range(100, 0), range(4000, 96), range(0, 1)]), [3]);
}

#[test]
fn d11_more_than_256_ranges_are_split_and_none_is_dropped() {
    let bench = Bench::new();
    let w = watched(&bench, prps());
    let ranges: Vec<LbaRange> = (0..600).map(|i| range(i * 5, i % 4)).collect();
    assert_eq!(deallocates(&bench, &w, &ranges), [256, 194]);
    let ranges: Vec<LbaRange> = (0..257).map(|i| range(i, 1)).collect();
    assert_eq!(deallocates(&bench, &w, &ranges), [256, 1]);
    let ranges: Vec<LbaRange> = (0..256).map(|i| range(i, 1)).collect();
    assert_eq!(deallocates(&bench, &w, &ranges), [256]);
}

#[test]
fn d11_more_ranges_than_the_device_takes_are_split() {
    let bench = Bench::new();
    let w = watched(&bench, ControllerConfig { dmrl: 3, ..prps() });
    assert_eq!(w.namespace.dataset_management_range_limit(), 3);
    let ranges: Vec<LbaRange> = (0..10).map(|i| range(i * 50, 7)).collect();
    assert_eq!(deallocates(&bench, &w, &ranges), [3, 3, 3, 1]);
}

#[test]
fn d11_longer_ranges_than_the_device_takes_are_split() {
    let bench = Bench::new();
    let w = watched(&bench, ControllerConfig { dmrsl: 10, ..prps() });
    assert_eq!(w.namespace.dataset_management_range_size_limit(), Some(10));
    assert_eq!(deallocates(&bench, &w, &[range(3, 25), range(100, 10), range(200, 11)]), [6]);
}

#[test]
fn d11_more_blocks_in_sum_than_the_device_takes_are_split() {
    let bench = Bench::new();
    let w = watched(&bench, ControllerConfig { dmsl: 20, ..prps() });
    assert_eq!(deallocates(&bench, &w, &[range(3, 25), range(100, 10), range(200, 30)]), [1, 3, 1, 1]);
}

#[test]
fn d11_all_limits_at_once() {
    for (dmrl, dmrsl, dmsl) in [(1, 1, 1), (2, 3, 4), (5, 7, 100), (255, 1, 300)] {
        let bench = Bench::new();
        let w = watched(&bench, ControllerConfig { dmrl, dmrsl, dmsl, ..prps() });
        let ranges: Vec<LbaRange> = (0..30).map(|i| range(i * 100, i * 3 % 40)).collect();
        for shape in deallocates(&bench, &w, &ranges) {
            assert!(shape <= u32::from(dmrl));
        }
    }
}

#[test]
fn d11_a_range_longer_than_32_bits_is_split() {
    let bench = Bench::with(NamespaceConfig::null(1 << 50));
    let w = watched(&bench, prps());
    let blocks = (1 << 50) / 512;
    bench.run(w.namespace.deallocate(0, &[range(0, blocks)])).expect("deallocated");
    // 2^41 blocks, at most 2^32 - 1 a range.
    assert_eq!(shapes(&w), [256, 256, 1]);
}

#[test]
fn d11_ranges_go_out_with_a_pool_of_one_page() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.bounce_pool(0));
    let ranges: Vec<LbaRange> = (0..600).map(|i| range(i * 2, 1)).collect();
    assert_eq!(deallocates(&bench, &w, &ranges), [256, 256, 88]);
}

#[test]
fn d11_ranges_go_out_with_small_transfers() {
    let bench = Bench::new();
    let w = Watched::with(&bench, prps(), |options| options.max_transfer(512));
    let ranges: Vec<LbaRange> = (0..70).map(|i| range(i * 2, 1)).collect();
    bench.run(w.namespace.deallocate(0, &ranges)).expect("deallocated");
    assert_eq!(shapes(&w), [32, 32, 6]);
}

#[test]
fn d11_one_bad_range_and_nothing_is_sent() {
    let bench = Bench::new();
    let w = watched(&bench, prps());
    let capacity = w.namespace.block_count();
    let result = bench.run(w.namespace.deallocate(0, &[range(0, 1), range(capacity - 1, 2)]));
    assert!(matches!(result, Err(RequestError::OutOfRange { .. })), "{result:?}");
    assert!(w.spy.rings().is_empty());
}

#[test]
fn d11_a_command_that_fails_is_said() {
    let bench = Bench::new();
    let faults =
        FaultPlan::on(CommandMatch { skip: 1, ..CommandMatch::io(NvmOpcode::DSM.0) }, Fault::fail(Status::WRITE_FAULT));
    let w = watched(&bench, ControllerConfig { dmrl: 2, faults, ..prps() });
    let ranges: Vec<LbaRange> = (0..6).map(|i| range(i * 2, 1)).collect();
    let error = bench.run(w.namespace.deallocate(0, &ranges)).expect_err("the second command fails");
    assert_eq!(error.status(), Some(Status::WRITE_FAULT));
    assert_eq!(shapes(&w), [2, 2], "and none is sent after it");
}
