use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::ConnectionError;
use crate::wire::{HEADER, Header};

/// Descriptors that a message can carry at most, whatever the [`Limits`].
const MAX_FDS: usize = 64;

/// What is taken from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message without its header.
    pub payload: usize,
    /// Descriptors of a message; 64 are taken at most.
    pub fds: usize,
}

impl Default for Limits {
    /// A mebibyte of data and what goes before it, and 16 descriptors.
    fn default() -> Self {
        Self { payload: (1 << 20) + 64, fds: 16 }
    }
}

/// A message as it came.
#[derive(Debug)]
pub struct Message {
    /// What it began with.
    pub header: Header,
    /// What follows.
    pub payload: Vec<u8>,
    /// The descriptors that came with these bytes, and with no others.
    pub fds: Vec<OwnedFd>,
    /// Whether more came than the [`Limits`] allow; these are closed.
    pub surplus_fds: bool,
}

/// One end of a vfio-user socket: whole messages with their descriptors, in both directions.
///
/// The socket itself is never waited for but in [`receive`](Self::receive) and [`send`](Self::send), which take a
/// timeout for the message as a whole, so that a peer cannot hold up anybody by sending bytes one at a time.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    limits: Limits,
    incoming: Incoming,
    /// What could not be sent yet.
    outgoing: VecDeque<Outgoing>,
}

/// A message of which some bytes have come.
#[derive(Debug, Default)]
struct Incoming {
    header: [u8; HEADER],
    /// Bytes of the message with its header, once the header is there.
    size: Option<usize>,
    payload: Vec<u8>,
    /// Bytes that have come, with the header.
    filled: usize,
    fds: Vec<OwnedFd>,
    surplus_fds: bool,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// A connection over a socket.
    pub fn new(stream: UnixStream, limits: Limits) -> Self {
        let limits = Limits { fds: limits.fds.min(MAX_FDS), ..limits };
        Self { stream, limits, incoming: Incoming::default(), outgoing: VecDeque::new() }
    }

    /// Connects to the socket at a path. A server that takes no connections is waited for, up to `timeout`.
    pub fn connect(path: &Path, limits: Limits, timeout: Option<Duration>) -> Result<Self, ConnectionError> {
        let what = "connecting";
        let deadline = deadline(timeout);
        let address = SocketAddrUnix::new(path).map_err(ConnectionError::io(what))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let socket = socket.map_err(ConnectionError::io(what))?;
        loop {
            match connect(&socket, &address) {
                Ok(()) => return Ok(Self::new(UnixStream::from(socket), limits)),
                // As many wait as the server lets wait.
                Err(Errno::AGAIN) if deadline.is_none_or(|at| Instant::now() < at) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(Errno::AGAIN) => return Err(ConnectionError::TimedOut),
                Err(Errno::INTR) => {}
                Err(e) => return Err(ConnectionError::io(what)(e)),
            }
        }
    }

    /// The same connection as two, so that one thread can send while another waits for messages: the first receives, the
    /// second sends. Each goes on where this one was.
    pub fn split(self) -> Result<(Self, Self), ConnectionError> {
        let stream = self.stream.as_fd().try_clone_to_owned();
        let stream = stream.map_err(|source| ConnectionError::Io { what: "duplicating a socket", source })?;
        let Self { limits, outgoing, .. } = self;
        let sending = Self { stream: stream.into(), limits, incoming: Incoming::default(), outgoing };
        Ok((Self { outgoing: VecDeque::new(), ..self }, sending))
    }

    /// The next message, if all of it has come. Never waits.
    pub fn try_receive(&mut self) -> Result<Option<Message>, ConnectionError> {
        loop {
            match self.take_bytes() {
                Ok(Some(message)) => return Ok(Some(message)),
                Ok(None) => {}
                Err(Stop::WouldBlock) => return Ok(None),
                Err(Stop::Error(e)) => return Err(e),
            }
        }
    }

