//! Controllers that are open, each once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use doorbell::{DriverError, DriverOptions, ManagerError, NamespaceError, NvmeDriver, NvmeManager, ShutdownMode};

use crate::Relay;
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
        let drive = Arc::new(Drive { driver, lanes: AtomicU32::new(0), memory: Mutex::default() });
        open.insert(address.into(), drive.clone());
        Ok(drive)
    }

    /// Shuts them all down in order.
    pub async fn shut_down(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.manager.shutdown(|_| ShutdownMode::Reset).await;
    }
}

/// A controller that is open.
pub struct Drive {
    pub(crate) driver: Arc<NvmeDriver>,
    /// Lanes that were ever made, to spread them over the CPUs.
    lanes: AtomicU32,
    /// Memory of clients that the drive was given.
    pub(crate) memory: Mutex<Vec<Registered>>,
}

impl Drive {
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
        Ok(Relay::new(self.clone(), self.driver.namespace(nsid).await?))
    }

    /// The CPU, and with it the queue, of the next lane.
    pub(crate) fn next_cpu(&self) -> u32 {
        self.lanes.fetch_add(1, Ordering::Relaxed).checked_rem(self.driver.cpus()).unwrap_or_default()
    }
}
