//! What errors say, and what becomes of commands when the driver ends.

use doorbell::{ControllerState, ErrorClass, NamespaceError, PagedRange, RequestError, SplitPlan};
use doorbell_device::Device;
use doorbell_device::wrap::{Tracer, What};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, Patch};
use nvme_spec::identify::PiType;
use nvme_spec::registers::{Cc, offset};
use nvme_spec::{NvmOpcode, Status};

use crate::bench::{Bench, guest, pattern};
use crate::hands::{Watched, fill, gpns, poll, whole};

#[test]
fn statuses_have_the_class_that_a_disk_layer_acts_on() {
    let classes = [
        (Status::RESERVATION_CONFLICT, ErrorClass::Conflict),
        (Status::UNRECOVERED_READ_ERROR, ErrorClass::Medium),
        (Status::WRITE_FAULT, ErrorClass::Medium),
        (Status::END_TO_END_GUARD_CHECK_ERROR, ErrorClass::Protection),
        (Status::END_TO_END_APPLICATION_TAG_CHECK_ERROR, ErrorClass::Protection),
        (Status::END_TO_END_REFERENCE_TAG_CHECK_ERROR, ErrorClass::Protection),
        (Status::LBA_OUT_OF_RANGE, ErrorClass::OutOfRange),
        (Status::CAPACITY_EXCEEDED, ErrorClass::OutOfRange),
        (Status::NAMESPACE_NOT_READY, ErrorClass::Transient),
        (Status::COMMAND_INTERRUPTED, ErrorClass::Transient),
        (Status::INTERNAL_ERROR, ErrorClass::Transient),
        (Status::INVALID_NAMESPACE_OR_FORMAT, ErrorClass::Gone),
        (Status::COMPARE_FAILURE, ErrorClass::Miscompare),
        (Status::INVALID_FIELD_IN_COMMAND, ErrorClass::Invalid),
    ];
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let pages = gpns(0, 1);
    for (status, class) in classes {
        for dnr in [false, true] {
            let fail = Fault::Fail { sct: status.sct(), sc: status.sc(), dnr, crd: 0, more: false };
            let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), fail);
            w.spy.device().with_controller(|controller| controller.set_faults(plan));
            let error = bench.run(w.namespace.read(0, 0, 8, &w.memory, whole(&pages))).expect_err("it fails");
            let RequestError::Nvme(nvme) = error.clone() else { panic!("{error:?}") };
            assert_eq!((nvme.status, nvme.do_not_retry), (status, dnr));
            // What must not be tried again is not passing.
            if !(dnr && class == ErrorClass::Transient) {
                assert_eq!(error.class(), class, "{error}");
            } else {
                assert_ne!(error.class(), ErrorClass::Transient, "{error}");
            }
        }
    }
}

#[test]
fn an_error_of_a_queue_that_could_not_be_made_has_the_class_of_its_cause() {
    let bench = Bench::new();
    let fails = CommandMatch { cdw10: None, ..CommandMatch::admin(5) };
    let config = ControllerConfig {
        faults: FaultPlan::on(fails, Fault::fail(Status::INTERNAL_ERROR)),
        ..ControllerConfig::default()
    };
    let (driver, pages) = (bench.driver(config), gpns(0, 1));
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let memory = guest(1);
    let error = bench.run(namespace.read(0, 0, 8, &memory, whole(&pages))).expect_err("there is no queue");
    assert!(matches!(error, RequestError::NoQueue(_)), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient, "the namespace is there still");
}

/// A format with 8 bytes of protection information: the controller makes, checks and strips it.
#[test]
fn protection_information_is_made_checked_and_stripped() {
    for kind in [PiType::TYPE1, PiType::TYPE2, PiType::TYPE3] {
        let bench = Bench::with(NamespaceConfig::ram(1 << 20).protection(kind));
        let w = Watched::new(&bench, ControllerConfig::default());
        let pages = gpns(3, 8);
        let data = pattern(1, 8 * 4096);
        fill(&w.memory, &pages, 0, &data);
        bench.run(w.namespace.write(0, 100, 64, false, &w.memory, whole(&pages))).expect("written");
        let mut back = vec![0; data.len()];
        bench.run(w.namespace.read_slice(0, 100, &mut back)).expect("read");
        assert!(back == data, "{kind:?}");
        bench.run(w.namespace.verify(0, 100, 64)).expect("all is well");
        bench.run(w.namespace.compare(0, 100, 64, &w.memory, whole(&pages))).expect("equal");
        bench.run(w.namespace.write_zeroes(0, 110, 3, false, false)).expect("zeroed");
        bench.run(w.namespace.copy(0, 500, &[doorbell::LbaRange { lba: 100, block_count: 20 }])).expect("copied");
        let mut back = vec![0; 20 * 512];
        bench.run(w.namespace.read_slice(0, 500, &mut back)).expect("read, its tags those of its new place");
        assert_eq!(back[..5120], data[..5120]);
        assert_eq!(back[5120..13 * 512], [0; 3 * 512]);
    }
}

