//! Q7: shadow doorbells.

use std::sync::Arc;

use doorbell::{DriverOptions, Namespace, NvmeDriver, ShadowDoorbells};
use doorbell_device::Device;
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::{AdminOpcode, Status};

use crate::bench::{Bench, pattern};
use crate::hands::join_all;
use crate::spy::Spy;

struct Up {
    bench: Bench,
    spy: Arc<Spy>,
    driver: NvmeDriver,
    namespace: Namespace,
}

fn up(config: ControllerConfig, change: impl FnOnce(DriverOptions) -> DriverOptions) -> Up {
    let bench = Bench::new();
    let spy = Spy::new(bench.device(config));
    let options = bench.world.options(spy.clone()).shadow_doorbells(ShadowDoorbells::WhereOffered);
    let driver = bench.run(change(options).open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    Up { bench, spy, driver, namespace }
}

impl Up {
    /// So many flushes, all in flight before the controller looks.
    fn flush(&self, cpu: u32, count: usize) {
        let flushes = (0..count).map(|_| Box::pin(self.namespace.flush(cpu)));
        for result in self.bench.run(join_all(flushes)) {
            result.expect("flushed");
        }
    }

    fn write_and_read(&self, seed: u64) {
        let (data, mut back) = (pattern(seed, 4096), vec![0; 4096]);
        self.bench.run(self.namespace.write_slice(0, seed, false, &data)).expect("written");
        self.bench.run(self.namespace.read_slice(1, seed, &mut back)).expect("read");
        assert_eq!(back, data);
    }

    fn announced(&self) -> usize {
        self.spy.admin(AdminOpcode::DOORBELL_BUFFER_CONFIG).len()
    }
}

#[test]
fn q7_shadow_doorbells_are_used_where_offered_and_faster() {
    use ShadowDoorbells::{Never, WhereFaster, WhereOffered};
    for (wanted, slow, offered, used) in [
        (Never, true, true, false),
        (WhereFaster, false, true, false),
        (WhereFaster, true, false, false),
        (WhereFaster, true, true, true),
        (WhereOffered, false, true, true),
        (WhereOffered, true, false, false),
    ] {
        let bench = Bench::new();
        let device = bench.device(ControllerConfig { doorbell_buffer_config: offered, ..ControllerConfig::default() });
        let spy = if slow { Spy::slow(device) } else { Spy::new(device) };
        let options = bench.world.options(spy.clone()).shadow_doorbells(wanted);
        let driver = bench.run(options.open()).expect("the controller comes up");
        let count = spy.admin(AdminOpcode::DOORBELL_BUFFER_CONFIG).len();
        assert_eq!(count, usize::from(used), "{wanted:?}, slow: {slow}, offered: {offered}");
        assert_eq!(driver.inspect().controller.shadow_doorbells.is_some(), used);
    }
    assert_eq!(ShadowDoorbells::default(), WhereFaster);
}

/// The controller asks for the first command's doorbell each time, since it has nothing to do by then; all others are
/// found by it.
#[test]
fn q7_a_doorbell_rings_only_when_asked_for() {
    // A ring that is passed around often, and one whose values wrap at once.
    for (depth, rounds) in [(32, 100), (3, 100), (1, 20)] {
        let up = up(ControllerConfig::default(), |options| options.depth(depth));
        up.flush(0, 1);
        for round in 0..rounds {
            up.spy.clear();
            let before = up.driver.inspect().controller.shadow_doorbells.expect("in use");
            up.flush(0, depth as usize);
            assert_eq!(up.spy.rings().len(), 1, "depth {depth}, round {round}");
            let rung = up.driver.inspect().controller.shadow_doorbells.expect("in use") - before;
            assert!((1..=2).contains(&rung), "one of the submission queue, at most one of the other: {rung}");
        }
    }
}

#[test]
fn q7_all_queues_have_shadows() {
    let up = up(ControllerConfig::default(), |options| options.cpus(4));
    for cpu in 0..4 {
        up.flush(cpu, 1);
    }
    up.spy.clear();
    for cpu in 0..4 {
        up.flush(cpu, 8);
    }
    assert_eq!(up.spy.rings().len(), 4, "one each");
    for seed in 0..20 {
        up.write_and_read(seed);
    }
}

/// The controller forgets them; its queues begin at 0 again, and so do the shadows.
#[test]
fn q7_shadow_doorbells_are_set_up_again_after_a_reset() {
    let up = up(ControllerConfig::default(), |options| options.depth(8));
    for resets in 1..4 {
        up.flush(0, 5);
        up.write_and_read(resets);
        up.bench.run(up.driver.reset_controller()).expect("back");
        assert_eq!(up.announced() as u64, 1 + resets);
        up.spy.clear_io();
        up.flush(0, 8);
        assert_eq!(up.spy.rings().len(), 1, "after {resets} resets");
        up.write_and_read(resets);
        // A queue that is made later.
        up.flush(1, 8);
    }
}

#[test]
fn q7_a_controller_that_refuses_shadows_works_without() {
    let bench = Bench::new();
    let device = bench.device(ControllerConfig::default());
    let refused = Fault::fail(Status::INVALID_FIELD_IN_COMMAND);
    let at = CommandMatch::admin(AdminOpcode::DOORBELL_BUFFER_CONFIG.0);
    device.with_controller(|controller| controller.set_faults(FaultPlan::on(at, refused)));
    let spy = Spy::new(device);
    let options = bench.world.options(spy.clone()).shadow_doorbells(ShadowDoorbells::WhereOffered);
    let driver = bench.run(options.open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let up = Up { bench, spy, driver, namespace };
    up.write_and_read(1);
    up.spy.clear();
    up.flush(0, 8);
    assert_eq!(up.spy.rings().len(), 8);
    assert_eq!(up.driver.inspect().controller.shadow_doorbells, None);
}

/// Whatever a controller writes into either buffer: no panic, and as it looks at the shadows all the same here, no I/O is
/// lost.
#[test]
fn q7_event_indices_that_make_no_sense_are_harmless() {
    let up = up(ControllerConfig::default(), |options| options.depth(5));
    up.flush(0, 1);
    let announced = up.spy.admin(AdminOpcode::DOORBELL_BUFFER_CONFIG);
    let events = announced.first().expect("announced").dptr.prp2();
    let view = up.spy.device().dma_space();
    for (seed, value) in (0..).zip([u32::MAX, 0, 6, 0x1_0000, 0x8000_0003, 5, 0xffff, 1 << 31]) {
        let nonsense: Vec<u8> = (0..1024).flat_map(|_| value.to_le_bytes()).collect();
        view.view().write(events, &nonsense).expect("the buffer");
        up.write_and_read(seed);
        view.view().write(events, &pattern(seed, 4096)).expect("the buffer");
        up.flush(0, 5);
    }
}

/// The buffers are the controller's until it is stopped.
#[test]
fn q7_the_buffers_stay_as_long_as_the_controller_may_use_them() {
    use doorbell_device::wrap::DmaLedger;
    let bench = Bench::new();
    let inner = bench.device(ControllerConfig::default());
    let ledger = DmaLedger::new(inner.clone());
    let options = bench.world.options(ledger.clone()).shadow_doorbells(ShadowDoorbells::WhereOffered);
    let driver = bench.run(options.open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("flushed");
    bench.run(driver.shutdown());
    drop(namespace);
    bench.world.settle();
    assert_eq!(ledger.live_ranges(), []);
    assert_eq!(inner.read32(nvme_spec::registers::offset::CSTS).expect("read") & 3, 0, "neither ready nor failed");
}
