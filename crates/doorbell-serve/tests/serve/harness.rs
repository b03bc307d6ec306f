//! A server, and clients as small as they can be.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_device::{HostMemory, Interrupt};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_serve::Endpoint;
use vfio_user::wire::{self, irq, region};
use vfio_user::{Call, Caller, Capabilities, Connection, Limits};

/// How long a reply or a completion may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where the client's memory is, as the controller sees it.
pub(crate) const IOVA: u64 = 0x1_0000_0000;
/// Entries of the queues.
const ENTRIES: u16 = 16;
/// Where in the memory things are.
const ASQ: usize = 0;
const ACQ: usize = 0x1000;
const SQ: usize = 0x2000;
const CQ: usize = 0x3000;
/// Where data may be.
pub(crate) const DATA: usize = 0x10000;
/// Bytes of the memory.
pub(crate) const MEMORY: usize = 0x40000;

/// A server of one controller with a namespace of 1 MiB in memory.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() })
    }

    pub(crate) fn with(config: ControllerConfig) -> Self {
        Self::of(NamespaceConfig::ram(1 << 20), config)
    }

    pub(crate) fn of(namespace: NamespaceConfig, config: ControllerConfig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let subsystem = Subsystem::default();
        subsystem.add_namespace(namespace).unwrap();
        let endpoint = Endpoint::start(&path, &subsystem, config).unwrap();
        Self { endpoint, path, _directory: directory }
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::new(UnixStream::connect(&self.path).unwrap(), Limits::default())
    }

    pub(crate) fn caller(&self) -> Caller {
        let capabilities = Capabilities { max_msg_fds: 16, write_multiple: true, ..Capabilities::default() };
        Caller::new(self.connect(), capabilities, Some(PATIENCE)).unwrap()
    }

    /// Whether a new client gets all the way to reading a block: the server works.
    pub(crate) fn check(&self) {
        let mut host = Host::new(self.caller());
        host.enable();
        host.create_queues();
        host.fill(DATA, 0xee);
        assert_eq!(host.io(0x02, DATA, 0), 0, "a read succeeds");
    }

    /// Waits until the server has noticed that its client is gone.
    pub(crate) fn wait_until_free(&self) {
        wait_for("the client's end", || !self.endpoint.statistics().connected);
    }
}

pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A host of NVMe with an admin queue and one I/O queue, which waits for each command.
pub(crate) struct Host {
    pub(crate) caller: Caller,
    pub(crate) memory: HostMemory,
    pub(crate) doorbells: HostMemory,
    pub(crate) interrupts: Vec<Interrupt>,
    admin: Ring,
    io: Ring,
    cid: u16,
}

struct Ring {
    id: usize,
    sq: usize,
    cq: usize,
    tail: u16,
    head: u16,
    phase: u16,
}

impl Ring {
    fn new(id: usize, sq: usize, cq: usize) -> Self {
        Self { id, sq, cq, tail: 0, head: 0, phase: 1 }
    }
}

impl Host {
    /// With its memory shared, its doorbells mapped, and its interrupts set up.
    pub(crate) fn new(mut caller: Caller) -> Self {
        let memory = HostMemory::allocate(MEMORY).unwrap();
        let doorbells = map_doorbells(&mut caller);
        share(&mut caller, &memory, IOVA);
        let interrupts: Vec<Interrupt> = (0..2).map(|_| Interrupt::new().unwrap()).collect();
        let flags = wire::SET_DATA_EVENTFD | wire::SET_ACTION_TRIGGER;
        let set = wire::IrqSet { flags, index: irq::MSIX, start: 0, count: 2, ..Default::default() };
        let fds: Vec<_> = interrupts.iter().map(AsFd::as_fd).collect();
        caller.set_irqs(set, &[], &fds).unwrap();
        let (admin, io) = (Ring::new(0, ASQ, ACQ), Ring::new(1, SQ, CQ));
        Self { caller, memory, doorbells, interrupts, admin, io, cid: 0 }
    }

