//! Storage that finishes later: whatever takes memory away waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use doorbell_device::HostMemory;
use doorbell_emulator::{
    Backend, BackendError, ControllerConfig, Ended, Lane, NamespaceConfig, Operation, Storage, Ticket,
};
use nvme_spec::{Status, StatusField};
use vfio_user::Call;

use crate::harness::{Host, IOVA, Server, share, wait_for};

/// Where a second piece of the client's memory is.
const SECOND: u64 = 0x2_0000_0000;

/// Storage that reads when it is told to.
#[derive(Clone, Default)]
struct Slow(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// What was taken, and where it goes to.
    taken: Mutex<Vec<(Ticket, HostMemory, usize)>>,
    /// It may end.
    go: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Slow {
    fn has_taken(&self) -> bool {
        !self.0.taken.lock().unwrap().is_empty()
    }

    fn go(&self) {
        self.0.go.store(true, Ordering::SeqCst);
        if let Some(waker) = &*self.0.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }

    fn is_going(&self) -> bool {
        self.0.go.load(Ordering::SeqCst)
    }
}

impl Backend for Slow {
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
        Some(Box::new(self.clone()))
    }
}

impl Lane for Slow {
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status> {
        let Operation::Read { to, .. } = operation else { return Err(Status::INVALID_COMMAND_OPCODE) };
        let part = to.pieces().next().unwrap()?.memory.unwrap();
        self.0.taken.lock().unwrap().push((ticket, part.host.clone(), part.offset));
        Ok(())
    }

    fn poll(&mut self, ended: &mut Vec<Ended>) {
        if !self.is_going() {
            return;
        }
        for (ticket, memory, offset) in self.0.taken.lock().unwrap().drain(..) {
            memory.write_at(offset, &[0xcc; 512]).unwrap();
            ended.push(Ended { ticket, status: StatusField::new() });
        }
    }
}

fn slow() -> (Server, Slow) {
    let slow = Slow::default();
    let namespace = NamespaceConfig::new(Storage::Custom(Box::new(slow.clone())));
    let config = ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() };
    (Server::of(namespace, config), slow)
}

/// A client with a read under way to its second piece of memory.
fn reading(server: &Server, slow: &Slow) -> (Host, HostMemory, u16) {
    let mut host = Host::new(server.caller());
    let second = HostMemory::allocate(0x1000).unwrap();
    share(&mut host.caller, &second, SECOND);
    host.enable();
    host.create_queues();
    let cid = host.begin_read(SECOND);
    wait_for("the read to be taken", || slow.has_taken());
    (host, second, cid)
}

#[test]
fn s3_memory_that_is_read_into_is_unmapped_after() {
    let (server, slow) = slow();
    let (mut host, second, cid) = reading(&server, &slow);
    let ending = std::thread::spawn({
        let slow = slow.clone();
        move || slow.go()
    });
    host.caller.dma_unmap(SECOND, 0x1000).unwrap();
    assert!(slow.is_going() && !slow.has_taken(), "it was answered when the read had ended");
    assert_eq!(second.dwords()[0].load(Ordering::Relaxed), 0xcccc_cccc);
    ending.join().unwrap();
    assert_eq!(host.end_read(cid), 0);
    assert_eq!(host.io_at(0x02, IOVA, 0), 0, "the rest is as it was");
}

#[test]
fn s3_a_reset_is_answered_after() {
    let (server, slow) = slow();
    let (mut host, second, _cid) = reading(&server, &slow);
    let ending = std::thread::spawn({
        let slow = slow.clone();
        move || slow.go()
    });
    host.caller.reset().unwrap();
    assert!(slow.is_going() && !slow.has_taken());
    assert_eq!(second.dwords()[0].load(Ordering::Relaxed), 0xcccc_cccc);
    ending.join().unwrap();
    host.enable();
    host.create_queues();
    assert_eq!(host.io_at(0x02, SECOND, 0), 0);
}

#[test]
fn s3_the_next_client_comes_after() {
    let (server, slow) = slow();
    let (host, second, _cid) = reading(&server, &slow);
    drop(host);
    let ending = std::thread::spawn({
        let slow = slow.clone();
        move || slow.go()
    });
    server.wait_until_free();
    assert!(slow.is_going() && !slow.has_taken(), "the last one's memory was used until then");
    assert_eq!(second.dwords()[0].load(Ordering::Relaxed), 0xcccc_cccc);
    ending.join().unwrap();
    server.check();
}

#[test]
fn a_server_that_stops_does_not_wait_for_ever() {
    let (server, slow) = slow();
    let (_host, _second, _cid) = reading(&server, &slow);
    server.endpoint.stop();
    assert!(slow.has_taken(), "the read has not ended");
}
