//! Handing a driver's controller to another process: held still, described, and let go.

use std::sync::{Arc, PoisonError};

use doorbell_device::DmaMemory;
use nvme_spec::AdminOpcode;
use zerocopy::IntoBytes;

use super::core::{ControllerState, Core, FeatureSet};
use super::events::ControllerEvent;
use super::options::HostId;
use crate::error::Lost;
use crate::queue::{Crossing, QueuePair, Still, StillCommand};
use crate::saved::{self, Place};

/// Why a driver cannot be saved just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotYet {
    /// It was shut down, given up, or handed over.
    #[error("the controller takes no more commands")]
    Ended,
    /// It is being saved already.
    #[error("the controller is being saved already")]
    Saving,
    /// It is being reset, or is about to be.
    #[error("the controller is being reset")]
    Recovering,
    /// The first I/O of a CPU is having its queue made.
    #[error("an I/O queue is being made")]
    MakingQueue,
    /// Guest memory is being unregistered.
    #[error("guest memory is being unregistered")]
    Unregistering,
    /// A queue that the device would not take back: what it does with its memory is not known.
    #[error("a queue could not be deleted, which ends with the next reset")]
    HalfMadeQueue,
}

/// A controller that is held still, and all that is known of it: the device works on, but nothing more is sent, and no
/// result reaches anybody.
///
/// [`hand_over`](Self::hand_over) lets another driver have it, one that was made of [`state`](Self::state) and
/// [`memory`](Self::memory) by [`DriverOptions::restore`](crate::DriverOptions::restore). Dropped instead, this driver goes on,
/// as if nothing had happened.
#[must_use = "dropped, it lets the driver go on"]
pub struct Saved {
    core: Option<Arc<Core>>,
    state: Vec<u8>,
    memory: Vec<DmaMemory>,
}

impl Saved {
    /// The state, for any process with this version of the driver or a later one.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    /// The memory that the device reaches and the state speaks of, in its order: rings, bounce buffers, guest memory.
    #[must_use]
    pub fn memory(&self) -> &[DmaMemory] {
        &self.memory
    }

    /// Lets go: the other driver has the controller. All that was pending here ends with
    /// [`RequestError::HandedOver`](crate::RequestError::HandedOver), and registers are not touched any more. Mappings go with
    /// the last [`DmaMemory`] that names them, so the other driver's must be there by now.
    pub fn hand_over(mut self) {
        if let Some(core) = self.core.take() {
            core.let_go();
        }
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Some(core) = self.core.take() {
            core.queues().iter().for_each(|queue| queue.thaw());
            core.set_held_still(false);
        }
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Saved").field("state", &self.state.len()).field("memory", &self.memory.len()).finish()
    }
}

/// Memory in the order in which it is named.
#[derive(Default)]
struct Memories(Vec<DmaMemory>);

impl Memories {
    fn index(&mut self, memory: &DmaMemory) -> u32 {
        let same = |known: &DmaMemory| known.iova() == memory.iova() && known.len() == memory.len();
        let index = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.push(memory.clone());
            self.0.len().saturating_sub(1)
        });
        index as u32
    }

    fn place(&mut self, (memory, offset): (&DmaMemory, usize)) -> Place {
        Place { memory: self.index(memory), offset: offset as u64 }
    }
}

impl Core {
    /// Holds everything still and describes it.
    pub(crate) fn save(self: &Arc<Self>) -> Result<Saved, NotYet> {
        if !self.set_held_still(true) {
            return Err(NotYet::Saving);
        }
        match self.hold_still() {
            Ok((state, memory)) => Ok(Saved { core: Some(self.clone()), state: saved::write(&state), memory }),
            Err(not_yet) => {
                self.queues().iter().for_each(|queue| queue.thaw());
                self.set_held_still(false);
                Err(not_yet)
            }
        }
    }

