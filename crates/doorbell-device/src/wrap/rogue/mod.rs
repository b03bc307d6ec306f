mod queues;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use nvme_spec::Completion;
use nvme_spec::registers::offset;
use zerocopy::FromBytes;

use super::{lock, on_unmap, pass_on};
use crate::inprocess::DmaSpace;
use crate::{Access, Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

use queues::Queues;

/// A controller that lies: it lets a test write completions of its own into the completion queues of the device it
/// wraps.
///
/// It finds the queues by listening: the admin queue from AQA, ACQ and CC.EN; the others from the commands that create
/// them, which it reads when the admin doorbell rings.
///
/// The device below does not know. It goes on writing where it was: the next completion it posts takes the place of
/// one that was [posted](Self::post) here, and a driver that has passed that place misses it until the queue comes
/// round. So it is with a real controller that lies; what the driver owes is to end in a defined state.
///
/// Looking for the end of a queue is a race with a device that runs in another thread. Use one that runs inline or
/// step by step.
///
/// ```
/// use doorbell_device::wrap::{Rogue, RogueError};
/// use doorbell_device::zero_work::ZeroWork;
/// use nvme_spec::Completion;
///
/// let device = Rogue::new(ZeroWork::new(Default::default())?);
/// let lie = Completion { cid: 0x1234, ..Completion::default() };
/// assert_eq!(device.post(1, lie), Err(RogueError::NoSuchQueue { qid: 1 }));
/// // A driver brings up the device and creates queue 1; then `post` writes into that queue.
/// # Ok::<(), doorbell_device::DeviceError>(())
/// ```
pub struct Rogue {
    device: Arc<dyn Device>,
    state: Arc<State>,
}

struct State {
    /// What is mapped, and no longer than that: nothing here keeps a mapping alive.
    space: Arc<DmaSpace>,
    queues: Mutex<Queues>,
}

/// A completion queue that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RogueQueue {
    /// Its identifier, 0 for the admin queue.
    pub qid: u16,
    /// Where it is.
    pub iova: u64,
    /// How many entries it has.
    pub entries: u32,
    /// The interrupt vector it signals.
    pub vector: Option<u16>,
}

/// Why a lie could not be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RogueError {
    /// No completion queue of that identifier was seen.
    #[error("completion queue {qid} was not seen being created")]
    NoSuchQueue {
        /// The identifier.
        qid: u16,
    },
    /// The queue's memory is not mapped.
    #[error("the memory of completion queue {qid} is not mapped")]
    NotMapped {
        /// The identifier.
        qid: u16,
    },
    /// No completion that many back was posted since the queue was created.
    #[error("completion queue {qid} has no completion {back} back")]
    NotPosted {
        /// The identifier.
        qid: u16,
        /// How many back from the latest.
        back: u32,
    },
}

impl Rogue {
    /// A liar on behalf of `device`.
    pub fn new(device: Arc<dyn Device>) -> Arc<Self> {
        let state = State { space: Arc::new(DmaSpace::new()), queues: Mutex::default() };
        Arc::new(Self { device, state: Arc::new(state) })
    }

    /// The completion queues that were found, in the order of their identifiers.
    pub fn queues(&self) -> Vec<RogueQueue> {
        lock(&self.state.queues).completion_queues()
    }

    /// Writes a completion at a queue's next position, with the phase that makes it valid, and signals the queue's
    /// interrupt. Everything else is as given. Returns the position.
    pub fn post(&self, qid: u16, completion: Completion) -> Result<u32, RogueError> {
        self.write_next(qid, |phase| Completion { status: completion.status.with_phase(phase), ..completion })
    }

    /// Writes 16 bytes at a queue's next position as they are, the phase included, and signals the interrupt.
    pub fn post_bytes(&self, qid: u16, bytes: [u8; 16]) -> Result<u32, RogueError> {
        self.write_next(qid, |_| Completion::read_from_bytes(&bytes).unwrap_or_default())
    }

    /// The completion `back` places before a queue's next position: 0 is the latest.
    pub fn posted(&self, qid: u16, back: u32) -> Result<Completion, RogueError> {
        let queue = self.queue(qid)?;
        let (index, _) = self.position_back(&queue, back)?;
        self.load(&queue, index)
    }

    /// Changes the completion `back` places before a queue's next position: 0 is the latest. The phase stays.
    pub fn rewrite(&self, qid: u16, back: u32, change: impl FnOnce(&mut Completion)) -> Result<(), RogueError> {
        let queue = self.queue(qid)?;
        let (index, phase) = self.position_back(&queue, back)?;
        let mut completion = self.load(&queue, index)?;
        change(&mut completion);
        completion.status = completion.status.with_phase(phase);
        self.store(&queue, index, completion)
    }

    fn write_next(&self, qid: u16, completion: impl FnOnce(bool) -> Completion) -> Result<u32, RogueError> {
        let queue = self.queue(qid)?;
        let (index, phase) = self.next_position(&queue)?;
        self.store(&queue, index, completion(phase))?;
        if let Some(interrupt) = queue.vector.and_then(|vector| self.device.interrupt(vector.into()).ok()) {
            interrupt.raise();
        }
        Ok(index)
    }

