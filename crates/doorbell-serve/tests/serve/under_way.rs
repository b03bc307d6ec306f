//! Storage that outlives a server: what it has under way for a client when another server takes the place of this one.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use doorbell_device::HostMemory;
use doorbell_emulator::{
    Backend, BackendError, ControllerConfig, Crossing, Ended, Lane, NamespaceConfig, Operation, Storage, Subsystem,
    Ticket,
};
use doorbell_serve::{Behind, Endpoint, TakeoverError};
use nvme_spec::{Status, StatusField};
use vfio_user::{Call, Caller, Capabilities, Connection, Limits};

use crate::harness::{DATA, Host, IOVA, PATIENCE, wait_for};
use crate::takeover::replace;

/// Storage that is in no server, and reads when it is told to.
#[derive(Clone, Default)]
pub(crate) struct Remote(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By number, where to: each is carried out once, by whoever asks for it, and then is not known any more.
    reads: Mutex<Vec<(u64, HostMemory, usize)>>,
    submitted: AtomicU32,
    resumed: AtomicU32,
    go: AtomicBool,
    /// What is under way has to end in the server that began it.
    holds: AtomicBool,
    /// What is under way is forgotten when servers change.
    forgets: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Remote {
    fn go(&self) {
        self.0.go.store(true, Ordering::SeqCst);
        if let Some(waker) = &*self.0.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }

    /// How often it was begun, and gone on with.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.0.submitted.load(Ordering::SeqCst), self.0.resumed.load(Ordering::SeqCst))
    }
}

impl Backend for Remote {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn read_bytes(&self, _offset: u64, _to: &mut [u8]) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be read at once"))
    }

    fn write_bytes(&mut self, _offset: u64, _from: &[u8]) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be written at once"))
    }

    fn deallocate(&mut self, _offset: u64, _len: u64) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be deallocated"))
    }

    fn resize(&mut self, _size: u64) -> Result<(), BackendError> {
        Err(BackendError::Unsupported("be resized"))
    }

    fn finishes_later(&self) -> bool {
        true
    }

    fn lane(&self, waker: Waker) -> Option<Box<dyn Lane>> {
        *self.0.waker.lock().unwrap() = Some(waker);
        Some(Box::new(Way { remote: self.clone(), waiting: Vec::new() }))
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(Crossing::Elsewhere("remote"))
    }
}

/// What came of it arrives in another server as it is.
impl Behind for Remote {
    type Here = ();

    fn bring(&mut self, _nsid: u32, name: &str, _size: u64) -> Option<Box<dyn Backend>> {
        assert_eq!(name, "remote");
        Some(Box::new(self.clone()))
    }

    fn begin(self, _subsystem: &Subsystem) {}
}

/// One server's way to it.
struct Way {
    remote: Remote,
    waiting: Vec<Ticket>,
}

impl Lane for Way {
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status> {
        let Operation::Read { to, .. } = operation else { return Err(Status::INVALID_COMMAND_OPCODE) };
        let part = to.pieces().next().unwrap()?.memory.unwrap();
        self.remote.0.reads.lock().unwrap().push((ticket.number(), part.host.clone(), part.offset));
        self.remote.0.submitted.fetch_add(1, Ordering::SeqCst);
        self.waiting.push(ticket);
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        if !self.remote.0.go.load(Ordering::SeqCst) {
            return;
        }
        let mut reads = self.remote.0.reads.lock().unwrap();
        for ticket in self.waiting.drain(..) {
            let at = reads.iter().position(|(number, ..)| *number == ticket.number()).expect("it is carried out once");
            let (_, memory, offset) = reads.swap_remove(at);
            memory.write_at(offset, &[0xcc; 512]).unwrap();
            ended.push(Ended { ticket, status: StatusField::new() });
        }
    }

    fn may_leave(&self) -> bool {
        !self.remote.0.holds.load(Ordering::SeqCst)
    }

    fn resume(&mut self, ticket: Ticket, offset: u64, len: u64) -> bool {
        assert_eq!((offset, len), (0, 512), "the block that the host reads");
        let mut reads = self.remote.0.reads.lock().unwrap();
        if self.remote.0.forgets.load(Ordering::SeqCst) {
            reads.clear();
            return false;
        }
        assert!(reads.iter().any(|(number, ..)| *number == ticket.number()), "it keeps its number");
        self.remote.0.resumed.fetch_add(1, Ordering::SeqCst);
        self.waiting.push(ticket);
        true
    }
}

