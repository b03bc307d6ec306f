//! Going on with a controller that another driver has saved: enabled throughout, no command sent.

mod parts;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::{DeviceError, DmaMemory};
use nvme_spec::AdminOpcode;
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm};
use zerocopy::FromBytes;

use self::parts::host_id;
use super::NvmeDriver;
use super::admin::Admin;
use super::bringup;
use super::core::{self, Core, Made};
use super::failure::Failure;
use super::inherited::{Inherited, InheritedCommand};
use super::issuers::Issuers;
use super::options::{CompletionMode, DriverOptions};
use super::registers::Registers;
use super::service::{self, Served, Stop};
use super::shadow::Shadows;
use crate::error::{DriverError, NamespaceError};
use crate::memory::{GuestMemory, Layout};
use crate::queue::{Adopted, QueuePair, Token};
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
        let restored = self.go_on(&core, admin_commands, queues, guest_memory);
        // Handles that nobody has asked for would keep the driver alive.
        restored.inspect_err(|_| core.namespaces.close())
    }

    /// From here on, the device's completions are this driver's.
    fn go_on(
        &self,
        core: &Arc<Core>,
        admin_commands: Vec<Adopted>,
        queues: Vec<(&saved::Queue, Arc<QueuePair>, Vec<Adopted>)>,
        guest_memory: Vec<GuestMemory>,
    ) -> Result<Restored, RestoreError> {
        // What cannot fail any more comes after what can.
        for namespace in &self.saved.namespaces {
            let nsid = namespace.nsid;
            core.inherit_namespace(namespace).map_err(|source| RestoreError::Namespace { nsid, source })?;
        }
        let interrupts = matches!(core.completion, CompletionMode::Interrupt | CompletionMode::Adaptive);
        let attendance = |(queue, ..): &(&saved::Queue, _, _)| core.attendance(queue.vector.filter(|_| interrupts));
        let attendances: Result<Vec<_>, _> = queues.iter().map(attendance).collect();
        let attendances = attendances.map_err(DriverError::command("waiting for interrupts"))?;
        let admin_watch = match core.device.interrupt_count() {
            0 => None,
            _ => Some(core.watch(0).map_err(DriverError::command("waiting for interrupts"))?),
        };
        if core.completion == CompletionMode::Polling {
            let gentle = false;
            service::start_poller(core.polled.clone(), core.stop.clone(), gentle).map_err(|source| {
                DriverError::device("setting up polling")(DeviceError::Io { what: "starting a thread", source })
            })?;
        }

        core.serve("admin completions", core.served_by_admin_vector.clone(), admin_watch);
        for ((_, pair, _), attendance) in queues.iter().zip(attendances) {
            core.attend(pair.clone(), attendance);
        }
        core.issuers.inherit(queues.iter().map(|(queue, pair, _)| (queue.cpu, pair.clone())).collect());

        let mut inherited = Inherited::default();
        let mut commands = Vec::new();
        for (_, pair, adopted) in queues {
            for adopted in adopted {
                inherited.add(&pair, &adopted);
                if !adopted.orphaned {
                    commands.push(InheritedCommand::new(core, &pair, adopted));
                }
            }
        }
        let mut requests = Vec::new();
        for adopted in admin_commands {
            if Core::is_event_request(0, adopted.command.cdw0.opcode()) && !adopted.orphaned {
                requests.push(adopted.token);
            } else if !adopted.orphaned {
                self.expect(core, &adopted);
                commands.push(InheritedCommand::new(core, &core.admin.queue, adopted));
            }
        }
        core.hold_back(inherited);
        let driver = NvmeDriver::start(core.clone());
        self.go_on_with_events(core, requests);
        // An interrupt may have come while nobody watched.
        core.queues().iter().for_each(|queue| while queue.drain() != 0 {});
        tracing::info!(commands = commands.len(), "took a controller over");
        Ok(Restored { driver, commands, guest_memory })
    }

    /// Whoever sent it kept its time; now nobody else does. Format NVM takes as long as it takes.
    fn expect(&self, core: &Arc<Core>, adopted: &Adopted) {
        let opcode = adopted.command.cdw0.opcode();
        if opcode == AdminOpcode::FORMAT_NVM.0 {
            return;
        }
        let (token, sequence, admin) = (adopted.token, adopted.sequence, core.clone());
        let task = async move { admin.admin.expect(opcode, token, sequence).await };
        core.options.runtime.spawn("inherited admin command", Box::pin(task));
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
}
