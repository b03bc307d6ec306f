//! A server that goes on in another process, without its clients noticing.
//!
//! The old one holds still, and sends what it knows with all descriptors. Who owns the clients is one word in memory that
//! both have, which one of them changes, once: until the new one has changed it, everything can still be undone.

mod behind;
mod descriptors;
mod form;
mod passage;
pub(crate) mod state;
mod step;

pub use behind::{Baggage, Behind, BehindError};
pub(crate) use descriptors::{Descriptors, pass};

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use doorbell_device::{DeviceError, HostMemory};
use doorbell_emulator::{CrossingError, StateError, Subsystem};
use vfio_user::ConnectionError;

use crate::endpoint::{Frozen, Prepared, Verdict};
use crate::{Endpoint, Listener};
use passage::{Kind, Passage};
use step::step;

/// How long what is under way may take before the old server holds still.
const REST: Duration = Duration::from_secs(2);

/// Who owns the clients: the word says so.
const OLD: u32 = 0;
const NEW: u32 = 1;
const NOT_NEW: u32 = 2;

/// Why a server was not taken over. The old one goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeoverError {
    /// Something of it cannot be had by another process.
    #[error(transparent)]
    Crossing(#[from] CrossingError),
    /// Something did not end in time.
    #[error("{}: {what}", socket.display())]
    Busy {
        /// The socket of the controller.
        socket: PathBuf,
        /// What did not end.
        what: &'static str,
    },
    /// The server ends.
    #[error("the server ends")]
    Stopped,
    /// What came is no state of a server.
    #[error("this is not the state of a server")]
    Foreign,
    /// A later version wrote it, and says that this one would misunderstand it.
    #[error(
        "the state is of version {version}, which only version {oldest} and later understand; this is {}",
        form::VERSION
    )]
    TooNew {
        /// The version that wrote it.
        version: u32,
        /// The oldest that understands it.
        oldest: u32,
    },
    /// It was cut short, or changed.
    #[error("the server's state is damaged: {0}")]
    Damaged(String),
    /// The emulated part of it is.
    #[error(transparent)]
    State(#[from] StateError),
    /// The other process has gone, or does not answer.
    #[error("the other process: {0}")]
    Peer(#[from] ConnectionError),
    /// The other server cannot, and says why.
    #[error("the other server refused: {0}")]
    Refused(String),
    /// What is behind the namespaces cannot cross.
    #[error("what is behind the namespaces: {0}")]
    Behind(#[source] BehindError),
    /// The old server did not wait any longer, and goes on.
    #[error("the old server goes on")]
    Withdrawn,
    /// What is needed cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

pub(crate) fn damaged<T>(what: impl Into<String>) -> Result<T, TakeoverError> {
    Err(TakeoverError::Damaged(what.into()))
}

/// What a server has beside its controllers.
#[derive(Debug, Default)]
pub struct Belongings {
    /// Where it takes orders: the path, and the socket.
    pub control: Option<(PathBuf, OwnedFd)>,
    /// Bytes of a block, where a namespace that is added does not say.
    pub block_size: u32,
    /// Locks of files behind namespaces, by NSID.
    pub locks: Vec<(u32, OwnedFd)>,
}

/// Gives everything to the process at the other end of `stream`, which calls [`take_over`].
///
/// While it lasts, nothing but the endpoints may change the subsystem. When they hold still, and use no storage, `behind` is
/// asked for what is behind the namespaces, which has to hold still from then on. When it is done, the endpoints have ended, and
/// nothing is left to do but to let that go, and to end the process.
///
/// # Errors
/// If it did not come to that: then the endpoints go on as if nothing had been.
pub fn hand_over(
    stream: UnixStream,
    subsystem: &Subsystem,
    endpoints: &[Arc<Endpoint>],
    belongings: Belongings,
    behind: impl FnOnce() -> Result<Baggage, BehindError>,
) -> Result<(), TakeoverError> {
    subsystem.check_crossing()?;
    let mut passage = Passage::new(stream);
    let deadline = Instant::now().checked_add(REST).unwrap_or_else(Instant::now);
    let freezing: Vec<_> = endpoints.iter().map(|endpoint| endpoint.freeze(deadline)).collect();
    let frozen = freezing.into_iter().map(crate::endpoint::Freezing::wait).collect::<Result<Vec<_>, _>>()?;
    step("frozen");
    let word = HostMemory::allocate(4096)?;
    let behind = behind().map_err(TakeoverError::Behind).inspect_err(|error| passage.refuse(error))?;
    let given = give(&mut passage, &word, subsystem, &frozen, belongings, behind);
    if !has_left(&word, &given) {
        return Err(given.err().unwrap_or(TakeoverError::Withdrawn));
    }
    for Frozen { verdict, .. } in frozen {
        // A thread that has ended has left already.
        let _ = verdict.send(Verdict::Leave);
    }
    endpoints.iter().for_each(|endpoint| endpoint.stop());
    Ok(())
}

/// Whether the clients are the new server's, after its answer, or what came instead.
fn has_left(word: &HostMemory, given: &Result<(), TakeoverError>) -> bool {
    let Some(word) = word.dwords().first() else { return false };
    let keep = |from| word.compare_exchange(from, NOT_NEW, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    // Whoever changes the word first has them. But the new one says so before it serves: if it has ended without a word, it
    // has touched nothing.
    let ended = matches!(given, Err(TakeoverError::Peer(ConnectionError::Closed { .. })));
    !(keep(OLD) || (ended && keep(NEW)) || word.load(Ordering::SeqCst) == NOT_NEW)
}

/// Sends everything, and waits for the answer.
fn give(
    passage: &mut Passage,
    word: &HostMemory,
    subsystem: &Subsystem,
    frozen: &[Frozen],
    belongings: Belongings,
    behind: Baggage,
) -> Result<(), TakeoverError> {
    let Belongings { control, block_size, locks } = belongings;
    let (bytes, descriptors) = subsystem.save()?;
    let (control, control_fd) = control.unzip();
    let (locked, locks): (_, Vec<_>) = locks.into_iter().unzip();
    let server = state::Server {
        subsystem: bytes,
        descriptors: descriptors.len() as u32,
        endpoints: frozen.iter().map(|frozen| frozen.state.clone()).collect(),
        frozen_at: since_1970(),
        control: control.map(|path| path.to_string_lossy().into_owned()),
        block_size,
        locked,
        behind: behind.bytes,
        behind_descriptors: behind.descriptors.len() as u32,
    };
    let descriptor = |source| TakeoverError::Io { what: "duplicating a descriptor", source };
    let mut fds = Vec::new();
    let (word, _) = word.file().ok_or(TakeoverError::Damaged("no file for the owner's word".into()))?;
    pass(&mut fds, std::os::fd::AsFd::as_fd(word)).map_err(descriptor)?;
    fds.extend(descriptors);
    for fd in frozen.iter().flat_map(|frozen| &frozen.fds) {
        fds.push(fd.try_clone().map_err(descriptor)?);
    }
    fds.extend(control_fd);
    fds.extend(locks);
    fds.extend(behind.descriptors);
    passage.send(&form::write(&server), &fds, || step("sending"))?;
    step("sent");
    let answer = passage.hear()?;
    step("answered");
    if answer.0 == Kind::Taken as u16 { Ok(()) } else { Err(TakeoverError::Foreign) }
}

/// A server that was taken over.
#[derive(Debug)]
pub struct Taken {
    /// What is served.
    pub subsystem: Subsystem,
    /// Those who serve it, by now.
    pub endpoints: Vec<Endpoint>,
    /// Where orders are taken.
    pub control: Option<Listener>,
    /// Bytes of a block, where a namespace that is added does not say.
    pub block_size: u32,
    /// Locks of files behind namespaces, by NSID.
    pub locks: Vec<(u32, OwnedFd)>,
    /// For how long nobody served.
    pub pause: Duration,
}

/// Goes on with what the process at the other end of `stream` [hands over](hand_over). `arrive` makes of it what is behind the
/// namespaces.
///
/// # Errors
/// If that cannot be: then the other goes on, and this process has touched nothing of a client.
pub fn take_over<B: Behind>(
    stream: UnixStream,
    arrive: impl FnOnce(Baggage) -> Result<B, BehindError>,
) -> Result<(Taken, B::Here), TakeoverError> {
    let mut passage = Passage::new(stream);
    let (bytes, fds) = passage.receive()?;
    step("received");
    match Ready::new(&bytes, fds, arrive) {
        Ok(ready) => {
            step("ready");
            ready.start(|| passage.tell(Kind::Taken, &[], &[]))
        }
        Err(error) => {
            passage.refuse(&error);
            Err(error)
        }
    }
}

/// Everything is there, and only has to begin.
struct Ready<B> {
    word: HostMemory,
    prepared: Vec<Prepared>,
    taken: Taken,
    behind: B,
    frozen_at: u64,
}

impl<B: Behind> Ready<B> {
    fn new(
        bytes: &[u8],
        mut fds: Vec<OwnedFd>,
        arrive: impl FnOnce(Baggage) -> Result<B, BehindError>,
    ) -> Result<Self, TakeoverError> {
        let server = form::read(bytes)?;
        let split = fds.len().saturating_sub(server.behind_descriptors as usize);
        let descriptors = fds.split_off(split);
        let mut behind = arrive(Baggage { bytes: server.behind, descriptors }).map_err(TakeoverError::Behind)?;
        let mut fds = fds.into_iter();
        let word = fds.next().ok_or(TakeoverError::Foreign)?;
        let word = HostMemory::from_file(Arc::new(word.into()), 0, 4096)?;
        let first = fds.by_ref().take(server.descriptors as usize).collect();
        let subsystem =
            Subsystem::restore(&server.subsystem, first, |nsid, name, size| behind.bring(nsid, name, size))?;
        let mut prepared = Vec::new();
        for endpoint in server.endpoints {
            let mut own = Descriptors::new(fds.by_ref().take(endpoint.descriptors as usize));
            prepared.push(Endpoint::restore(endpoint, &mut own, &subsystem)?);
        }
        let control = match server.control {
            None => None,
            Some(path) => {
                let fd = fds.next().ok_or_else(|| TakeoverError::Damaged("no control socket".into()))?;
                Some(Listener::from_fd(fd, path.as_ref()))
            }
        };
        let locks: Vec<_> = server.locked.into_iter().zip(fds).collect();
        let (block_size, pause, endpoints) = (server.block_size, Duration::ZERO, Vec::new());
        let taken = Taken { subsystem, endpoints, control, block_size, locks, pause };
        Ok(Self { word, prepared, taken, behind, frozen_at: server.frozen_at })
    }

    /// Becomes the owner, unless the other does not wait any longer, and tells it.
    fn start(self, tell: impl FnOnce() -> Result<(), ConnectionError>) -> Result<(Taken, B::Here), TakeoverError> {
        let Self { word, prepared, mut taken, behind, frozen_at } = self;
        let word = word.dwords().first().ok_or(TakeoverError::Foreign)?;
        if word.compare_exchange(OLD, NEW, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            return Err(TakeoverError::Withdrawn);
        }
        step("taken");
        match tell() {
            // It has ended, and serves nobody any more.
            Ok(()) | Err(ConnectionError::Closed { .. }) => {}
            Err(error) => {
                // It does not know, and may be there still. Nothing was touched yet.
                let _ = word.compare_exchange(NEW, NOT_NEW, Ordering::SeqCst, Ordering::SeqCst);
                return Err(error.into());
            }
        }
        let here = behind.begin(&taken.subsystem);
        taken.endpoints = prepared.into_iter().map(Prepared::start).collect();
        taken.pause = Duration::from_nanos(since_1970().saturating_sub(frozen_at));
        if let Some(control) = &taken.control {
            control.own();
        }
        Ok((taken, here))
    }
}

fn since_1970() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