    fn queue(&self, qid: u16) -> Result<RogueQueue, RogueError> {
        lock(&self.state.queues).completion_queue(qid).ok_or(RogueError::NoSuchQueue { qid })
    }

    /// Where the device writes next, and with which phase: at the first entry that is not of this pass, which are those
    /// of the first entry's phase. Where all have one phase, a new pass begins (with a queue that is new and zeroed,
    /// the first, of phase 1).
    fn next_position(&self, queue: &RogueQueue) -> Result<(u32, bool), RogueError> {
        let first = self.load(queue, 0)?.status.phase();
        for index in 1..queue.entries {
            if self.load(queue, index)?.status.phase() != first {
                return Ok((index, first));
            }
        }
        Ok((0, !first))
    }

    /// The place `back` before the next, and the phase it was written with.
    fn position_back(&self, queue: &RogueQueue, back: u32) -> Result<(u32, bool), RogueError> {
        let not_posted = RogueError::NotPosted { qid: queue.qid, back };
        let (next, phase) = self.next_position(queue)?;
        if back < next {
            return Ok((next - 1 - back, phase));
        }
        // Of the pass before, if there was one: a place where none was written is zeroes.
        let index = (next + queue.entries).checked_sub(back.saturating_add(1)).filter(|index| *index >= next);
        let index = index.ok_or(not_posted)?;
        if self.load(queue, index)? == Completion::default() { Err(not_posted) } else { Ok((index, !phase)) }
    }

    fn load(&self, queue: &RogueQueue, index: u32) -> Result<Completion, RogueError> {
        self.with_entry(queue, index, |[low, high]| {
            let high = high.load(Ordering::Acquire);
            Completion::from_words([low.load(Ordering::Relaxed), high])
        })
    }

    fn store(&self, queue: &RogueQueue, index: u32, completion: Completion) -> Result<(), RogueError> {
        self.with_entry(queue, index, |[low, high]| {
            let words = completion.to_words();
            low.store(words[0], Ordering::Relaxed);
            high.store(words[1], Ordering::Release);
        })
    }

    fn with_entry<T>(
        &self,
        queue: &RogueQueue,
        index: u32,
        f: impl FnOnce(&[AtomicU64; 2]) -> T,
    ) -> Result<T, RogueError> {
        let view = self.state.space.view();
        let at = queue.iova.checked_add(u64::from(index) * 16);
        let found = at.filter(|at| at.is_multiple_of(8)).and_then(|at| view.resolve(at, 16, Access::Write).ok());
        let entry = found.and_then(|(host, offset)| host.words().get(offset / 8..)?.first_chunk::<2>());
        entry.map(f).ok_or(RogueError::NotMapped { qid: queue.qid })
    }

    fn mapped(&self, memory: DmaMemory, access: Access) -> Result<DmaMemory, DeviceError> {
        let (iova, len) = (memory.iova(), memory.len() as u64);
        self.state.space.insert(iova, memory.host().clone(), access)?;
        let space = self.state.space.clone();
        Ok(on_unmap(memory, move || {
            // It was inserted above, once, and is removed here alone.
            let _ = space.remove(iova, len);
        }))
    }
}

impl State {
    fn doorbell_rings(&self, offset: usize, value: u32) {
        if offset == offset::DOORBELLS {
            lock(&self.queues).admin_rings(value, &self.space);
        }
    }
}

impl Device for Rogue {
    pass_on! {
        address() -> String;
        read32(offset: usize) -> Result<u32, DeviceError>;
        read64(offset: usize) -> Result<u64, DeviceError>;
        doorbells_are_slow() -> bool;
        interrupt_count() -> u32;
        completes_inline() -> bool;
        loss() -> Option<Interrupt>;
        check_present() -> Result<(), DeviceError>;
        may_return() -> bool;
        release() -> Result<(), DeviceError>;
        interrupt(vector: u32) -> Result<Interrupt, DeviceError>;
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.state.doorbell_rings(offset, value);
        lock(&self.state.queues).wrote(offset, value);
        self.device.write32(offset, value)
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        {
            let mut queues = lock(&self.state.queues);
            queues.wrote(offset, value as u32);
            queues.wrote(offset.saturating_add(4), (value >> 32) as u32);
        }
        self.device.write64(offset, value)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        let inner = self.device.doorbell(offset)?;
        if offset != offset::DOORBELLS {
            return Ok(inner);
        }
        let state = self.state.clone();
        Ok(Doorbell::from_fn(move |value| {
            state.doorbell_rings(offset, value);
            inner.ring(value);
        }))
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let access = request.access;
        self.mapped(self.device.map(request)?, access)
    }

    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        self.mapped(self.device.allocate(len, align)?, Access::ReadWrite)
    }

    fn reset(&self) -> Result<(), DeviceError> {
        *lock(&self.state.queues) = Queues::default();
        self.device.reset()
    }
}

impl fmt::Debug for Rogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rogue").field("device", &self.address()).field("queues", &self.queues()).finish()
    }
}
