//! Many controllers, by address.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::driver::{DriverOptions, DriverView, NvmeDriver, ShutdownMode};
use crate::error::DriverError;

/// Holds controllers by address: opened once however many ask, each alone in its failures.
///
/// ```no_run
/// # async fn run(open: impl Fn(&str) -> Result<doorbell::DriverOptions, doorbell::DriverError>)
/// #     -> Result<(), Box<dyn std::error::Error>> {
/// use doorbell::NvmeManager;
///
/// let manager = NvmeManager::new();
/// let driver = manager.get("pci:0000:01:00.0", || open("pci:0000:01:00.0")).await?;
/// let namespace = driver.namespace(1).await?;
/// manager.shutdown(|_address| doorbell::ShutdownMode::Reset).await;
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct NvmeManager {
    controllers: Mutex<BTreeMap<String, Entry>>,
    /// An opening ended, one way or the other.
    opened: Event,
    closed: AtomicBool,
}

enum Entry {
    Opening,
    Open(Arc<NvmeDriver>),
}

/// Why the manager has no controller to give.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// It could not be opened.
    #[error("{address}: {source}")]
    Driver {
        /// The address asked for.
        address: String,
        /// Why not.
        source: DriverError,
    },
    /// The manager was shut down.
    #[error("the manager has been shut down")]
    Gone,
}

impl NvmeManager {
    /// A manager without controllers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.controllers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller at an address, opened with the options that `options` gives if nobody has it open. While one
    /// caller opens it, others wait; if that fails, the next of them tries.
    ///
    /// # Errors
    /// [`ManagerError`]; other addresses are not touched by it.
    pub async fn get(
        &self,
        address: &str,
        options: impl FnOnce() -> Result<DriverOptions, DriverError>,
    ) -> Result<Arc<NvmeDriver>, ManagerError> {
        let opening = loop {
            let listener = self.opened.listen();
            {
                let mut controllers = self.lock();
                // Under the lock: either this is seen, or the shutdown sees what is being opened.
                if self.closed.load(Ordering::SeqCst) {
                    return Err(ManagerError::Gone);
                }
                match controllers.get(address) {
                    Some(Entry::Open(driver)) if driver.is_usable() => {
                        return Ok(driver.clone());
                    }
                    Some(Entry::Opening) => {}
                    // None, or one that has ended: its place is taken.
                    _ => {
                        controllers.insert(address.to_owned(), Entry::Opening);
                        break Opening { manager: self, address };
                    }
                }
            }
            listener.await;
        };
        let failed = |source| ManagerError::Driver { address: address.to_owned(), source };
        let driver = Arc::new(options().map_err(failed)?.open().await.map_err(failed)?);
        opening.finish(driver.clone());
        Ok(driver)
    }

    /// Takes a driver in that is open already, one that was [restored](DriverOptions::restore) say, and has it at an address
    /// from now on.
    ///
    /// # Errors
    /// The driver, if somebody has that address open or opens it, or the manager was shut down.
    pub fn insert(&self, address: &str, driver: NvmeDriver) -> Result<Arc<NvmeDriver>, Box<NvmeDriver>> {
        let mut controllers = self.lock();
        let taken = match controllers.get(address) {
            Some(Entry::Open(there)) => there.is_usable(),
            Some(Entry::Opening) => true,
            None => false,
        };
        if taken || self.closed.load(Ordering::SeqCst) {
            return Err(Box::new(driver));
        }
        let driver = Arc::new(driver);
        controllers.insert(address.to_owned(), Entry::Open(driver.clone()));
        Ok(driver)
    }

    /// The addresses of the open controllers.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let open = |(address, entry): (&String, &Entry)| matches!(entry, Entry::Open(_)).then(|| address.clone());
        self.lock().iter().filter_map(open).collect()
    }

    /// All open controllers, as they are now.
    #[must_use]
    pub fn inspect(&self) -> BTreeMap<String, DriverView> {
        let drivers = self.drivers();
        drivers.into_iter().map(|(address, driver)| (address, driver.inspect())).collect()
    }

    fn drivers(&self) -> Vec<(String, Arc<NvmeDriver>)> {
        let open = |(address, entry): (&String, &Entry)| match entry {
            Entry::Open(driver) => Some((address.clone(), driver.clone())),
            Entry::Opening => None,
        };
        self.lock().iter().filter_map(open).collect()
    }

    /// Shuts all controllers down together, each as `mode` says, and opens no more. What is being opened just now is
    /// waited for.
    pub async fn shutdown(&self, mode: impl Fn(&str) -> ShutdownMode) {
        {
            let _controllers = self.lock();
            self.closed.store(true, Ordering::SeqCst);
        }
        loop {
            let listener = self.opened.listen();
            if !self.lock().values().any(|entry| matches!(entry, Entry::Opening)) {
                break;
            }
            listener.await;
        }
        self.opened.notify(usize::MAX);
        let drivers = self.drivers();
        let mut endings: Vec<_> = drivers.iter().map(|(at, driver)| Box::pin(driver.end(mode(at)))).collect();
        std::future::poll_fn(|context| {
            endings.retain_mut(|ending| ending.as_mut().poll(context).is_pending());
            if endings.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        self.lock().clear();
    }
}

/// An address whose controller is being opened. Given up when dropped, unless it is there.
struct Opening<'a> {
    manager: &'a NvmeManager,
    address: &'a str,
}

impl Opening<'_> {
    fn finish(self, driver: Arc<NvmeDriver>) {
        self.manager.lock().insert(self.address.to_owned(), Entry::Open(driver));
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut controllers = self.manager.lock();
        if matches!(controllers.get(self.address), Some(Entry::Opening)) {
            controllers.remove(self.address);
        }
        drop(controllers);
        self.manager.opened.notify(usize::MAX);
    }
}
