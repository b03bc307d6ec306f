//! The client's interrupts: an eventfd for each vector, and one for the pin.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use doorbell_device::Interrupt;
use rustix::fs::OFlags;
use rustix::io::Errno;
use vfio_user::wire;

use crate::takeover::{Descriptors, TakeoverError, damaged, pass, state};

/// What the client wants to be told by.
pub(crate) struct Irqs {
    /// MSI-X vectors.
    vectors: Vec<Line>,
    pin: Line,
    /// How many vectors have a descriptor.
    armed: usize,
}

#[derive(Default)]
struct Line {
    signal: Option<Interrupt>,
    /// It was raised while there was nobody to tell: told as soon as there is.
    pending: Cell<bool>,
    masked: bool,
}

impl Line {
    fn raise(&self) {
        match &self.signal {
            Some(signal) if !self.masked => signal.raise(),
            _ => self.pending.set(true),
        }
    }

    fn arm(&mut self, signal: Option<Interrupt>) {
        self.signal = signal;
        self.tell_pending();
    }

    fn tell_pending(&self) {
        if !self.masked
            && let Some(signal) = &self.signal
            && self.pending.take()
        {
            signal.raise();
        }
    }
}

impl Irqs {
    pub(crate) fn new(vectors: u16) -> Self {
        let vectors = (0..vectors).map(|_| Line::default()).collect();
        Self { vectors, pin: Line::default(), armed: 0 }
    }

    /// Raises a vector, or the pin if the client has set up no vectors.
    pub(crate) fn raise(&self, vector: u16) {
        if self.armed == 0 && self.pin.signal.is_some() {
            self.pin.raise();
        } else if let Some(line) = self.vectors.get(usize::from(vector)) {
            line.raise();
        }
    }

    /// Forgets what was raised before a reset.
    pub(crate) fn forget_pending(&self) {
        for line in self.vectors.iter().chain([&self.pin]) {
            line.pending.set(false);
        }
    }

    /// How many there are of a kind, and what they can do.
    pub(crate) fn info(&self, index: u32) -> Option<wire::IrqInfo> {
        let (flags, count) = match index {
            wire::irq::INTX => (wire::IRQ_EVENTFD | wire::IRQ_MASKABLE, 1),
            wire::irq::MSIX => (wire::IRQ_EVENTFD | wire::IRQ_NORESIZE, self.vectors.len() as u32),
            index if index < wire::irq::COUNT => (0, 0),
            _ => return None,
        };
        Some(wire::IrqInfo { argsz: size_of::<wire::IrqInfo>() as u32, flags, index, count })
    }

    /// Does what a client asks for.
    pub(crate) fn set(&mut self, set: wire::IrqSet, data: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let count = self.info(set.index).ok_or(Errno::INVAL)?.count;
        let end = set.start.checked_add(set.count).filter(|&end| end <= count).ok_or(Errno::INVAL)?;
        let has = |flag: u32| set.flags & flag != 0;
        if has(wire::SET_DATA_EVENTFD) && has(wire::SET_ACTION_TRIGGER) {
            return self.connect(set, fds);
        }
        if has(wire::SET_DATA_EVENTFD) || !fds.is_empty() {
            return Err(Errno::INVAL);
        }
        if set.count == 0 && has(wire::SET_DATA_NONE) && has(wire::SET_ACTION_TRIGGER) {
            self.lines(set.index).iter_mut().for_each(|line| *line = Line::default());
            self.count_armed();
            return Ok(());
        }
        let is_pin = set.index == wire::irq::INTX;
        if !has(wire::SET_ACTION_TRIGGER) && !is_pin {
            return Err(Errno::INVAL);
        }
        let lines = self.lines(set.index).get_mut(set.start as usize..end as usize).unwrap_or_default();
        for (index, line) in lines.iter_mut().enumerate() {
            if has(wire::SET_DATA_BOOL) && data.get(index).copied().unwrap_or(0) == 0 {
                continue;
            }
            if has(wire::SET_ACTION_TRIGGER) {
                line.raise();
            } else {
                line.masked = has(wire::SET_ACTION_MASK);
                line.tell_pending();
            }
        }
        Ok(())
    }

    fn lines(&mut self, index: u32) -> &mut [Line] {
        match index {
            wire::irq::INTX => std::slice::from_mut(&mut self.pin),
            wire::irq::MSIX => &mut self.vectors,
            _ => &mut [],
        }
    }

    /// Takes descriptors for interrupts, one each, or none to take those away that there are.
    fn connect(&mut self, set: wire::IrqSet, fds: Vec<OwnedFd>) -> Result<(), Errno> {
        if !fds.is_empty() && fds.len() != set.count as usize {
            return Err(Errno::INVAL);
        }
        let mut signals = fds.into_iter().map(eventfd).collect::<Result<Vec<_>, _>>()?.into_iter();
        let range = set.start as usize..set.start.saturating_add(set.count) as usize;
        for line in self.lines(set.index).get_mut(range).unwrap_or_default() {
            line.arm(signals.next());
        }
        self.count_armed();
        Ok(())
    }

    fn count_armed(&mut self) {
        self.armed = self.vectors.iter().filter(|line| line.signal.is_some()).count();
    }
}

/// A descriptor that can be signalled without waiting: anything but a non-blocking eventfd might hold us up.
fn eventfd(fd: OwnedFd) -> Result<Interrupt, Errno> {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    if link.to_bytes() != b"anon_inode:[eventfd]" {
        tracing::warn!(what = %link.to_string_lossy(), "the client gave something else than an eventfd for an interrupt");
        return Err(Errno::INVAL);
    }
    let flags = rustix::fs::fcntl_getfl(fd.as_fd())?;
    if !flags.contains(OFlags::NONBLOCK) {
        rustix::fs::fcntl_setfl(fd.as_fd(), flags | OFlags::NONBLOCK)?;
    }
    Ok(Interrupt::from_fd(fd))
}

impl Irqs {
    /// The lines, the pin last, and the descriptors that they have.
    pub(crate) fn save(&self, fds: &mut Vec<OwnedFd>) -> std::io::Result<Vec<state::Line>> {
        let lines = self.vectors.iter().chain([&self.pin]);
        let save = |line: &Line| {
            let signal = line.signal.as_ref().map(|signal| pass(fds, signal.as_fd())).transpose()?;
            Ok(state::Line { signal, pending: line.pending.get(), masked: line.masked })
        };
        lines.map(save).collect()
    }

    /// As many vectors as there were, and the pin.
    pub(crate) fn restore(vectors: u16, saved: &[state::Line], fds: &mut Descriptors) -> Result<Self, TakeoverError> {
        if saved.len() != usize::from(vectors).saturating_add(1) {
            return damaged(format!("{} interrupt lines of {vectors} vectors", saved.len()));
        }
        let mut lines = Vec::new();
        for saved in saved {
            let signal = saved.signal.map(|at| fds.take(at)).transpose()?;
            let signal = signal.map(eventfd).transpose().or_else(|_| damaged("an interrupt that is no eventfd"))?;
            lines.push(Line { signal, pending: saved.pending.into(), masked: saved.masked });
        }
        let pin = lines.pop().unwrap_or_default();
        let mut irqs = Self { vectors: lines, pin, armed: 0 };
        irqs.count_armed();
        Ok(irqs)
    }
}
