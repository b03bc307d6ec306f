//! Going on with a controller that another driver has saved: enabled throughout, no command sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::{Access, DeviceError, DmaMemory};
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm};
use zerocopy::FromBytes;

use super::NvmeDriver;
use super::admin::Admin;
use super::bringup;
use super::core::{self, Core, Made};
use super::failure::Failure;
use super::inherited::{Inherited, InheritedCommand};
use super::issuers::Issuers;
use super::options::{CompletionMode, DriverOptions, HostId};
use super::queues;
use super::registers::Registers;
use super::service::{self, Served, Stop, Watched};
use super::shadow::Shadows;
use crate::error::{DriverError, NamespaceError};
use crate::memory::{DmaBuffer, GuestMemory, Layout};
use crate::queue::{Adopted, Crossing, QueuePair, Still, StillCommand, Token};
use crate::saved::{self, StateError};

/// Why a saved state cannot be gone on with. The controller is as it was: the state can be restored elsewhere, or the
/// controller brought up anew ([`DriverOptions::open`]).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
    /// Something in the state cannot be.
    #[error("the saved state makes no sense: {0}")]
    Nonsense(String),
    /// It is not the memory that the state speaks of.
    #[error("memory {index} is not the {len:#x} bytes at IOVA {iova:#x} that the state speaks of")]
    Memory {
        /// Which memory, of those in the state.
        index: usize,
        /// Where it was.
        iova: u64,
        /// Its bytes.
        len: u64,
    },
    /// The device is another, or is not running any more.
    #[error("the controller is not as it was left: {0}")]
    NotAsLeft(String),
    /// A namespace that was held.
    #[error("namespace {nsid}: {source}")]
    Namespace {
        /// Which.
        nsid: u32,
        /// What is wrong with it.
        source: NamespaceError,
    },
    /// The device could not be reached, or an option is out of range.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// A driver that goes on with another's controller.
#[derive(Debug)]
pub struct Restored {
    /// The driver. Handles for the namespaces that were held are had by [`NvmeDriver::namespace`], without a command.
    pub driver: NvmeDriver,
    /// Commands that were in flight, or whose results nobody had claimed. Those that are dropped are drained.
    pub commands: Vec<InheritedCommand>,
    /// Guest memory that was registered, in the order in which it was, and still is.
    pub guest_memory: Vec<GuestMemory>,
}

fn nonsense(what: impl Into<String>) -> RestoreError {
    RestoreError::Nonsense(what.into())
}

impl DriverOptions {
    /// Goes on with a controller that another driver has saved ([`NvmeDriver::save`]): this device is the same, and
    /// `memory` what the state speaks of, mapped for it as it was. How completions are found is as it was, too; other
    /// options are this driver's own.
    ///
    /// The other driver must not have gone on, nor go on after.
    ///
    /// # Errors
    /// [`RestoreError`]. The device was not touched then.
    pub async fn restore(self, state: &[u8], memory: Vec<DmaMemory>) -> Result<Restored, RestoreError> {
        self.check()?;
        let saved = saved::read(state)?;
        Restoring::new(saved, memory)?.restore(self)
    }
}

/// A state and its memory.
struct Restoring {
    saved: saved::Driver,
    memory: Vec<DmaMemory>,
    page_size: usize,
}

