use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use doorbell_device::Device;
use nvme_spec::NvmOpcode;
use nvme_spec::feature::InterruptCoalescing;

use super::NvmeDriver;
use super::retries::Retries;
use crate::error::DriverError;
use crate::queue::MAX_DEPTH;
use crate::runtime::{Runtime, ThreadRuntime};

/// How completions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CompletionMode {
    /// By interrupt. Where the device has none, by polling.
    #[default]
    Interrupt,
    /// By polling: a thread of the driver's own does nothing else.
    Polling,
    /// By polling, which the caller does: [`NvmeDriver::poll`], or polling the futures themselves.
    CallerPolls,
    /// By polling and by interrupt, in turns: whenever a future is polled or a command submitted, and by a thread of the
    /// driver's own that polls for as long as completions keep coming soon, and sleeps until the interrupt when not. How
    /// long it polls in vain follows from how long the device has needed of late; a device that needs more than half a
    /// millisecond is not polled for. Where the runtime has no threads
    /// ([`Runtime::has_threads`]), and where there is just one interrupt, it sleeps always. A queue that a caller
    /// [polls](NvmeDriver::poll_cpu) is left to that caller for as long as it does.
    Adaptive,
}

impl CompletionMode {
    pub(super) fn looks_after_submitting(self, device: &dyn Device) -> bool {
        match self {
            CompletionMode::Interrupt => false,
            CompletionMode::Adaptive => true,
            // Who polls looks soon enough, unless there is something already.
            CompletionMode::Polling | CompletionMode::CallerPolls => device.completes_inline(),
        }
    }
}

/// When shadow doorbells are used: where a controller offers them (Doorbell Buffer Config), the driver writes its doorbells
/// to memory that the controller looks at, and rings only when the controller has asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum ShadowDoorbells {
    /// Never.
    Never,
    /// Where a doorbell costs much more than a store to memory
    /// ([`Device::doorbells_are_slow`](doorbell_device::Device::doorbells_are_slow)).
    #[default]
    WhereFaster,
    /// Wherever they are offered.
    WhereOffered,
}

/// The host identifier that reservations go by (NVMe Base 2.0, Host Identifier feature).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostId {
    /// 64 bits.
    Short([u8; 8]),
    /// 128 bits.
    Extended([u8; 16]),
}

/// What becomes of a controller that fails: that reports a fatal error, does not answer in time, or breaks the protocol.
///
/// It is reset (CC.EN = 0, or else its function), set up as before, and its namespaces are identified again before any
/// I/O. Commands that it had are sent once more where that can do no harm: reads, compares and verifies; and writes,
/// write zeroes and deallocations after which, for certain, nothing was sent that changes the same blocks, on
/// namespaces that no other host shares. The others end with
/// [`RequestError::Interrupted`](crate::RequestError::Interrupted). New I/O waits meanwhile.
///
/// A controller that is no longer there is given up at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Recovery {
    pub(crate) resets: u32,
    pub(crate) period: Duration,
    pub(crate) replay: bool,
    pub(crate) replay_shared: bool,
}

impl Default for Recovery {
    /// Three resets in ten minutes.
    fn default() -> Self {
        Self { resets: 3, period: Duration::from_secs(600), replay: true, replay_shared: false }
    }
}

impl Recovery {
    /// A controller that fails is given up.
    pub fn none() -> Self {
        Self { resets: 0, ..Self::default() }
    }

    /// At most so many resets in any such period; then the controller is given up.
    pub fn resets(mut self, resets: u32, period: Duration) -> Self {
        (self.resets, self.period) = (resets, period);
        self
    }

    /// Whether commands are sent once more at all. Default: yes.
    pub fn replay(mut self, replay: bool) -> Self {
        self.replay = replay;
        self
    }

    /// Sends writes once more on namespaces that other hosts may write to as well (NMIC): what they wrote meanwhile may
    /// be overwritten. Default: no.
    pub fn replay_shared_writes(mut self, replay: bool) -> Self {
        self.replay_shared = replay;
        self
    }
}