    pub(crate) fn register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.caller.region_read(region::BAR0, offset, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set_register(&mut self, offset: u64, value: u32) {
        self.caller.region_write(region::BAR0, offset, &value.to_le_bytes()).unwrap();
    }

    /// Brings the controller up, with an admin queue.
    pub(crate) fn enable(&mut self) {
        self.admin = Ring::new(0, ASQ, ACQ);
        self.set_register(0x14, 0);
        wait_for("CSTS.RDY = 0", || self.register(0x1c) & 1 == 0);
        self.memory.zero(0, 0x4000).unwrap();
        let entries = u32::from(ENTRIES - 1);
        self.set_register(0x24, entries << 16 | entries);
        for (offset, at) in [(0x28, ASQ), (0x30, ACQ)] {
            let address = IOVA + at as u64;
            self.caller.region_write(region::BAR0, offset, &address.to_le_bytes()).unwrap();
        }
        self.set_register(0x14, 0x0046_0001);
        wait_for("CSTS.RDY = 1", || self.register(0x1c) & 1 == 1);
    }

    /// One I/O queue pair, with interrupt vector 1.
    pub(crate) fn create_queues(&mut self) {
        self.io = Ring::new(1, SQ, CQ);
        let size = u32::from(ENTRIES - 1) << 16 | 1;
        assert_eq!(self.admin(0x05, 0, CQ, size, 1 << 16 | 0b11), 0, "create a completion queue");
        assert_eq!(self.admin(0x01, 0, SQ, size, 1 << 16 | 1), 0, "create a submission queue");
    }

    /// An admin command; gives its status.
    pub(crate) fn admin(&mut self, opcode: u8, nsid: u32, at: usize, dw10: u32, dw11: u32) -> u16 {
        let address = IOVA + at as u64;
        let cid = self.submit(true, opcode, nsid, address, [dw10, dw11, 0]);
        self.complete(true, cid)
    }

    /// A read (2) or write (1) of one block; gives its status.
    pub(crate) fn io(&mut self, opcode: u8, at: usize, lba: u32) -> u16 {
        self.io_at(opcode, IOVA + at as u64, lba)
    }

    pub(crate) fn io_at(&mut self, opcode: u8, address: u64, lba: u32) -> u16 {
        let cid = self.submit(false, opcode, 1, address, [lba, 0, 0]);
        self.complete(false, cid)
    }

    /// Sends a read of one block, and does not wait for it.
    pub(crate) fn begin_read(&mut self, address: u64) -> u16 {
        self.submit(false, 0x02, 1, address, [0, 0, 0])
    }

    /// The status of what was begun.
    pub(crate) fn end_read(&mut self, cid: u16) -> u16 {
        self.complete(false, cid)
    }

    fn submit(&mut self, admin: bool, opcode: u8, nsid: u32, address: u64, dwords: [u32; 3]) -> u16 {
        self.cid = self.cid.wrapping_add(1);
        let ring = if admin { &mut self.admin } else { &mut self.io };
        let mut sqe = [0u32; 16];
        sqe[0] = u32::from(opcode) | u32::from(self.cid) << 16;
        sqe[1] = nsid;
        (sqe[6], sqe[7]) = (address as u32, (address >> 32) as u32);
        sqe[10..13].copy_from_slice(&dwords);
        let bytes: Vec<u8> = sqe.iter().flat_map(|dword| dword.to_le_bytes()).collect();
        self.memory.write_at(ring.sq + usize::from(ring.tail) * 64, &bytes).unwrap();
        ring.tail = (ring.tail + 1) % ENTRIES;
        self.doorbells.dwords()[ring.id * 2].store(ring.tail.into(), Ordering::Release);
        self.cid
    }

    fn complete(&mut self, admin: bool, cid: u16) -> u16 {
        let ring = if admin { &mut self.admin } else { &mut self.io };
        let at = (ring.cq + usize::from(ring.head) * 16 + 12) / 4;
        let mut last = 0;
        wait_for("a completion", || {
            last = self.memory.dwords()[at].load(Ordering::Acquire);
            (last >> 16) as u16 & 1 == ring.phase
        });
        assert_eq!(last as u16, cid);
        ring.head = (ring.head + 1) % ENTRIES;
        ring.phase ^= u16::from(ring.head == 0);
        self.doorbells.dwords()[ring.id * 2 + 1].store(ring.head.into(), Ordering::Release);
        (last >> 17) as u16 & 0x7ff
    }

    pub(crate) fn fill(&self, at: usize, byte: u8) {
        self.memory.write_at(at, &[byte; 512]).unwrap();
    }

    pub(crate) fn block(&self, at: usize) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        self.memory.read_at(at, &mut bytes).unwrap();
        bytes
    }
}

/// Shares memory with the controller.
pub(crate) fn share(caller: &mut Caller, memory: &HostMemory, address: u64) {
    let (file, offset) = memory.file().unwrap();
    let flags = wire::DMA_READ | wire::DMA_WRITE;
    let map = wire::DmaMap { flags, offset, address, size: memory.len() as u64, ..Default::default() };
    caller.dma_map(map, Some(file.as_fd())).unwrap();
}

/// Maps the doorbells as the server describes them.
pub(crate) fn map_doorbells(caller: &mut Caller) -> HostMemory {
    let bar = caller.region_info(region::BAR0).unwrap();
    let area = bar.areas.expect("a list of areas")[0];
    assert_eq!(area.offset, 0x1000);
    let file: OwnedFd = bar.file.expect("a file");
    HostMemory::from_file(std::sync::Arc::new(file.into()), bar.info.offset + area.offset, area.size as usize).unwrap()
}