impl Restoring {
    fn new(saved: saved::Driver, memory: Vec<DmaMemory>) -> Result<Self, RestoreError> {
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

    fn memory(&self, index: u32) -> Result<&DmaMemory, RestoreError> {
        self.memory.get(index as usize).ok_or_else(|| nonsense(format!("memory {index}, which there is not")))
    }

    fn restore(self, mut options: DriverOptions) -> Result<Restored, RestoreError> {
        let saved = &self.saved;
        let identify = IdentifyController::read_from_bytes(&saved.identify);
        let identify = Box::new(identify.map_err(|_| nonsense("Identify Controller is not of 4096 bytes"))?);
        let nvm = Box::new(IdentifyControllerNvm::read_from_bytes(&saved.nvm).unwrap_or_default());
        let completion = match saved.completion {
            0 => CompletionMode::Interrupt,
            1 => CompletionMode::Polling,
            2 => CompletionMode::CallerPolls,
            3 => CompletionMode::Adaptive,
            other => return Err(nonsense(format!("way {other} of finding completions"))),
        };
        options.completion = completion;
        options.host_id = host_id(saved.host_id.as_ref())?;
        let registers = Registers::new(options.device.clone(), options.runtime.clone())?;
        if u64::from(registers.cap) != saved.cap {
            return Err(RestoreError::NotAsLeft("its capabilities (CAP) are others".into()));
        }
        let csts = registers.csts().map_err(DriverError::device("reading the controller's status"))?;
        if !csts.rdy() || csts.cfs() {
            return Err(RestoreError::NotAsLeft(format!("it is not running (CSTS {:#x})", u32::from(csts))));
        }

        let dstrd = registers.cap.dstrd();
        let shadows = match saved.shadows {
            Some(saved::Shadows { memory, active }) => {
                let shadows = Shadows::inherit(self.memory(memory)?.clone(), self.page_size, active);
                Some(shadows.ok_or_else(|| nonsense("shadow doorbells past the end of their memory"))?)
            }
            None => None,
        };
        let failure = Arc::new(Failure::default());
        let id = core::next_id();
        let buffers = Arc::default();
        let mut queues = Vec::new();
        for queue in &saved.queues {
            let still = self.still(queue, &buffers, id)?;
            let (pair, adopted) =
                self.adopt(&options, queue, still, failure.clone(), (completion, dstrd, shadows.as_ref()))?;
            queues.push((queue, Arc::new(pair), adopted));
        }
        let mut queues = queues.into_iter();
        let (_, admin_queue, admin_commands) =
            queues.next().filter(|(queue, ..)| queue.id == 0).ok_or_else(|| nonsense("no admin queue"))?;
        let queues: Vec<_> = queues.collect();

        let layout = bringup::layout(&identify, Layout::prps(self.page_size), saved.sgl);
        let limit = |queues: u32| u16::try_from(queues).unwrap_or(u16::MAX).max(1);
        let (queue_limit, most) = (limit(saved.queue_limit), limit(saved.queues_in_all));
        let core = Core::new(Made {
            id,
            page_size: self.page_size,
            layout,
            admin: Admin {
                queue: admin_queue.clone(),
                runtime: options.runtime.clone(),
                failure: failure.clone(),
                layout: Layout::prps(self.page_size),
                limit: options.admin_timeout,
            },
            registers,
            failure,
            identify,
            nvm,
            completion,
            shadows: shadows.clone(),
            issuers: Issuers::new(options.cpus, queue_limit, most),
            stop: Arc::new(Stop::default()),
            served_by_admin_vector: Arc::new(Served::new(admin_queue.clone())),
            buffers,
            options,
        });
        core.resets.store(saved.resets, Ordering::SeqCst);
        core.rescans.inherit(&saved.nsids);
        for feature in &saved.features {
            let fid = u8::try_from(feature.fid).map_err(|_| nonsense(format!("feature {:#x}", feature.fid)))?;
            core.remember_feature(FeatureId(fid), feature.nsid, feature.cdw11, &feature.data);
        }
        let guest_memory = self.guest_memory(&core)?;
        for namespace in &saved.namespaces {
            let (core, nsid) = (&core, namespace.nsid);
            core.inherit_namespace(namespace).map_err(|source| {
                core.namespaces.close();
                RestoreError::Namespace { nsid, source }
            })?;
        }
        self.go_on(core, admin_commands, queues, guest_memory)
    }

    /// From here on, the device's completions are this driver's.
    fn go_on(
        &self,
        core: Arc<Core>,
        admin_commands: Vec<Adopted>,
        queues: Vec<(&saved::Queue, Arc<QueuePair>, Vec<Adopted>)>,
        guest_memory: Vec<GuestMemory>,
    ) -> Result<Restored, RestoreError> {
        // What cannot fail any more comes after what can.
        let mut watched = Vec::new();
        let interrupts = matches!(core.completion, CompletionMode::Interrupt | CompletionMode::Adaptive);
        for (queue, pair, _) in &queues {
            let watch = match queue.vector {
                Some(vector) if vector != 0 && interrupts => Some(core.watch(vector)),
                _ => None,
            };
            let watch = watch.transpose().map_err(DriverError::command("waiting for interrupts"));
            watched.push((queue.vector, pair.clone(), watch.inspect_err(|_| core.namespaces.close())?));
        }
        let admin_watch = match core.device.interrupt_count() {
            0 => None,
            _ => Some(core.watch(0).map_err(|error| {
                core.namespaces.close();
                DriverError::command("waiting for interrupts")(error)
            })?),
        };
        if core.completion == CompletionMode::Polling {
            let gentle = false;
            service::start_poller(core.polled.clone(), core.stop.clone(), gentle).map_err(|source| {
                core.namespaces.close();
                DriverError::device("setting up polling")(DeviceError::Io { what: "starting a thread", source })
            })?;
        }

        let spawn = |name, watch: Option<Watched>, served| {
            let task = service::serve(served, watch, core.options.runtime.clone(), core.stop.clone());
            core.options.runtime.spawn(name, Box::pin(task));
        };
        spawn("admin completions", admin_watch, core.served_by_admin_vector.clone());
        for (vector, pair, watch) in watched {
            match watch {
                Some(watch) => spawn("I/O interrupts", Some(watch), Arc::new(Served::new(pair))),
                None if vector == Some(0) && interrupts => core.served_by_admin_vector.add(pair),
                None => core.polled.add(pair),
            }
        }
        core.issuers.inherit(queues.iter().map(|(queue, pair, _)| (queue.cpu, pair.clone())).collect());

        let mut inherited = Inherited::default();
        let mut commands = Vec::new();
        for (_, pair, adopted) in queues {
            for adopted in adopted {
                inherited.add(&pair, &adopted);
                if !adopted.orphaned {
                    commands.push(InheritedCommand::new(&core, &pair, adopted));
                }
            }
        }
        let mut requests = Vec::new();
        for adopted in admin_commands {
            if Core::is_event_request(0, adopted.command.cdw0.opcode()) && !adopted.orphaned {
                requests.push(adopted.token);
            } else if !adopted.orphaned {
                commands.push(InheritedCommand::new(&core, &core.admin.queue.clone(), adopted));
            }
        }
        core.hold_back(inherited);
        let driver = NvmeDriver::start(core.clone());
        self.go_on_with_events(&core, requests);
        // An interrupt may have come while nobody watched.
        core.queues().iter().for_each(|queue| while queue.drain() != 0 {});
        tracing::info!(commands = commands.len(), "took a controller over");
        Ok(Restored { driver, commands, guest_memory })
    }

    fn go_on_with_events(&self, core: &Arc<Core>, requests: Vec<Token>) {
        let missing = core.event_requests().saturating_sub(requests.len());
        for token in requests {
            let runtime = &core.options.runtime;
            runtime.spawn("async events", Box::pin(core.clone().watch_inherited_events(token)));
        }
        core.request_events(missing);
        for dw0 in &self.saved.events {
            core.inherit_event(*dw0);
        }
        let background = core.clone();
        core.options.runtime.spawn("rescan", Box::pin(async move { background.rescan_all().await }));
    }

    fn guest_memory(&self, core: &Arc<Core>) -> Result<Vec<GuestMemory>, RestoreError> {
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
    fn still(
        &self,
        queue: &saved::Queue,
        buffers: &Arc<crate::memory::Buffers>,
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

    fn adopt(
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
            // The admin queue has none.
            shadows: shadows.filter(|_| queue.id != 0).cloned(),
        };
        queues::adopt(&*options.device, shape, still, failure)
            .map_err(DriverError::device("a queue's doorbells"))?
            .map_err(of_queue)
    }
}

fn host_id(saved: Option<&saved::HostId>) -> Result<Option<HostId>, RestoreError> {
    let Some(saved::HostId { bytes }) = saved else { return Ok(None) };
    let short = <[u8; 8]>::try_from(&bytes[..]).map(HostId::Short);
    let id = short.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(HostId::Extended));
    id.map(Some).map_err(|_| nonsense(format!("a host identifier of {} bytes", bytes.len())))
}
