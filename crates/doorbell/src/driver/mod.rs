//! The controller's life: bring-up, admin commands, queues, events, and its end.

mod adaptive;
mod admin;
mod bringup;
mod core;
mod events;
mod failure;
mod inherited;
mod inspect;
mod issuers;
mod loss;
mod options;
mod queues;
mod recovery;
mod registers;
mod rescan;
mod restore;
mod retries;
mod save;
mod service;
mod shadow;
mod shutdown;
mod watchdog;

#[cfg(all(test, doorbell_loom))]
pub(crate) use self::adaptive::may_sleep;
pub use self::core::ControllerState;
pub(crate) use self::core::Core;
use self::core::FeatureSet;
pub use self::events::{ControllerEvent, EventListener};
pub use self::inherited::{InheritedCommand, InheritedResult};
pub use self::inspect::{AdminView, CoalescingView, ControllerView, CpuView, DriverView, PendingCommand};
pub use self::options::{CompletionMode, DriverOptions, HostId, Recovery, ShadowDoorbells};
pub use self::restore::{Prepared, RestoreError, Restored};
pub use self::retries::Retries;
pub use self::save::{NotYet, Saved};
pub use self::shutdown::ShutdownMode;

use std::sync::{Arc, Mutex, PoisonError};

use event_listener::Event;
use nvme_spec::admin::FormatNvmCdw10;
use nvme_spec::feature::FeatureId;
use nvme_spec::identify::cns::Cns;
use nvme_spec::identify::{IdentifyController, IdentifyControllerNvm};
use nvme_spec::log::LogId;
use nvme_spec::registers::{Cap, Version};
use nvme_spec::{Command, Completion};

use crate::error::{DriverError, NamespaceError, RequestError};
use crate::exclusive::ExclusiveQueue;
use crate::memory::{DmaBuffer, GuestMemory};
use crate::namespace::{Namespace, NamespaceId, NamespaceOptions};
use crate::queue::pooled::Data;

/// A controller, driven.
///
/// Made by [`DriverOptions::open`]. Dropping it shuts the controller down in order, in the background; to wait for
/// that, call [`shutdown`](Self::shutdown). Every pending and later command of its namespaces then fails with
/// [`RequestError::Gone`].
pub struct NvmeDriver {
    core: Arc<Core>,
}

impl NvmeDriver {
    /// The defaults for a device; see [`DriverOptions`].
    pub fn options(device: Arc<dyn doorbell_device::Device>) -> DriverOptions {
        DriverOptions::new(device)
    }

    /// Brings the controller up in the background, so that a caller who goes away half-way does not leave it half-way:
    /// what came up for nobody is shut down.
    pub(crate) async fn open(options: DriverOptions) -> Result<Self, DriverError> {
        let runtime = options.runtime.clone();
        let handover = Arc::new(Handover::default());
        let result = handover.clone();
        let task = async move { result.put(Self::bring_up(options).await) };
        runtime.spawn("bring-up", Box::pin(task));
        handover.take().await
    }

    async fn bring_up(options: DriverOptions) -> Result<Self, DriverError> {
        let driver = Self::start(bringup::bring_up(options).await?);
        driver.core.learn_namespaces().await;
        driver.core.request_events(driver.core.event_requests());
        Ok(driver)
    }

    /// Starts what looks after a controller.
    fn start(core: Arc<Core>) -> Self {
        let runtime = core.options.runtime.clone();
        runtime.spawn("queue maker", Box::pin(core.clone().make_queues()));
        runtime.spawn("guard", Box::pin(core.clone().guard()));
        runtime.spawn("watchdog", Box::pin(core.clone().watch_over()));
        if core.device.loss().is_some() {
            runtime.spawn("loss", Box::pin(core.clone().watch_for_loss()));
        }
        Self { core }
    }

