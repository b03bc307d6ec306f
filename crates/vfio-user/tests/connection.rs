//! Messages and their descriptors over a socket, with peers that do not keep to the rules.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vfio_user::wire::{Command, Header};
use vfio_user::{Call, CallError, Caller, Capabilities, Connection, ConnectionError, Limits};
use zerocopy::IntoBytes;

const SHORT: Option<Duration> = Some(Duration::from_millis(50));

fn pair() -> (UnixStream, Connection) {
    pair_with(Limits::default())
}

fn pair_with(limits: Limits) -> (UnixStream, Connection) {
    let (raw, ours) = UnixStream::pair().unwrap();
    (raw, Connection::new(ours, limits))
}

fn message(id: u16, payload: &[u8]) -> Vec<u8> {
    let size = 16 + payload.len() as u32;
    let header = Header { id, command: 10, size, ..Header::default() };
    [header.as_bytes(), payload].concat()
}

fn send_with_fds(raw: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(100))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    assert_eq!(sendmsg(raw, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap(), bytes.len());
}

/// A file that tells which one it is.
fn marked(mark: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(mark).unwrap();
    file
}

fn marks(fds: Vec<std::os::fd::OwnedFd>) -> Vec<u64> {
    fds.into_iter().map(|fd| File::from(fd).metadata().unwrap().len()).collect()
}

#[test]
fn a_message_is_whole_or_not_there() {
    let (mut raw, mut ours) = pair();
    let bytes = message(7, b"payload");
    for byte in &bytes[..bytes.len() - 1] {
        raw.write_all(&[*byte]).unwrap();
        assert!(ours.try_receive().unwrap().is_none());
    }
    raw.write_all(&bytes[bytes.len() - 1..]).unwrap();
    let got = ours.try_receive().unwrap().unwrap();
    assert_eq!((got.header.id, &got.payload[..]), (7, &b"payload"[..]));
    assert!(ours.try_receive().unwrap().is_none());
}

#[test]
fn descriptors_stay_with_their_message() {
    let (mut raw, mut ours) = pair();
    let files = [marked(1), marked(2), marked(3)];
    raw.write_all(&message(0, b"none")).unwrap();
    send_with_fds(&raw, &message(1, b"one"), &[files[0].as_fd()]);
    raw.write_all(&message(2, b"none")).unwrap();
    send_with_fds(&raw, &message(3, b"two"), &[files[1].as_fd(), files[2].as_fd()]);
    let got: Vec<_> = (0..4).map(|_| marks(ours.receive(SHORT).unwrap().fds)).collect();
    assert_eq!(got, [vec![], vec![1], vec![], vec![2, 3]]);
}

#[test]
fn descriptors_may_come_with_the_payload() {
    let (mut raw, mut ours) = pair();
    let bytes = message(0, b"payload");
    raw.write_all(&bytes[..16]).unwrap();
    send_with_fds(&raw, &bytes[16..], &[marked(5).as_fd()]);
    assert_eq!(marks(ours.receive(SHORT).unwrap().fds), [5]);
}

#[test]
fn surplus_descriptors_are_closed() {
    let (raw, mut ours) = pair_with(Limits { fds: 2, ..Limits::default() });
    let (reader, writer) = std::io::pipe().unwrap();
    let many = vec![writer.as_fd(); 90];
    send_with_fds(&raw, &message(0, b""), &many);
    let got = ours.receive(SHORT).unwrap();
    assert_eq!((got.fds.len(), got.surplus_fds), (2, true));
    // The pipe ends when nobody holds its other end: not those that were too many, and not those of a message that
    // is dropped.
    drop((got, writer));
    let mut reader = reader;
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    // What follows is not affected.
    (&raw).write_all(&message(1, b"")).unwrap();
    assert!(!ours.receive(SHORT).unwrap().surplus_fds);
}

#[test]
fn sizes_are_limited_before_memory_is_taken() {
    for (size, max) in [(15u32, 100), (0, 100), (117, 100), (u32::MAX, 100)] {
        let (mut raw, mut ours) = pair_with(Limits { payload: max, fds: 1 });
        raw.write_all(Header { size, ..Header::default() }.as_bytes()).unwrap();
        let error = ours.receive(SHORT).unwrap_err();
        assert!(matches!(error, ConnectionError::MessageSize { size: s, .. } if s == size), "{error}");
    }
    let (mut raw, mut ours) = pair_with(Limits { payload: 100, fds: 1 });
    raw.write_all(&message(0, &[0; 100])).unwrap();
    assert_eq!(ours.receive(SHORT).unwrap().payload.len(), 100);
}

