//! What a saved state says, in the driver's own terms. Nothing in it is believed.

use std::sync::Arc;

use doorbell_device::{Access, DmaMemory};

use super::{RestoreError, Restoring, nonsense};
use crate::driver::core::Core;
use crate::driver::failure::Failure;
use crate::driver::options::{CompletionMode, DriverOptions, HostId};
use crate::driver::queues;
use crate::driver::shadow::Shadows;
use crate::error::DriverError;
use crate::memory::{Buffers, DmaBuffer, GuestMemory};
use crate::queue::{Adopted, Crossing, QueuePair, Still, StillCommand, Token};
use crate::saved;

impl Restoring {
    pub(super) fn new(saved: saved::Driver, memory: Vec<DmaMemory>) -> Result<Self, RestoreError> {
        for (index, saved::Memory { iova, len }) in saved.memory.iter().enumerate() {
            let same = |memory: &DmaMemory| memory.iova() == *iova && memory.len() as u64 == *len;
            if !memory.get(index).is_some_and(same) {
                return Err(RestoreError::Memory { index, iova: *iova, len: *len });
            }
        }
        let page_size = usize::try_from(saved.page_size).unwrap_or(0);
        if !page_size.is_power_of_two() || !(4096..=4 << 20).contains(&page_size) {
            return Err(nonsense(format!("pages of {page_size:#x} bytes")));
        }
        Ok(Self { saved, memory, page_size })
    }

    pub(super) fn memory(&self, index: u32) -> Result<&DmaMemory, RestoreError> {
        self.memory.get(index as usize).ok_or_else(|| nonsense(format!("memory {index}, which there is not")))
    }

    pub(super) fn guest_memory(&self, core: &Arc<Core>) -> Result<Vec<GuestMemory>, RestoreError> {
        let mut registrations: Vec<_> = self.saved.registrations.iter().collect();
        registrations.sort_by_key(|registration| registration.key);
        let mut all = Vec::new();
        for registration in registrations {
            let mut builder = GuestMemory::builder();
            let mut mappings = Vec::new();
            for region in &registration.regions {
                let memory = self.memory(region.memory)?;
                let access = match (region.readable, region.writable) {
                    (true, true) => Access::ReadWrite,
                    (true, false) => Access::Read,
                    (false, true) => Access::Write,
                    (false, false) => return Err(nonsense("guest memory that nobody may use")),
                };
                builder = builder.region(region.gpa, memory.host().clone(), access);
                mappings.push(memory.clone());
            }
            let memory = builder.build().map_err(|error| nonsense(error.to_string()))?;
            all.push(core.inherit_registration(&memory, registration.key, mappings));
        }
        Ok(all)
    }

    /// What a queue was like.
    pub(super) fn still(
        &self,
        queue: &saved::Queue,
        buffers: &Arc<Buffers>,
        driver: u64,
    ) -> Result<Still, RestoreError> {
        let small = |what: &str, value: u32| {
            u16::try_from(value).map_err(|_| nonsense(format!("{what} {value} of queue {}", queue.id)))
        };
        let command = |command: &saved::Command| {
            let words = <[u64; 8]>::try_from(&command.words[..]).map_err(|_| nonsense("a command not of 8 words"))?;
            let state = match command.state() {
                saved::CommandState::InFlight => Crossing::InFlight,
                saved::CommandState::Orphaned => Crossing::Orphaned,
                saved::CommandState::Done => Crossing::Done,
            };
            let result = match state {
                Crossing::Done => {
                    <[u64; 2]>::try_from(&command.result[..]).map_err(|_| nonsense("a result not of 2 words"))?
                }
                Crossing::InFlight | Crossing::Orphaned => [0; 2],
            };
            let buffer = match command.buffer {
                Some(index) => {
                    let memory = self.memory(index)?.clone();
                    let len = usize::try_from(command.buffer_len).unwrap_or(usize::MAX).min(memory.len());
                    Some(DmaBuffer::new(buffers.lend(memory, len), len, driver))
                }
                None => None,
            };
            let token = Token { cid: small("identifier", command.identifier)? };
            Ok(StillCommand {
                token,
                state,
                words,
                result,
                tag: command.tag,
                registration: command.registration,
                sequence: command.sequence,
                pages: (command.first_page, command.pages),
                buffer,
            })
        };
        let identifiers = queue.identifiers.iter().map(|cid| small("identifier", *cid));
        Ok(Still {
            sq_tail: small("tail", queue.sq_tail)?,
            sq_head: small("head", queue.sq_head)?,
            cq_head: small("head", queue.cq_head)?,
            phase: queue.phase,
            submitted: queue.submitted,
            identifiers: identifiers.collect::<Result<_, _>>()?,
            commands: queue.commands.iter().map(command).collect::<Result<_, RestoreError>>()?,
        })
    }

    pub(super) fn adopt(
        &self,
        options: &DriverOptions,
        queue: &saved::Queue,
        still: Still,
        failure: Arc<Failure>,
        (completion, dstrd, shadows): (CompletionMode, u8, Option<&Arc<Shadows>>),
    ) -> Result<(QueuePair, Vec<Adopted>), RestoreError> {
        let of_queue = |what: &str| nonsense(format!("queue {}: {what}", queue.id));
        let place = |place: Option<saved::Place>| {
            let place = place.ok_or_else(|| of_queue("a ring that is nowhere"))?;
            let offset = usize::try_from(place.offset).map_err(|_| of_queue("a ring past the end of its memory"))?;
            Ok::<_, RestoreError>((self.memory(place.memory)?.clone(), offset))
        };
        let shape = queues::Inherited {
            id: u16::try_from(queue.id).map_err(|_| of_queue("its identifier"))?,
            depth: u16::try_from(queue.depth).map_err(|_| of_queue("its depth"))?,
            page_size: self.page_size,
            dstrd,
            submission: place(queue.submission)?,
            completion: place(queue.completion)?,
            lists: place(queue.lists)?,
            list_words: queue.list_words as usize,
            pool: self.memory(queue.pool)?.clone(),
            eager: queue.id == 0 || completion.looks_after_submitting(&*options.device),
            exclusive: queue.exclusive,
            // The admin queue has none.
            shadows: shadows.filter(|_| queue.id != 0).cloned(),
        };
        queues::adopt(&*options.device, shape, still, failure)
            .map_err(DriverError::device("a queue's doorbells"))?
            .map_err(of_queue)
    }
}

pub(super) fn host_id(saved: Option<&saved::HostId>) -> Result<Option<HostId>, RestoreError> {
    let Some(saved::HostId { bytes }) = saved else { return Ok(None) };
    let short = <[u8; 8]>::try_from(&bytes[..]).map(HostId::Short);
    let id = short.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(HostId::Extended));
    id.map(Some).map_err(|_| nonsense(format!("a host identifier of {} bytes", bytes.len())))
}
