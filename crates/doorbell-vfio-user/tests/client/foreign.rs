//! An emulated controller behind the server of the crate `vfio_user`.

use std::fs::File;
use std::io::{Error, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use doorbell_device::inprocess::{DmaSpace, Host, SoftController};
use doorbell_device::{Access, HostMemory, Interrupt};
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, Subsystem};
use foreign_vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion, SparseArea};
use vfio_bindings::bindings::vfio::{vfio_region_info, vfio_region_sparse_mmap_area};

const DOORBELLS: u64 = 0x1000;
const BAR: u64 = 0x4000;
const VECTORS: u16 = 5;
const MSIX_CAPABILITY: usize = 0x40;

/// A server of one controller, for one client.
pub(crate) struct Foreign {
    pub(crate) path: PathBuf,
    pub(crate) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

pub(crate) struct Shared {
    controller: Mutex<Controller>,
    space: Arc<DmaSpace>,
    doorbells: HostMemory,
    irqs: Mutex<Vec<Option<Interrupt>>>,
    config: Mutex<[u8; 256]>,
    stop: AtomicBool,
    /// DMA mappings that there are, and doorbells that came as messages.
    pub(crate) maps: AtomicU64,
    pub(crate) doorbell_messages: AtomicU64,
}

impl Foreign {
    /// With the doorbells mappable, or not.
    pub(crate) fn start(mappable: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let subsystem = Subsystem::default();
        subsystem.add_namespace(NamespaceConfig::ram(64 << 20)).unwrap();
        let config = ControllerConfig { queue_pairs: 4, vectors: VECTORS, ..ControllerConfig::default() };
        let mut space = [0; 256];
        space[8..12].copy_from_slice(&0x0108_0200u32.to_le_bytes());
        space[6] = 1 << 4;
        space[0x34] = MSIX_CAPABILITY as u8;
        space[MSIX_CAPABILITY] = 0x11;
        space[MSIX_CAPABILITY + 2] = VECTORS as u8 - 1;
        let shared = Arc::new(Shared {
            controller: Mutex::new(Controller::new(&subsystem, config)),
            space: Arc::new(DmaSpace::new()),
            // As the BAR is, so that offsets are the same in both.
            doorbells: HostMemory::allocate(BAR as usize).unwrap(),
            irqs: Mutex::new(vec![None; VECTORS.into()]),
            config: Mutex::new(space),
            stop: AtomicBool::new(false),
            maps: AtomicU64::new(0),
            doorbell_messages: AtomicU64::new(0),
        });
        let listener = UnixListener::bind(&path).unwrap();
        let (serving, running) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || serve(listener, &serving, mappable)),
            std::thread::spawn(move || running.run()),
        ];
        Self { path, shared, threads, _directory: directory }
    }

    /// What the client has switched on in the configuration space: the command register, and MSI-X.
    pub(crate) fn switched_on(&self) -> (u8, u8) {
        let config = self.shared.config.lock().unwrap();
        (config[4], config[MSIX_CAPABILITY + 3])
    }

    /// Waits until the client is gone.
    pub(crate) fn join(mut self) -> Arc<Shared> {
        self.threads.remove(0).join().unwrap();
        self.shared.stop.store(true, Ordering::SeqCst);
        self.threads.remove(0).join().unwrap();
        self.shared.clone()
    }
}

fn serve(listener: UnixListener, shared: &Arc<Shared>, mappable: bool) {
    let file = shared.doorbells.file().unwrap().0.clone();
    let region = |size, flags| ServerRegion {
        region_info: vfio_region_info { argsz: 32, flags, size, ..Default::default() },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    let mut regions: Vec<ServerRegion> = (0..9).map(|_| region(0, 0)).collect();
    regions[0] = region(BAR, if mappable { 7 } else { 3 });
    if mappable {
        let area = vfio_region_sparse_mmap_area { offset: DOORBELLS, size: BAR - DOORBELLS };
        regions[0].sparse_areas = vec![SparseArea { area }];
        regions[0].mmap_fd = Some(file.as_raw_fd());
    }
    regions[7] = region(256, 3);
    for (index, region) in (0..).zip(&mut regions) {
        region.region_info.index = index;
    }
    let irqs = (0..5).map(|index| IrqInfo { index, flags: 1, count: if index == 2 { VECTORS.into() } else { 0 } });
    let server = Server::from_owned_fd(OwnedFd::from(listener), true, irqs.collect(), regions);
    // It ends with an error if the client goes while it is written to.
    let _ = server.run(&mut Backend(shared.clone()));
}

impl Shared {
    fn controller(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_host<R>(&self, f: impl FnOnce(&Host<'_>) -> R) -> R {
        let raise = |vector: u16| {
            if let Some(Some(irq)) = self.irqs.lock().unwrap().get(usize::from(vector)) {
                irq.raise();
            }
        };
        // The controller's doorbells begin where its memory does.
        let doorbells = self.doorbells.part(DOORBELLS as usize, (BAR - DOORBELLS) as usize).unwrap();
        f(&Host { dma: &self.space.view(), doorbells: &doorbells, interrupt: &raise })
    }

    fn run(&self) {
        let started = Instant::now();
        while !self.stop.load(Ordering::SeqCst) {
            let mut controller = self.controller();
            let activity = self.with_host(|host| controller.run(host, started.elapsed()));
            drop(controller);
            if !activity.worked {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

struct Backend(Arc<Shared>);

fn refused<E: std::fmt::Display>(error: E) -> Error {
    Error::new(ErrorKind::InvalidInput, error.to_string())
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> Result<(), Error> {
        if region == 7 {
            let at = offset as usize;
            data.copy_from_slice(&self.0.config.lock().unwrap()[at..at + data.len()]);
            return Ok(());
        }
        if offset >= DOORBELLS || !matches!(data.len(), 4 | 8) {
            return Err(refused("an access that SPDK refuses too"));
        }
        let value = self.0.controller().read_register(offset as usize, data.len());
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        if region == 7 {
            let at = offset as usize;
            self.0.config.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
            return Ok(());
        }
        let mut bytes = [0; 8];
        bytes[..data.len()].copy_from_slice(data);
        let value = u64::from_le_bytes(bytes);
        if offset >= DOORBELLS {
            self.0.doorbell_messages.fetch_add(1, Ordering::SeqCst);
            self.0.doorbells.dwords()[offset as usize / 4].store(value as u32, Ordering::Release);
            return Ok(());
        }
        let mut controller = self.0.controller();
        self.0.with_host(|host| controller.write_register(host, offset as usize, data.len(), value));
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> Result<(), Error> {
        assert_eq!(flags.bits() & !3, 0);
        let file = Arc::new(fd.ok_or_else(|| refused("no descriptor"))?);
        let host = HostMemory::from_file(file, offset, size as usize).map_err(refused)?;
        self.0.space.insert(address, host, Access::ReadWrite).map_err(refused)?;
        self.0.maps.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn dma_unmap(&mut self, _flags: DmaUnmapFlags, address: u64, size: u64) -> Result<(), Error> {
        self.0.space.remove(address, size).map_err(refused)?;
        self.0.maps.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), Error> {
        self.0.controller().function_reset();
        self.0.doorbells.zero(0, BAR as usize).map_err(refused)
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> Result<(), Error> {
        assert_eq!((index, flags), (2, 1 << 2 | 1 << 5));
        assert_eq!(count as usize, fds.len());
        let mut irqs = self.0.irqs.lock().unwrap();
        for (at, fd) in (start as usize..).zip(fds) {
            irqs[at] = Some(Interrupt::from_fd(OwnedFd::from(fd)));
        }
        Ok(())
    }
}
