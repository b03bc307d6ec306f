//! Reading what a namespace is.

use doorbell::ReservationCapabilities;
use doorbell_emulator::{AtomicUnits, ControllerConfig, NamespaceConfig, OptimalSizes};
use nvme_spec::identify::{Dlfeat, Oncs, Rescap};

use crate::bench::Bench;

fn of(config: ControllerConfig, namespace: NamespaceConfig) -> (Bench, doorbell::NvmeDriver, doorbell::Namespace) {
    let bench = Bench::with(namespace);
    let driver = bench.driver(config);
    let namespace = bench.run(driver.namespace(1)).expect("a namespace");
    (bench, driver, namespace)
}

fn ram() -> NamespaceConfig {
    NamespaceConfig::ram(1 << 20)
}

#[test]
fn reading_costs_no_command() {
    let (_bench, driver, namespace) = of(ControllerConfig::default(), ram().block_size(4096));
    let before = driver.inspect().admin.queue.counters.submitted;
    assert_eq!((namespace.nsid(), namespace.block_size(), namespace.block_count()), (1, 4096, 256));
    assert_eq!(namespace.max_transfer_block_count(), 512);
    assert!(namespace.supports_dataset_management() && namespace.has_volatile_write_cache());
    assert!(!namespace.is_read_only() && namespace.is_shared() && !namespace.is_removed());
    assert!(namespace.id().is_known());
    let view = driver.inspect();
    assert_eq!(view.admin.queue.counters.submitted, before);
    assert!(view.queues.is_empty());
}

#[test]
fn reading_dataset_management_limits() {
    let (_bench, _driver, plain) = of(ControllerConfig::default(), ram());
    assert_eq!(plain.dataset_management_range_limit(), 256);
    assert_eq!((plain.dataset_management_range_size_limit(), plain.dataset_management_size_limit()), (None, None));
    let limited = ControllerConfig { dmrl: 5, dmrsl: 77, dmsl: 100, ..ControllerConfig::default() };
    let (_bench, _driver, namespace) = of(limited.clone(), ram());
    assert_eq!(namespace.dataset_management_range_limit(), 5);
    assert_eq!(namespace.dataset_management_range_size_limit(), Some(77));
    assert_eq!(namespace.dataset_management_size_limit(), Some(100));
    // Supported if ONCS or DMRSL says so.
    let without = |dmrsl| ControllerConfig { oncs: Oncs::new(), dmrsl, ..ControllerConfig::default() };
    assert!(!of(without(0), ram()).2.supports_dataset_management());
    assert!(of(without(8), ram()).2.supports_dataset_management());
    // CNS 06h refused: no limits, and a controller that comes up.
    let (_bench, _driver, old) = of(ControllerConfig { identify_nvm_controller: false, ..limited }, ram());
    assert_eq!(old.dataset_management_range_limit(), 256);
    assert_eq!((old.dataset_management_range_size_limit(), old.dataset_management_size_limit()), (None, None));
}

#[test]
fn reading_the_preferred_deallocate_granularity() {
    let granularity = |optimal| {
        let namespace = NamespaceConfig { optimal, ..ram() };
        of(ControllerConfig::default(), namespace).2.preferred_deallocate_granularity()
    };
    assert_eq!(granularity(None), 1);
    // 0's based.
    assert_eq!(granularity(Some(OptimalSizes { npdg: 7, ..OptimalSizes::default() })), 8);
    assert_eq!(granularity(Some(OptimalSizes { npdg: 65535, ..OptimalSizes::default() })), 65536);
    // Not 0's based, and more than 16 bits.
    assert_eq!(granularity(Some(OptimalSizes { npdg: 7, npdgl: 100_000, ..OptimalSizes::default() })), 100_000);
}

#[test]
fn reading_reservation_capabilities() {
    let rescap = Rescap::new().with_write_exclusive(true).with_persist_through_power_loss(true);
    let namespace = || NamespaceConfig { rescap, ..ram() };
    let found = of(ControllerConfig::default(), namespace()).2.reservation_capabilities();
    assert!(found.write_exclusive && found.persist_through_power_loss && found.any());
    assert!(!found.exclusive_access && !found.exclusive_access_all_registrants);
    let none = ControllerConfig { oncs: Oncs::new(), ..ControllerConfig::default() };
    assert_eq!(of(none, namespace()).2.reservation_capabilities(), ReservationCapabilities::default());
}

#[test]
fn reading_what_a_disk_on_top_needs() {
    let optimal = OptimalSizes { npwg: 7, nows: 31, ..OptimalSizes::default() };
    let config = NamespaceConfig {
        read_only: true,
        shared: false,
        optimal: Some(optimal),
        noiob: 256,
        atomic: Some(AtomicUnits { nawun: 63, nawupf: 15, nacwu: 0 }),
        atomic_boundary: [127, 3, 127],
        dlfeat: Dlfeat::new().with_read_behavior(Dlfeat::READ_ZEROES),
        ..ram()
    };
    let (_bench, _driver, namespace) = of(ControllerConfig::default(), config);
    assert!(namespace.is_read_only() && !namespace.is_shared());
    assert_eq!(namespace.physical_block_size(), 8 * 512);
    assert_eq!((namespace.optimal_io_size(), namespace.optimal_io_boundary()), (Some(32 * 512), 256));
    assert_eq!(namespace.deallocated_read_behavior(), Dlfeat::READ_ZEROES);
    assert_eq!(namespace.atomic_write_units(), (64, 16));
    assert_eq!(namespace.atomic_boundary(), (128, 3));
}

#[test]
fn reading_a_namespace_that_reports_nothing() {
    let config = ControllerConfig { awun: 9, awupf: 4, volatile_write_cache: false, ..ControllerConfig::default() };
    let (bench, _driver, namespace) = of(config, NamespaceConfig { dlfeat: Dlfeat::new(), ..ram() });
    assert!(!namespace.has_volatile_write_cache());
    assert!(!bench.run(namespace.volatile_write_cache_enabled()).expect("no command"));
    assert_eq!((namespace.physical_block_size(), namespace.optimal_io_size()), (512, None));
    assert_eq!((namespace.optimal_io_boundary(), namespace.deallocated_read_behavior()), (0, 0));
    // The controller's units, and no boundaries.
    assert_eq!((namespace.atomic_write_units(), namespace.atomic_boundary()), ((10, 5), (0, 0)));
}

#[test]
fn reading_follows_the_namespace() {
    let (bench, driver, namespace) = of(ControllerConfig::default(), ram());
    bench.subsystem.set_read_only(1, true).expect("read-only");
    bench.world.settle();
    assert!(namespace.is_read_only());
    let view = driver.inspect();
    assert_eq!(view.namespaces.len(), 1);
    assert!(view.namespaces[0].read_only && view.to_string().contains("namespace 1"), "{view}");
}