    /// A handle for a namespace.
    ///
    /// # Errors
    /// [`NamespaceError`]: there is none, it cannot be used, or a handle for it lives already.
    pub async fn namespace(&self, nsid: u32) -> Result<Namespace, NamespaceError> {
        self.namespace_with(nsid, NamespaceOptions::default()).await
    }

    /// As [`namespace`](Self::namespace), with options.
    ///
    /// # Errors
    /// As [`namespace`](Self::namespace).
    pub async fn namespace_with(&self, nsid: u32, options: NamespaceOptions) -> Result<Namespace, NamespaceError> {
        Namespace::open(&self.core, nsid, options).await
    }

    /// The NSIDs of the active namespaces, ascending (CNS 02h; NSIDs 1 to NN where the controller lacks that).
    ///
    /// # Errors
    /// If the controller cannot be asked, or its list is not ascending.
    pub async fn namespaces(&self) -> Result<Vec<u32>, RequestError> {
        self.core.list_namespaces().await
    }

    /// The identifiers of a namespace (CNS 03h, else those of CNS 00h).
    ///
    /// # Errors
    /// If there is no such namespace, or it cannot be identified.
    pub async fn namespace_id(&self, nsid: u32) -> Result<NamespaceId, NamespaceError> {
        self.core.namespace_id(nsid).await
    }

    /// What the controller says of itself (CNS 01h), as of bring-up.
    pub fn identify(&self) -> &IdentifyController {
        &self.core.identify
    }

    /// The limits of its NVM commands (CNS 06h), as of bring-up; zeroes where it does not say.
    pub fn identify_nvm(&self) -> &IdentifyControllerNvm {
        &self.core.nvm
    }

    /// Controller Capabilities and Version, as of bring-up.
    pub fn capabilities(&self) -> (Cap, Version) {
        (self.core.registers.cap, self.core.registers.version)
    }

    /// The device it drives.
    pub fn device(&self) -> &Arc<dyn doorbell_device::Device> {
        &self.core.device
    }

    /// Where it is in its life.
    pub fn state(&self) -> ControllerState {
        self.core.shown_state()
    }

    /// Whether it takes commands, at once or as soon as it is back.
    pub(crate) fn is_usable(&self) -> bool {
        self.core.check_running().is_ok()
    }

    /// The CPUs that may issue I/O, counted from 0.
    pub fn cpus(&self) -> u32 {
        self.core.options.cpus
    }

    /// Commands in flight a queue.
    pub fn depth(&self) -> u16 {
        self.core.io_depth()
    }

    /// The largest transfer in bytes.
    pub fn max_transfer(&self) -> usize {
        self.core.max_transfer_bytes()
    }

    /// Hears of events from now on: errors, health, namespaces that come, change and go, reservations.
    pub fn events(&self) -> EventListener {
        let ended = matches!(self.state(), ControllerState::ShutDown | ControllerState::Failed);
        self.core.events.listen(ended)
    }

    /// Makes guest memory reachable for the device: with what is returned, data is moved without a copy. It stays so
    /// until [`unregister_memory`](Self::unregister_memory), or until the last clone goes and the last command is
    /// done.
    ///
    /// # Errors
    /// If the device cannot be given that memory; [`RequestError::WouldWait`] while the driver is saved.
    pub fn register_memory(&self, memory: &GuestMemory) -> Result<GuestMemory, RequestError> {
        self.core.register(memory)
    }

    /// Takes guest memory away from the device: new I/O with it fails, I/O under way is waited for. When this
    /// returns, the device does not touch it any more.
    pub async fn unregister_memory(&self, memory: &GuestMemory) {
        if let Some(key) = memory.registration_key(self.core.id) {
            self.core.unregister(key).await;
        }
    }

    /// New zeroed memory that the device reaches directly.
    ///
    /// # Errors
    /// If there is no memory, or it cannot be mapped.
    pub fn allocate_buffer(&self, len: usize) -> Result<DmaBuffer, RequestError> {
        let memory = self.core.device.allocate(len, self.core.page_size as u64)?;
        Ok(DmaBuffer::new(self.core.buffers.lend(memory, len), len, self.core.id))
    }

