//! Controllers that are open, each once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell::{
    DriverError, DriverOptions, GuestMemory, InheritedCommand, ManagerError, NamespaceError, NvmeDriver, NvmeManager,
    Restored, ShutdownMode,
};

use crate::Relay;
use crate::below::Shared;
use crate::memory::Registered;

/// Controllers by address: opened once however many namespaces of them are served.
#[derive(Default)]
pub struct Drives {
    manager: NvmeManager,
    open: Mutex<BTreeMap<String, Arc<Drive>>>,
}

impl Drives {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The controller at an address, opened with these options if nobody has it open.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub async fn open(
        &self,
        address: &str,
        options: impl FnOnce() -> Result<DriverOptions, DriverError>,
    ) -> Result<Arc<Drive>, ManagerError> {
        let driver = self.manager.get(address, options).await?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(drive) = open.get(address).filter(|drive| Arc::ptr_eq(&drive.driver, &driver)) {
            return Ok(drive.clone());
        }
        // The first time, or after the last one has ended.
        let drive = Arc::new(Drive::new(address, driver, Inherited::default()));
        open.insert(address.into(), drive.clone());
        Ok(drive)
    }

    /// The controller at an address, if it is open.
    pub(crate) fn get(&self, address: &str) -> Option<Arc<Drive>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }

    /// Has a controller that was another process's. What was under way there for itself is nobody's here.
    pub(crate) fn insert(&self, address: &str, restored: Restored) {
        let Restored { driver, guest_memory, mut commands, .. } = restored;
        commands.retain(|command| command.tag() != 0);
        // Nobody else has the address: all that was open there comes from there.
        if let Ok(driver) = self.manager.insert(address, driver) {
            let inherited = Inherited { memory: guest_memory, commands, kept: Arc::default() };
            let drive = Arc::new(Drive::new(address, driver, inherited));
            self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(address.into(), drive);
        }
    }

    /// Asks for something of each controller that is open, until one refuses.
    pub(crate) fn each<T, E>(&self, mut ask: impl FnMut(&str, &Drive) -> Result<T, E>) -> Result<Vec<T>, E> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(address, drive)| ask(address, drive)).collect()
    }

    /// Shuts them all down in order.
    pub async fn shut_down(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.manager.shutdown(|_| ShutdownMode::Reset).await;
    }
}

/// A controller that is open.
pub struct Drive {
    pub(crate) address: String,
    pub(crate) driver: Arc<NvmeDriver>,
    /// Lanes that were ever made, to spread them over the CPUs.
    lanes: AtomicU32,
    /// Memory of clients that the drive was given.
    pub(crate) memory: Mutex<Vec<Registered>>,
    /// What the process before has left.
    inherited: Mutex<Inherited>,
}

#[derive(Default)]
struct Inherited {
    /// Memory of clients that nobody has used here yet.
    memory: Vec<GuestMemory>,
    /// Commands that nobody has gone on with yet.
    commands: Vec<InheritedCommand>,
    /// Held by who goes on with one, which may be in that memory.
    kept: Arc<()>,
}

impl Drive {
    fn new(address: &str, driver: Arc<NvmeDriver>, inherited: Inherited) -> Self {
        let (lanes, memory, inherited) = (AtomicU32::new(0), Mutex::default(), Mutex::new(inherited));
        Self { address: address.into(), driver, lanes, memory, inherited }
    }

    /// The driver.
    #[must_use]
    pub fn driver(&self) -> &NvmeDriver {
        &self.driver
    }

    /// A namespace, as storage.
    ///
    /// # Errors
    /// [`NamespaceError`]: there is none, it cannot be used, or it is used already.
    pub async fn namespace(self: &Arc<Self>, nsid: u32) -> Result<Relay, NamespaceError> {
        Ok(Relay::new(self.shared(nsid).await?))
    }

    pub(crate) async fn shared(self: &Arc<Self>, nsid: u32) -> Result<Arc<Shared>, NamespaceError> {
        Ok(Arc::new(Shared::new(self.clone(), self.driver.namespace(nsid).await?)))
    }

    /// Memory that was registered by the process before, for which `is_it` is true: it is the caller's.
    pub(crate) fn inherit(&self, mut is_it: impl FnMut(&GuestMemory) -> bool) -> Vec<GuestMemory> {
        self.inherited().memory.extract_if(.., |memory| is_it(memory)).collect()
    }

    fn inherited(&self) -> MutexGuard<'_, Inherited> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command that was under way in the process before, by its tag: it is the caller's.
    pub(crate) fn claim(&self, nsid: u32, tag: u64) -> Option<InheritedCommand> {
        let commands = &mut self.inherited().commands;
        let index = commands.iter().position(|command| command.tag() == tag && command.command().nsid == nsid)?;
        Some(commands.swap_remove(index))
    }

    /// Has memory that nobody has used here yet stay with the drive as long as this is kept.
    pub(crate) fn keep_inherited(&self) -> Arc<()> {
        self.inherited().kept.clone()
    }

    /// Gives up memory and commands that nobody has asked for here.
    pub(crate) fn give_up_inherited(&self) {
        let mut inherited = self.inherited();
        if Arc::strong_count(&inherited.kept) == 1 {
            *inherited = Inherited::default();
        }
    }

    /// Waits until nothing is under way any more that the process before has begun in a namespace.
    pub(crate) async fn finish_inherited(&self, nsid: u32) {
        let of_it = |command: &mut InheritedCommand| command.command().nsid == nsid;
        let commands: Vec<_> = self.inherited().commands.extract_if(.., of_it).collect();
        for command in commands {
            drop(command.await);
        }
    }

    /// The CPU, and with it the queue, of the next lane.
    pub(crate) fn next_cpu(&self) -> u32 {
        self.lanes.fetch_add(1, Ordering::Relaxed).checked_rem(self.driver.cpus()).unwrap_or_default()
    }
}
