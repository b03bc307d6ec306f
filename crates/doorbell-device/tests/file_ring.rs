//! Files by io_uring.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use doorbell_device::{DeviceError, FileRing, HostMemory};

/// A file, and a ring for it; none where the system does not let us, as in many containers.
fn file(len: u64) -> Option<(Arc<File>, FileRing)> {
    let file = Arc::new(tempfile::tempfile().unwrap());
    file.set_len(len).unwrap();
    match FileRing::new(file.clone(), 8) {
        Ok(ring) => Some((file, ring)),
        Err(DeviceError::Io { source, .. }) if matches!(source.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn wait(ring: &mut FileRing) -> (u64, std::io::Result<usize>) {
    ring.submit().unwrap();
    loop {
        if let Some(ended) = ring.take_ended() {
            return ended;
        }
        std::thread::yield_now();
    }
}

#[test]
fn pieces_are_written_and_read_in_order() {
    let Some((file, mut ring)) = file(1 << 20) else { return };
    let memory = HostMemory::allocate(0x4000).unwrap();
    memory.write_at(0x1000, &[1; 0x1000]).unwrap();
    memory.write_at(0x3000, &[2; 0x1000]).unwrap();
    let pieces = [(memory.clone(), 0x3000, 0x1000), (memory.clone(), 0x1000, 0x1000)];
    ring.write(7, 0x8000, &pieces, true).unwrap();
    let (token, moved) = wait(&mut ring);
    assert_eq!((token, moved.unwrap()), (7, 0x2000));
    let mut bytes = [0; 0x2000];
    file.read_exact_at(&mut bytes, 0x8000).unwrap();
    assert!(bytes[..0x1000] == [2; 0x1000] && bytes[0x1000..] == [1; 0x1000]);
    ring.sync(8).unwrap();
    ring.read(9, 0x8000, &[(memory.clone(), 0, 0x1000)]).unwrap();
    let mut tokens: Vec<u64> = (0..2).map(|_| wait(&mut ring).0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, [8, 9]);
    memory.read_at(0, &mut bytes[..0x1000]).unwrap();
    assert!(bytes[..0x1000] == [2; 0x1000]);
    assert!(ring.ended().take() > 0);
}

#[test]
fn memory_that_is_not_there_is_refused() {
    let Some((_file, mut ring)) = file(1 << 20) else { return };
    let memory = HostMemory::allocate(0x1000).unwrap();
    assert!(ring.read(1, 0, &[(memory.clone(), 0x800, 0x1000)]).is_err());
    assert!(ring.read(1, 0, &[(memory.clone(), usize::MAX, 2)]).is_err());
    assert_eq!(ring.in_flight(), 0);
    for token in 0..8 {
        ring.read(token, 0, &[(memory.clone(), 0, 512)]).unwrap();
    }
    assert!(!ring.has_room() && ring.sync(8).is_err());
}

#[test]
fn memory_that_vanishes_is_an_error() {
    let Some((_file, mut ring)) = file(1 << 20) else { return };
    let shared = Arc::new(tempfile::tempfile().unwrap());
    shared.set_len(0x2000).unwrap();
    let memory = HostMemory::from_file(shared.clone(), 0, 0x2000).unwrap();
    shared.set_len(0).unwrap();
    ring.read(1, 0, &[(memory, 0, 0x2000)]).unwrap();
    let (_, moved) = wait(&mut ring);
    assert_eq!(moved.unwrap_err().raw_os_error(), Some(14), "EFAULT");
}

#[test]
fn a_ring_that_goes_waits_for_what_is_under_way() {
    // Of a pipe that nobody writes to, a read would last for ever; of a file it ends, and the memory is whole.
    let Some((file, mut ring)) = file(8 << 20) else { return };
    file.write_all_at(&vec![5; 8 << 20], 0).unwrap();
    let memory = HostMemory::allocate(8 << 20).unwrap();
    ring.read(1, 0, &[(memory.clone(), 0, 8 << 20)]).unwrap();
    ring.submit().unwrap();
    drop(ring);
    let mut last = [0; 1];
    memory.read_at((8 << 20) - 1, &mut last).unwrap();
    assert_eq!(last, [5]);
}

#[test]
fn what_ends_is_signalled_when_that_is_wanted() {
    let Some((_file, mut ring)) = file(1 << 20) else { return };
    let memory = HostMemory::allocate(0x1000).unwrap();
    let end = |ring: &mut FileRing| {
        ring.read(1, 0, &[(memory.clone(), 0, 512)]).unwrap();
        ring.submit().unwrap();
        while !ring.has_ended() {
            std::thread::yield_now();
        }
    };
    ring.signal(false);
    end(&mut ring);
    assert_eq!(ring.ended().take(), 0);
    ring.signal(true);
    // What had ended before is there to be seen, not to be signalled.
    assert!(ring.has_ended() && ring.ended().take() == 0);
    ring.take_ended().unwrap().1.unwrap();
    end(&mut ring);
    assert_eq!(ring.ended().take(), 1);
}
