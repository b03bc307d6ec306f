//! Going on with a controller that another driver has saved: enabled throughout, no command sent.

mod parts;
mod take_over;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use doorbell_device::DmaMemory;
use nvme_spec::feature::{FeatureId, InterruptCoalescing};
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm};
use zerocopy::FromBytes;

use self::parts::host_id;
pub use self::take_over::Prepared;
use self::take_over::PreparedQueue;
use super::NvmeDriver;
use super::admin::Admin;
use super::bringup;
use super::core::{self, Core, FeatureSet, Made};
use super::failure::Failure;
use super::inherited::InheritedCommand;
use super::issuers::Issuers;
use super::options::{CompletionMode, DriverOptions};
use super::registers::Registers;
use super::service::{Served, Stop};
use super::shadow::Shadows;
use crate::error::{DriverError, NamespaceError};
use crate::exclusive::ExclusiveQueue;
use crate::memory::{GuestMemory, Layout};
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
    /// Queues that had an owner. What was in flight there, or had ended and was not taken, comes from their
    /// [`poll`](ExclusiveQueue::poll), with its token. One whose owner had just dropped it may be among them. Those that are
    /// dropped are given back.
    pub exclusive_queues: Vec<ExclusiveQueue>,
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
    /// [`RestoreError`]. Nothing of the device was changed then.
    pub async fn restore(self, state: &[u8], memory: Vec<DmaMemory>) -> Result<Restored, RestoreError> {
        self.prepare_restore(state, memory)?.take_over()
    }

    /// As [`restore`](Self::restore), up to the point from which on the controller is this driver's. The other one may still
    /// go on: neither the device nor the memory has been looked at.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub fn prepare_restore(self, state: &[u8], memory: Vec<DmaMemory>) -> Result<Prepared, RestoreError> {
        self.check()?;
        let saved = saved::read(state)?;
        Restoring::new(saved, memory)?.prepare(self)
    }
}

/// A state and its memory.
struct Restoring {
    saved: saved::Driver,
    memory: Vec<DmaMemory>,
    page_size: usize,
}

impl Restoring {
    fn prepare(self, mut options: DriverOptions) -> Result<Prepared, RestoreError> {
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
        options.interrupt_coalescing = saved.interrupt_coalescing.map(InterruptCoalescing::from);
        let known = (saved.cap.into(), saved.version.into(), saved.crto.into());
        let registers = Registers::known(options.device.clone(), options.runtime.clone(), known);
        registers.note_enabled();

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
        for saved::Feature { fid, nsid, cdw11, data } in &saved.features {
            let fid = u8::try_from(*fid).map_err(|_| nonsense(format!("feature {fid:#x}")))?;
            let (nsid, cdw11, data) = (*nsid, *cdw11, data.clone());
            core.remember_feature(FeatureSet { fid: FeatureId(fid), nsid, cdw11, data });
        }
        let guest_memory = self.guest_memory(&core)?;
        let mut prepared = Prepared {
            core: core.clone(),
            admin_commands,
            queues: Vec::new(),
            admin_watch: None,
            guest_memory,
            events: self.saved.events.clone(),
            taken: false,
        };
        for namespace in &self.saved.namespaces {
            let nsid = namespace.nsid;
            core.inherit_namespace(namespace).map_err(|source| RestoreError::Namespace { nsid, source })?;
        }
        let interrupts = matches!(core.completion, CompletionMode::Interrupt | CompletionMode::Adaptive);
        for (queue, pair, commands) in queues {
            let attendance = if queue.exclusive {
                None
            } else {
                let attendance = core.attendance(queue.vector.filter(|_| interrupts));
                Some(attendance.map_err(DriverError::command("waiting for interrupts"))?)
            };
            prepared.queues.push(PreparedQueue { cpu: queue.cpu, pair, commands, attendance });
        }
        if core.device.interrupt_count() != 0 {
            prepared.admin_watch = Some(core.watch(0).map_err(DriverError::command("waiting for interrupts"))?);
        }
        Ok(prepared)
    }
}
