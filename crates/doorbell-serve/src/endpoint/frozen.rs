//! An endpoint that holds still, for another process to go on with.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::{Duration, Instant};

use doorbell_emulator::{Controller, Subsystem};

use super::{Endpoint, Prepared, Served};
use crate::listener::Listener;
use crate::session::Session;
use crate::takeover::{Descriptors, TakeoverError, pass, state};

/// How long is waited between two looks at storage and the client.
const LOOK: Duration = Duration::from_micros(200);

/// What becomes of an endpoint that holds still. Without a word, it goes on.
pub(crate) enum Verdict {
    /// Another process serves from now on.
    Leave,
}

/// An endpoint that holds still until it is told what to do. Dropped, it goes on.
pub(crate) struct Frozen {
    pub(crate) state: state::Endpoint,
    pub(crate) fds: Vec<OwnedFd>,
    pub(crate) verdict: Sender<Verdict>,
}

/// An endpoint that was told to hold still.
pub(crate) struct Freezing(Receiver<Result<Frozen, TakeoverError>>);

impl Freezing {
    /// Waits until it does, or cannot.
    pub(crate) fn wait(self) -> Result<Frozen, TakeoverError> {
        self.0.recv().unwrap_or(Err(TakeoverError::Stopped))
    }
}

impl Endpoint {
    /// Has the endpoint hold still between two messages of its client, with nothing outstanding that has to end here.
    pub(crate) fn freeze(&self, deadline: Instant) -> Freezing {
        let (give, take) = sync_channel(1);
        let job = Box::new(move |served: &mut Served| served.freeze(deadline, |frozen| give.send(frozen).is_ok()));
        // If there is no thread any more, neither is there an answer.
        let _ = self.jobs.send(job);
        self.wake();
        Freezing(take)
    }

    /// An endpoint that another process had. It neither serves nor takes the socket with it before it is started.
    pub(crate) fn restore(
        saved: state::Endpoint,
        fds: &mut Descriptors,
        subsystem: &Subsystem,
    ) -> Result<Prepared, TakeoverError> {
        let listener = Listener::from_fd(fds.take(saved.listener)?, Path::new(&saved.path));
        let controller = Controller::restore(subsystem, &saved.controller)?;
        let elapsed = Duration::from_nanos(saved.elapsed);
        let session = |controller: &Controller| {
            saved.session.map(|session| Session::restore(session, fds, controller)).transpose()
        };
        let prepared = Self::prepare(listener, controller, elapsed, session)?;
        let statistics = &prepared.endpoint.shared.statistics;
        statistics.clients.store(saved.clients, Ordering::Relaxed);
        statistics.connected.store(saved.connected, Ordering::Relaxed);
        statistics.turned_away.store(saved.turned_away, Ordering::Relaxed);
        statistics.runs.store(saved.runs, Ordering::Relaxed);
        statistics.sleeps.store(saved.sleeps, Ordering::Relaxed);
        Ok(prepared)
    }
}

impl Served {
    /// Holds still and waits for what is decided.
    fn freeze(&mut self, deadline: Instant, tell: impl FnOnce(Result<Frozen, TakeoverError>) -> bool) {
        let (verdict, decided) = channel();
        let frozen = self.come_to_rest(deadline).and_then(|()| self.save(verdict));
        let holds = frozen.is_ok();
        if tell(frozen) && holds && matches!(decided.recv(), Ok(Verdict::Leave)) {
            self.left = true;
        }
        // All of it may have changed meanwhile.
        self.listened = None;
        self.pace.worked();
    }

    /// Waits until nothing is under way, taking no more commands.
    fn come_to_rest(&mut self, deadline: Instant) -> Result<(), TakeoverError> {
        let busy = |served: &Self, what| {
            let socket = served.listener.path().into();
            Err(TakeoverError::Busy { socket, what })
        };
        if self.ending {
            return busy(self, "its client is being let go");
        }
        loop {
            self.take_messages();
            let now = Instant::now();
            let time = now.saturating_duration_since(self.started);
            let controller = &mut self.controller;
            let storage = match &self.session {
                Some(session) => session.with_host(|host| controller.come_to_rest(host, time)),
                None => {
                    controller.hear_from_storage();
                    controller.outstanding() == 0
                }
            };
            let client = self.session.as_mut().is_none_or(Session::is_between_messages);
            if storage && client {
                return Ok(());
            }
            if now >= deadline {
                return busy(self, if client { "storage has not finished" } else { "a message is half there" });
            }
            std::thread::sleep(LOOK);
        }
    }

    fn save(&self, verdict: Sender<Verdict>) -> Result<Frozen, TakeoverError> {
        let mut fds = Vec::new();
        let descriptor = |source| TakeoverError::Io { what: "duplicating a descriptor", source };
        let listener = pass(&mut fds, self.listener.as_fd()).map_err(descriptor)?;
        let session = self.session.as_ref().map(|session| session.save(&mut fds));
        let of = &self.shared.statistics;
        let state = state::Endpoint {
            path: self.listener.path().to_string_lossy().into_owned(),
            listener,
            controller: self.controller.save()?,
            outstanding: self.controller.outstanding(),
            elapsed: u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX),
            session: session.transpose().map_err(descriptor)?,
            clients: of.clients.load(Ordering::Relaxed),
            connected: of.connected.load(Ordering::Relaxed),
            turned_away: of.turned_away.load(Ordering::Relaxed),
            runs: of.runs.load(Ordering::Relaxed),
            sleeps: of.sleeps.load(Ordering::Relaxed),
            descriptors: fds.len() as u32,
        };
        Ok(Frozen { state, fds, verdict })
    }
}
