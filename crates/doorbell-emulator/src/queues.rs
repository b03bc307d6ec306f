//! Submission and completion queues, as the controller sees them: where they are, how far each side has come.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use doorbell_device::inprocess::{DmaFault, DmaView, Host};
use doorbell_device::{Access, HostMemory};
use nvme_spec::registers::doorbell_stride;
use nvme_spec::{Command, Completion};

/// Bytes of a submission queue entry and of a completion queue entry.
const SQE: u64 = 64;
const CQE: u64 = 16;

/// A submission queue.
#[derive(Debug)]
pub(crate) struct SubmissionQueue {
    pub(crate) id: u16,
    pub(crate) cqid: u16,
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    /// Which dword of the doorbells is the tail.
    doorbell: usize,
    shadow: Option<Shadow>,
    /// An invalid value of the doorbell, reported already.
    reported: Option<u32>,
}

/// A completion queue.
#[derive(Debug)]
pub(crate) struct CompletionQueue {
    pub(crate) vector: u16,
    pub(crate) interrupts: bool,
    /// How many submission queues use it.
    pub(crate) users: u32,
    base: u64,
    size: u32,
    head: u32,
    tail: u32,
    phase: bool,
    doorbell: usize,
    shadow: Option<Shadow>,
    reported: Option<u32>,
    /// Completions that found the queue full.
    pub(crate) backlog: VecDeque<Completion>,
}

/// A doorbell in the host's memory (NVMe Base 2.0, "Doorbell Buffer Config command").
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shadow {
    value: u64,
    event_index: u64,
    /// The event index as last written.
    published: u32,
}

/// The buffers of Doorbell Buffer Config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShadowBuffers {
    pub(crate) values: u64,
    pub(crate) event_indices: u64,
    /// Bytes of each: doorbells behind the end, which a large stride brings there, have no shadow.
    pub(crate) len: u32,
}

/// A doorbell was given a value that its queue cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidDoorbell;

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// The submission queues there are, the admin queue first.
    pub(crate) submission: Vec<SubmissionQueue>,
    /// The completion queues, by identifier.
    pub(crate) completion: Vec<Option<CompletionQueue>>,
    pub(crate) shadow: Option<ShadowBuffers>,
}

/// Where a doorbell is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DoorbellSlot {
    index: usize,
    stride: usize,
}

impl DoorbellSlot {
    pub(crate) fn tail(qid: u16, dstrd: u8) -> Self {
        Self { index: usize::from(qid).saturating_mul(2), stride: doorbell_stride(dstrd) }
    }

    pub(crate) fn head(qid: u16, dstrd: u8) -> Self {
        Self { index: usize::from(qid).saturating_mul(2).saturating_add(1), stride: doorbell_stride(dstrd) }
    }

    fn offset(self) -> usize {
        self.index.saturating_mul(self.stride)
    }

    fn dword(self) -> usize {
        self.offset() / 4
    }

    fn shadow(self, buffers: ShadowBuffers) -> Option<Shadow> {
        let offset = self.offset() as u64;
        if offset >= u64::from(buffers.len) {
            return None;
        }
        Some(Shadow {
            value: buffers.values.wrapping_add(offset),
            event_index: buffers.event_indices.wrapping_add(offset),
            published: u32::MAX,
        })
    }
}

