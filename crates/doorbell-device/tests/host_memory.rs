//! Bounds, protection and aliases of host memory.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::{Access, DeviceError, HostMemory, OutOfRange};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, memfd_create};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

const SIZE: usize = 3 * 4096;

fn memory() -> HostMemory {
    HostMemory::allocate(SIZE).unwrap()
}

fn bytes(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len()];
    memory.read_at(0, &mut bytes).unwrap();
    bytes
}

fn guest_region(prot: i32) -> GuestRegionMmap {
    let region: MmapRegion = MmapRegionBuilder::new(4096)
        .with_mmap_prot(prot)
        .with_mmap_flags(0x22) // MAP_PRIVATE | MAP_ANONYMOUS
        .build()
        .unwrap();
    GuestRegionMmap::new(region, GuestAddress(0)).unwrap()
}

#[test]
fn sizes_are_whole_pages_and_zeroed() {
    for (asked, len) in [(0, 4096), (1, 4096), (4096, 4096), (4097, 8192), (2 << 20, 2 << 20)] {
        let memory = HostMemory::allocate(asked).unwrap();
        assert_eq!((memory.len(), memory.words().len(), memory.dwords().len()), (len, len / 8, len / 4));
        assert!(memory.is_readable() && memory.is_writable() && !memory.is_empty());
        assert!(memory.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }
    for impossible in [usize::MAX, usize::MAX - 4095, 1 << 60] {
        assert!(HostMemory::allocate(impossible).is_err());
    }
}

#[test]
fn it_can_be_mapped_again_by_its_file() {
    let memory = memory();
    let (file, offset) = memory.file().unwrap();
    assert_eq!(offset, 0);
    let second = HostMemory::from_file(file.clone(), 4096, 8192).unwrap();
    memory.write_at(5000, b"shared").unwrap();
    let mut seen = [0; 6];
    second.read_at(5000 - 4096, &mut seen).unwrap();
    assert_eq!(seen, *b"shared");
    second.words()[0].store(7, Ordering::Relaxed);
    assert_eq!(memory.words()[512].load(Ordering::Relaxed), 7);
    assert_eq!(second.file().unwrap().1, 4096);
}

#[test]
fn a_peer_cannot_take_the_pages_away() {
    let memory = memory();
    let (file, _) = memory.file().unwrap();
    assert!(file.set_len(0).is_err());
    assert!(file.set_len(1 << 20).is_err());
    let seals = rustix::fs::fcntl_get_seals(file).unwrap();
    assert!(seals.contains(SealFlags::SHRINK | SealFlags::SEAL));
}

#[test]
fn a_file_too_short_is_refused() {
    let file = Arc::new(File::from(memfd_create("short", MemfdFlags::CLOEXEC).unwrap()));
    file.set_len(8192).unwrap();
    for (offset, len) in [(0, 8193), (4096, 8192), (u64::MAX, 2), (8192, 1), (0, 0), (1, 4096)] {
        let refused = HostMemory::from_file(file.clone(), offset, len);
        assert!(matches!(refused, Err(DeviceError::Unmappable { .. })), "{offset} {len}");
    }
    assert!(HostMemory::from_file(file, 4096, 4096).is_ok());
}

#[test]
fn protection_is_kept() {
    let nothing = HostMemory::from_guest_region(&guest_region(0));
    assert!(nothing.words().is_empty() && nothing.dwords().is_empty());
    assert!(nothing.slice(0, 1).is_err() && nothing.read_at(0, &mut [0]).is_err() && nothing.zero(0, 1).is_err());

    let read_only = HostMemory::from_guest_region(&guest_region(1));
    assert!(read_only.words().is_empty() && !read_only.is_writable());
    assert_eq!(read_only.read_at(4095, &mut [0]), Ok(()));
    let refused = OutOfRange { offset: 0, len: 1, size: 4096 };
    assert_eq!(read_only.write_at(0, &[0]), Err(refused));
    assert_eq!(read_only.zero(0, 1), Err(refused));
    assert_eq!(memory().copy_to(0, &read_only, 0, 1), Err(refused));
    assert_eq!(read_only.copy_to(0, &memory(), 0, 4096), Ok(()));
    assert_eq!(read_only.len(), 4096);
}

#[test]
fn guest_memory_is_the_guests() {
    let file = HostMemory::allocate(16 << 12).unwrap().file().unwrap().0.clone();
    let mapped = FileOffset::from_arc(file, 4 << 12);
    let guest: GuestMemoryMmap = GuestMemoryMmap::from_ranges_with_files([
        (GuestAddress(0), 8 << 12, None),
        (GuestAddress(1 << 32), 12 << 12, Some(mapped)),
    ])
    .unwrap();
    for region in guest.iter() {
        let memory = HostMemory::from_guest_region(region);
        assert_eq!(memory.len() as u64, region.len());
        let at = region.start_addr().0 + 4097;
        guest.write_slice(b"from the guest", GuestAddress(at)).unwrap();
        let mut seen = [0; 14];
        memory.read_at(4097, &mut seen).unwrap();
        assert_eq!(seen, *b"from the guest");
        memory.words()[0].store(u64::from_le_bytes(*b"from us "), Ordering::Relaxed);
        guest.read_slice(&mut seen[..8], region.start_addr()).unwrap();
        assert_eq!(seen[..8], *b"from us ");
        assert_eq!(memory.file().map(|(_, offset)| offset), region.file_offset().map(|_| 4 << 12));
    }
    // The mapping outlives the guest's own handle on it.
    let memory = HostMemory::from_guest_region(guest.iter().next().unwrap());
    drop(guest);
    assert_eq!(bytes(&memory)[..7], *b"from us");
}

#[test]
fn access_rights() {
    use Access::*;
    for (has, wants, allowed) in [
        (Read, Read, true),
        (Read, Write, false),
        (Read, ReadWrite, false),
        (Write, Write, true),
        (Write, Read, false),
        (ReadWrite, Read, true),
        (ReadWrite, ReadWrite, true),
    ] {
        assert_eq!(has.allows(wants), allowed, "{has:?} {wants:?}");
    }
}

/// Offsets and lengths around the edges, and far beyond.
fn edge() -> impl Strategy<Value = usize> {
    prop_oneof![0..SIZE + 10, Just(usize::MAX), Just(usize::MAX - 7), (usize::MAX / 2 - 4..usize::MAX / 2 + 4)]
}

proptest! {
    #[test]
    fn writes_land_where_they_should_or_not_at_all(offset in edge(), data in prop::collection::vec(1u8.., 0..5000)) {
        let memory = memory();
        let mut expected = vec![0; SIZE];
        let fits = offset.checked_add(data.len()).is_some_and(|end| end <= SIZE);
        if fits {
            expected[offset..offset + data.len()].copy_from_slice(&data);
        }
        let refused = OutOfRange { offset, len: data.len(), size: SIZE };
        prop_assert_eq!(memory.write_at(offset, &data), if fits { Ok(()) } else { Err(refused) });
        prop_assert!(bytes(&memory) == expected);
        let mut back = vec![0; data.len()];
        prop_assert_eq!(memory.read_at(offset, &mut back).is_ok(), fits);
        prop_assert!(!fits || back == data);
    }

    #[test]
    fn zeroing_stays_within_its_range(offset in edge(), len in edge()) {
        let memory = memory();
        memory.write_at(0, &[0xff; SIZE]).unwrap();
        let fits = offset.checked_add(len).is_some_and(|end| end <= SIZE);
        prop_assert_eq!(memory.zero(offset, len).is_ok(), fits);
        let zeroed = |at: usize| fits && (offset..offset + len).contains(&at);
        prop_assert!(bytes(&memory).iter().enumerate().all(|(at, byte)| (*byte == 0) == zeroed(at)));
    }

    #[test]
    fn copies_may_overlap(from in edge(), to in edge(), len in edge()) {
        let memory = memory();
        let pattern: Vec<u8> = (0..SIZE).map(|at| (at * 31 / 8) as u8).collect();
        memory.write_at(0, &pattern).unwrap();
        let mut expected = pattern;
        let inside = |at: usize| at.checked_add(len).is_some_and(|end| end <= SIZE);
        let fits = inside(from) && inside(to);
        if fits {
            expected.copy_within(from..from + len, to);
        }
        prop_assert_eq!(memory.copy_to(from, &memory, to, len).is_ok(), fits);
        prop_assert!(bytes(&memory) == expected);
    }

    #[test]
    fn windows_are_checked(offset in edge(), len in edge()) {
        let memory = memory();
        let fits = offset.checked_add(len).is_some_and(|end| end <= SIZE);
        prop_assert_eq!(memory.slice(offset, len).map(|window| window.len()).ok(), fits.then_some(len));
    }
}
