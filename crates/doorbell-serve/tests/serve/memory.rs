//! The client's memory: what is taken, what is refused, and what is let go.

use std::fs::File;
use std::os::fd::AsFd;

use doorbell_device::HostMemory;
use rustix::io::Errno;
use vfio_user::wire::{self, Command};
use vfio_user::{Call, CallError, Caller};
use zerocopy::IntoBytes;

use crate::harness::{DATA, Host, IOVA, MEMORY, Server, share, wait_for};

fn map(caller: &mut Caller, file: Option<&File>, offset: u64, address: u64, size: u64) -> Result<(), Errno> {
    let flags = wire::DMA_READ | wire::DMA_WRITE;
    let map = wire::DmaMap { flags, offset, address, size, ..Default::default() };
    errno(caller.dma_map(map, file.map(AsFd::as_fd)))
}

fn errno<T>(result: Result<T, CallError>) -> Result<T, Errno> {
    result.map_err(|error| match error {
        CallError::Refused { errno, .. } => Errno::from_raw_os_error(errno as i32),
        other => panic!("{other}"),
    })
}

#[test]
fn mappings_are_checked() {
    let server = Server::start();
    let mut caller = server.caller();
    let memory = HostMemory::allocate(0x4000).unwrap();
    let file = memory.file().unwrap().0.clone();
    let mut map = |offset, address, size| map(&mut caller, Some(&file), offset, address, size);
    assert_eq!(map(0, 0x10000, 0x2000), Ok(()));
    assert_eq!(map(0x2000, 0x12000, 0x2000), Ok(()), "next to it");
    assert_eq!(map(0, 0x11000, 0x1000), Err(Errno::EXIST), "within");
    assert_eq!(map(0, 0xf000, 0x2000), Err(Errno::EXIST), "over the start");
    assert_eq!(map(0, 0xf000, 0x8000), Err(Errno::EXIST), "around");
    assert_eq!(map(0x3000, 0x20000, 0x2000), Err(Errno::INVAL), "past the end of the file");
    assert_eq!(map(u64::MAX - 0xfff, 0x20000, 0x2000), Err(Errno::INVAL), "an offset that overflows");
    assert_eq!(map(0, u64::MAX - 0xfff, 0x2000), Err(Errno::INVAL), "an address that overflows");
    assert_eq!(map(0, 0x20000, 0), Err(Errno::INVAL), "nothing");
    assert_eq!(map(0, 0x20800, 0x1000), Err(Errno::INVAL), "no whole page");
    assert_eq!(map(0, 0x20000, !0xfff), Err(Errno::INVAL), "more than there is");
    assert_eq!(map(0, 0x20000, 1 << 50), Err(Errno::NOSPC), "more than we give addresses for");
    wait_for("the count", || server.endpoint.statistics().mapped_bytes == 0x4000);
}

#[test]
fn memory_without_a_descriptor_takes_its_place_and_cannot_be_reached() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    let at = 0x9000_0000;
    assert_eq!(map(&mut host.caller, None, 0, at, 0x2000), Ok(()));
    assert_eq!(map(&mut host.caller, None, 0, at, 0x1000), Err(Errno::EXIST));
    host.enable();
    host.create_queues();
    assert_eq!(host.io_at(0x02, at, 0), 0x04, "data transfer error");
    assert_eq!(errno(host.caller.dma_unmap(at, 0x2000)), Ok(()));
    assert_eq!(host.io(0x02, DATA, 0), 0, "the controller goes on");
}

