//! D10: copy, within MSSRL, MCL and MSRC.

use doorbell::{LbaRange, RequestError};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SglSupport};
use nvme_spec::nvm::CopyCdw12;
use nvme_spec::{Command, NvmOpcode};

use crate::bench::{Bench, pattern};
use crate::hands::Watched;

fn range(lba: u64, block_count: u64) -> LbaRange {
    LbaRange { lba, block_count }
}

fn prps() -> ControllerConfig {
    ControllerConfig { sgl: SglSupport::None, ..ControllerConfig::default() }
}

/// Where each command copies to, and from how many ranges.
fn shapes(commands: &[Command]) -> Vec<(u64, u32)> {
    commands.iter().map(|c| (c.cdw10_11(), u32::from(CopyCdw12::from(c.cdw12).nr()) + 1)).collect()
}

/// Copies, and looks that the target is the sources laid end to end and nothing else changed.
fn copies(bench: &Bench, w: &Watched, to: u64, from: &[LbaRange]) {
    let before = pattern(to, 1000 * 512);
    bench.run(w.namespace.write_slice(0, 0, false, &before)).expect("written");
    w.spy.clear();
    bench.run(w.namespace.copy(0, to, from)).expect("copied");
    let mut expected = before.clone();
    let mut at = to as usize * 512;
    for r in from {
        let (start, len) = (r.lba as usize * 512, r.block_count as usize * 512);
        expected[at..at + len].copy_from_slice(&before[start..start + len]);
        at += len;
    }
    let mut after = vec![0; before.len()];
    bench.run(w.namespace.read_slice(0, 0, &mut after)).expect("read");
    assert!(after == expected, "{from:?} to {to}");
}

fn limited(mssrl: u16, mcl: u32, msrc: u8) -> Bench {
    Bench::with(NamespaceConfig { mssrl, mcl, msrc, ..NamespaceConfig::ram(1 << 20) })
}

#[test]
fn d10_copy_lays_sources_end_to_end() {
    let bench = Bench::new();
    let w = Watched::new(&bench, prps());
    copies(&bench, &w, 500, &[range(10, 3), range(400, 1), range(12, 7)]);
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(500, 3)]);
}

#[test]
fn d10_copy_is_split_at_the_blocks_of_a_range() {
    let bench = limited(4, 1000, 127);
    let w = Watched::new(&bench, prps());
    copies(&bench, &w, 500, &[range(10, 9), range(100, 4), range(30, 5)]);
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(500, 6)]);
}

#[test]
fn d10_copy_is_split_at_the_blocks_of_a_command() {
    let bench = limited(8, 10, 127);
    let w = Watched::new(&bench, prps());
    copies(&bench, &w, 500, &[range(10, 9), range(100, 4), range(30, 12)]);
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(500, 3), (510, 2), (520, 1)]);
}

#[test]
fn d10_copy_is_split_at_the_ranges_of_a_command() {
    let bench = limited(100, 1000, 1);
    let w = Watched::new(&bench, prps());
    copies(&bench, &w, 500, &[range(10, 1), range(20, 2), range(30, 3), range(0, 4), range(50, 5)]);
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(500, 2), (503, 2), (510, 1)]);
}

#[test]
fn d10_copy_is_split_at_all_limits_at_once() {
    for (mssrl, mcl, msrc) in [(1, 1, 0), (3, 7, 1), (5, 5, 2), (7, 20, 3)] {
        let bench = limited(mssrl, mcl, msrc);
        let w = Watched::new(&bench, prps());
        let from: Vec<LbaRange> = (0..10).map(|i| range(i * 31, i % 4 * 5)).collect();
        copies(&bench, &w, 600, &from);
    }
}

/// The list of ranges is longer than the pool that carries it.
#[test]
fn d10_copy_of_many_ranges_works_with_a_tiny_pool() {
    let bench = limited(100, 1000, 255);
    let w = Watched::with(&bench, prps(), |options| options.bounce_pool(4096));
    let from: Vec<LbaRange> = (0..200).map(|i| range(i * 2, 1)).collect();
    copies(&bench, &w, 600, &from);
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(600, 128), (728, 72)]);
}

#[test]
fn d10_copy_of_many_ranges_works_with_small_transfers() {
    let bench = limited(100, 1000, 255);
    let w = Watched::with(&bench, prps(), |options| options.max_transfer(512));
    let from: Vec<LbaRange> = (0..40).map(|i| range(i * 2, 1)).collect();
    w.spy.clear();
    bench.run(w.namespace.copy(0, 600, &from)).expect("copied");
    assert_eq!(shapes(&w.spy.of(NvmOpcode::COPY)), [(600, 16), (616, 16), (632, 8)]);
}

#[test]
fn d10_a_source_that_overlaps_the_target_is_refused_unsent() {
    let bench = limited(4, 8, 1);
    let w = Watched::new(&bench, prps());
    for source in [range(100, 1), range(95, 6), range(109, 5), range(90, 30), range(104, 2)] {
        let rest = 10 - source.block_count.min(10);
        let result = bench.run(w.namespace.copy(0, 100, &[range(0, rest), source]));
        assert!(matches!(result, Err(RequestError::BadParameter { .. })), "{source:?}: {result:?}");
    }
    assert!(w.spy.rings().is_empty());
    bench.run(w.namespace.copy(0, 100, &[range(90, 10), range(120, 10), range(105, 0)])).expect("they touch only");
}
