//! Clients that keep to no rule. Whatever they do, the next one is served.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use doorbell_device::{HostMemory, Interrupt};
use proptest::prelude::*;
use vfio_user::wire::{self, Header};
use vfio_user::{Call, ConnectionError, Version};
use zerocopy::IntoBytes;

use crate::harness::{PATIENCE, Server};

/// The server's answer to bytes: whether it closes the connection after.
fn is_closed_after(server: &Server, bytes: &[u8]) -> bool {
    let mut raw = UnixStream::connect(&server.path).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    raw.write_all(bytes).unwrap();
    let mut rest = Vec::new();
    match raw.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(e) => e.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn framed(header: Header, payload: &[u8]) -> Vec<u8> {
    [Header { size: 16 + payload.len() as u32, ..header }.as_bytes(), payload].concat()
}

fn version() -> Vec<u8> {
    framed(Header { command: 1, ..Header::default() }, &Version::default().to_bytes())
}

#[test]
fn beginnings_that_are_no_version_end_the_connection() {
    let server = Server::start();
    let proposal = |payload: &[u8]| framed(Header { command: 1, ..Header::default() }, payload);
    let bad: [&[u8]; 8] = [
        &[0; 16],
        &[0xff; 16],
        &framed(Header { command: 13, ..Header::default() }, &[]),
        &proposal(&[0, 0, 1]),
        &proposal(&[1, 0, 0, 0]),
        &proposal(b"\0\0\x01\0no JSON\0"),
        &proposal(b"\0\0\x01\0{\"capabilities\":[]}\0"),
        &framed(Header { command: 1, flags: 1, ..Header::default() }, &[0; 4]),
    ];
    for bytes in bad {
        assert!(is_closed_after(&server, bytes), "{bytes:?}");
    }
    server.check();
}

#[test]
fn sizes_that_cannot_be_end_the_connection() {
    let server = Server::start();
    for size in [0, 15, 2 << 20, u32::MAX] {
        let bad = Header { command: 9, size, ..Header::default() };
        assert!(is_closed_after(&server, &[&version(), bad.as_bytes()].concat()));
    }
    server.check();
}

#[test]
fn a_client_that_does_not_read_is_left_waiting_alone() {
    let server = Server::start();
    let mut caller = server.caller();
    let access = wire::RegionAccess { offset: 0, region: 7, count: 4096 };
    let header = Header::request(1, vfio_user::wire::Command::RegionRead);
    let mut flood = vfio_user::Connection::new(
        UnixStream::from(caller.as_fd().try_clone_to_owned().unwrap()),
        vfio_user::Limits::default(),
    );
    // Until the server takes no more, because its replies are not taken.
    let start = Instant::now();
    let stuck = loop {
        if let Err(error) = flood.send(header, &[access.as_bytes()], &[], Some(Duration::from_millis(200))) {
            break error;
        }
        assert!(start.elapsed() < PATIENCE);
    };
    assert!(matches!(stuck, ConnectionError::TimedOut), "{stuck}");
    // It is not busy with that, and reacts to others.
    assert_eq!(server.endpoint.with_controller(|controller| controller.cntlid()), Some(0));
    let sleeps = server.endpoint.statistics().sleeps;
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.endpoint.statistics().sleeps - sleeps < 100);
    caller.shutdown();
    let _ = caller.reset();
    drop((caller, flood));
    server.wait_until_free();
    server.check();
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() {
    let server = Server::start();
    let mut caller = server.caller();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let many = vec![writer.as_fd(); 16];
    for command in [vfio_user::wire::Command::DeviceReset, vfio_user::wire::Command::DmaMap] {
        let payload = wire::DmaMap { argsz: 32, flags: 3, size: 0x1000, ..Default::default() };
        let _ = caller.call(command, &[payload.as_bytes()], &many);
    }
    drop(writer);
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "nobody has the other end of the pipe");
}

