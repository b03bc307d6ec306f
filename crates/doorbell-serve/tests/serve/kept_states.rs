//! States of servers that versions before have written are gone on with.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::HostMemory;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SharedRamBackend, Storage, Subsystem};
use doorbell_serve::{Baggage, Behind, Belongings, Endpoint, Taken, hand_over, take_over};
use vfio_user::wire::Header;
use vfio_user::{Caller, Capabilities, Connection, Limits};

use crate::harness::{DATA, Host, PATIENCE, wait_for};
use crate::under_way::Reading;

/// What the messages between two servers are.
const BEGIN: u16 = 1;
const PIECE: u16 = 2;
const TAKEN: u16 = 3;

/// States that versions before have written, oldest first. None is ever changed; a version that writes others adds one, which
/// these tests leave in the directory `DOORBELL_STATES_TO`.
const STATES: [&[u8]; 2] = [include_bytes!("../states/v1.state"), include_bytes!("../states/v2.state")];

/// The same of servers whose storage had a read under way, which version 1 waited for.
const BUSY_STATES: [&[u8]; 1] = [include_bytes!("../states/v2-under-way.state")];

/// The socket of the server when it wrote them.
const SOCKET: &str = "kept-states.sock";
const BUSY_SOCKET: &str = "kept-states-under-way.sock";

fn connection(stream: UnixStream) -> Connection {
    Connection::new(stream, Limits { payload: 1 << 20, fds: 64 })
}

/// A server with a client that has written a block, and does what comes next alone.
fn situation() -> (Subsystem, Arc<Endpoint>, Host) {
    let subsystem = Subsystem::default();
    let memory = SharedRamBackend::new(1 << 20).unwrap();
    subsystem.add_namespace(NamespaceConfig::new(Storage::Custom(Box::new(memory)))).unwrap();
    subsystem.add_namespace(NamespaceConfig::null(1 << 30)).unwrap();
    let config = ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() };
    let endpoint = Arc::new(Endpoint::start(Path::new(SOCKET), &subsystem, config).unwrap());
    let stream = UnixStream::connect(SOCKET).unwrap();
    let capabilities = Capabilities { max_msg_fds: 16, write_multiple: true, ..Capabilities::default() };
    let connection = Connection::new(stream, Limits::default());
    let mut host = Host::new(Caller::new(connection, capabilities, Some(PATIENCE)).unwrap());
    host.enable();
    host.create_queues();
    host.fill(DATA, 0x5a);
    assert_eq!(host.io(0x01, DATA, 7), 0);
    (subsystem, endpoint, host)
}

/// What a server gives away: its state and descriptors, the word that says who serves first.
fn given(to: &str, subsystem: &Subsystem, endpoint: Arc<Endpoint>) -> (Vec<u8>, Vec<OwnedFd>, HostMemory) {
    let (give, take) = UnixStream::pair().unwrap();
    let subsystem = subsystem.clone();
    let old = std::thread::spawn(move || {
        hand_over(give, &subsystem, &[endpoint], Belongings::default(), || Ok(Baggage::default()))
    });
    let mut connection = connection(take);
    let begin = connection.receive(Some(PATIENCE)).unwrap();
    assert_eq!(begin.header.command, BEGIN);
    let number = |at: usize| u64::from_le_bytes(begin.payload[at..at + 8].try_into().unwrap()) as usize;
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    while bytes.len() < number(0) || fds.len() < number(8) {
        let piece = connection.receive(Some(PATIENCE)).unwrap();
        assert_eq!(piece.header.command, PIECE);
        bytes.extend(piece.payload);
        fds.extend(piece.fds);
    }
    let word = HostMemory::from_file(Arc::new(fds[0].try_clone().unwrap().into()), 0, 4096).unwrap();
    word.dwords()[0].store(1, Ordering::SeqCst);
    connection.send(Header { command: TAKEN, ..Header::default() }, &[], &[], Some(PATIENCE)).unwrap();
    old.join().unwrap().unwrap();
    if let Some(directory) = std::env::var_os("DOORBELL_STATES_TO") {
        std::fs::write(Path::new(&directory).join(to), &bytes).unwrap();
    }
    (bytes, fds, word)
}

/// A server made of them.
fn taken(bytes: &[u8], fds: &[OwnedFd], word: &HostMemory, behind: impl Behind + Send) -> Taken {
    word.dwords()[0].store(0, Ordering::SeqCst);
    let (give, take) = UnixStream::pair().unwrap();
    std::thread::scope(|threads| {
        let new = threads.spawn(|| take_over(take, |_| Ok(behind)).map(|(taken, _)| taken));
        let mut connection = connection(give);
        let mut send = |command, payload: &[u8], fds: &[OwnedFd]| {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let header = Header { command, ..Header::default() };
            connection.send(header, &[payload], &fds, Some(PATIENCE)).unwrap();
        };
        let lengths = [bytes.len() as u64, fds.len() as u64];
        send(BEGIN, &lengths.map(u64::to_le_bytes).concat(), &[]);
        send(PIECE, bytes, fds);
        let answer = connection.receive(Some(PATIENCE)).unwrap();
        assert_eq!(answer.header.command, TAKEN, "{}", String::from_utf8_lossy(&answer.payload));
        new.join().unwrap().unwrap()
    })
}

#[test]
fn what_versions_before_have_written_is_gone_on_with() {
    // The last is what this version writes.
    for kept in STATES.into_iter().map(Some).chain([None]) {
        let (subsystem, endpoint, mut host) = situation();
        let (now, fds, word) = given("idle.state", &subsystem, endpoint);
        let taken = taken(kept.unwrap_or(&now), &fds, &word, ());
        assert_eq!(taken.subsystem.namespaces(), [1, 2]);
        let [endpoint] = &taken.endpoints[..] else { panic!("{} endpoints", taken.endpoints.len()) };
        let statistics = endpoint.statistics();
        assert_eq!((statistics.clients, statistics.connected, endpoint.path()), (1, true, Path::new(SOCKET)));
        host.fill(DATA, 0);
        assert_eq!(host.io(0x02, DATA, 7), 0);
        assert_eq!(host.block(DATA), [0x5a; 512]);
    }
}

#[test]
fn what_was_under_way_in_versions_before_is_gone_on_with() {
    for kept in BUSY_STATES.into_iter().map(Some).chain([None]) {
        let mut reading = Reading::at(Path::new(BUSY_SOCKET));
        let (now, fds, word) = given("under-way.state", &reading.subsystem, reading.endpoint.clone());
        let taken = taken(kept.unwrap_or(&now), &fds, &word, reading.remote.clone());
        wait_for("the server to go on", || reading.remote.counts() == (1, 1));
        reading.end();
        drop(taken);
    }
}