/// A server of such storage, and a client of it that has begun to read a block.
pub(crate) struct Reading {
    pub(crate) remote: Remote,
    pub(crate) subsystem: Subsystem,
    pub(crate) endpoint: Arc<Endpoint>,
    host: Host,
    cid: u16,
}

impl Reading {
    fn new() -> Self {
        // Nobody connects again.
        Self::at(&tempfile::tempdir().unwrap().path().join("socket"))
    }

    pub(crate) fn at(path: &Path) -> Self {
        let (remote, subsystem) = (Remote::default(), Subsystem::default());
        let storage = Storage::Custom(Box::new(remote.clone()));
        subsystem.add_namespace(NamespaceConfig::new(storage)).unwrap();
        let config = ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() };
        let endpoint = Arc::new(Endpoint::start(path, &subsystem, config).unwrap());
        let connection = Connection::new(UnixStream::connect(path).unwrap(), Limits::default());
        let capabilities = Capabilities { max_msg_fds: 16, write_multiple: true, ..Capabilities::default() };
        let mut host = Host::new(Caller::new(connection, capabilities, Some(PATIENCE)).unwrap());
        host.enable();
        host.create_queues();
        let cid = host.begin_read(IOVA + DATA as u64);
        wait_for("the read to be begun", || remote.counts() == (1, 0));
        Self { remote, subsystem, endpoint, host, cid }
    }

    fn replace(&mut self) -> Result<(), TakeoverError> {
        (self.subsystem, self.endpoint) = replace(&self.subsystem, &self.endpoint, self.remote.clone())?;
        Ok(())
    }

    /// The read ends, once, and so does the next.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.host.block(DATA), [0; 512], "nothing was read yet");
        self.remote.go();
        assert_eq!(self.host.end_read(self.cid), 0);
        assert_eq!(self.host.block(DATA), [0xcc; 512]);
        assert_eq!(self.host.io(0x02, DATA + 512, 0), 0);
        assert!(self.remote.0.reads.lock().unwrap().is_empty());
    }
}

#[test]
fn what_storage_has_under_way_is_gone_on_with() {
    let mut reading = Reading::new();
    for times in 1..=3 {
        reading.replace().unwrap();
        wait_for("the server to go on", || reading.remote.counts() == (1, times));
    }
    reading.end();
    assert_eq!(reading.remote.counts(), (2, 3));
}

#[test]
fn what_storage_does_not_know_is_submitted_anew() {
    let mut reading = Reading::new();
    reading.remote.0.forgets.store(true, Ordering::SeqCst);
    reading.replace().unwrap();
    wait_for("the server to submit it", || reading.remote.counts() == (2, 0));
    reading.end();
}

#[test]
fn what_has_to_end_in_its_server_is_waited_for() {
    let mut reading = Reading::new();
    reading.remote.0.holds.store(true, Ordering::SeqCst);
    let refused = reading.replace().expect_err("it does not end");
    assert!(matches!(refused, TakeoverError::Busy { .. }), "{refused}");
    let remote = reading.remote.clone();
    let ending = std::thread::spawn(move || remote.go());
    reading.replace().unwrap();
    ending.join().unwrap();
    assert_eq!(reading.host.end_read(reading.cid), 0);
    assert_eq!(reading.remote.counts(), (1, 0));
}

#[test]
fn what_is_under_way_when_another_server_refuses_goes_on_here() {
    let mut reading = Reading::new();
    let refused = replace(&reading.subsystem, &reading.endpoint, ()).expect_err("it has no such storage");
    assert!(refused.to_string().contains("refused"), "{refused}");
    reading.end();
    assert_eq!(reading.remote.counts(), (2, 0));
}

#[test]
fn a_reset_waits_for_what_another_server_has_begun() {
    let mut reading = Reading::new();
    reading.replace().unwrap();
    let remote = reading.remote.clone();
    let ending = std::thread::spawn(move || remote.go());
    reading.host.caller.reset().unwrap();
    assert!(reading.remote.0.reads.lock().unwrap().is_empty(), "nothing is under way any more");
    assert_eq!(reading.host.block(DATA), [0xcc; 512]);
    ending.join().unwrap();
    reading.host.enable();
    reading.host.create_queues();
    assert_eq!(reading.host.io(0x02, DATA, 0), 0);
}
