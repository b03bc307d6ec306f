//! The ledger around a device that comes and goes.

mod common;

use common::Driver;
use doorbell_device::wrap::{DmaLedger, LedgerEvent};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_device::{Device, DmaMemory};
use nvme_spec::registers::{Cc, offset};

#[test]
fn queues_freed_in_order_are_no_offence() {
    let ledger = DmaLedger::new(ZeroWork::new(Options::default()).unwrap());
    let driver = Driver::new(ledger.clone());
    assert!(ledger.is_running());
    assert_eq!(ledger.live_ranges().len(), 2);
    assert!(ledger.is_live(driver.admin.sq.iova(), 4096));
    assert!(!ledger.is_live(driver.admin.sq.iova(), 4097));

    ledger.write32(offset::CC, Cc::new().into_bits()).unwrap();
    assert!(ledger.is_running(), "not before RDY was read");
    ledger.read32(offset::CSTS).unwrap();
    assert!(!ledger.is_running());
    drop(driver);
    assert_eq!((ledger.live_ranges(), ledger.unmapped_while_running()), (vec![], vec![]));

    let events: Vec<LedgerEvent> = ledger.history().iter().map(|entry| entry.event).collect();
    use LedgerEvent::*;
    assert!(matches!(events[..], [Mapped(_), Mapped(_), Enabled, Disabled, Unmapped(_), Unmapped(_)]), "{events:?}");
}

#[test]
fn a_queue_freed_under_a_running_device_is_found() {
    let ledger = DmaLedger::new(ZeroWork::new(Options::default()).unwrap());
    let driver = Driver::new(ledger.clone());
    let sq = driver.admin.sq.iova();
    drop(driver);
    assert!(ledger.unmapped_while_running().iter().any(|range| range.overlaps(sq, 64)));
}

#[test]
fn a_reset_stops_the_device() {
    let ledger = DmaLedger::new(ZeroWork::new(Options::default()).unwrap());
    let driver = Driver::new(ledger.clone());
    ledger.reset().unwrap();
    drop(driver);
    assert_eq!(ledger.unmapped_while_running(), []);
    let _driver = Driver::new(ledger.clone());
    assert!(ledger.is_running());
}

#[test]
#[cfg_attr(miri, ignore = "leaks on purpose")]
fn a_clone_keeps_memory_live_and_a_leak_for_ever() {
    let ledger = DmaLedger::new(ZeroWork::new(Options::default()).unwrap());
    let memory = ledger.allocate(4096, 4096).unwrap();
    let iova = memory.iova();
    drop(memory.clone());
    assert!(ledger.is_live(iova, 4096));
    DmaMemory::leak(memory);
    assert!(ledger.is_live(iova, 4096));
}
