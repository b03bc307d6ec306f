//! A controller in the same process: the back end for laptops, tests and simulations.
//!
//! [`SoftController`] is what a software controller has to offer; [`InProcess`] makes a [`Device`](crate::Device)
//! of it, run by a thread of its own, inline with each doorbell, or step by step. [`DmaSpace`] is the software IOMMU
//! between them: what is not mapped cannot be reached.

mod device;
mod doze;
mod shared;
mod space;
mod sync;

pub use device::{InProcess, Run};
pub use space::{DmaFault, DmaSpace, DmaView, MappedPart};

use std::task::Waker;
use std::time::Duration;

use crate::HostMemory;

/// A controller in software. It has no thread, no clock and no I/O of its own: it acts when it is called.
pub trait SoftController: Send + 'static {
    /// Bytes of the register space, doorbells included; a multiple of 4096.
    fn register_space(&self) -> usize;

    /// Bytes between two doorbells.
    fn doorbell_stride(&self) -> usize;

    /// The host reads a register: `len` is 4 or 8, `offset` aligned to it and below the doorbells.
    fn read_register(&mut self, offset: usize, len: usize) -> u64;

    /// The host writes a register: as [`read_register`](Self::read_register).
    fn write_register(&mut self, host: &Host<'_>, offset: usize, len: usize, value: u64);

    /// Does what can be done now: takes commands, moves data, posts completions, raises interrupts. `now` is the time
    /// since some fixed moment and never goes back.
    fn run(&mut self, host: &Host<'_>, now: Duration) -> Activity;

    /// Whether another run right after the last would surely find nothing to do, unless a doorbell rings or a register is
    /// written first: then it is spared.
    fn is_settled(&self) -> bool {
        false
    }

    /// Whether a doorbell, by its dword, is to be looked at as soon as it rings. One that is not is looked at in the next run.
    fn heeds(&self, _doorbell: usize) -> bool {
        true
    }

    /// A function reset: forgets all that a reset forgets, and touches no host memory once it [is at
    /// rest](Self::is_at_rest).
    fn function_reset(&mut self);

    /// Whether nothing of what was under way before the last reset touches the host's memory any more.
    fn is_at_rest(&self) -> bool {
        true
    }

    /// Who is to be woken when there is something to do that no doorbell tells of, while it
    /// [sleeps](Self::fall_asleep). It may be woken at other times too.
    fn set_waker(&mut self, _waker: Waker) {}

    /// Whoever runs this is going to sleep: from now until the next run, what there is to do wakes it. True if there is
    /// something already, so that it is not to sleep. Who is awake looks by itself, and is not to be bothered.
    fn fall_asleep(&mut self) -> bool {
        false
    }
}

/// What a [`SoftController`] reaches of its host.
pub struct Host<'a> {
    /// The host's memory, at the addresses the host gave.
    pub dma: &'a DmaView<'a>,
    /// The doorbells as the host last wrote them, from the first (SQ 0 tail) on, `doorbell_stride` bytes apart. They are
    /// zeroed by a function reset; what else resets a doorbell (disabling the controller, creating a queue) the
    /// controller zeroes itself.
    pub doorbells: &'a HostMemory,
    /// Raises an interrupt vector.
    pub interrupt: &'a dyn Fn(u16),
}

/// What came of a [`SoftController::run`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Whether anything was done: if so, there may be more to do.
    pub worked: bool,
    /// When it must run again even if nobody asks, in the time of `now`: a delayed completion, say.
    pub wake_at: Option<Duration>,
}