    /// A queue pair of one's own, for I/O without futures: see [`ExclusiveQueue`]. It counts among the queues that the
    /// controller allows, and is given back when it is dropped. Going away while waiting for it leaves nothing behind.
    ///
    /// # Errors
    /// [`RequestError::NoMoreQueues`], or if the controller refuses to make it.
    pub async fn exclusive_queue(&self) -> Result<ExclusiveQueue, RequestError> {
        self.core.check_running()?;
        self.core.issuers.wait_exclusive(&self.core).await
    }

    /// Looks for completions on all I/O queues of this driver and wakes who waits; how many were found. With
    /// [`CompletionMode::CallerPolls`] somebody must call this again and again; otherwise nobody has to.
    pub fn poll(&self) -> usize {
        match self.core.completion {
            CompletionMode::CallerPolls | CompletionMode::Polling => self.core.polled.drain(),
            _ => self.core.issuers.queues().iter().map(|queue| queue.poll_for_caller()).sum(),
        }
    }

    /// Looks for completions on the queue of one CPU, as [`poll`](Self::poll) does on all.
    #[inline]
    pub fn poll_cpu(&self, cpu: u32) -> usize {
        match self.core.issuers.get(cpu) {
            Ok(Some(queue)) => queue.poll_for_caller(),
            _ => 0,
        }
    }

