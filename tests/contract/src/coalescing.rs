//! Q9: one interrupt for several completions, where the caller asks for it.

use std::sync::Arc;
use std::time::Duration;

use doorbell::{CompletionMode, DriverOptions, NvmeDriver};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan};
use nvme_spec::feature::{FeatureId, InterruptCoalescing};
use nvme_spec::{AdminOpcode, Status};

use crate::bench::Bench;
use crate::hands::{join_all, poll};
use crate::spy::Spy;

/// 8 completions or 300 µs.
fn asked() -> InterruptCoalescing {
    InterruptCoalescing::new().with_thr(7).with_time(3)
}

fn options(bench: &Bench, spy: &Arc<Spy>, mode: CompletionMode) -> DriverOptions {
    bench.world.options(spy.clone()).completion(mode).interrupt_coalescing(asked())
}

fn open(bench: &Bench, config: ControllerConfig, mode: CompletionMode) -> (Arc<Spy>, NvmeDriver) {
    let spy = Spy::new(bench.device(config));
    let driver = bench.run(options(bench, &spy, mode).open()).expect("the controller comes up");
    (spy, driver)
}

fn current(bench: &Bench, driver: &NvmeDriver) -> u32 {
    bench.run(driver.get_features(FeatureId::INTERRUPT_COALESCING, 0, 0, 0, &mut [])).expect("the feature")
}

/// What inspection says: completions, microseconds.
fn shown(driver: &NvmeDriver) -> Option<(u16, u32)> {
    driver.inspect().controller.interrupt_coalescing.map(|view| (view.completions, view.time_us))
}

/// How often the driver asked for it.
fn times_asked(spy: &Spy) -> usize {
    let sets = spy.admin(AdminOpcode::SET_FEATURES);
    sets.iter().filter(|set| set.cdw10 & 0xff == u32::from(FeatureId::INTERRUPT_COALESCING.0)).count()
}

#[test]
fn q9_asked_for_it_is_set_and_again_after_a_reset() {
    for mode in [CompletionMode::Interrupt, CompletionMode::Adaptive] {
        let bench = Bench::new();
        let (spy, driver) = open(&bench, ControllerConfig::default(), mode);
        for resets in 1..3 {
            assert_eq!(current(&bench, &driver), u32::from(asked()));
            assert_eq!(shown(&driver), Some((8, 300)));
            assert_eq!(times_asked(&spy), resets);
            bench.run(driver.reset_controller()).expect("reset");
        }
        let printed = driver.inspect().to_string();
        assert!(printed.contains("an interrupt waits for 8 completions or 300 us"), "{printed}");
    }
}

#[test]
fn q9_not_asked_for_or_not_interrupted_it_stays_as_it_is() {
    let bench = Bench::new();
    let (spy, driver) = open(&bench, ControllerConfig::default(), CompletionMode::CallerPolls);
    assert_eq!((times_asked(&spy), current(&bench, &driver), shown(&driver)), (0, 0, None));
    let bench = Bench::new();
    let spy = Spy::new(bench.device(ControllerConfig::default()));
    let driver = bench.run(bench.world.options(spy.clone()).open()).expect("the controller comes up");
    assert_eq!((times_asked(&spy), current(&bench, &driver), shown(&driver)), (0, 0, None));
}

#[test]
fn q9_a_refusal_does_no_harm_and_is_visible() {
    let bench = Bench::new();
    // It is the first feature that is set here.
    let refused = CommandMatch::admin(AdminOpcode::SET_FEATURES.0).times(1);
    let faults = FaultPlan::on(refused, Fault::fail(Status::INVALID_FIELD_IN_COMMAND));
    let (spy, driver) = open(&bench, ControllerConfig { faults, ..Default::default() }, CompletionMode::Interrupt);
    assert_eq!((times_asked(&spy), current(&bench, &driver), shown(&driver)), (1, 0, None));
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("flushed");
}

#[test]
fn q9_kept_by_whoever_takes_over() {
    let bench = Bench::new();
    let (spy, driver) = open(&bench, ControllerConfig::default(), CompletionMode::Interrupt);
    let saved = driver.save().expect("saved");
    let to = bench.world.options(spy.clone());
    let restored = bench.run(to.restore(saved.state(), saved.memory().to_vec())).expect("restored");
    saved.hand_over();
    assert_eq!(shown(&restored.driver), Some((8, 300)));
    bench.run(restored.driver.reset_controller()).expect("reset");
    assert_eq!(current(&bench, &restored.driver), u32::from(asked()));
}

#[test]
fn q9_one_interrupt_tells_of_several_completions() {
    let bench = Bench::new();
    let (_, driver) = open(&bench, ControllerConfig::default(), CompletionMode::Interrupt);
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    bench.run(namespace.flush(0)).expect("flushed");
    let raised = || driver.inspect().queues[0].counters.interrupts;
    // Interrupts at once, and when the time has passed.
    for (commands, at_once, in_time) in [(8, 1, 0), (3, 0, 1), (16, 1, 0)] {
        let before = raised();
        let mut flushes: Vec<_> = (0..commands).map(|_| Box::pin(namespace.flush(0))).collect();
        for flush in &mut flushes {
            assert!(poll(flush).is_pending());
        }
        bench.world.settle();
        assert_eq!(raised() - before, at_once, "{commands} commands");
        bench.run(bench.world.sleep(Duration::from_micros(299)));
        assert_eq!(raised() - before, at_once, "{commands} commands");
        bench.run(bench.world.sleep(Duration::from_micros(1)));
        bench.world.settle();
        assert_eq!(raised() - before, at_once + in_time, "{commands} commands");
        for result in bench.run(join_all(flushes)) {
            result.expect("flushed");
        }
    }
}
