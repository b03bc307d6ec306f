//! State and descriptors through a socket, in as many messages as it takes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vfio_user::wire::Header;
use vfio_user::{Connection, ConnectionError, Limits};

use super::{TakeoverError, damaged};

/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes and descriptors of one message.
const PIECE: usize = 1 << 20;
const FDS: usize = 64;
/// Bytes and descriptors in all.
const MOST: usize = 1 << 28;
const MOST_FDS: usize = 1 << 16;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Kind {
    /// Bytes of state that are to come, and how many descriptors.
    Begin = 1,
    Piece = 2,
    /// The new server serves.
    Taken = 3,
    /// One of the two cannot, for this reason.
    Refused = 4,
}

/// The way between two servers. Frames are as vfio-user has them; what they mean is not.
pub(super) struct Passage(Connection);

impl Passage {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Connection::new(stream, Limits { payload: PIECE, fds: FDS }))
    }

    pub(super) fn tell(&mut self, kind: Kind, payload: &[u8], fds: &[OwnedFd]) -> Result<(), ConnectionError> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let header = Header { command: kind as u16, ..Header::default() };
        self.0.send(header, &[payload], &fds, Some(PATIENCE))
    }

    /// Says why it does not come to it, to whoever still listens.
    pub(super) fn refuse(&mut self, error: &TakeoverError) {
        let _ = self.tell(Kind::Refused, error.to_string().as_bytes(), &[]);
    }

    /// The next message: what it is, and what is in it.
    pub(super) fn hear(&mut self) -> Result<(u16, Vec<u8>, Vec<OwnedFd>), TakeoverError> {
        let message = self.0.receive(Some(PATIENCE))?;
        if message.surplus_fds {
            return damaged("descriptors were lost: more are needed than this process may have");
        }
        if message.header.command == Kind::Refused as u16 {
            return Err(TakeoverError::Refused(String::from_utf8_lossy(&message.payload).into_owned()));
        }
        Ok((message.header.command, message.payload, message.fds))
    }

    /// Sends a state, with `between` called before each message but the first.
    pub(super) fn send(&mut self, bytes: &[u8], fds: &[OwnedFd], between: impl Fn()) -> Result<(), TakeoverError> {
        let mut lengths = (bytes.len() as u64).to_le_bytes().to_vec();
        lengths.extend((fds.len() as u64).to_le_bytes());
        self.tell(Kind::Begin, &lengths, &[])?;
        let (mut pieces, mut batches) = (bytes.chunks(PIECE), fds.chunks(FDS));
        loop {
            let (piece, batch) = (pieces.next(), batches.next());
            if piece.is_none() && batch.is_none() {
                return Ok(());
            }
            between();
            self.tell(Kind::Piece, piece.unwrap_or_default(), batch.unwrap_or_default())?;
        }
    }

    /// Receives a state.
    pub(super) fn receive(&mut self) -> Result<(Vec<u8>, Vec<OwnedFd>), TakeoverError> {
        let (kind, lengths, _) = self.hear()?;
        let mut lengths = lengths.as_chunks::<8>().0.iter().map(|length| u64::from_le_bytes(*length) as usize);
        let (Some(len), Some(count)) = (lengths.next(), lengths.next()) else { return Err(TakeoverError::Foreign) };
        if kind != Kind::Begin as u16 || len > MOST || count > MOST_FDS {
            return Err(TakeoverError::Foreign);
        }
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        while bytes.len() < len || fds.len() < count {
            let (kind, piece, batch) = self.hear()?;
            if kind != Kind::Piece as u16 || piece.is_empty() && batch.is_empty() {
                return Err(TakeoverError::Foreign);
            }
            bytes.extend(piece);
            fds.extend(batch);
        }
        if bytes.len() != len || fds.len() != count {
            return damaged("more came than was announced");
        }
        Ok((bytes, fds))
    }
}
