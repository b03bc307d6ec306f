mod frozen;
mod served;

pub(crate) use frozen::{Freezing, Frozen, Verdict};

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use doorbell_device::inprocess::SoftController;
use doorbell_device::{DeviceError, Interrupt};
use doorbell_emulator::{Controller, ControllerConfig, Subsystem};
use rustix::event::PollFlags;

use self::served::Served;
use crate::ServeError;
use crate::listener::Listener;
use crate::pace::Pace;
use crate::session::Session;

/// A controller behind a socket, served by a thread of its own.
///
/// Dropped, it stops.
#[derive(Debug)]
pub struct Endpoint {
    path: PathBuf,
    shared: Arc<Shared>,
    jobs: Sender<Job>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Something to do on the controller's thread.
type Job = Box<dyn FnOnce(&mut Served) + Send>;

/// What the thread and everybody else have in common.
#[derive(Debug)]
struct Shared {
    wake: Interrupt,
    /// Storage wants the controller to run.
    called: AtomicBool,
    /// The thread sleeps, or is about to: then, and only then, `wake` has to be raised.
    asleep: AtomicBool,
    stop: AtomicBool,
    statistics: Counters,
}

/// How storage that finishes commands later calls the controller.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.store(true, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            self.wake.raise();
        }
    }
}

/// What an endpoint has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Clients that were served.
    pub clients: u64,
    /// Whether one is served now.
    pub connected: bool,
    /// Clients that were turned away, as there was one already.
    pub turned_away: u64,
    /// Times the controller was run and found something to do.
    pub runs: u64,
    /// Times it went to sleep for want of something to do.
    pub sleeps: u64,
    /// DMA mappings of the present client.
    pub mappings: u64,
    /// Bytes of them.
    pub mapped_bytes: u64,
    /// Accesses of the controller to memory that the present client has not given it.
    pub dma_faults: u64,
}

#[derive(Debug, Default)]
struct Counters {
    clients: AtomicU64,
    connected: AtomicBool,
    turned_away: AtomicU64,
    runs: AtomicU64,
    sleeps: AtomicU64,
    mappings: AtomicU64,
    mapped_bytes: AtomicU64,
    dma_faults: AtomicU64,
}

impl Endpoint {
    /// Serves a new controller of `subsystem` at `socket`. A socket that nobody serves any more is replaced.
    pub fn start(socket: &Path, subsystem: &Subsystem, config: ControllerConfig) -> Result<Self, ServeError> {
        let listener = Listener::bind(socket)?;
        let controller = Controller::new(subsystem, config);
        let prepared = Self::prepare(listener, controller, Duration::ZERO, |_| Ok::<_, ServeError>(None))?;
        Ok(prepared.start())
    }

    /// Everything but the start, which cannot fail any more.
    fn prepare<E: From<DeviceError>>(
        listener: Listener,
        mut controller: Controller,
        elapsed: Duration,
        session: impl FnOnce(&Controller) -> Result<Option<Session>, E>,
    ) -> Result<Prepared, E> {
        let path = listener.path().to_path_buf();
        let shared = Arc::new(Shared {
            wake: Interrupt::new()?,
            called: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            statistics: Counters::default(),
        });
        let (jobs, todo) = channel();
        controller.set_waker(shared.clone().into());
        let started = Instant::now();
        let mut served = Served {
            listener,
            shared: shared.clone(),
            jobs: todo,
            started: started.checked_sub(elapsed).unwrap_or(started),
            session: session(&controller)?,
            controller,
            pace: Pace::new(),
            heard: Instant::now(),
            listened: None,
            wanted: PollFlags::IN,
            ending: false,
            left: false,
        };
        let (go, told) = channel::<()>();
        let thread = std::thread::Builder::new().name("doorbell-serve".into());
        let thread = thread.spawn(move || {
            if told.recv().is_ok() {
                served.listener.own();
                served.resume();
                served.serve();
            }
        });
        let thread = thread.map_err(DeviceError::io("starting a thread"))?;
        Ok(Prepared { go, endpoint: Self { path, shared, jobs, thread: Mutex::new(Some(thread)) } })
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the controller look at what others did to its subsystem.
    pub fn wake(&self) {
        self.shared.wake.raise();
    }

    /// Calls `f` with the controller, on its thread. `None` if that has stopped, or does not get to it within a second.
    pub fn with_controller<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Controller) -> R + Send + 'static,
    ) -> Option<R> {
        let (give, take) = sync_channel(1);
        let job = Box::new(move |served: &mut Served| {
            let _ = give.send(f(&mut served.controller));
        });
        self.jobs.send(job).ok()?;
        self.wake();
        take.recv_timeout(Duration::from_secs(1)).ok()
    }

    /// What it has done.
    pub fn statistics(&self) -> Statistics {
        let counters = &self.shared.statistics;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Statistics {
            clients: of(&counters.clients),
            connected: counters.connected.load(Ordering::Relaxed),
            turned_away: of(&counters.turned_away),
            runs: of(&counters.runs),
            sleeps: of(&counters.sleeps),
            mappings: of(&counters.mappings),
            mapped_bytes: of(&counters.mapped_bytes),
            dma_faults: of(&counters.dma_faults),
        }
    }

    /// Finishes what is under way, lets the client go and removes the socket.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An endpoint that only has to be told to begin. Dropped, it leaves everything as it is.
pub(crate) struct Prepared {
    go: Sender<()>,
    endpoint: Endpoint,
}

impl Prepared {
    pub(crate) fn start(self) -> Endpoint {
        // The thread waits for it.
        let _ = self.go.send(());
        self.endpoint
    }
}