    /// The next message; waits for it, up to `timeout` for all of it.
    pub fn receive(&mut self, timeout: Option<Duration>) -> Result<Message, ConnectionError> {
        let deadline = deadline(timeout);
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            self.wait(PollFlags::IN, deadline)?;
        }
    }

    /// The next message; waits for it, however long that takes. `None` as soon as `wake` can be read, but never in the
    /// middle of a message.
    pub fn receive_unless(&mut self, wake: BorrowedFd<'_>) -> Result<Option<Message>, ConnectionError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(Some(message));
            }
            let whole = self.incoming.filled == 0;
            let mut fds = [PollFd::new(&self.stream, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
            // In the middle of a message, only its rest is waited for.
            let (waited_for, _) = fds.split_at_mut(if whole { 2 } else { 1 });
            match poll(waited_for, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(ConnectionError::io("waiting for the peer")(e)),
            }
            let [_, wake] = fds;
            if whole && !wake.revents().is_empty() {
                return Ok(None);
            }
        }
    }

    /// Sends a message, and waits up to `timeout` until the system has taken all of it. The header's size is filled in.
    ///
    /// What has not gone after [`TimedOut`](ConnectionError::TimedOut) goes before the next message.
    pub fn send(
        &mut self,
        header: Header,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<(), ConnectionError> {
        let deadline = deadline(timeout);
        self.queue(header, parts, fds)?;
        while !self.flush()? {
            self.wait(PollFlags::OUT, deadline)?;
        }
        Ok(())
    }

    /// Puts a message in line to be sent, and sends what can be sent without waiting. The header's size is filled in.
    ///
    /// What is in line is not bounded here. Who serves takes no request while [`flush`](Self::flush) says that
    /// something waits; then it is one reply at most.
    pub fn queue(&mut self, header: Header, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), ConnectionError> {
        if fds.len() > MAX_FDS {
            let what = "sending more descriptors than a message can carry";
            return Err(ConnectionError::io(what)(Errno::INVAL));
        }
        let size = parts.iter().fold(HEADER, |sum, part| sum.saturating_add(part.len()));
        let too_large = ConnectionError::MessageSize { size: u32::MAX, max: u32::MAX as usize };
        let header = Header { size: u32::try_from(size).map_err(|_| too_large)?, ..header };
        let mut bytes = Vec::with_capacity(size);
        bytes.extend(header.as_bytes());
        parts.iter().for_each(|part| bytes.extend(*part));
        let fds = fds.iter().map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 0)).collect::<Result<_, _>>();
        let fds = fds.map_err(ConnectionError::io("duplicating a descriptor"))?;
        self.outgoing.push_back(Outgoing { bytes, sent: 0, fds });
        self.flush().map(drop)
    }

    /// Whether all messages that have begun have ended, in both directions: then whoever has the socket can go on.
    pub fn is_between_messages(&self) -> bool {
        self.incoming.filled == 0 && self.outgoing.is_empty()
    }

    /// Sends what waits in line, without waiting itself. Says whether all has gone.
    pub fn flush(&mut self) -> Result<bool, ConnectionError> {
        while let Some(message) = self.outgoing.front_mut() {
            match message.send(&self.stream) {
                Ok(true) => drop(self.outgoing.pop_front()),
                Ok(false) => {}
                Err(Stop::WouldBlock) => return Ok(false),
                Err(Stop::Error(e)) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Waits until something can be received or the peer is gone. Says whether that is so.
    pub fn wait_readable(&self, timeout: Option<Duration>) -> Result<bool, ConnectionError> {
        match self.wait(PollFlags::IN, deadline(timeout)) {
            Ok(()) => Ok(true),
            Err(ConnectionError::TimedOut) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether the peer is known to be gone. Costs a system call.
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        matches!(poll(&mut fds, Some(&zero)), Ok(n) if n > 0) && fds.iter().any(|fd| fd.revents().intersects(gone))
    }

    /// Ends the connection for both sides, also where another thread waits on it.
    pub fn shutdown(&self) {
        // It fails if the peer has gone before.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    fn wait(&self, what: PollFlags, deadline: Option<Instant>) -> Result<(), ConnectionError> {
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.stream, what)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Err(ConnectionError::TimedOut),
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(ConnectionError::io("waiting for the peer")(e)),
            }
        }
    }

    /// Receives some bytes, of this message alone. That is what keeps descriptors with their message: the system ends a
    /// receive at bytes with which descriptors came, but it would not begin one there.
    fn take_bytes(&mut self) -> Result<Option<Message>, Stop> {
        let incoming = &mut self.incoming;
        let target = match incoming.size {
            None => incoming.header.get_mut(incoming.filled..),
            Some(_) => incoming.payload.get_mut(incoming.filled.saturating_sub(HEADER)..),
        };
        let target = target.unwrap_or_default();
        if !target.is_empty() {
            let fds_left = self.limits.fds.saturating_sub(incoming.fds.len());
            let (count, fds, truncated) = receive(&self.stream, target)?;
            if count == 0 {
                return Err(Stop::Error(ConnectionError::Closed { in_message: incoming.filled > 0 }));
            }
            incoming.filled = incoming.filled.saturating_add(count);
            incoming.surplus_fds |= truncated || fds.len() > fds_left;
            incoming.fds.extend(fds.into_iter().take(fds_left));
        }
        if incoming.filled < incoming.size.unwrap_or(HEADER) {
            return Ok(None);
        }
        // The header is always written as a whole before it is read here.
        let header = Header::read_from_bytes(&incoming.header).unwrap_or_default();
        let Some(size) = incoming.size else {
            let max = self.limits.payload.saturating_add(HEADER);
            let size = usize::try_from(header.size).ok().filter(|size| (HEADER..=max).contains(size));
            let size = size.ok_or(ConnectionError::MessageSize { size: header.size, max })?;
            incoming.size = Some(size);
            incoming.payload = vec![0; size.saturating_sub(HEADER)];
            return Ok(None);
        };
        debug_assert_eq!(size, incoming.filled);
        let Incoming { payload, fds, surplus_fds, .. } = std::mem::take(incoming);
        Ok(Some(Message { header, payload, fds, surplus_fds }))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Why bytes did not move.
enum Stop {
    WouldBlock,
    Error(ConnectionError),
}

impl From<ConnectionError> for Stop {
    fn from(e: ConnectionError) -> Self {
        Self::Error(e)
    }
}

fn receive(stream: &UnixStream, target: &mut [u8]) -> Result<(usize, Vec<OwnedFd>, bool), Stop> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    loop {
        let received = match recvmsg(stream, &mut [IoSliceMut::new(target)], &mut control, flags) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Err(Stop::WouldBlock),
            // The peer closed before it had read all.
            Err(Errno::CONNRESET) => return Ok((0, Vec::new(), false)),
            Err(e) => return Err(Stop::Error(ConnectionError::io("receiving a message")(e))),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // What did not fit was closed by the system.
        return Ok((received.bytes, fds, received.flags.contains(ReturnFlags::CTRUNC)));
    }
}

impl Outgoing {
    /// Sends some bytes, the descriptors with the first of them. Says whether all has gone.
    fn send(&mut self, stream: &UnixStream) -> Result<bool, Stop> {
        let rest = self.bytes.get(self.sent..).unwrap_or_default();
        let borrowed: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            // `queue` lets no more in line than fit.
            return Err(Stop::Error(ConnectionError::io("attaching descriptors")(Errno::INVAL)));
        }
        match sendmsg(stream, &[IoSlice::new(rest)], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.sent = self.sent.saturating_add(count);
                self.fds.clear();
                Ok(self.sent >= self.bytes.len())
            }
            Err(Errno::INTR) => Ok(false),
            Err(Errno::AGAIN) => Err(Stop::WouldBlock),
            Err(Errno::PIPE | Errno::CONNRESET) => {
                Err(Stop::Error(ConnectionError::Closed { in_message: self.sent > 0 }))
            }
            Err(e) => Err(Stop::Error(ConnectionError::io("sending a message")(e))),
        }
    }
}

fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}