#[test]
fn what_is_unmapped_is_not_reached_any_more() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    let second = HostMemory::allocate(0x1000).unwrap();
    let at = IOVA + 0x1000_0000;
    share(&mut host.caller, &second, at);
    assert_eq!(host.io_at(0x02, at, 0), 0);
    assert_eq!(errno(host.caller.dma_unmap(at, 0x2000)), Err(Errno::NOENT), "another size");
    assert_eq!(errno(host.caller.dma_unmap(at + 0x1000, 0x1000)), Err(Errno::NOENT), "another address");
    assert_eq!(errno(host.caller.dma_unmap(at, 0x1000)), Ok(()));
    assert_eq!(errno(host.caller.dma_unmap(at, 0x1000)), Err(Errno::NOENT), "twice");
    second.write_at(0, &[0x77; 512]).unwrap();
    assert_eq!(host.io_at(0x02, at, 0), 0x04, "data transfer error");
    let mut bytes = [0; 512];
    second.read_at(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0x77; 512]);
}

#[test]
fn everything_can_be_unmapped_at_once() {
    let server = Server::start();
    let mut caller = server.caller();
    for page in 0..10 {
        map(&mut caller, None, 0, page * 0x2000, 0x1000).unwrap();
    }
    let all = wire::DmaUnmap { argsz: 24, flags: wire::UNMAP_ALL, address: 0, size: 0x1000 };
    assert_eq!(errno(caller.call(Command::DmaUnmap, &[all.as_bytes()], &[])).unwrap_err(), Errno::INVAL);
    let all = wire::DmaUnmap { size: 0, ..all };
    let reply = caller.call(Command::DmaUnmap, &[all.as_bytes()], &[]).unwrap();
    assert_eq!(reply.payload, all.as_bytes());
    wait_for("the count", || server.endpoint.statistics().mappings == 0);
}

#[test]
fn mappings_are_limited_in_number_and_take_one_descriptor_a_file() {
    let server = Server::start();
    let mut caller = server.caller();
    let memory = HostMemory::allocate(0x1000).unwrap();
    let file = memory.file().unwrap().0.clone();
    // Those of our own process too: what counts is that there are far fewer than mappings.
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for page in 0..2000 {
        map(&mut caller, Some(&file), 0, page * 0x2000, 0x1000).unwrap();
    }
    assert!(open() < before + 500, "{} descriptors", open() - before);
    for page in 2000..8192 {
        map(&mut caller, None, 0, page * 0x2000, 0x1000).unwrap();
    }
    assert_eq!(map(&mut caller, None, 0, 1 << 40, 0x1000), Err(Errno::NOSPC));
    drop(caller);
    server.wait_until_free();
    server.check();
}

#[test]
fn memory_may_come_and_go_while_the_controller_is_enabled() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    let ram = HostMemory::allocate(4 << 20).unwrap();
    for _ in 0..5 {
        share(&mut host.caller, &ram, 0);
        host.caller.dma_unmap(0, 4 << 20).unwrap();
        // The queues move for a moment, as guests' memory does when firmware remaps it.
        host.caller.dma_unmap(IOVA, MEMORY as u64).unwrap();
        let memory = host.memory.clone();
        share(&mut host.caller, &memory, IOVA);
        assert_eq!(host.io(0x02, DATA, 0), 0);
    }
}

#[test]
fn a_file_that_is_shared_cannot_be_truncated_any_more() {
    let server = Server::start();
    let mut caller = server.caller();
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("test", flags).unwrap());
    file.set_len(0x4000).unwrap();
    map(&mut caller, Some(&file), 0, 0, 0x4000).unwrap();
    assert!(file.set_len(0x1000).is_err(), "the server has sealed it");
}

#[test]
fn a_client_that_truncates_its_memory_harms_itself_alone() {
    doorbell_device::sigbus::install().unwrap();
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    // A file on a disk cannot be sealed.
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.set_len(0x4000).unwrap();
    let at = 0x9000_0000;
    map(&mut host.caller, Some(&file), 0, at, 0x4000).unwrap();
    assert_eq!(host.io_at(0x02, at, 0), 0);
    file.set_len(0).unwrap();
    // The access goes on with something else, and then the client is let go.
    host.io_at(0x02, at, 0);
    server.wait_until_free();
    server.check();
}
