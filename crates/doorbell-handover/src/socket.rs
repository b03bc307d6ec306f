//! The socket between the two processes: messages that stay whole, with descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::HandoverError;

/// Descriptors that go with one message; the system takes 253 (`SCM_MAX_FD`).
pub const MOST_DESCRIPTORS: usize = 64;
/// Bytes of one message.
const LONGEST: usize = 4096;

/// The two ends of a new socket: one for this process, one for another.
pub fn pair() -> Result<(OwnedFd, OwnedFd), HandoverError> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(HandoverError::io("making a socket"))
}

/// One end of a socket of whole messages (`SOCK_SEQPACKET`), each with descriptors.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'a> {
    socket: BorrowedFd<'a>,
    timeout: Duration,
}

impl<'a> Channel<'a> {
    /// Each message is waited for so long.
    #[must_use]
    pub fn new(socket: &'a impl AsFd, timeout: Duration) -> Self {
        let socket = socket.as_fd();
        Self { socket, timeout }
    }

    /// Sends a message of up to 4096 bytes, not empty, with up to [`MOST_DESCRIPTORS`] descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        // As many more as there is room for by chance would go along too.
        let fits = fds.len() <= MOST_DESCRIPTORS;
        let attached = fds.is_empty() || (fits && control.push(SendAncillaryMessage::ScmRights(fds)));
        if !attached {
            return Err(HandoverError::io("sending too many descriptors at once")(Errno::INVAL));
        }
        let deadline = Instant::now().checked_add(self.timeout);
        loop {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(self.socket, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => return Err(HandoverError::PeerGone),
                Err(error) => return Err(HandoverError::io("sending to the other process")(error)),
            }
        }
    }

    /// The next message and its descriptors.
    pub fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), HandoverError> {
        let deadline = Instant::now().checked_add(self.timeout);
        let mut bytes = vec![0; LONGEST];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match recvmsg(self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    self.wait(PollFlags::IN, deadline)?;
                    continue;
                }
                Err(Errno::CONNRESET | Errno::NOTCONN) => return Err(HandoverError::PeerGone),
                Err(error) => return Err(HandoverError::io("receiving from the other process")(error)),
            };
            let mut fds = Vec::new();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if received.bytes == 0 {
                return Err(HandoverError::PeerGone);
            }
            if received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC) {
                return Err(HandoverError::Misbehaved("a message that is too long".into()));
            }
            bytes.truncate(received.bytes);
            return Ok((bytes, fds));
        }
    }

    fn wait(&self, what: PollFlags, deadline: Option<Instant>) -> Result<(), HandoverError> {
        loop {
            let left = deadline.map_or(self.timeout, |at| at.saturating_duration_since(Instant::now()));
            let limit = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.socket, what)], limit.as_ref()) {
                Ok(0) if left.is_zero() => return Err(HandoverError::TimedOut),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(HandoverError::io("waiting for the other process")(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(socket: &OwnedFd) -> Channel<'_> {
        Channel::new(socket, Duration::from_secs(5))
    }

    #[test]
    fn messages_stay_whole_and_descriptors_with_them() {
        let (a, b) = pair().unwrap();
        let (a, b) = (channel(&a), channel(&b));
        let file = tempfile::tempfile().unwrap();
        let many = vec![file.as_fd(); MOST_DESCRIPTORS];
        a.send(b"one", &[]).unwrap();
        a.send(&[7; LONGEST], &many).unwrap();
        assert_eq!((b.receive().unwrap().0, b.receive().unwrap().1.len()), (b"one".to_vec(), MOST_DESCRIPTORS));
        let more = vec![file.as_fd(); MOST_DESCRIPTORS + 1];
        assert!(matches!(a.send(b"x", &more), Err(HandoverError::Io { .. })));
    }

    #[test]
    fn the_end_of_the_other_is_seen() {
        let (a, b) = pair().unwrap();
        drop(a);
        let b = channel(&b);
        assert!(matches!(b.receive(), Err(HandoverError::PeerGone)));
        assert!(matches!(b.send(b"x", &[]), Err(HandoverError::PeerGone)));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused() {
        let (a, b) = pair().unwrap();
        let (a, b) = (channel(&a), channel(&b));
        a.send(&[1; LONGEST + 1], &[]).unwrap();
        assert!(matches!(b.receive(), Err(HandoverError::Misbehaved(_))));
    }
}