    /// Any admin command, as it is, with data from the controller. For what has no method of its own.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn admin_in(&self, command: Command, data: &mut [u8]) -> Result<Completion, RequestError> {
        let data = if data.is_empty() { Data::None } else { Data::In(data) };
        self.core.admin.command(command, data).await
    }

    /// Any admin command, as it is, with data to the controller.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn admin_out(&self, command: Command, data: &[u8]) -> Result<Completion, RequestError> {
        let data = if data.is_empty() { Data::None } else { Data::Out(data) };
        self.core.admin.command(command, data).await
    }

    /// Identify: the 4096 bytes that a CNS value gives (NVMe Base 2.0, Identify command).
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn identify_raw(&self, cns: Cns, nsid: u32, csi: u8) -> Result<Box<[u8; 4096]>, RequestError> {
        self.core.admin.identify(cns, nsid, csi).await
    }

    /// Get Features: Dword 0 of the completion, and, where the feature has some, its data. `sel` is 0 for the current
    /// value, 1 default, 2 saved, 3 capabilities.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn get_features(
        &self,
        fid: FeatureId,
        sel: u8,
        nsid: u32,
        cdw11: u32,
        data: &mut [u8],
    ) -> Result<u32, RequestError> {
        self.core.admin.get_features(fid, sel, nsid, cdw11, data).await
    }

    /// Set Features: Dword 0 of the completion.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn set_features(
        &self,
        fid: FeatureId,
        save: bool,
        nsid: u32,
        cdw11: u32,
        data: &[u8],
    ) -> Result<u32, RequestError> {
        let result = self.core.admin.set_features(fid, save, nsid, cdw11, data).await?;
        self.core.remember_feature(FeatureSet { fid, nsid, cdw11, data: data.to_vec() });
        Ok(result)
    }

    /// Get Log Page: fills `data` from byte `offset` of the page on, in as many commands as needed. With `retain`, the
    /// event that the page belongs to stays pending.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn log_page(
        &self,
        lid: LogId,
        nsid: u32,
        retain: bool,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), RequestError> {
        self.core.admin.log_page(lid, nsid, retain, offset, data).await
    }

    /// Format NVM: all data of the namespace is lost. It takes as long as it takes.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn format(&self, nsid: u32, how: FormatNvmCdw10) -> Result<(), RequestError> {
        self.core.admin.format(nsid, how).await
    }

    /// Asks the controller to abort a command, by its queue and identifier as [`inspect`](Self::inspect) shows them;
    /// whether it did. The command itself still ends by its own completion.
    ///
    /// # Errors
    /// [`RequestError`], an error status among them.
    pub async fn abort(&self, queue: u16, cid: u16) -> Result<bool, RequestError> {
        self.core.admin.abort(queue, cid).await
    }

    /// Resets the controller and brings it back, as after a failure ([`Recovery`]): I/O waits meanwhile.
    ///
    /// # Errors
    /// If it does not come back: then it is given up.
    pub async fn reset_controller(&self) -> Result<(), RequestError> {
        self.core.reset_controller().await
    }

    /// Resets the NVM subsystem (NSSR), where the controller can (CAP.NSSRS), and brings the controller back as
    /// [`reset_controller`](Self::reset_controller) does.
    ///
    /// It strikes all controllers of the subsystem, those of other hosts too, who have to bring theirs back. Doorbell never does
    /// it by itself.
    ///
    /// # Errors
    /// If the controller cannot, and then nothing happened; or if it does not come back: then it is given up.
    pub async fn reset_subsystem(&self) -> Result<(), RequestError> {
        self.core.reset_subsystem().await
    }

    /// Looks at all namespaces again, as after an event.
    pub async fn rescan(&self) {
        self.core.rescan_all().await;
    }

    /// All of it, as it is now.
    pub fn inspect(&self) -> DriverView {
        self.core.inspect()
    }

    /// Holds the controller still and describes it, so that another driver, of another process perhaps, can go on with it:
    /// enabled as it is, with all that is in flight. I/O waits until it is decided who goes on. Whenever this fails,
    /// nothing has happened.
    ///
    /// # Errors
    /// [`NotYet`]: a passing state in which the controller cannot be described.
    ///
    /// ```no_run
    /// # async fn hand_over(driver: doorbell::NvmeDriver, options: doorbell::DriverOptions)
    /// #     -> Result<(), Box<dyn std::error::Error>> {
    /// let saved = driver.save()?;
    /// let restored = options.restore(saved.state(), saved.memory().to_vec()).await?;
    /// saved.hand_over();
    /// for command in restored.commands {
    ///     println!("{:?} of blocks {:?}: {:?}", command.command().cdw0.opcode(), command.blocks(), command.await.completion);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn save(&self) -> Result<Saved, NotYet> {
        self.core.save()
    }

    /// Shuts the controller down in order: waits for commands in flight, deletes the queues, CC.SHN, CC.EN = 0.
    pub async fn shutdown(self) {
        self.core.shut_down(ShutdownMode::Reset).await;
    }

    /// Ends the driver for all who share it, and leaves the controller as asked.
    pub async fn end(&self, mode: ShutdownMode) {
        self.core.shut_down(mode).await;
    }

    /// Ends the driver, and leaves the controller as asked.
    pub async fn shutdown_with(self, mode: ShutdownMode) {
        self.core.shut_down(mode).await;
    }
}

/// Hands a driver from the task that brought it up to who asked for it, or drops it if that one has gone.
#[derive(Default)]
struct Handover {
    result: Mutex<Option<Result<NvmeDriver, DriverError>>>,
    there: Event,
}

impl Handover {
    fn put(&self, result: Result<NvmeDriver, DriverError>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.there.notify(1);
    }

    async fn take(&self) -> Result<NvmeDriver, DriverError> {
        loop {
            let listener = self.there.listen();
            if let Some(result) = self.result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return result;
            }
            listener.await;
        }
    }
}

impl Drop for NvmeDriver {
    fn drop(&mut self) {
        if self.core.state() == ControllerState::Running {
            let core = self.core.clone();
            let task = async move { core.shut_down(ShutdownMode::Reset).await };
            self.core.options.runtime.spawn("shutdown", Box::pin(task));
        }
    }
}

impl std::fmt::Debug for NvmeDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvmeDriver")
            .field("device", &self.core.device.address())
            .field("state", &self.core.state())
            .finish_non_exhaustive()
    }
}
