mod hold;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use doorbell_device::{DeviceError, Interrupt};
use rustix::net::Shutdown;
use vfio_user::wire::{Command, Header, RegionAccess, flags};
use vfio_user::{Call, CallError, Caller, Capabilities, Connection, ConnectionError, Malformed, Message};
use zerocopy::IntoBytes;

use self::hold::UnderWay;
use crate::error::{connection_error, device_error};
use crate::space::Space;

/// One connection, used by many threads at once: whoever calls sends by himself, one thread [attends](Self::attend) to
/// what comes.
///
/// A doorbell that is a message is never held up by a call that waits: the server may need that doorbell to answer the
/// call.
#[derive(Debug)]
pub(crate) struct Link {
    /// What the server is capable of.
    pub(crate) server: Capabilities,
    timeout: Duration,
    sending: Mutex<Connection>,
    calls: Mutex<Calls>,
    /// A reply has come, or the end, or what is said to go on may go on.
    answered: Condvar,
    /// Has the thread that waits for messages look up.
    nudge: Interrupt,
    /// The socket, for ending it while others use it.
    socket: OwnedFd,
    end: OnceLock<End>,
}

/// Why nothing goes any more after [`Link::take_leave`].
pub(crate) const LET_GO: &str = "it was let go";

const IS_GONE: &str = "its server is gone";

/// How a connection ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) reason: String,
    pub(crate) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The server closed it: it does nothing for us any more.
    Closed,
    /// This side ended it since the server failed, which may still be at work.
    GivenUp,
    /// This side has no more wishes. When the server closes it too, it has let go of everything.
    Left,
    /// It has not ended: another process has it.
    Elsewhere,
}

impl End {
    /// Another process has the connection.
    pub(crate) fn elsewhere() -> Self {
        Self { reason: "another process has it".into(), how: How::Elsewhere }
    }

    pub(crate) fn error(&self) -> DeviceError {
        DeviceError::Gone(self.reason.clone())
    }
}

#[derive(Debug, Default)]
struct Calls {
    next_id: u16,
    /// What is waited for, by identifier.
    waiting: HashMap<u16, Option<Message>>,
    /// Messages that are being sent, and calls that wait.
    under_way: usize,
    /// Nothing is sent until it is decided who has the connection.
    held: bool,
    /// Nobody receives, and what has come so far are whole messages.
    parked: bool,
}

impl Link {
    /// Goes on with a connection that was set up; what is returned besides is for [`attend`](Self::attend).
    pub(crate) fn new(caller: Caller, timeout: Duration) -> Result<(Self, Connection), DeviceError> {
        let server = *caller.server();
        Self::go_on(caller.into_connection(), server, 0, timeout)
    }

    /// As [`new`](Self::new), with the number of the last request.
    pub(crate) fn go_on(
        connection: Connection,
        server: Capabilities,
        last_id: u16,
        timeout: Duration,
    ) -> Result<(Self, Connection), DeviceError> {
        let (receiving, sending) = connection.split().map_err(connection_error)?;
        let socket = sending.as_fd().try_clone_to_owned().map_err(DeviceError::io("duplicating a socket"))?;
        let link = Self {
            server,
            timeout,
            sending: Mutex::new(sending),
            calls: Mutex::new(Calls { next_id: last_id, ..Calls::default() }),
            answered: Condvar::new(),
            nudge: Interrupt::new()?,
            socket,
            end: OnceLock::new(),
        };
        Ok((link, receiving))
    }

    /// Takes what the server sends, until the connection ends.
    pub(crate) fn attend(&self, receiving: &mut Connection, space: &Space) -> End {
        loop {
            let taken = match receiving.receive_unless(self.nudge.as_fd()) {
                Ok(Some(message)) => self.take(message, space),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if receiving.is_between_messages()
                && let Some(end) = self.park()
            {
                return end;
            }
            if let Err(error) = taken {
                let closed = matches!(error, ConnectionError::Closed { .. });
                let (reason, how) = match &error {
                    ConnectionError::Closed { in_message: false } => (IS_GONE.into(), How::Closed),
                    ConnectionError::Closed { in_message: true } => (format!("its server: {error}"), How::Closed),
                    error => (format!("its server: {error}"), How::GivenUp),
                };
                let end = self.end(End { reason, how });
                return if closed && end.how == How::Left { End { how: How::Closed, ..end } } else { end };
            }
        }
    }

    /// Ends the connection because of the server, or of us.
    pub(crate) fn end(&self, end: End) -> End {
        let end = self.end.get_or_init(|| end).clone();
        self.shut_down(Shutdown::Both);
        // Whoever waits has looked for the end under the lock.
        drop(self.lock_calls());
        self.answered.notify_all();
        end
    }

    /// Tells the server that this was all, so that it lets go of everything and closes its end; calls fail from now on.
    pub(crate) fn take_leave(&self) {
        let _ = self.end.set(End { reason: LET_GO.into(), how: How::Left });
        self.shut_down(Shutdown::Write);
        drop(self.lock_calls());
        self.answered.notify_all();
    }

    /// Waits no longer for the server to close its end too.
    pub(crate) fn hang_up(&self) {
        self.shut_down(Shutdown::Both);
    }

    fn shut_down(&self, how: Shutdown) {
        // It would end for whoever else has the socket, too.
        if self.end.get().is_none_or(|end| end.how != How::Elsewhere) {
            // It fails if there is no connection any more.
            let _ = rustix::net::shutdown(&self.socket, how);
        }
    }

    pub(crate) fn ended(&self) -> Option<&End> {
        self.end.get()
    }

    /// Has `ask` make a request, and says of a failure what is to be said.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&mut &Self) -> Result<T, CallError>) -> Result<T, DeviceError> {
        ask(&mut &*self).map_err(|error| match (&error, self.end.get()) {
            (CallError::Connection(_), Some(end)) => end.error(),
            _ => device_error(error),
        })
    }

