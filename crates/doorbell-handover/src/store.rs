//! systemd's descriptor store: `sd_pid_notify_with_fds`(3), over `$NOTIFY_SOCKET`.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::{Channel, HandoverError};

/// How long the service manager may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps a descriptor under a name, and returns when the service manager has it.
pub(crate) fn add(name: &str, descriptor: BorrowedFd<'_>) -> Result<(), HandoverError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
    if name.is_empty() || name.len() > 255 || !name.bytes().all(plain) {
        let error = HandoverError::io("choosing a name: 1 to 255 printable characters but colons are possible");
        return Err(error(Errno::INVAL));
    }
    let Some(manager) = Manager::find()? else {
        return Err(HandoverError::io("looking for a service manager ($NOTIFY_SOCKET)")(Errno::NOENT));
    };
    // The other end of what is kept is closed: it would not be kept if the manager looked at that.
    manager.say(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0"), &[descriptor])?;
    manager.settle()
}

/// Has it kept no longer, if there is a service manager.
pub(crate) fn remove(name: &str) -> Result<(), HandoverError> {
    match Manager::find()? {
        Some(manager) => manager.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[]),
        None => Ok(()),
    }
}

struct Manager(UnixDatagram);

impl Manager {
    fn find() -> Result<Option<Self>, HandoverError> {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
        let address = match path.as_encoded_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&path),
        };
        let what = "reaching the service manager";
        let socket = UnixDatagram::unbound().map_err(HandoverError::io(what))?;
        address.and_then(|address| socket.connect_addr(&address)).map_err(HandoverError::io(what))?;
        Ok(Some(Self(socket)))
    }

    fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        Channel::new(&self.0, PATIENCE).send(text.as_bytes(), descriptors)
    }

    /// Waits until the service manager has heard all that was said.
    fn settle(&self) -> Result<(), HandoverError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(HandoverError::io("making a pipe"))?;
        self.say("BARRIER=1", &[write.as_fd()])?;
        drop(write);
        let limit = Timespec::try_from(PATIENCE).unwrap_or_default();
        match poll(&mut [PollFd::new(&read, PollFlags::empty())], Some(&limit)) {
            Ok(0) => Err(HandoverError::TimedOut),
            Ok(_) => Ok(()),
            Err(error) => Err(HandoverError::io("waiting for the service manager")(error)),
        }
    }
}
