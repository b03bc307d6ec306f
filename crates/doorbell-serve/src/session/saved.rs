//! A client that another process goes on with.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use doorbell_device::HostMemory;
use doorbell_emulator::Controller;

use super::{Session, doorbells};
use crate::irqs::Irqs;
use crate::mappings::Mappings;
use crate::takeover::{Descriptors, TakeoverError, damaged, pass, state};

impl Session {
    /// Whether nothing is half done: no message, no answer, nothing that the client has to be kept from.
    pub(crate) fn is_between_messages(&mut self) -> bool {
        self.connection.is_between_messages()
            && self.settling.is_none()
            && self.held.is_none()
            && self.rests_until().is_none()
    }

    /// The client as another process needs it.
    pub(crate) fn save(&self, fds: &mut Vec<OwnedFd>) -> std::io::Result<state::Session> {
        let Some((bar, _)) = self.bar_file.file() else {
            return Err(std::io::Error::other("the doorbells are in no file"));
        };
        Ok(state::Session {
            stream: pass(fds, self.connection.as_fd())?,
            bar: pass(fds, bar.as_fd())?,
            agreed: self.agreed,
            config: self.config.bytes().into(),
            msix: self.msix.bytes().into(),
            lines: self.irqs.save(fds)?,
            mappings: self.mappings.save(fds)?,
            faults: self.memory().2,
            told: self.told,
        })
    }

    /// The client that another process has served.
    pub(crate) fn restore(
        saved: state::Session,
        fds: &mut Descriptors,
        controller: &Controller,
    ) -> Result<Self, TakeoverError> {
        let mut session = Self::new(fds.take(saved.stream)?.into(), controller)?;
        let bar = Arc::new(File::from(fds.take(saved.bar)?));
        session.bar_file = HostMemory::from_file(bar, 0, session.bar_file.len())?;
        session.doorbells = doorbells(&session.bar_file)?;
        session.agreed = saved.agreed;
        if !session.config.restore(saved.config) || !session.msix.restore(saved.msix) {
            return damaged("a configuration space or an MSI-X table of another size");
        }
        session.irqs = Irqs::restore(session.msix.vectors, &saved.lines, fds)?;
        session.mappings = Mappings::restore(&saved.mappings, fds)?;
        session.faults_before = saved.faults;
        session.told = saved.told;
        Ok(session)
    }
}
