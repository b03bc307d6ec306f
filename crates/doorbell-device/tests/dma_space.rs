//! The software IOMMU: what is mapped is reached, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doorbell_device::inprocess::{DmaFault, DmaSpace};
use doorbell_device::{Access, DeviceError, HostMemory};
use proptest::prelude::*;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};

fn pages(count: usize) -> HostMemory {
    HostMemory::allocate(count << 12).unwrap()
}

fn is_refused<T>(result: Result<T, DeviceError>) -> bool {
    matches!(result, Err(DeviceError::Unmappable { .. }))
}

#[test]
fn mappings_do_not_overlap() {
    let space = DmaSpace::new();
    space.insert(0x10000, pages(2), Access::ReadWrite).unwrap();
    for iova in [0xf000, 0x10000, 0x11000] {
        assert!(is_refused(space.insert(iova, pages(2), Access::Read)), "{iova:#x}");
    }
    assert!(is_refused(space.insert(0xe000, pages(8), Access::Read)));
    assert!(is_refused(space.insert(u64::MAX - 4095, pages(2), Access::Read)));
    space.insert(0xe000, pages(2), Access::Read).unwrap();
    space.insert(0x12000, pages(2), Access::Read).unwrap();
    space.insert(0, pages(1), Access::Read).unwrap();
}

#[test]
fn exactly_what_was_inserted_is_removed() {
    let space = DmaSpace::new();
    let host = pages(2);
    host.write_at(0, b"host").unwrap();
    space.insert(0x10000, host, Access::ReadWrite).unwrap();
    for (iova, len) in [(0x10000, 0x1000), (0x11000, 0x1000), (0xf000, 0x3000), (0x10000, 0)] {
        assert!(is_refused(space.remove(iova, len)), "{iova:#x} {len:#x}");
    }
    let mut seen = [0; 4];
    space.view().read(0x10000, &mut seen).unwrap();
    assert_eq!(seen, *b"host");
    space.remove(0x10000, 0x2000).unwrap();
    assert!(is_refused(space.remove(0x10000, 0x2000)));
    assert!(space.view().read(0x10000, &mut seen).is_err());
}

#[test]
fn the_device_may_do_what_it_was_allowed_to() {
    let space = DmaSpace::new();
    space.insert(0x1000, pages(1), Access::Read).unwrap();
    space.insert(0x3000, pages(1), Access::Write).unwrap();
    let view = space.view();
    let mut byte = [0];
    assert_eq!(view.read(0x1fff, &mut byte), Ok(()));
    assert_eq!(view.write(0x1000, &byte), Err(DmaFault { iova: 0x1000, len: 1, access: Access::Write }));
    assert_eq!(view.write(0x3000, &byte), Ok(()));
    assert_eq!(view.read(0x3000, &mut byte), Err(DmaFault { iova: 0x3000, len: 1, access: Access::Read }));
    assert!(view.slice(0x3000, 16, Access::ReadWrite).is_err());
    assert_eq!(space.fault_count(), 3);
}

#[test]
fn memory_is_not_offered_for_what_this_process_may_not_do() {
    let region = MmapRegionBuilder::new(4096).with_mmap_prot(1).with_mmap_flags(0x22).build().unwrap();
    let read_only = HostMemory::from_guest_region(&GuestRegionMmap::new(region, GuestAddress(0)).unwrap());
    let space = DmaSpace::new();
    assert!(is_refused(space.insert(0, read_only.clone(), Access::Write)));
    assert!(is_refused(space.insert(0, read_only.clone(), Access::ReadWrite)));
    space.insert(0, read_only, Access::Read).unwrap();
}

#[test]
fn faults_are_counted_and_the_latest_kept() {
    let space = DmaSpace::new();
    for iova in 0..100 {
        space.view().read(iova, &mut [0]).unwrap_err();
    }
    assert_eq!(space.fault_count(), 100);
    let kept: Vec<u64> = space.faults().iter().map(|fault| fault.iova).collect();
    assert_eq!(kept, (36..100).collect::<Vec<u64>>());
}

#[test]
fn an_access_does_not_wrap_round() {
    let space = DmaSpace::new();
    space.insert(0, pages(1), Access::ReadWrite).unwrap();
    let top = 0u64.wrapping_sub(8192);
    space.insert(top, pages(1), Access::ReadWrite).unwrap();
    let view = space.view();
    for iova in [u64::MAX, u64::MAX - 7, top + 4096] {
        assert!(view.read(iova, &mut [0; 16]).is_err());
        assert!(view.resolve(iova, 16, Access::Read).is_err());
    }
    assert!(view.resolve(0, usize::MAX, Access::Read).is_err());
    assert!(view.resolve(0, 4096, Access::Read).is_ok());
}

#[test]
fn removing_waits_for_views() {
    let space = Arc::new(DmaSpace::new());
    space.insert(0, pages(1), Access::Read).unwrap();
    let view = space.view();
    let removed = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            space.remove(0, 4096).unwrap();
            removed.store(true, Ordering::SeqCst);
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!removed.load(Ordering::SeqCst));
        assert!(view.read(0, &mut [0]).is_ok());
        drop(view);
    });
    assert!(removed.load(Ordering::SeqCst));
}

proptest! {
    /// Against a map of pages, each with a number and rights, of which neighbours may be mapped apart.
    #[test]
    fn accesses_cross_mappings(
        regions in prop::collection::vec((0u64..3, 1usize..4, 0..3), 1..6),
        first in 0u64..25,
        into in 0u64..4096,
        len in 0usize..20000,
    ) {
        let space = DmaSpace::new();
        let mut model = [None; 40];
        let mut page = 0;
        for (gap, count, rights) in regions {
            page += gap;
            let access = [Access::Read, Access::Write, Access::ReadWrite][rights as usize];
            let host = pages(count);
            for index in 0..count {
                model[page as usize + index] = Some(access);
                host.write_at(index << 12, &[page as u8 + index as u8; 4096]).unwrap();
            }
            space.insert(page << 12, host, access).unwrap();
            page += count as u64;
        }
        let start = (first << 12) + into;
        let ok = |access: Access| (start..start + len as u64).all(|at| {
            model[(at >> 12) as usize].is_some_and(|has: Access| has.allows(access))
        });
        let view = space.view();
        let mut seen = vec![0xff; len];
        prop_assert_eq!(view.read(start, &mut seen).is_ok(), ok(Access::Read));
        if ok(Access::Read) {
            prop_assert!(seen.iter().zip(start..).all(|(byte, at)| u64::from(*byte) == at >> 12));
        }
        let data: Vec<u8> = (0..len).map(|at| at as u8).collect();
        prop_assert_eq!(view.write(start, &data).is_ok(), ok(Access::Write));
        if ok(Access::ReadWrite) {
            view.read(start, &mut seen).unwrap();
            prop_assert!(seen == data);
        }
    }
}
