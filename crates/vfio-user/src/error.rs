use std::io;

use crate::wire::Command;

/// The connection to the peer cannot be used any more, except after [`TimedOut`](Self::TimedOut).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The peer is gone.
    #[error("the peer closed the connection{}", if *.in_message { " in the middle of a message" } else { "" })]
    Closed {
        /// Whether part of a message had come.
        in_message: bool,
    },
    /// Nothing came, or could be sent, for too long. It can be tried again.
    #[error("the peer let the time pass in which a message had to be moved")]
    TimedOut,
    /// A message that is smaller than its header, or larger than any may be. What follows it cannot be found.
    #[error("the peer announced a message of {size} bytes; between {} and {max} are allowed", crate::wire::HEADER)]
    MessageSize {
        /// Bytes announced.
        size: u32,
        /// Bytes allowed.
        max: usize,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl ConnectionError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |e| Self::Io { what, source: e.into() }
    }
}

/// A message that does not say what its command has to say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed {} message: {reason}", NameOf(*.command))]
pub struct Malformed {
    /// The command's code.
    pub command: u16,
    /// What is wrong.
    pub reason: String,
}

impl Malformed {
    pub(crate) fn new(command: Command, reason: impl Into<String>) -> Self {
        Self { command: command as u16, reason: reason.into() }
    }
}

struct NameOf(u16);

impl std::fmt::Display for NameOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Command::from_code(self.0) {
            Some(command) => write!(f, "{command:?}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A request of this side failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The server said no.
    #[error("the server refused {command:?}: {}", describe(*.errno))]
    Refused {
        /// What was asked for.
        command: Command,
        /// The server's reason; 0 if it gave none.
        errno: u32,
    },
    /// What the server said makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The server answers with a protocol that this side does not speak.
    #[error("the server speaks version {major}.{minor} of vfio-user; 0.x is understood")]
    Version {
        /// The server's major version.
        major: u16,
        /// The server's minor version.
        minor: u16,
    },
}

fn describe(errno: u32) -> String {
    match i32::try_from(errno) {
        Ok(0) | Err(_) => format!("error {errno}, without a reason"),
        Ok(errno) => io::Error::from_raw_os_error(errno).to_string(),
    }
}