#[test]
fn blocks_whose_protection_does_not_match_are_a_protection_error() {
    let bench = Bench::with(NamespaceConfig::ram(1 << 20).protection(PiType::TYPE1));
    let w = Watched::new(&bench, ControllerConfig::default());
    let data = pattern(1, 4 * 512);
    bench.run(w.namespace.write_slice(0, 0, false, &data)).expect("written");
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::fail(Status::END_TO_END_GUARD_CHECK_ERROR));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let mut back = vec![0; data.len()];
    let error = bench.run(w.namespace.read_slice(0, 0, &mut back)).expect_err("the guard does not match");
    assert_eq!(error.class(), ErrorClass::Protection);
    w.spy.device().with_controller(|controller| controller.set_faults(FaultPlan::default()));
    bench.run(w.namespace.read_slice(0, 0, &mut back)).expect("read");
    let patch = Patch { xor: vec![1], ..Patch::default() };
    let plan = FaultPlan::on(CommandMatch::io(NvmOpcode::COMPARE.0), Fault::CorruptData(patch));
    w.spy.device().with_controller(|controller| controller.set_faults(plan));
    let error = bench.run(w.namespace.compare_slice(0, 0, &data)).expect_err("they differ on the way");
    assert_eq!(error.class(), ErrorClass::Miscompare);
}

#[test]
fn after_shutdown_everything_is_gone() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let Watched { driver, namespace, memory, spy } = w;
    bench.run(driver.end(doorbell::ShutdownMode::Reset));
    spy.clear();
    let pages = gpns(0, 1);
    let (range, bytes) = (whole(&pages), [0; 512]);
    let one = [doorbell::LbaRange { lba: 0, block_count: 1 }];
    for cpu in [0, 1] {
        let results = [
            bench.run(namespace.read(cpu, 0, 8, &memory, range)),
            bench.run(namespace.write(cpu, 0, 8, false, &memory, range)),
            bench.run(namespace.write_slice(cpu, 0, false, &bytes)),
            bench.run(namespace.flush(cpu)),
            bench.run(namespace.write_zeroes(cpu, 0, 1, false, false)),
            bench.run(namespace.verify(cpu, 0, 1)),
            bench.run(namespace.deallocate(cpu, &one)),
            bench.run(namespace.copy(cpu, 9, &one)),
            bench.run(namespace.compare_and_write(cpu, 0, &bytes, &bytes, false)),
            bench.run(namespace.read_large(cpu, 0, 8, &memory, range, SplitPlan::default())).map_err(|e| e.source),
        ];
        for (i, result) in results.into_iter().enumerate() {
            assert!(matches!(result, Err(RequestError::Gone)), "{i}: {result:?}");
        }
    }
    assert_eq!(RequestError::Gone.class(), ErrorClass::Gone);
    assert!(matches!(bench.run(driver.namespace(1)), Err(NamespaceError::Request(RequestError::Gone))));
    assert!(matches!(driver.register_memory(&guest(1)), Err(RequestError::Gone)));
    assert!(spy.rings().is_empty());
    assert_eq!(driver.state(), ControllerState::ShutDown);
}

#[test]
fn dropping_the_driver_with_io_in_flight_ends_it_in_order() {
    let bench = Bench::new();
    let tracer = Tracer::new(bench.device(ControllerConfig::default()), 1 << 16);
    let driver = bench.run(bench.world.options(tracer.clone()).depth(2).open()).expect("the controller comes up");
    let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
    let memory = driver.register_memory(&guest(4)).expect("registered");
    bench.run(namespace.flush(0)).expect("the first queue");
    let pages = gpns(0, 1);
    let mut flying: Vec<_> = (0..2).map(|i| namespace.read(0, i, 8, &memory, whole(&pages))).collect();
    let mut waiting = namespace.read(0, 2, 8, &memory, whole(&pages));
    let mut no_queue = namespace.read(1, 2, 8, &memory, whole(&pages));
    flying.iter_mut().for_each(|read| assert!(poll(read).is_pending()));
    assert!(poll(&mut waiting).is_pending());
    assert!(poll(&mut no_queue).is_pending());
    tracer.clear();
    drop(driver);
    for read in flying {
        bench.run(read).expect("what is in flight is let finish");
    }
    assert!(matches!(bench.run(waiting), Err(RequestError::Gone)));
    assert!(matches!(bench.run(no_queue), Err(RequestError::Gone)));
    bench.world.settle();
    bench.run(bench.world.sleep(std::time::Duration::from_secs(1)));
    let ccs: Vec<Cc> = tracer
        .events()
        .iter()
        .filter_map(|event| match event.what {
            What::Write { offset: offset::CC, value, .. } => Some(Cc::from_bits(value as u32)),
            _ => None,
        })
        .collect();
    let seen: Vec<(bool, u8)> = ccs.iter().map(|cc| (cc.en(), cc.shn())).collect();
    assert_eq!(seen, [(true, Cc::SHN_NORMAL), (false, 0)], "notified first, disabled then");
    assert_eq!(tracer.read32(offset::CSTS).expect("readable") & 1, 0);
}

#[test]
fn errors_read_as_sentences() {
    let bench = Bench::new();
    let w = Watched::new(&bench, ControllerConfig::default());
    let empty = PagedRange::new(0, 0, &[]).expect("a range");
    let error = bench.run(w.namespace.read(0, 40000, 8, &w.memory, empty)).expect_err("too short");
    assert_eq!(error.to_string(), "the memory has 0 bytes, the transfer needs 4096");
    let pages = gpns(0, 1);
    let error = bench.run(w.namespace.read(0, 40000, 8, &w.memory, whole(&pages))).expect_err("outside");
    assert_eq!(error.to_string(), "blocks 40000+8 are outside the namespace, which has 32768 blocks");
}
