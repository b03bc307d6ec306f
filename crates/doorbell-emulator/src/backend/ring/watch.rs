//! A thread that waits for a ring, so that a controller can sleep.

use std::task::Waker;
use std::thread::JoinHandle;

use doorbell_device::{DeviceError, Interrupt};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Wakes a controller when something has ended in its ring.
pub(super) struct Watch {
    stop: Interrupt,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(ended: Interrupt, waker: Waker) -> Result<Self, DeviceError> {
        let stop = Interrupt::new()?;
        let stopped = stop.clone();
        let watch = move || loop {
            let mut fds = [PollFd::new(&ended, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::error!(%error, "waiting for io_uring"),
            }
            if stopped.is_raised() {
                return;
            }
            if ended.take() > 0 {
                waker.wake_by_ref();
            }
        };
        let thread = std::thread::Builder::new().name("doorbell-file".into()).spawn(watch);
        Ok(Self { stop, thread: Some(thread.map_err(DeviceError::io("starting a thread"))?) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
