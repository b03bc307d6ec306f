//! A server on one core and its client on the other.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use doorbell::{CompletionMode, DriverOptions, GuestMemory, Namespace, NvmeDriver, PagedRange, Transfer};
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, SharedRamBackend, Storage, Subsystem};
use doorbell_serve::Endpoint;
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::block_on;

use crate::cores::{Cores, Random, SLICES, quartile};

/// Where the data come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    Null,
    /// Of so many bytes.
    Ram(u64),
}

/// As much as the pages of a [copy](Cores::copy): what a cache holds.
pub(crate) const SMALL: u64 = 256 << 10;
/// More than caches hold.
pub(crate) const LARGE: u64 = 64 << 20;
/// Pages that are read into; each I/O in flight has its own.
const PAGES: u64 = 256;

impl Backing {
    pub(crate) fn name(self) -> String {
        match self {
            Backing::Null => "null namespace".into(),
            Backing::Ram(size) => format!("RAM namespace of {} KiB", size >> 10),
        }
    }
}

pub(crate) struct Client {
    pub(crate) backing: Backing,
    driver: NvmeDriver,
    namespace: Namespace,
    memory: GuestMemory,
    gpns: Vec<u64>,
    blocks: u64,
    random: Random,
    _endpoint: Endpoint,
    _directory: tempfile::TempDir,
}

impl Client {
    pub(crate) fn start(cores: &Cores, backing: Backing) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("socket");
        let subsystem = Subsystem::default();
        let namespace = match backing {
            Backing::Null => NamespaceConfig::null(1 << 40),
            // As `doorbell serve` keeps it.
            Backing::Ram(size) => NamespaceConfig::new(Storage::Custom(Box::new(SharedRamBackend::new(size)?))),
        };
        subsystem.add_namespace(namespace.block_size(4096))?;
        let config = ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() };
        // A thread stays where the one that starts it is.
        Cores::pin(cores.server)?;
        let endpoint = Endpoint::start(&socket, &subsystem, config)?;
        Cores::pin(cores.client)?;
        let device = VfioUserDevice::open(VfioUserOptions::new(socket))?;
        let options = DriverOptions::new(device).cpus(1).depth(256).completion(CompletionMode::CallerPolls);
        let driver = block_on(options.open())?;
        let namespace = block_on(driver.namespace(1))?;
        let host = HostMemory::allocate(PAGES as usize * 4096)?;
        let memory = GuestMemory::builder().region(0, host, Access::ReadWrite).build()?;
        let memory = driver.register_memory(&memory)?;
        let blocks = namespace.block_count();
        let gpns = (0..PAGES).collect();
        let random = Random::default();
        let client = Self {
            backing,
            driver,
            namespace,
            memory,
            gpns,
            blocks,
            random,
            _endpoint: endpoint,
            _directory: directory,
        };
        if backing != Backing::Null {
            client.fill()?;
        }
        Ok(client)
    }

    /// Writes all of it once: memory that was never written is not there to be read.
    fn fill(&self) -> anyhow::Result<()> {
        for lba in (0..self.blocks).step_by(64) {
            let count = (self.blocks - lba).min(64);
            let range = PagedRange::new(0, count as usize * 4096, &self.gpns).unwrap_or(NONE);
            let mut write = self.namespace.write(0, lba, count as u32, false, &self.memory, range);
            self.wait(&mut write)?;
        }
        Ok(())
    }

    fn wait(&self, transfer: &mut Transfer<'_>) -> anyhow::Result<()> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(result) = Pin::new(&mut *transfer).poll(&mut context) {
                return Ok(result?);
            }
            self.driver.poll_cpu(0);
        }
    }

    /// Reads at random, always so many in flight; nanoseconds an I/O.
    pub(crate) fn read(&mut self, in_flight: usize, ios: usize) -> f64 {
        let mut random = std::mem::take(&mut self.random);
        let this = &*self;
        let mut context = Context::from_waker(Waker::noop());
        let mut start = |page: usize| {
            let range = PagedRange::new(0, 4096, &this.gpns[page..=page]).unwrap_or(NONE);
            this.namespace.read(0, random.next() % this.blocks, 1, &this.memory, range)
        };
        let mut pending: Vec<Option<Transfer<'_>>> = (0..in_flight).map(|_| None).collect();
        let slice = (ios / SLICES).max(1);
        let (mut left, mut at) = (slice * SLICES, 0);
        let mut slices = Vec::with_capacity(SLICES);
        let mut started = Instant::now();
        // Each is started anew when it ends, in the order in which they were: that is the server's too.
        while left > 0 {
            let slot = &mut pending[at];
            let is_new = slot.is_none();
            let transfer = slot.get_or_insert_with(|| start(at));
            match Pin::new(transfer).poll(&mut context) {
                Poll::Ready(result) => {
                    assert!(result.is_ok(), "{result:?}");
                    *slot = None;
                    left -= 1;
                    if left.is_multiple_of(slice) {
                        slices.push(started.elapsed().as_nanos() as f64 / slice as f64);
                        started = Instant::now();
                    }
                }
                Poll::Pending if is_new => at = if at + 1 == in_flight { 0 } else { at + 1 },
                Poll::Pending => {
                    this.driver.poll_cpu(0);
                }
            }
        }
        for transfer in pending.iter_mut().flatten() {
            assert!(this.wait(transfer).is_ok());
        }
        drop(pending);
        self.random = random;
        quartile(slices)
    }
}

const NONE: PagedRange<'static> = match PagedRange::new(0, 0, &[]) {
    Some(range) => range,
    None => unreachable!(),
};