#[test]
fn a_peer_that_sends_a_byte_at_a_time_does_not_hold_us_up() {
    let (mut raw, mut ours) = pair();
    let dripping = std::thread::spawn(move || {
        for byte in message(9, b"slow") {
            raw.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        raw
    });
    let start = Instant::now();
    assert!(matches!(ours.receive(SHORT), Err(ConnectionError::TimedOut)));
    assert!(start.elapsed() < Duration::from_millis(150));
    // What has come is not lost.
    assert_eq!(ours.receive(Some(Duration::from_secs(10))).unwrap().header.id, 9);
    drop(dripping.join().unwrap());
}

#[test]
fn the_peers_end_is_noticed() {
    let (mut raw, mut ours) = pair();
    assert!(!ours.is_closed());
    raw.write_all(&message(0, b"payload")[..20]).unwrap();
    drop(raw);
    assert!(ours.is_closed());
    assert!(matches!(ours.receive(None), Err(ConnectionError::Closed { in_message: true })));
    assert!(matches!(ours.send(Header::default(), &[], &[], None), Err(ConnectionError::Closed { .. })));
}

#[test]
fn a_peer_that_does_not_read_holds_nobody_up() {
    let (raw, mut ours) = pair();
    let file = marked(4);
    let data = vec![7; 4 << 20];
    let sent = ours.send(Header::request(0, Command::RegionRead), &[&data], &[file.as_fd()], SHORT);
    assert!(matches!(sent, Err(ConnectionError::TimedOut)));
    // It goes on where it stopped, and the descriptor was sent once.
    let reader = std::thread::spawn(move || {
        let mut peer = Connection::new(raw, Limits { payload: 8 << 20, fds: 4 });
        let timeout = Some(Duration::from_secs(10));
        let (one, two) = (peer.receive(timeout).unwrap(), peer.receive(timeout).unwrap());
        (one.payload.len(), marks(one.fds), two.header.id)
    });
    ours.send(Header::request(1, Command::RegionRead), &[], &[], Some(Duration::from_secs(10))).unwrap();
    assert_eq!(reader.join().unwrap(), (4 << 20, vec![4], 1));
}

/// A server of one reply: what it says to the first request after the version.
fn answering(answer: impl FnOnce(Header) -> Vec<u8> + Send + 'static) -> Caller {
    let (raw, ours) = UnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let mut server = Connection::new(raw, Limits::default());
        let version = server.receive(None).unwrap();
        server.send(version.header.reply(), &[&version.payload], &[], None).unwrap();
        let request = server.receive(None).unwrap();
        let mut raw = UnixStream::from(server.as_fd().try_clone_to_owned().unwrap());
        raw.write_all(&answer(request.header)).unwrap();
        // Until the client has what it needs.
        let _ = server.receive(Some(Duration::from_secs(10)));
    });
    Caller::new(Connection::new(ours, Limits::default()), Capabilities::default(), Some(Duration::from_secs(5)))
        .unwrap()
}

fn framed(header: Header, payload: &[u8]) -> Vec<u8> {
    [Header { size: 16 + payload.len() as u32, ..header }.as_bytes(), payload].concat()
}

#[test]
fn a_call_takes_only_its_own_reply() {
    let mut caller = answering(|request| {
        let stale = framed(Header { id: request.id.wrapping_sub(1), ..request.reply() }, &[]);
        let asked = framed(Header { id: request.id, command: 11, ..Header::default() }, &[0; 16]);
        [stale, asked, framed(request.reply(), &[])].concat()
    });
    caller.reset().unwrap();
}

#[test]
fn a_refusal_is_an_error_with_its_reason() {
    let mut caller = answering(|request| framed(request.error_reply(17), &[]));
    let error = caller.reset().unwrap_err();
    assert!(matches!(error, CallError::Refused { errno: 17, .. }));
    assert!(error.to_string().contains("File exists"), "{error}");
}

#[test]
fn a_reply_to_something_else_is_an_error() {
    let mut caller = answering(|request| framed(Header { command: 4, ..request.reply() }, &[]));
    assert!(matches!(caller.reset(), Err(CallError::Malformed(_))));
    let mut caller = answering(|request| framed(request.reply(), &[0; 17]));
    assert!(matches!(caller.region_read(0, 0, &mut [0; 4]), Err(CallError::Malformed(_))));
    let mut caller = answering(|request| framed(request.reply(), &[0; 3]));
    assert!(matches!(caller.device_info(), Err(CallError::Malformed(_))));
}

proptest! {
    /// Whatever comes, and in whatever pieces: messages, an error, or nothing; never a panic or a wait.
    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..20)) {
        let (mut raw, mut ours) = pair_with(Limits { payload: 64, fds: 1 });
        for piece in pieces {
            raw.write_all(&piece).unwrap();
            while let Ok(Some(message)) = ours.try_receive() {
                prop_assert!(message.payload.len() <= 64);
            }
        }
    }

    /// However messages are cut, they come out as they were.
    #[test]
    fn cuts_do_not_matter(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..10),
        cut in 1usize..50,
    ) {
        let (mut raw, mut ours) = pair();
        let all: Vec<u8> = payloads.iter().enumerate().flat_map(|(id, payload)| message(id as u16, payload)).collect();
        let mut got = Vec::new();
        for piece in all.chunks(cut) {
            raw.write_all(piece).unwrap();
            while let Some(message) = ours.try_receive().unwrap() {
                got.push(message.payload);
            }
        }
        prop_assert_eq!(got, payloads);
    }
}
