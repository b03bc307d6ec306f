//! One handover, seen from either side.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use prost::Message;

use crate::message::{Envelope, What};
use crate::{Channel, HandoverError, Step};

/// How long the old process keeps still at most.
const LIMIT: Duration = Duration::from_secs(2);
/// How long the other process may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

/// A handover over a socket of whole messages, such as [`pair`](crate::pair) makes: given at one end, taken at the other.
#[must_use]
pub struct Handover {
    pub(crate) socket: OwnedFd,
    pub(crate) limit: Duration,
    pub(crate) patience: Duration,
    watcher: Option<Box<dyn Fn(Step)>>,
}

impl Handover {
    /// With 30 s for the other process to be there, and 2 s for each of its steps from then on.
    pub fn over(socket: OwnedFd) -> Self {
        Self { socket, limit: LIMIT, patience: PATIENCE, watcher: None }
    }

    /// How long the other process may take for each of its steps. The old process's I/O stands still meanwhile.
    pub fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// How long the other process may take to be there.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Has `watcher` called at each step on this side, to measure or to log.
    pub fn on_step(self, watcher: impl Fn(Step) + 'static) -> Self {
        Self { watcher: Some(Box::new(watcher)), ..self }
    }

    pub(crate) fn step(&self, step: Step) {
        tracing::debug!(?step, "handover");
        if let Some(watcher) = &self.watcher {
            watcher(step);
        }
    }

    pub(crate) fn send(&self, what: What, fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
        let bytes = Envelope { what: Some(what) }.encode_to_vec();
        Channel::new(&self.socket, self.limit).send(&bytes, fds)
    }

    pub(crate) fn receive(&self, limit: Duration) -> Result<(What, Vec<OwnedFd>), HandoverError> {
        let (bytes, fds) = Channel::new(&self.socket, limit).receive()?;
        let bad = |what: String| HandoverError::Misbehaved(what);
        match Envelope::decode(&bytes[..]).map_err(|error| bad(error.to_string()))?.what {
            Some(What::Refused(why)) => Err(HandoverError::Refused(why)),
            Some(what) => Ok((what, fds)),
            None => Err(bad("a message of a kind that there is not".into())),
        }
    }
}

/// The text of an error and of all that caused it, short enough for a message.
pub(crate) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text.chars().take(500).collect()
}
