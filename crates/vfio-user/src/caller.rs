use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::wire::{self, Command, Header, VersionNumber};
use crate::{Call, CallError, Capabilities, Connection, ConnectionError, Malformed, Message, Version};

/// The client's end of a connection: requests, and the replies to them.
///
/// Requests of the server are refused as they come; this crate shares the client's memory by descriptors alone.
#[derive(Debug)]
pub struct Caller {
    connection: Connection,
    next_id: u16,
    timeout: Option<Duration>,
    server: Capabilities,
}

impl Caller {
    /// Agrees on a version with a server. Each call waits up to `timeout` for its reply.
    pub fn new(
        connection: Connection,
        capabilities: Capabilities,
        timeout: Option<Duration>,
    ) -> Result<Self, CallError> {
        let mut caller = Self { connection, next_id: 0, timeout, server: Capabilities::default() };
        let proposed = Version { number: VersionNumber { major: 0, minor: 1 }, capabilities };
        let reply = caller.call(Command::Version, &[&proposed.to_bytes()], &[])?;
        let Version { number, capabilities } = Version::parse(&reply.payload)?;
        if number.major != 0 {
            return Err(CallError::Version { major: number.major, minor: number.minor });
        }
        caller.server = capabilities;
        Ok(caller)
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a request that nobody replies to.
    pub fn tell(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        self.send(command, wire::flags::NO_REPLY, parts, fds).map(drop)
    }

    fn send(
        &mut self,
        command: Command,
        flags: u32,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<u16, CallError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.connection.send(Header { flags, ..Header::request(id, command) }, parts, fds, self.timeout)?;
        Ok(id)
    }

    fn reply_to(&mut self, command: Command, id: u16) -> Result<Message, CallError> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            // Also where something has come: there may be no end of what is not the reply.
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ConnectionError::TimedOut.into());
            }
            let message = self.connection.receive(left)?;
            let header = message.header;
            if header.is_request() {
                if header.wants_reply() {
                    let refusal = header.error_reply(Errno::NOTSUP.raw_os_error().unsigned_abs());
                    self.connection.send(refusal, &[], &[], left)?;
                }
                continue;
            }
            // The reply to a call that was given up.
            if header.id != id {
                continue;
            }
            if !header.is_reply() || header.command != command as u16 {
                let reason = format!("a reply with command {} and flags {:#x}", header.command, header.flags);
                return Err(Malformed::new(command, reason).into());
            }
            if header.is_error() {
                return Err(CallError::Refused { command, errno: header.error });
            }
            return Ok(message);
        }
    }

    /// Whether the server is gone. Costs a system call.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// The connection alone, for whoever sends and receives by other means from now on; the next request may have any
    /// number.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Ends the connection for both sides.
    pub fn shutdown(&self) {
        self.connection.shutdown();
    }
}

impl Call for Caller {
    fn server(&self) -> &Capabilities {
        &self.server
    }

    fn call(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message, CallError> {
        let id = self.send(command, 0, parts, fds)?;
        self.reply_to(command, id)
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl From<ConnectionError> for std::io::Error {
    fn from(e: ConnectionError) -> Self {
        match e {
            ConnectionError::Io { source, .. } => source,
            ConnectionError::TimedOut => std::io::Error::new(std::io::ErrorKind::TimedOut, e),
            ConnectionError::Closed { .. } => std::io::Error::new(std::io::ErrorKind::ConnectionReset, e),
            e => std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        }
    }
}