/// One thing that a client may send.
#[derive(Debug, Clone)]
enum Step {
    /// A message of any kind, as if it were in order.
    Message { command: u16, flags: u32, words: Vec<u32>, fds: Vec<u8> },
    /// A message whose header says another size.
    Torn { command: u16, size: u32, bytes: Vec<u8> },
    /// A register write that makes sense: bring the controller up, or ring.
    Register { offset: u64, value: u64 },
    /// A doorbell, by the mapped page.
    Ring { index: usize, value: u32 },
    /// Anything in the memory that the controller reads.
    Memory { at: usize, bytes: Vec<u8> },
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop_oneof![0u32..64, Just(0x1000), Just(u32::MAX), any::<u32>()];
    let message = (0u16..20, prop_oneof![8 => Just(0u32), 1 => Just(0x10), 1 => any::<u32>()]).prop_flat_map(
        move |(command, flags)| {
            (prop::collection::vec(word.clone(), 0..12), prop::collection::vec(0u8..4, 0..4))
                .prop_map(move |(words, fds)| Step::Message { command, flags, words, fds })
        },
    );
    let torn = (0u16..20, 0u32..200, prop::collection::vec(any::<u8>(), 0..100))
        .prop_map(|(command, size, bytes)| Step::Torn { command, size, bytes });
    let register = (
        prop_oneof![Just(0x14u64), Just(0x24), Just(0x28), Just(0x30), 0u64..0x40],
        prop_oneof![
            Just(0x0046_0001u64),
            Just(0),
            Just(0x000f_000f),
            (0u64..64).prop_map(|page| page << 12),
            any::<u64>()
        ],
    )
        .prop_map(|(offset, value)| Step::Register { offset: offset & !3, value });
    let ring = (0usize..10, prop_oneof![0u32..20, any::<u32>()]).prop_map(|(index, value)| Step::Ring { index, value });
    let memory = (0usize..0x8000, prop::collection::vec(any::<u8>(), 1..128))
        .prop_map(|(at, bytes)| Step::Memory { at: at & !63, bytes });
    prop_oneof![6 => message, 1 => torn, 4 => register, 3 => ring, 2 => memory]
}

fn misbehave(server: &Server, steps: &[Step]) {
    let mut caller = server.caller();
    let memory = HostMemory::allocate(0x40000).unwrap();
    let doorbells = crate::harness::map_doorbells(&mut caller);
    crate::harness::share(&mut caller, &memory, 0);
    let interrupt = Interrupt::new().unwrap();
    let kinds: [OwnedFd; 4] = [
        memory.file().unwrap().0.as_fd().try_clone_to_owned().unwrap(),
        interrupt.as_fd().try_clone_to_owned().unwrap(),
        std::io::pipe().unwrap().0.into(),
        tempfile::tempfile().unwrap().into(),
    ];
    let stream = UnixStream::from(caller.as_fd().try_clone_to_owned().unwrap());
    let mut connection = vfio_user::Connection::new(stream, vfio_user::Limits::default());
    let soon = Some(Duration::from_secs(5));
    for (id, step) in (100u16..).zip(steps) {
        let sent = match step {
            Step::Message { command, flags, words, fds } => {
                let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|&kind| kinds[usize::from(kind)].as_fd()).collect();
                let header = Header { id, command: *command, flags: *flags, ..Header::default() };
                connection.send(header, &[words.as_bytes()], &fds, soon)
            }
            Step::Torn { command, size, bytes } => {
                let header = Header { id, command: *command, size: *size, ..Header::default() };
                let mut raw = UnixStream::from(caller.as_fd().try_clone_to_owned().unwrap());
                let _ = raw.write_all(&[header.as_bytes(), bytes].concat());
                Ok(())
            }
            Step::Register { offset, value } => {
                let access = wire::RegionAccess { offset: *offset, region: 0, count: 8 };
                let header = Header { id, command: 10, ..Header::default() };
                connection.send(header, &[access.as_bytes(), value.as_bytes()], &[], soon)
            }
            Step::Ring { index, value } => {
                doorbells.dwords()[*index].store(*value, std::sync::atomic::Ordering::Release);
                Ok(())
            }
            Step::Memory { at, bytes } => {
                memory.write_at(*at, bytes).unwrap();
                Ok(())
            }
        };
        // Replies are read as far as they are there, so that it does not end with full buffers each time.
        while let Ok(Some(_)) = connection.try_receive() {}
        if sent.is_err() {
            break;
        }
    }
}

proptest! {
    // Each case is a server and several clients.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(8)))]

    #[test]
    fn the_server_survives_any_client(clients in prop::collection::vec(prop::collection::vec(step(), 1..60), 1..4)) {
        let server = Server::start();
        for steps in &clients {
            misbehave(&server, steps);
            server.wait_until_free();
        }
        server.check();
    }
}
