//! N8: namespaces are listed, with their identifiers.

use doorbell::{NamespaceId, RequestError};
use doorbell_emulator::{ControllerConfig, Descriptors, FaultPlan, NamespaceConfig};
use nvme_spec::Status;
use nvme_spec::identify::NamespaceList;
use nvme_spec::identify::cns::Cns;
use zerocopy::IntoBytes;

use crate::bench::Bench;
use crate::odd::{identify, patch, refused};

fn many(nsids: impl IntoIterator<Item = u32>) -> Bench {
    let bench = Bench::empty();
    for nsid in nsids {
        bench.subsystem.add_namespace(NamespaceConfig::null(1 << 20).nsid(nsid)).expect("a namespace");
    }
    bench
}

#[test]
fn n8_thousands_of_namespaces_are_listed() {
    let bench = many(1..=4096);
    let driver = bench.driver(ControllerConfig::default());
    assert_eq!(bench.run(driver.namespaces()).expect("a list"), (1..=4096).collect::<Vec<_>>());
    let last = bench.run(driver.namespace(4096)).expect("the last one");
    assert_eq!(last.nsid(), 4096);
}

#[test]
fn n8_old_controllers_are_asked_for_each_nsid() {
    let bench = many([1, 2, 3]);
    // Before NVMe 1.2 CNS had fewer bits: other values are not even tried.
    let unknown = [Cns::ACTIVE_NAMESPACES, Cns::NAMESPACE_DESCRIPTORS, Cns::CONTROLLER_CSI, Cns::NAMESPACE_CSI];
    let faults = unknown
        .into_iter()
        .fold(FaultPlan::default(), |plan, cns| plan.and_on(identify(cns), doorbell_emulator::Fault::Fatal));
    let driver = bench.driver(ControllerConfig { faults, ..ControllerConfig::nvme_1_0() });
    assert_eq!(bench.run(driver.namespaces()).expect("a list"), [1, 2, 3]);
    let namespace = bench.run(driver.namespace(2)).expect("namespace 2");
    assert_eq!(namespace.block_count(), 2048);
    // A later one that refuses the list.
    let bench = many([2, 5]);
    let faults = FaultPlan::on(identify(Cns::ACTIVE_NAMESPACES), refused(Status::INVALID_FIELD_IN_COMMAND));
    let driver = bench.driver(ControllerConfig { faults, ..ControllerConfig::default() });
    assert_eq!(bench.run(driver.namespaces()).expect("a list"), [2, 5]);
}

#[test]
fn n8_a_list_that_goes_back_or_never_ends_is_an_error() {
    let full: NamespaceList = (1..=1024).collect();
    let back: NamespaceList = [5, 4].into_iter().collect();
    for list in [full, back] {
        let bench = many([1]);
        let faults = FaultPlan::on(identify(Cns::ACTIVE_NAMESPACES), patch(0, list.as_bytes()));
        let driver = bench.driver(ControllerConfig { faults, ..ControllerConfig::default() });
        let error = bench.run(driver.namespaces()).expect_err("a lie");
        assert!(matches!(error, RequestError::Misbehaved(_)), "{error:?}");
    }
}

#[test]
fn n8_identifiers_come_from_either_structure() {
    let ids = |config: ControllerConfig| {
        let bench = many([1]);
        let driver = bench.driver(config);
        let listed = bench.run(driver.namespace_id(1)).expect("identifiers");
        assert_eq!(bench.run(driver.namespace(1)).expect("a namespace").id(), listed);
        listed
    };
    let full = ids(ControllerConfig::default());
    assert!(full.eui64.is_some() && full.nguid.is_some() && full.uuid.is_some());
    for descriptors in [Descriptors::Empty, Descriptors::Refused] {
        let found = ids(ControllerConfig { descriptors, ..ControllerConfig::default() });
        assert_eq!(found, NamespaceId { uuid: None, ..full });
    }
    // From CNS 03h where both have it.
    let other = FaultPlan::on(identify(Cns::NAMESPACE), patch(104, &[9; 24]));
    assert_eq!(ids(ControllerConfig { faults: other.clone(), ..ControllerConfig::default() }), full);
    let config = ControllerConfig { faults: other, descriptors: Descriptors::Refused, ..ControllerConfig::default() };
    assert_eq!(ids(config), NamespaceId { eui64: Some([9; 8]), nguid: Some([9; 16]), uuid: None });
}