    /// Writes a region, without a reply.
    pub(crate) fn post(&self, region: u32, offset: u64, data: [u8; 4]) -> Result<(), CallError> {
        let _under_way = UnderWay::new(self);
        let access = RegionAccess { offset, region, count: 4 };
        let header = Header { flags: flags::NO_REPLY, ..Header::request(self.new_id(), Command::RegionWrite) };
        self.send(header, &[access.as_bytes(), &data], &[])
    }

    fn send(&self, header: Header, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        let mut sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        if self.end.get().is_some() {
            return Err(ConnectionError::Closed { in_message: false }.into());
        }
        let sent = sending.send(header, parts, fds, Some(self.timeout));
        drop(sending);
        sent.map_err(|error| {
            // A message that is half sent cannot be followed by another.
            match &error {
                ConnectionError::TimedOut => self.give_up(format!("took no message for {:?}", self.timeout)),
                ConnectionError::Closed { .. } => drop(self.end(End { reason: IS_GONE.into(), how: How::Closed })),
                error => self.give_up(error.to_string()),
            }
            error.into()
        })
    }

    fn give_up(&self, what: String) {
        self.end(End { reason: format!("its server {what}"), how: How::GivenUp });
    }

    fn new_id(&self) -> u16 {
        let mut calls = self.lock_calls();
        calls.next_id = calls.next_id.wrapping_add(1);
        calls.next_id
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, message: Message, space: &Space) -> Result<(), ConnectionError> {
        let header = message.header;
        if header.is_request() {
            let reply = space.serve(&message);
            if !header.wants_reply() {
                return Ok(());
            }
            let sent = match reply {
                Ok(payload) => self.send(header.reply(), &[&payload], &[]),
                Err(errno) => self.send(header.error_reply(errno.raw_os_error().unsigned_abs()), &[], &[]),
            };
            // Why it failed is known by now to whoever is to know.
            return sent.map_err(|_| ConnectionError::Closed { in_message: false });
        }
        let mut calls = self.lock_calls();
        match calls.waiting.get_mut(&header.id) {
            Some(place @ None) => *place = Some(message),
            _ => tracing::debug!(?header, "a message that answers nothing"),
        }
        drop(calls);
        self.answered.notify_all();
        Ok(())
    }

    fn wait(&self, command: Command, id: u16) -> Result<Message, CallError> {
        let deadline = Instant::now().checked_add(self.timeout);
        let mut calls = self.lock_calls();
        loop {
            if let Some(message) = calls.waiting.get_mut(&id).and_then(Option::take) {
                return Ok(message);
            }
            if self.end.get().is_some() {
                return Err(ConnectionError::Closed { in_message: false }.into());
            }
            let left = deadline.map_or(self.timeout, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                drop(calls);
                // Whether it still does what it was asked for is not known: nothing can be built on that.
                self.give_up(format!("did not answer {command:?} within {:?}", self.timeout));
                return Err(ConnectionError::TimedOut.into());
            }
            calls = self.answered.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Call for &Link {
    fn server(&self) -> &Capabilities {
        &self.server
    }

    fn call(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message, CallError> {
        let _under_way = UnderWay::new(self);
        let waiting = Waiting::new(self);
        self.send(Header::request(waiting.id, command), parts, fds)?;
        let message = self.wait(command, waiting.id)?;
        let header = message.header;
        if !header.is_reply() || header.command != command as u16 {
            let reason = format!("a reply with command {} and flags {:#x}", header.command, header.flags);
            return Err(Malformed { command: command as u16, reason }.into());
        }
        if header.is_error() {
            return Err(CallError::Refused { command, errno: header.error });
        }
        Ok(message)
    }
}

/// A place for a reply, given back when dropped.
struct Waiting<'a> {
    link: &'a Link,
    id: u16,
}

impl<'a> Waiting<'a> {
    fn new(link: &'a Link) -> Self {
        let mut calls = link.lock_calls();
        // There are never as many callers as identifiers.
        loop {
            calls.next_id = calls.next_id.wrapping_add(1);
            let id = calls.next_id;
            if let std::collections::hash_map::Entry::Vacant(place) = calls.waiting.entry(id) {
                place.insert(None);
                return Self { link, id };
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.link.lock_calls().waiting.remove(&self.id);
    }
}