    fn hold_still(&self) -> Result<(saved::Driver, Vec<DmaMemory>), NotYet> {
        if self.state() != ControllerState::Running {
            return Err(NotYet::Ended);
        }
        if self.is_recovering() || self.failure.reason().is_some() {
            return Err(NotYet::Recovering);
        }
        let made = self.issuers.made()?;
        if !self.condemned().is_empty() {
            return Err(NotYet::HalfMadeQueue);
        }
        let mut memories = Memories::default();
        let registrations = self.registrations.save(|memory| memories.index(memory)).ok_or(NotYet::Unregistering)?;
        let mut queues = Vec::new();
        for (cpu, queue) in std::iter::once(&(0, self.admin.queue.clone())).chain(&made) {
            let still = queue.freeze().ok_or(NotYet::Recovering)?;
            queues.push(self.save_queue(*cpu, queue, still, &mut memories).ok_or(NotYet::Recovering)?);
        }
        // A fault that was found before all of it was still.
        if self.failure.reason().is_some() {
            return Err(NotYet::Recovering);
        }
        let features = self.features.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let feature = |set: FeatureSet| saved::Feature {
            fid: set.fid.0.into(),
            nsid: set.nsid,
            cdw11: set.cdw11,
            data: set.data,
        };
        let shadows = self.shadows.as_ref().map(|shadows| {
            let (memory, active) = shadows.memory();
            saved::Shadows { memory: memories.index(memory), active }
        });
        let memory = memories.0.iter().map(|m| saved::Memory { iova: m.iova(), len: m.len() as u64 }).collect();
        let state = saved::Driver {
            identify: self.identify.as_bytes().to_vec(),
            nvm: self.nvm.as_bytes().to_vec(),
            cap: self.registers.cap.into(),
            page_size: self.page_size as u64,
            sgl: self.layout.sgl,
            queue_limit: self.issuers.limit().into(),
            completion: self.completion as u32,
            host_id: self.options.host_id.map(|id| match id {
                HostId::Short(bytes) => saved::HostId { bytes: bytes.to_vec() },
                HostId::Extended(bytes) => saved::HostId { bytes: bytes.to_vec() },
            }),
            features: features.into_iter().map(feature).collect(),
            memory,
            queues,
            registrations,
            namespaces: self.namespaces.held().iter().map(|held| held.save()).collect(),
            nsids: self.rescans.listed(),
            events: self.events.unhandled(),
            resets: self.resets.load(std::sync::atomic::Ordering::SeqCst),
            shadows,
            queues_in_all: self.issuers.most().into(),
            version: self.registers.version.into(),
            crto: self.registers.crto.into(),
            interrupt_coalescing: self.options.interrupt_coalescing.map(u32::from),
        };
        Ok((state, memories.0))
    }

    fn save_queue(&self, cpu: u32, queue: &QueuePair, still: Still, memories: &mut Memories) -> Option<saved::Queue> {
        let ([submission, completion, lists], pool) = queue.memory()?;
        let commands = still.commands.iter().map(|command| self.save_command(queue, command, memories)).collect();
        Some(saved::Queue {
            id: queue.id().into(),
            depth: queue.depth().into(),
            vector: if queue.id() == 0 || queue.is_exclusive() { None } else { self.vector_of(queue.id()) },
            cpu,
            submission: Some(memories.place(submission)),
            completion: Some(memories.place(completion)),
            lists: Some(memories.place(lists)),
            list_words: queue.list_words() as u32,
            pool: memories.index(pool),
            sq_tail: still.sq_tail.into(),
            sq_head: still.sq_head.into(),
            cq_head: still.cq_head.into(),
            phase: still.phase,
            submitted: still.submitted,
            identifiers: still.identifiers.into_iter().map(u32::from).collect(),
            commands,
            exclusive: queue.is_exclusive(),
        })
    }

    fn save_command(&self, queue: &QueuePair, command: &StillCommand, memories: &mut Memories) -> saved::Command {
        let (first_page, pages) = command.pages;
        let state = match command.state {
            Crossing::InFlight => saved::CommandState::InFlight,
            Crossing::Orphaned => saved::CommandState::Orphaned,
            Crossing::Done => saved::CommandState::Done,
        };
        // Without a registration and without pages, what data there is is a buffer's.
        let straight = queue.id() != 0 && command.registration == 0 && pages == 0;
        let [_, _, _, address, ..] = command.words;
        let buffer = if straight { self.buffers.find(address) } else { None };
        saved::Command {
            identifier: command.token.cid.into(),
            state: state.into(),
            words: command.words.to_vec(),
            // Until it is there, it is what the slot's last command left.
            result: if command.state == Crossing::Done { command.result.to_vec() } else { Vec::new() },
            tag: command.tag,
            registration: command.registration,
            sequence: command.sequence,
            first_page,
            pages,
            buffer: buffer.as_ref().map(|(memory, _)| memories.index(memory)),
            buffer_len: buffer.map_or(0, |(_, len)| len as u64),
        }
    }

    /// Another driver has it: nothing of it is touched any more.
    fn let_go(&self) {
        self.set_state(ControllerState::HandedOver);
        self.issuers.wake_all();
        self.queues().iter().for_each(|queue| queue.give_up(Lost::HandedOver));
        self.namespaces.close();
        self.stop.stop();
        self.events.tell(&ControllerEvent::Gone);
        self.set_held_still(false);
        // What interrupted while it was held still was seen here, and not heard there.
        for vector in 0..self.device.interrupt_count() {
            if let Ok(interrupt) = self.device.interrupt(vector) {
                interrupt.raise();
            }
        }
        tracing::info!("the controller was handed over");
    }

    /// Whether a command is an Asynchronous Event Request.
    pub(crate) fn is_event_request(queue: u16, opcode: u8) -> bool {
        queue == 0 && opcode == AdminOpcode::ASYNC_EVENT_REQUEST.0
    }
}
