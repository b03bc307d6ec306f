//! Bytes that come from outside of the process, from a peer on a vfio-user socket; each function is one side of that.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::{HostMemory, Interrupt};
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_serve::Stepped;
use vfio_user::wire::{self, Header, SET_ACTION_TRIGGER, SET_DATA_EVENTFD};
use vfio_user::{Call, Caller, Capabilities, Connection, Limits, Request, Version, reply};
use zerocopy::{FromBytes, IntoBytes};

/// A message without a socket: what is in it.
pub fn requests(data: &[u8]) {
    if let Ok((header, payload)) = Header::read_from_prefix(data) {
        let _ = Request::parse(&header, payload);
        let _ = Version::parse(payload);
        if let Ok((info, Some(areas))) = reply::parse_region_info(payload) {
            for area in areas {
                assert!(area.offset.checked_add(area.size).is_some_and(|end| end <= info.size));
            }
        }
    }
}

/// Bytes of the memory that a client shares.
const MEMORY: usize = 0x20000;

/// A server, with a client of which the bytes tell what it does. Each step of it is a byte that tells the kind, one that
/// tells the length, and as many bytes.
pub fn server(data: &[u8]) {
    let subsystem = Subsystem::default();
    let _ = subsystem.add_namespace(NamespaceConfig::ram(1 << 20));
    let config = ControllerConfig { queue_pairs: 2, vectors: 3, ..ControllerConfig::default() };
    let Ok((client, stream)) = UnixStream::pair() else { return };
    let Ok(mut server) = Stepped::new(stream, Controller::new(&subsystem, config)) else { return };
    let (Ok(memory), Ok(interrupt)) = (HostMemory::allocate(MEMORY), Interrupt::new()) else { return };
    let mut client = Connection::new(client, Limits::default());
    let Ok(raw) = client.as_fd().try_clone_to_owned() else { return };
    let mut raw = UnixStream::from(raw);
    let (mut rest, mut time) = (data, Duration::ZERO);
    while let [kind, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(tail.len().min((*len).into()));
        rest = tail;
        match kind % 8 {
            // As it comes.
            0 => drop(raw.write(bytes)),
            // A message, whose size is right.
            1 | 2 => {
                let Ok((header, payload)) = Header::read_from_prefix(bytes) else { continue };
                let memory = memory.file().map(|(file, _)| file.as_fd());
                let fds: &[BorrowedFd<'_>] = match (kind / 8 % 4, memory) {
                    (1, Some(memory)) => &[memory],
                    (2, _) => &[interrupt.as_fd()],
                    (3, Some(memory)) => &[memory, interrupt.as_fd()],
                    _ => &[],
                };
                drop(client.queue(header, &[payload], fds));
            }
            // What a client begins with.
            3 => {
                let map = wire::DmaMap { argsz: 32, flags: 3, size: MEMORY as u64, ..Default::default() };
                let flags = SET_DATA_EVENTFD | SET_ACTION_TRIGGER;
                let set = wire::IrqSet { argsz: 20, flags, index: wire::irq::MSIX, start: 0, count: 1 };
                let memory = memory.file().map(|(file, _)| file.as_fd());
                let request = |command| Header { command, ..Header::default() };
                drop(client.queue(request(1), &[&Version::default().to_bytes()], &[]));
                drop(client.queue(request(2), &[map.as_bytes()], memory.as_slice()));
                drop(client.queue(request(8), &[set.as_bytes()], &[interrupt.as_fd()]));
            }
            // Registers in a row: where, and what.
            4 => {
                for write in bytes.chunks_exact(5) {
                    let offset = u64::from(write[0] % 16) * 4;
                    let access = wire::RegionAccess { offset, region: 0, count: 4 };
                    let header = Header { command: 10, flags: wire::flags::NO_REPLY, ..Header::default() };
                    drop(client.queue(header, &[access.as_bytes(), &write[1..]], &[]));
                }
            }
            // Doorbells.
            5 => {
                for ring in bytes.chunks_exact(2) {
                    if let Some(doorbell) = server.doorbells().dwords().get(usize::from(ring[0] % 8)) {
                        doorbell.store(ring[1].into(), Ordering::Release);
                    }
                }
            }
            // The memory that the controller reads: pages of queues and of data.
            6 => {
                if let [page, place, bytes @ ..] = bytes {
                    let at = usize::from(page % 32) * 0x1000 + usize::from(*place) * 16;
                    let _ = memory.write_at(at.min(MEMORY - 256), bytes);
                }
            }
            // Time.
            _ => time += Duration::from_millis(u64::from(*len)),
        }
        if server.step(time).is_err() {
            return;
        }
        while let Ok(Some(_)) = client.try_receive() {}
    }
}

/// A client, and the bytes are all that its server says.
pub fn client(data: &[u8]) {
    let Ok((mut server, client)) = UnixStream::pair() else { return };
    // As much as a socket takes; more tells nothing new.
    let data = data.get(..data.len().min(16 << 10)).unwrap_or_default();
    if server.write_all(data).is_err() || server.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let connection = Connection::new(client, Limits::default());
    let Ok(mut caller) = Caller::new(connection, Capabilities::default(), Some(Duration::from_secs(5))) else { return };
    let _ = caller.device_info();
    for region in [wire::region::BAR0, wire::region::CONFIG] {
        let _ = caller.region_info(region);
    }
    let _ = caller.irq_info(wire::irq::MSIX);
    let _ = caller.region_read(wire::region::BAR0, 0, &mut [0; 8]);
    let _ = caller.region_write(wire::region::BAR0, 0x14, &[0; 4]);
    let _ = caller.dma_map(wire::DmaMap::default(), None);
    let _ = caller.dma_unmap(0, 4096);
    let _ = caller.reset();
}
