//! Who looks after the connection: takes what comes, notices the end, and connects anew.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use doorbell_device::{DeviceError, Interrupt};
use rustix::net::Shutdown;
use vfio_user::{CallError, Caller, Capabilities, Connection, ConnectionError, Limits};

use crate::bar::Bar;
use crate::error::{connection_error, device_error};
use crate::function::{self, Function};
use crate::link::{End, How, LET_GO, Link};
use crate::options::VfioUserOptions;
use crate::space::{MAX_DATA, Space};

/// How often a server that is gone is looked for.
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_millis(500);

/// What the device and the thread that looks after its connection share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: VfioUserOptions,
    pub(crate) bar: Bar,
    pub(crate) can_reset: bool,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) space: Space,
    /// Signalled when the server is lost, when it is back, and when it will not come back.
    pub(crate) loss: Interrupt,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    presence: Presence,
    /// No more connections are made.
    stop: bool,
    /// The connection that is being made again, to end it.
    connecting: Option<OwnedFd>,
}

/// Whether there is a server.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    Here(Arc<Link>),
    Gone {
        end: End,
        /// It may come back.
        awaited: bool,
    },
}

impl Shared {
    /// Connects for the first time. What is returned besides is for [`keep`](Self::keep).
    pub(crate) fn open(options: VfioUserOptions) -> Result<(Self, Connection), DeviceError> {
        let address = options.address();
        let mut caller = connect(&options, |_| Ok(()))?;
        let Function { bar, vectors, can_reset } = Function::survey(&mut caller, &address)?;
        let loss = Interrupt::new()?;
        let bar = Bar::new(bar, &loss)?;
        let vectors = vectors.min(options.vectors);
        let interrupts: Vec<_> = (0..vectors).map(|_| Interrupt::new()).collect::<Result<_, _>>()?;
        function::prepare(&mut caller, &interrupts).map_err(device_error)?;
        let (link, receiving) = Link::new(caller, options.timeout)?;
        let shared = Self {
            options,
            bar,
            can_reset,
            interrupts,
            space: Space::default(),
            loss,
            state: Mutex::new(State { presence: Presence::Here(Arc::new(link)), stop: false, connecting: None }),
            changed: Condvar::new(),
        };
        Ok((shared, receiving))
    }

    /// A device of another process, until it [begins](Self::begin).
    pub(crate) fn elsewhere(
        options: VfioUserOptions,
        bar: Bar,
        can_reset: bool,
        interrupts: Vec<Interrupt>,
        space: Space,
        loss: Interrupt,
    ) -> Self {
        let presence = Presence::Gone { end: End::elsewhere(), awaited: false };
        let state = Mutex::new(State { presence, stop: false, connecting: None });
        Self { options, bar, can_reset, interrupts, space, loss, state, changed: Condvar::new() }
    }

    /// The connection is this process's from now on.
    pub(crate) fn begin(&self, link: Arc<Link>) {
        self.lock().presence = Presence::Here(link);
        self.changed.notify_all();
    }