impl Shadow {
    fn read(&self, dma: &DmaView<'_>) -> Result<u32, DmaFault> {
        let (memory, offset) = dma.resolve(self.value, 4, Access::Read)?;
        if let Some(word) = memory.dwords().get(offset / 4) {
            return Ok(word.load(Ordering::Acquire));
        }
        let mut bytes = [0; 4];
        dma.read(self.value, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write(&self, dma: &DmaView<'_>, address: u64, value: u32) -> Result<(), DmaFault> {
        let (memory, offset) = dma.resolve(address, 4, Access::Write)?;
        if let Some(word) = memory.dwords().get(offset / 4) {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    /// Asks to be told by a real doorbell once the shadow moves past `index`. True if the index was not that before:
    /// then the shadow has to be read again, for what the host wrote before it saw this.
    fn arm(&mut self, dma: &DmaView<'_>, index: u32) -> Result<bool, DmaFault> {
        if self.published == index {
            return Ok(false);
        }
        self.write(dma, self.event_index, index)?;
        self.published = index;
        doorbell_device::mb();
        Ok(true)
    }
}

/// The doorbell as the host last wrote it.
#[inline]
fn register(doorbells: &HostMemory, dword: usize) -> u32 {
    doorbells.dwords().get(dword).map_or(0, |doorbell| doorbell.load(Ordering::Acquire))
}

fn clear(doorbells: &HostMemory, dword: usize) {
    if let Some(doorbell) = doorbells.dwords().get(dword) {
        doorbell.store(0, Ordering::Relaxed);
    }
}

impl SubmissionQueue {
    pub(crate) fn new(host: &Host<'_>, id: u16, cqid: u16, base: u64, size: u32, slot: DoorbellSlot) -> Self {
        clear(host.doorbells, slot.dword());
        Self { id, cqid, base, size, head: 0, tail: 0, doorbell: slot.dword(), shadow: None, reported: None }
    }

    /// Looks at the doorbell.
    #[inline]
    pub(crate) fn refresh(&mut self, host: &Host<'_>) -> Result<Result<(), InvalidDoorbell>, DmaFault> {
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

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    #[inline]
    pub(crate) fn head(&self) -> u16 {
        self.head as u16
    }

    /// Copies the next command, without taking it.
    #[inline]
    pub(crate) fn peek(&self, dma: &DmaView<'_>) -> Result<Command, DmaFault> {
        let address = self.base.wrapping_add(u64::from(self.head).saturating_mul(SQE));
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

impl CompletionQueue {
    pub(crate) fn new(host: &Host<'_>, base: u64, size: u32, vector: Option<u16>, slot: DoorbellSlot) -> Self {
        clear(host.doorbells, slot.dword());
        Self {
            vector: vector.unwrap_or_default(),
            interrupts: vector.is_some(),
            users: 0,
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            doorbell: slot.dword(),
            shadow: None,
            reported: None,
            backlog: VecDeque::new(),
        }
    }

    /// Looks at the doorbell.
    #[inline]
    pub(crate) fn refresh(&mut self, host: &Host<'_>) -> Result<Result<(), InvalidDoorbell>, DmaFault> {
        let value = match &mut self.shadow {
            None => register(host.doorbells, self.doorbell),
            Some(shadow) => {
                let mut value = shadow.read(host.dma)?;
                // Nothing depends on the head unless the queue is full.
                if next(self.tail, self.size) == value && shadow.arm(host.dma, value)? {
                    value = shadow.read(host.dma)?;
                }
                value
            }
        };
        if value == self.head {
            return Ok(Ok(()));
        }
        // The head moves only over entries that were posted.
        let posted = distance(self.head, self.tail, self.size);
        if value < self.size && distance(self.head, value, self.size) <= posted {
            self.head = value;
            self.reported = None;
            return Ok(Ok(()));
        }
        let known = self.reported.replace(value) == Some(value);
        Ok(if known { Ok(()) } else { Err(InvalidDoorbell) })
    }

    /// Whether an entry can be posted.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        !self.is_full() && self.backlog.is_empty()
    }

    /// Whether there is a place left in the queue.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        next(self.tail, self.size) == self.head
    }

    /// Whether the host has entries to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Posts an entry, for which there is room. Its second word, with the phase tag, is written last.
    #[inline]
    pub(crate) fn post(&mut self, dma: &DmaView<'_>, completion: Completion) -> Result<(), DmaFault> {
        let address = self.base.wrapping_add(u64::from(self.tail).saturating_mul(CQE));
        let (memory, offset) = dma.resolve(address, CQE as usize, Access::Write)?;
        let phase = completion.status.phase() ^ self.phase;
        let completion = Completion { status: completion.status.with_phase(phase), ..completion };
        let [low, high] = completion.to_words();
        let first = offset / 8;
        if let Some([word0, word1]) = memory.words().get(first..first.saturating_add(2)) {
            word0.store(low, Ordering::Relaxed);
            word1.store(high, Ordering::Release);
        }
        self.tail = next(self.tail, self.size);
        if self.tail == 0 {
            self.phase = !self.phase;
        }
        Ok(())
    }
}

#[inline]
fn next(index: u32, size: u32) -> u32 {
    let next = index.wrapping_add(1);
    if next >= size { 0 } else { next }
}

/// How far it is from one index to another, forwards.
#[inline]
fn distance(from: u32, to: u32, size: u32) -> u32 {
    if to >= from { to.wrapping_sub(from) } else { to.wrapping_add(size).wrapping_sub(from) }
}

impl Queues {
    pub(crate) fn clear(&mut self) {
        self.submission.clear();
        self.completion.clear();
        self.shadow = None;
    }

    pub(crate) fn find_submission(&self, qid: u16) -> Option<usize> {
        self.submission.iter().position(|queue| queue.id == qid)
    }

    #[inline]
    pub(crate) fn completion(&mut self, qid: u16) -> Option<&mut CompletionQueue> {
        self.completion.get_mut(usize::from(qid))?.as_mut()
    }

    /// Makes doorbell buffers those of all I/O queues, and writes the present values to them.
    pub(crate) fn set_shadow(&mut self, dma: &DmaView<'_>, dstrd: u8, buffers: ShadowBuffers) -> Result<(), DmaFault> {
        self.shadow = Some(buffers);
        for queue in self.submission.iter_mut().filter(|queue| queue.id != 0) {
            queue.shadow = start(dma, DoorbellSlot::tail(queue.id, dstrd), buffers, queue.tail)?;
        }
        for (id, queue) in (0..).zip(&mut self.completion).skip(1) {
            if let Some(queue) = queue {
                queue.shadow = start(dma, DoorbellSlot::head(id, dstrd), buffers, queue.head)?;
            }
        }
        Ok(())
    }

    /// Adds a submission queue.
    pub(crate) fn add_submission(
        &mut self,
        dma: &DmaView<'_>,
        dstrd: u8,
        mut queue: SubmissionQueue,
    ) -> Result<(), DmaFault> {
        if let Some(buffers) = self.shadow.filter(|_| queue.id != 0) {
            queue.shadow = start(dma, DoorbellSlot::tail(queue.id, dstrd), buffers, 0)?;
        }
        if let Some(completion) = self.completion(queue.cqid) {
            completion.users = completion.users.saturating_add(1);
        }
        self.submission.push(queue);
        Ok(())
    }

    /// Adds a completion queue.
    pub(crate) fn add_completion(
        &mut self,
        dma: &DmaView<'_>,
        dstrd: u8,
        qid: u16,
        mut queue: CompletionQueue,
    ) -> Result<(), DmaFault> {
        if let Some(buffers) = self.shadow.filter(|_| qid != 0) {
            queue.shadow = start(dma, DoorbellSlot::head(qid, dstrd), buffers, 0)?;
        }
        let index = usize::from(qid);
        if self.completion.len() <= index {
            self.completion.resize_with(index.saturating_add(1), || None);
        }
        if let Some(slot) = self.completion.get_mut(index) {
            *slot = Some(queue);
        }
        Ok(())
    }
}

/// Puts a shadow doorbell to use, from a value on.
fn start(
    dma: &DmaView<'_>,
    slot: DoorbellSlot,
    buffers: ShadowBuffers,
    value: u32,
) -> Result<Option<Shadow>, DmaFault> {
    let Some(mut shadow) = slot.shadow(buffers) else { return Ok(None) };
    shadow.write(dma, shadow.value, value)?;
    shadow.arm(dma, value)?;
    Ok(Some(shadow))
}
