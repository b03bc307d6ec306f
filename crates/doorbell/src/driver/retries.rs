//! Commands that failed for a passing reason: when they are tried again (NVMe Base 2.0, Do Not Retry, Command Retry
//! Delay).

use std::time::Duration;

use nvme_spec::Status;

use super::core::Core;
use crate::error::{ErrorClass, NvmeError};

/// The first wait where the device names none; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
/// The unit of CRDT1 to CRDT3.
const DELAY_UNIT: Duration = Duration::from_millis(100);

/// How often, and after which waits, an I/O command that failed for a passing reason is sent again.
///
/// A reason is a passing one if the device says by its status that it is ([`ErrorClass::Transient`]) or names a delay
/// (CRD), and does not forbid it (DNR). An aborted command is not tried again, as it was given up already; fused
/// commands and those of [`Namespace::command_in`](crate::Namespace::command_in) are not either.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Retries {
    times: u32,
    longest: Duration,
}

impl Default for Retries {
    /// Five times, each after at most ten seconds.
    fn default() -> Self {
        Self { times: 5, longest: Duration::from_secs(10) }
    }
}

impl Retries {
    /// Every failure is the caller's to deal with.
    pub fn none() -> Self {
        Self { times: 0, ..Self::default() }
    }

    /// At most so often.
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// No wait longer than this: if the device asks for a longer one, the command fails at once.
    pub fn longest_wait(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }
}

impl Core {
    /// How long to wait until a command that failed so, having been tried again `retries` times, is sent once more;
    /// `None` if it is not.
    #[cold]
    pub(crate) fn retry_after(&self, error: &NvmeError, retries: u32) -> Option<Duration> {
        let policy = self.options.retries;
        let aborted = matches!(error.status, Status::ABORT_REQUESTED | Status::ABORTED_SQ_DELETION);
        let passing = error.class() == ErrorClass::Transient || error.retry_delay != 0;
        if error.do_not_retry || aborted || !passing || retries >= policy.times {
            return None;
        }
        let wait = match error.retry_delay {
            0 => FIRST_WAIT.saturating_mul(1 << retries.min(16)).min(policy.longest),
            1 => DELAY_UNIT.saturating_mul(self.identify.crdt1.into()),
            2 => DELAY_UNIT.saturating_mul(self.identify.crdt2.into()),
            _ => DELAY_UNIT.saturating_mul(self.identify.crdt3.into()),
        };
        (wait <= policy.longest).then_some(wait)
    }
}
