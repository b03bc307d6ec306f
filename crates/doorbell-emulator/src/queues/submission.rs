use std::sync::atomic::Ordering;

use doorbell_device::Access;
use doorbell_device::inprocess::{DmaFault, DmaView, Host};
use nvme_spec::Command;

use super::distance;
use super::doorbell::{DoorbellSlot, InvalidDoorbell, Shadow, ShadowBuffers, clear, register};
use super::window::Window;
use crate::saved::{StateError, bad, narrow, state};

/// Bytes of a submission queue entry.
const SQE: u64 = 64;
/// Commands from which on a queue's memory is looked up for all of them together.
const BATCH: u32 = 4;

/// A submission queue.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    pub(crate) id: u16,
    pub(crate) cqid: u16,
    base: u64,
    size: u32,
    head: u32,
    pub(super) tail: u32,
    /// Which dword of the doorbells is the tail.
    doorbell: usize,
    pub(super) shadow: Option<Shadow>,
    /// It is being deleted: no more commands are taken.
    closed: bool,
    /// An invalid value of the doorbell, reported already.
    reported: Option<u32>,
    window: Window,
}

impl SubmissionQueue {
    pub(crate) fn new(host: &Host<'_>, id: u16, cqid: u16, base: u64, size: u32, slot: DoorbellSlot) -> Self {
        clear(host.doorbells, slot.dword());
        Self {
            id,
            cqid,
            base,
            size,
            head: 0,
            tail: 0,
            doorbell: slot.dword(),
            shadow: None,
            closed: false,
            reported: None,
            window: Window::default(),
        }
    }

    /// Looks at the doorbell.
    #[inline]
    pub(crate) fn refresh(&mut self, host: &Host<'_>) -> Result<Result<(), InvalidDoorbell>, DmaFault> {
        if self.closed {
            return Ok(Ok(()));
        }
        let value = match &mut self.shadow {
            None => register(host.doorbells, self.doorbell),
            Some(shadow) => {
                let mut value = shadow.read(host.dma)?;
                if value == self.head && shadow.arm(host.dma, value)? {
                    value = shadow.read(host.dma)?;
                }
                value
            }
        };
        if value < self.size {
            self.tail = value;
            self.reported = None;
            return Ok(Ok(()));
        }
        let known = self.reported.replace(value) == Some(value);
        Ok(if known { Ok(()) } else { Err(InvalidDoorbell) })
    }

    /// Takes no more commands from it.
    pub(crate) fn take_no_more(&mut self) {
        self.closed = true;
        self.tail = self.head;
    }

    /// Whether no more are taken.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    #[inline]
    pub(crate) fn head(&self) -> u16 {
        self.head as u16
    }

    /// Prepares for taking several commands; false if there are not.
    #[inline]
    pub(crate) fn open(&mut self, dma: &DmaView<'_>) -> bool {
        let pays = distance(self.head, self.tail, self.size) >= BATCH;
        if pays {
            self.window.open(dma, self.base, u64::from(self.size).saturating_mul(SQE), Access::Read);
        }
        pays
    }

    /// The end of that.
    #[inline]
    pub(crate) fn close(&mut self) {
        self.window.close();
    }

    /// Copies the next command, without taking it.
    #[inline(always)]
    pub(crate) fn peek(&self, dma: &DmaView<'_>) -> Result<Command, DmaFault> {
        let at = u64::from(self.head).saturating_mul(SQE);
        if let Some(words) = self.window.words(at, 8)
            && let Ok([a, b, c, d, e, f, g, h]) = <&[_; 8]>::try_from(words)
        {
            return Ok(Command::from_words([a, b, c, d, e, f, g, h].map(|word| word.load(Ordering::Relaxed))));
        }
        self.look_up(dma, self.base.wrapping_add(at))
    }

    #[inline(always)]
    fn look_up(&self, dma: &DmaView<'_>, address: u64) -> Result<Command, DmaFault> {
        let (memory, offset) = dma.resolve(address, SQE as usize, Access::Read)?;
        let first = offset / 8;
        if let Some(words) = memory.words().get(first..first.saturating_add(8))
            && let Ok([a, b, c, d, e, f, g, h]) = <&[_; 8]>::try_from(words)
        {
            return Ok(Command::from_words([a, b, c, d, e, f, g, h].map(|word| word.load(Ordering::Relaxed))));
        }
        let mut words = [0; 8];
        dma.read(address, zerocopy::IntoBytes::as_mut_bytes(&mut words))?;
        Ok(Command::from_words(words))
    }

    /// Takes the command that was peeked at.
    #[inline]
    pub(crate) fn advance(&mut self) {
        self.head = self.head.wrapping_add(1);
        if self.head >= self.size {
            self.head = 0;
        }
    }
}

impl SubmissionQueue {
    pub(crate) fn save(&self) -> state::SubmissionQueue {
        state::SubmissionQueue {
            id: self.id.into(),
            cqid: self.cqid.into(),
            base: self.base,
            size: self.size,
            head: self.head,
            tail: self.tail,
            closed: self.closed,
            reported: self.reported,
            published: self.shadow.map(|shadow| shadow.published),
        }
    }

    /// As it was, of a controller with these shadow doorbells.
    pub(crate) fn restore(
        saved: state::SubmissionQueue,
        dstrd: u8,
        buffers: Option<ShadowBuffers>,
    ) -> Result<Self, StateError> {
        let state::SubmissionQueue { id, cqid, base, size, head, tail, closed, reported, published } = saved;
        if size < 2 || head >= size || tail >= size {
            return bad(format!("submission queue {id} of {size} entries from {head} to {tail}"));
        }
        let id = narrow("submission queue", id)?;
        let slot = DoorbellSlot::tail(id, dstrd);
        Ok(Self {
            id,
            cqid: narrow("completion queue", cqid)?,
            base,
            size,
            head,
            tail,
            doorbell: slot.dword(),
            shadow: slot.restore(buffers, published),
            closed,
            reported,
            window: Window::default(),
        })
    }
}