    /// The life of the thread, from [`begin`](Self::begin) on, if it comes to that.
    pub(crate) fn keep_once_begun(&self, receiving: Connection) {
        let waits = |state: &mut State| !state.stop && matches!(state.presence, Presence::Gone { .. });
        let state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        let begun = matches!(state.presence, Presence::Here(_));
        drop(state);
        if begun {
            self.keep(receiving);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn presence(&self) -> Presence {
        self.lock().presence.clone()
    }

    /// The connection, or how it ended.
    pub(crate) fn link(&self) -> Result<Arc<Link>, End> {
        match self.presence() {
            Presence::Here(link) => match link.ended() {
                None => Ok(link),
                Some(end) => Err(end.clone()),
            },
            Presence::Gone { end, .. } => Err(end),
        }
    }

    /// Has `ask` make a request.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&mut &Link) -> Result<T, CallError>) -> Result<T, DeviceError> {
        self.link().map_err(|end| end.error())?.ask(ask)
    }

    /// Tells the server that this was all. Says how it ended, if that is so within the time for a reply.
    pub(crate) fn take_leave(&self) -> Option<End> {
        let mut state = self.lock();
        state.stop = true;
        self.changed.notify_all();
        let link = match &state.presence {
            Presence::Here(link) => link.clone(),
            Presence::Gone { end, .. } => return Some(end.clone()),
        };
        link.take_leave();
        let deadline = Instant::now().checked_add(self.options.timeout);
        loop {
            if let Presence::Gone { end, .. } = &state.presence {
                return Some(end.clone());
            }
            let left = deadline.map_or(self.options.timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                link.hang_up();
                return None;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the connection at once, for who drops the device.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        if let Presence::Here(link) = &state.presence {
            link.end(End { reason: LET_GO.into(), how: How::GivenUp });
        }
        if let Some(connecting) = &state.connecting {
            let _ = rustix::net::shutdown(connecting, Shutdown::Both);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The life of the thread.
    pub(crate) fn keep(&self, mut receiving: Connection) {
        while let Ok(link) = self.current() {
            let end = link.attend(&mut receiving, &self.space);
            if end.how == How::Elsewhere {
                return self.set(Presence::Gone { end, awaited: false });
            }
            if self.lock().stop {
                // Whoever drops the device misses no server.
                return self.set(Presence::Gone { end, awaited: false });
            }
            let reconnect = self.options.reconnect;
            tracing::warn!(address = %self.options.address(), reason = end.reason, "the server is lost");
            self.set(Presence::Gone { end: end.clone(), awaited: reconnect.is_some() });
            let Some(limit) = reconnect else { return };
            match self.await_return(limit) {
                Ok(connection) => {
                    tracing::info!(address = %self.options.address(), "the server is back");
                    receiving = connection;
                }
                Err(why) => {
                    let reason = format!("{}, and has not come back within {limit:?}: {why}", end.reason);
                    return self.set(Presence::Gone { end: End { reason, ..end }, awaited: false });
                }
            }
        }
    }

    fn current(&self) -> Result<Arc<Link>, ()> {
        match self.presence() {
            Presence::Here(link) => Ok(link),
            Presence::Gone { .. } => Err(()),
        }
    }

    fn set(&self, presence: Presence) {
        let mut state = self.lock();
        if let (Presence::Here(link), true) = (&presence, state.stop) {
            // Somebody has dropped the device meanwhile.
            link.end(End { reason: LET_GO.into(), how: How::GivenUp });
        }
        state.presence = presence;
        state.connecting = None;
        drop(state);
        self.changed.notify_all();
        self.loss.raise();
    }

    /// Connects again, until it works or has taken too long. Why not, in the end.
    fn await_return(&self, limit: Duration) -> Result<Connection, DeviceError> {
        let deadline = Instant::now().checked_add(limit);
        let mut pause = SOONEST;
        loop {
            let error = match self.reconnect() {
                Ok(back) => return Ok(back),
                Err(error) => error,
            };
            tracing::debug!(%error, "the server is not back yet");
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Err(error);
            }
            let stopped = |state: &mut State| !state.stop;
            let (state, _) =
                self.changed.wait_timeout_while(self.lock(), pause, stopped).unwrap_or_else(PoisonError::into_inner);
            if state.stop {
                return Err(error);
            }
            pause = pause.saturating_mul(2).min(LATEST);
        }
    }

    /// Connects, and makes the new server's function what the old one's was.
    fn reconnect(&self) -> Result<Connection, DeviceError> {
        let mut caller = connect(&self.options, |connection| {
            let socket = connection.as_fd().try_clone_to_owned().map_err(DeviceError::io("duplicating a socket"))?;
            let mut state = self.lock();
            state.connecting = Some(socket);
            if state.stop { Err(DeviceError::Gone(LET_GO.into())) } else { Ok(()) }
        })?;
        let found = Function::survey(&mut caller, &self.options.address())?;
        if (found.vectors as usize) < self.interrupts.len() {
            return Err(DeviceError::Misbehaved("the server has come back with fewer interrupts".into()));
        }
        self.bar.replace(found.bar, &self.loss)?;
        function::prepare(&mut caller, &self.interrupts).map_err(device_error)?;
        let changes = self.space.lock();
        self.space.announce_all(&mut caller, &changes).map_err(device_error)?;
        let (link, receiving) = Link::new(caller, self.options.timeout)?;
        self.set(Presence::Here(Arc::new(link)));
        Ok(receiving)
    }
}

/// Connects, and agrees on a version.
fn connect(
    options: &VfioUserOptions,
    connected: impl FnOnce(&Connection) -> Result<(), DeviceError>,
) -> Result<Caller, DeviceError> {
    let path = options.socket_path();
    let timeout = Some(options.timeout);
    let failed = |reason: String| DeviceError::Unusable { device: options.address(), reason };
    let connection = Connection::connect(&path, Limits::default(), timeout).map_err(|error| match error {
        ConnectionError::TimedOut => failed("the server takes no connection".into()),
        error => connection_error(error),
    })?;
    connected(&connection)?;
    let ours = Capabilities { max_msg_fds: 16, max_data_xfer_size: MAX_DATA, ..Capabilities::default() };
    Caller::new(connection, ours, timeout).map_err(|error| match error {
        CallError::Connection(ConnectionError::TimedOut) => {
            failed(format!("the server said nothing for {:?}; perhaps it serves somebody else", options.timeout))
        }
        CallError::Connection(ConnectionError::Closed { .. }) => {
            failed("the server closed the connection; perhaps it serves somebody else".into())
        }
        error => device_error(error),
    })
}
