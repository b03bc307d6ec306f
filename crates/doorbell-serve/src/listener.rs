//! The socket: made where there is none, or where a dead one was left; gone when it is not served any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use vfio_user::wire::{Command, Header};
use vfio_user::{Connection, Limits};

/// Bytes that `sockaddr_un` has for a path, but for the zero behind it.
const MOST_OF_A_PATH: usize = 107;

/// Why a controller cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Somebody serves this socket already.
    #[error("{}: another process serves this socket", .0.display())]
    InUse(PathBuf),
    /// There is something else.
    #[error("{}: there is a file of this name, and it is no socket", .0.display())]
    NoSocket(PathBuf),
    /// The system has no room for such a path.
    #[error("{}: {} bytes are too many: the path of a socket has at most {MOST_OF_A_PATH}", .0.display(), .0.as_os_str().len())]
    PathTooLong(PathBuf),
    /// The socket cannot be made.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What a controller needs cannot be had.
    #[error(transparent)]
    Device(#[from] doorbell_device::DeviceError),
}

/// A socket that clients connect to. Its file goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode, so that only what was made here is removed.
    identity: Option<(u64, u64)>,
    /// The file goes with this.
    owned: AtomicBool,
}

impl Listener {
    /// Makes the socket. One that nobody listens at any more is replaced.
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        let failed = |source: io::Error| ServeError::Socket { path: path.into(), source };
        if path.as_os_str().len() > MOST_OF_A_PATH {
            return Err(ServeError::PathTooLong(path.into()));
        }
        let socket = match UnixListener::bind(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(path)?;
                UnixListener::bind(path)
            }
            other => other,
        };
        let socket = socket.map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let identity = identity(path);
        Ok(Self { socket, path: path.into(), identity, owned: true.into() })
    }

    /// The socket that another process made at a path. Its file stays until it is [owned](Self::own).
    pub fn from_fd(fd: OwnedFd, path: &Path) -> Self {
        Self { socket: fd.into(), path: path.into(), identity: identity(path), owned: false.into() }
    }

    /// The file goes with this from now on.
    pub fn own(&self) {
        self.owned.store(true, Ordering::Relaxed);
    }

    /// Another process has the socket: its file stays.
    pub fn leave(&self) {
        self.owned.store(false, Ordering::Relaxed);
    }

    /// Another descriptor of the socket, to wait for clients with.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A client that waits to be served, if there is one. Never waits.
    pub fn accept(&self) -> Option<UnixStream> {
        match self.socket.accept() {
            Ok((stream, _)) => Some(stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                // Out of descriptors, say: it will not be better at once.
                std::thread::sleep(Duration::from_millis(1));
                None
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.owned.load(Ordering::Relaxed) && self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells a client that somebody else is served, and lets it go.
pub(crate) fn turn_away(stream: UnixStream) {
    let mut connection = Connection::new(stream, Limits::default());
    let request = match connection.try_receive() {
        Ok(Some(message)) => message.header,
        _ => Header::request(0, Command::Version),
    };
    let _ = connection.queue(request.error_reply(Errno::BUSY.raw_os_error().unsigned_abs()), &[], &[]);
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Removes a socket that nobody serves.
fn remove_dead(path: &Path) -> Result<(), ServeError> {
    let failed = |source: io::Error| ServeError::Socket { path: path.into(), source };
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(ServeError::NoSocket(path.into()));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path).map_err(failed),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(failed(e)),
        _ => Err(ServeError::InUse(path.into())),
    }
}
