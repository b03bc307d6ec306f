use std::os::unix::net::UnixStream;
use std::time::Duration;

use doorbell_device::inprocess::{Activity, SoftController};
use doorbell_device::{DeviceError, HostMemory};
use doorbell_emulator::Controller;

use crate::session::Session;

/// A controller and its only client, without a thread or a clock: it acts when it is told to.
///
/// What an [`Endpoint`](crate::Endpoint) does by itself, this does step by step, for tests that have to be the same each
/// time.
pub struct Stepped {
    session: Session,
    controller: Controller,
}

impl Stepped {
    /// A client at the other end of `stream`.
    pub fn new(stream: UnixStream, controller: Controller) -> Result<Self, DeviceError> {
        Ok(Self { session: Session::new(stream, &controller)?, controller })
    }

    /// Answers what the client has sent, and runs the controller once at `now`; an error is why the client has to go.
    pub fn step(&mut self, now: Duration) -> Result<Activity, String> {
        self.session.pump(&mut self.controller).map_err(|end| end.to_string())?;
        let controller = &mut self.controller;
        Ok(self.session.with_host(|host| controller.run(host, now)))
    }

    /// The doorbells as the client maps them.
    pub fn doorbells(&self) -> &HostMemory {
        self.session.doorbells()
    }

    /// The controller.
    pub fn controller(&mut self) -> &mut Controller {
        &mut self.controller
    }
}