/// How to drive a controller; [`open`](Self::open) does it.
///
/// ```no_run
/// # async fn open(device: std::sync::Arc<dyn doorbell_device::Device>) -> Result<(), Box<dyn std::error::Error>> {
/// use doorbell::{CompletionMode, DriverOptions};
///
/// let driver = DriverOptions::new(device).cpus(4).depth(256).completion(CompletionMode::Polling).open().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct DriverOptions {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) cpus: u32,
    pub(crate) exclusive_queues: u32,
    pub(crate) depth: u32,
    pub(crate) completion: CompletionMode,
    pub(crate) interrupt_coalescing: Option<InterruptCoalescing>,
    pub(crate) max_transfer: usize,
    pub(crate) bounce_pool: usize,
    pub(crate) always_bounce: bool,
    pub(crate) sgl: bool,
    pub(crate) shadow_doorbells: ShadowDoorbells,
    pub(crate) admin_timeout: Duration,
    pub(crate) io_timeout: Option<Duration>,
    pub(crate) io_timeouts: BTreeMap<u8, Option<Duration>>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) host_id: Option<HostId>,
    pub(crate) recovery: Recovery,
    pub(crate) retries: Retries,
    pub(crate) inherited_first: bool,
}

impl DriverOptions {
    /// The defaults for a device: as many CPUs as the machine has, depth 256, interrupts.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self {
            device,
            runtime: ThreadRuntime::global(),
            exclusive_queues: 0,
            cpus: std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX)),
            depth: 256,
            completion: CompletionMode::default(),
            interrupt_coalescing: None,
            max_transfer: 2 << 20,
            bounce_pool: 512 << 10,
            always_bounce: false,
            sgl: true,
            shadow_doorbells: ShadowDoorbells::default(),
            admin_timeout: Duration::from_secs(60),
            io_timeout: Some(Duration::from_secs(60)),
            io_timeouts: BTreeMap::new(),
            shutdown_timeout: Duration::from_secs(10),
            host_id: None,
            recovery: Recovery::default(),
            retries: Retries::default(),
            inherited_first: false,
        }
    }

    /// What runs background work and tells the time. Default: [`ThreadRuntime::global`].
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = runtime;
        self
    }

    /// How many CPUs may issue I/O, from 0 on. Each gets a queue pair on its first I/O, as far as the device's go.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// How many [exclusive queues](crate::NvmeDriver::exclusive_queue) the controller is asked for, besides one for each
    /// CPU; none unless set. It may allow fewer. They need no interrupts.
    pub fn exclusive_queues(mut self, count: u32) -> Self {
        self.exclusive_queues = count;
        self
    }

    /// Commands in flight a queue, 1 to 4096; less where the controller's queues are shorter.
    pub fn depth(mut self, depth: u32) -> Self {
        self.depth = depth;
        self
    }

    /// How completions are found.
    pub fn completion(mut self, mode: CompletionMode) -> Self {
        self.completion = mode;
        self
    }

    /// Has the controller raise one interrupt for several completions: after so many (THR, 0's based), or so long after the
    /// first (TIME, in units of 100 µs). Fewer interrupts, for latency. A controller that refuses it is used without it, and
    /// it is not asked where nothing waits for interrupts. Default: as the controller has it.
    pub fn interrupt_coalescing(mut self, coalescing: InterruptCoalescing) -> Self {
        self.interrupt_coalescing = Some(coalescing);
        self
    }

    /// The largest single transfer in bytes, whatever the controller would allow. Default: 2 MiB.
    pub fn max_transfer(mut self, bytes: usize) -> Self {
        self.max_transfer = bytes;
        self
    }

    /// Bytes of bounce buffer a queue. Default: 512 KiB. At least one of the controller's pages is made of it.
    pub fn bounce_pool(mut self, bytes: usize) -> Self {
        self.bounce_pool = bytes;
        self
    }

    /// Moves all data through bounce buffers, even what the device could reach: for confidential guests.
    pub fn always_bounce(mut self, always: bool) -> Self {
        self.always_bounce = always;
        self
    }

    /// Whether to use SGLs where the controller takes them. Default: yes.
    pub fn sgl(mut self, sgl: bool) -> Self {
        self.sgl = sgl;
        self
    }

    /// When to use shadow doorbells. Default: where they are faster.
    pub fn shadow_doorbells(mut self, shadows: ShadowDoorbells) -> Self {
        self.shadow_doorbells = shadows;
        self
    }

    /// How long an admin command may take before the controller is reset or given up. Format and events have no limit.
    pub fn admin_timeout(mut self, limit: Duration) -> Self {
        self.admin_timeout = limit;
        self
    }

    /// How long an I/O command may take; `None` for as long as it likes. Past that, the controller is asked to abort it,
    /// and if that does not help at once, it is reset ([`recovery`](Self::recovery)). Default: 60 s.
    pub fn io_timeout(mut self, limit: Option<Duration>) -> Self {
        self.io_timeout = limit;
        self
    }

    /// How long the I/O commands of an opcode may take, where that differs from [`io_timeout`](Self::io_timeout): for
    /// those that are allowed to take long. A single transfer's limit is set by
    /// [`Transfer::timeout`](crate::Transfer::timeout).
    pub fn io_timeout_of(mut self, opcode: NvmOpcode, limit: Option<Duration>) -> Self {
        self.io_timeouts.insert(opcode.0, limit);
        self
    }

    /// How long an I/O command of an opcode may take.
    pub(crate) fn timeout_of(&self, opcode: u8) -> Option<Duration> {
        self.io_timeouts.get(&opcode).copied().unwrap_or(self.io_timeout)
    }

    /// How long shutting down waits for commands in flight.
    pub fn shutdown_timeout(mut self, limit: Duration) -> Self {
        self.shutdown_timeout = limit;
        self
    }

    /// What becomes of a controller that fails: reset and used again, or given up.
    pub fn recovery(mut self, recovery: Recovery) -> Self {
        self.recovery = recovery;
        self
    }

    /// How often an I/O command that failed for a passing reason is sent again.
    pub fn retries(mut self, retries: Retries) -> Self {
        self.retries = retries;
        self
    }

    /// After [`restore`](Self::restore), has all I/O wait until every inherited command is done; else just that on blocks
    /// which an inherited command changes. Default: no.
    pub fn inherited_first(mut self, first: bool) -> Self {
        self.inherited_first = first;
        self
    }

    /// The host identifier to set before the I/O queues exist.
    pub fn host_id(mut self, id: HostId) -> Self {
        self.host_id = Some(id);
        self
    }

    /// Brings the controller up.
    ///
    /// # Errors
    /// [`DriverError`]: an option out of range, a device that cannot be reached or does not become ready, a failed
    /// admin command. The controller is disabled again then.
    pub async fn open(self) -> Result<NvmeDriver, DriverError> {
        self.check()?;
        NvmeDriver::open(self).await
    }

    pub(super) fn check(&self) -> Result<(), DriverError> {
        let bad = |option, value: u64, allowed: String| Err(DriverError::BadOption { option, value, allowed });
        if self.depth == 0 || self.depth > MAX_DEPTH.into() {
            return bad("depth", self.depth.into(), format!("1 to {MAX_DEPTH}"));
        }
        if self.cpus == 0 || self.cpus > 65536 {
            return bad("cpus", self.cpus.into(), "1 to 65536".into());
        }
        if self.max_transfer == 0 || self.max_transfer > 1 << 30 {
            return bad("max_transfer", self.max_transfer as u64, "1 byte to 1 GiB".into());
        }
        if self.bounce_pool > 1 << 30 {
            return bad("bounce_pool", self.bounce_pool as u64, "at most 1 GiB".into());
        }
        Ok(())
    }
}
