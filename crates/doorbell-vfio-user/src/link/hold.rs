//! A connection that is held still, between two messages in both directions, so that another process can go on with it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;
use std::time::Instant;

use doorbell_device::DeviceError;

use super::{End, How, Link};

impl Link {
    /// Lets nobody begin to send, and waits until all replies have come and nobody receives any more.
    ///
    /// # Errors
    /// If that takes too long, or the connection has ended. Then it goes on.
    pub(crate) fn hold(&self) -> Result<(), DeviceError> {
        let deadline = Instant::now().checked_add(self.timeout);
        let mut calls = self.lock_calls();
        if calls.held {
            return Err(DeviceError::Unsupported("being handed over twice at a time"));
        }
        calls.held = true;
        self.nudge.raise();
        while calls.under_way != 0 || !calls.parked {
            let left = deadline.map_or(self.timeout, |at| at.saturating_duration_since(Instant::now()));
            let failed = match self.ended() {
                Some(end) => Some(end.error()),
                None if left.is_zero() => {
                    Some(DeviceError::Misbehaved("the server leaves a message unfinished".into()))
                }
                None => None,
            };
            if let Some(error) = failed {
                drop(calls);
                self.go_on_here();
                return Err(error);
            }
            calls = self.answered.wait_timeout(calls, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// As it was before it was held.
    pub(crate) fn go_on_here(&self) {
        self.nudge.take();
        self.lock_calls().held = false;
        self.answered.notify_all();
    }

    /// Another process has it: nothing is sent or received here any more. The socket stays open there.
    pub(crate) fn leave(&self) {
        let _ = self.end.set(End::elsewhere());
        self.go_on_here();
    }

    /// What another process goes on with: the socket, and the number of the last request.
    pub(crate) fn socket(&self) -> Result<(OwnedFd, u16), DeviceError> {
        let last_id = self.lock_calls().next_id;
        let socket = self.socket.as_fd().try_clone_to_owned().map_err(DeviceError::io("duplicating a socket"))?;
        Ok((socket, last_id))
    }

    /// For who receives: waits as long as the connection is held still. How it ended, if it is another process's after.
    pub(super) fn park(&self) -> Option<End> {
        let mut calls = self.lock_calls();
        if !calls.held {
            return None;
        }
        calls.parked = true;
        self.answered.notify_all();
        while calls.held {
            calls = self.answered.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
        calls.parked = false;
        self.end.get().filter(|end| end.how == How::Elsewhere).cloned()
    }
}

/// A message that is being sent, or a call that waits for its reply.
pub(super) struct UnderWay<'a> {
    link: &'a Link,
}

impl<'a> UnderWay<'a> {
    /// Waits as long as the connection is held still.
    pub(super) fn new(link: &'a Link) -> Self {
        let mut calls = link.lock_calls();
        while calls.held {
            calls = link.answered.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
        calls.under_way = calls.under_way.saturating_add(1);
        Self { link }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut calls = self.link.lock_calls();
        calls.under_way = calls.under_way.saturating_sub(1);
        if calls.held {
            drop(calls);
            self.link.answered.notify_all();
        }
    }
}
