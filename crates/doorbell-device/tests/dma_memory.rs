//! Who goes first, mapping or memory, and what is leaked. In one test, because the count of leaks is the process's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use doorbell_device::{DeviceError, DmaMemory, HostMemory, leaked_mappings};

/// Memory, and a way to see that it is gone: its file goes with the last mapping that knows it.
fn memory() -> (HostMemory, Weak<std::fs::File>) {
    let host = HostMemory::allocate(4096).unwrap();
    let file = Arc::downgrade(host.file().unwrap().0);
    (host, file)
}

#[test]
fn the_mapping_goes_before_the_memory_and_what_cannot_go_is_leaked() {
    // The last clone unmaps, once, with the memory still there.
    let (host, file) = memory();
    let unmapped = Arc::new(AtomicU32::new(0));
    let first = DmaMemory::new(host, 0x1000, {
        let (unmapped, file) = (unmapped.clone(), file.clone());
        move || {
            assert!(file.upgrade().is_some());
            unmapped.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    });
    assert_eq!((first.iova(), first.len(), first.is_empty()), (0x1000, 4096, false));
    drop(first.clone());
    assert_eq!(unmapped.load(Ordering::Relaxed), 0);
    drop(first);
    assert_eq!(unmapped.load(Ordering::Relaxed), 1);
    assert!(file.upgrade().is_none());
    assert_eq!(leaked_mappings(), 0);

    // Where unmapping fails, the memory stays.
    let (host, file) = memory();
    drop(DmaMemory::new(host, 0, || Err(DeviceError::Unsupported("unmapping"))));
    assert!(file.upgrade().is_some());
    assert_eq!(leaked_mappings(), 1);

    // And where it panics.
    let (host, file) = memory();
    let panics = DmaMemory::new(host, 0, || panic!("as a test"));
    catch_unwind(AssertUnwindSafe(|| drop(panics))).unwrap_err();
    assert!(file.upgrade().is_some());
    assert_eq!(leaked_mappings(), 2);

    // On purpose, whatever other clones do.
    let (host, file) = memory();
    let last = DmaMemory::new(host, 0, || unreachable!());
    let clone = last.clone();
    last.leak();
    drop(clone);
    assert!(file.upgrade().is_some());
    assert_eq!(leaked_mappings(), 3);
}
