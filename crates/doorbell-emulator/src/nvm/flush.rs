//! Flush.

use std::sync::atomic::Ordering;

use nvme_spec::Status;

use super::{Io, write_failed};
use crate::controller::Controller;
use crate::namespace::State;
use crate::reservation::Group;
use crate::sync;

impl Io<'_> {
    pub(super) fn flush(&mut self) -> Result<u64, Status> {
        let state = sync::read(&self.namespace.state);
        if state.removed {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT);
        }
        state.reservations.check(self.host, Group::Write)?;
        flush(&state)?;
        Ok(0)
    }
}

impl Controller {
    /// Flush with NSID FFFFFFFFh, of all whose storage does it at once.
    pub(super) fn flush_every_namespace(&self) -> Result<u64, Status> {
        if !self.config.flush_all {
            return Err(Status::INVALID_FIELD_IN_COMMAND);
        }
        for namespace in self.table.iter().flatten().filter(|namespace| !namespace.finishes_later()) {
            let state = sync::read(&namespace.state);
            if !state.removed {
                state.reservations.check(self.host, Group::Write)?;
                flush(&state)?;
            }
        }
        Ok(0)
    }
}

fn flush(state: &State) -> Result<(), Status> {
    // Whoever writes holds the lock alone, so nothing becomes dirty between the two.
    state.data.flush().map_err(write_failed)?;
    state.dirty.store(false, Ordering::Relaxed);
    Ok(())
}
