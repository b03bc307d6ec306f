//! A host as plain as can be: rings in DMA memory, commands as they are on the wire, no driver.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::inprocess::{Activity, InProcess, Run};
use doorbell_device::{Device, DmaMemory, Doorbell};
use doorbell_emulator::{Controller, ControllerConfig, NamespaceConfig, Subsystem, emulated};
use nvme_spec::registers::{Aqa, Cap, Cc, Csts, cq_head_doorbell, offset, sq_tail_doorbell};
use nvme_spec::{AdminOpcode, Command, Completion, DataPointer, NvmOpcode, Status};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) const ADMIN_ENTRIES: u16 = 32;

/// A queue pair, from the host's side.
pub(crate) struct Ring {
    pub(crate) qid: u16,
    pub(crate) sq: DmaMemory,
    pub(crate) cq: DmaMemory,
    sq_size: u32,
    cq_size: u32,
    pub(crate) tail: u32,
    head: u32,
    phase: bool,
    pub(crate) tail_bell: Doorbell,
    pub(crate) head_bell: Doorbell,
}

impl Ring {
    pub(crate) fn new(device: &dyn Device, qid: u16, sq_size: u32, cq_size: u32, page: u64, dstrd: u8) -> Self {
        Self {
            qid,
            sq: device.allocate(sq_size as usize * 64, page).unwrap(),
            cq: device.allocate(cq_size as usize * 16, page).unwrap(),
            sq_size,
            cq_size,
            tail: 0,
            head: 0,
            phase: true,
            tail_bell: device.doorbell(sq_tail_doorbell(qid, dstrd)).unwrap(),
            head_bell: device.doorbell(cq_head_doorbell(qid, dstrd)).unwrap(),
        }
    }

    /// Puts a command into the ring, without ringing.
    pub(crate) fn push(&mut self, command: &Command) {
        let words = &self.sq.host().words()[self.tail as usize * 8..][..8];
        for (to, from) in words.iter().zip(command.to_words()) {
            to.store(from, Ordering::Relaxed);
        }
        self.tail = (self.tail + 1) % self.sq_size;
    }

    pub(crate) fn ring(&self) {
        self.tail_bell.ring(self.tail);
    }

    /// The next completion, without giving its place back.
    pub(crate) fn peek(&self) -> Option<Completion> {
        let words = &self.cq.host().words()[self.head as usize * 2..][..2];
        let high = words[1].load(Ordering::Acquire);
        if Completion::phase_of_word1(high) != self.phase {
            return None;
        }
        Some(Completion::from_words([words[0].load(Ordering::Relaxed), high]))
    }

    /// Takes the next completion.
    pub(crate) fn pop(&mut self) -> Option<Completion> {
        let completion = self.peek()?;
        self.head += 1;
        if self.head == self.cq_size {
            self.head = 0;
            self.phase = !self.phase;
        }
        self.head_bell.ring(self.head);
        Some(completion)
    }
}

/// A host with one controller.
pub(crate) struct Host {
    pub(crate) device: Arc<InProcess<Controller>>,
    pub(crate) subsystem: Subsystem,
    pub(crate) admin: Ring,
    pub(crate) io: Vec<Ring>,
    pub(crate) now: Duration,
    pub(crate) page: u64,
    pub(crate) dstrd: u8,
    next_cid: u16,
}

/// A host with an enabled controller, one I/O queue pair and one namespace of 4096-byte blocks in 64 MiB of memory.
pub(crate) fn host() -> Host {
    Host::new(ControllerConfig::default())
}

impl Host {
    pub(crate) fn new(config: ControllerConfig) -> Self {
        let subsystem = Subsystem::default();
        subsystem.add_namespace(NamespaceConfig::ram(64 << 20).block_size(4096)).unwrap();
        Self::with_queue(&subsystem, config)
    }

    /// A host with an enabled controller of a subsystem and one I/O queue pair.
    pub(crate) fn with_queue(subsystem: &Subsystem, config: ControllerConfig) -> Self {
        let mut host = Self::enabled(subsystem, config);
        let size = u32::from(host.cap().mqes()).min(255) + 1;
        host.create_queue_pair(1, size);
        host
    }

    /// A host with an enabled controller.
    pub(crate) fn enabled(subsystem: &Subsystem, config: ControllerConfig) -> Self {
        let mut host = Self::off(subsystem, config);
        host.enable();
        host
    }

    /// A host with a controller that is not enabled.
    pub(crate) fn off(subsystem: &Subsystem, config: ControllerConfig) -> Self {
        Self::run_as(subsystem, config, Run::Stepped)
    }

    /// The same, run as told.
    pub(crate) fn run_as(subsystem: &Subsystem, config: ControllerConfig, run: Run) -> Self {
        let device = emulated(subsystem, config, run).unwrap();
        let cap = Cap::from(device.read64(offset::CAP).unwrap());
        let page = cap.min_page_size() as u64;
        let entries = u32::from(ADMIN_ENTRIES);
        let admin = Ring::new(&*device, 0, entries, entries, page, cap.dstrd());
        let subsystem = subsystem.clone();
        Self { device, subsystem, admin, io: Vec::new(), now: Duration::ZERO, page, dstrd: cap.dstrd(), next_cid: 0 }
    }

    pub(crate) fn cap(&self) -> Cap {
        Cap::from(self.device.read64(offset::CAP).unwrap())
    }

    pub(crate) fn csts(&self) -> Csts {
        Csts::from(self.device.read32(offset::CSTS).unwrap())
    }

    pub(crate) fn cc(&self) -> Cc {
        let mps = (self.page.ilog2() - 12) as u8;
        Cc::new().with_en(true).with_mps(mps).with_iosqes(6).with_iocqes(4)
    }

    pub(crate) fn write_cc(&self, cc: Cc) {
        self.device.write32(offset::CC, cc.into_bits()).unwrap();
    }

    /// Sets up the admin queue and enables the controller.
    pub(crate) fn enable(&mut self) {
        self.set_up_admin();
        self.write_cc(self.cc());
        self.step();
        assert!(self.csts().rdy(), "{:?}", self.csts());
    }

    pub(crate) fn set_up_admin(&mut self) {
        let entries = u32::from(ADMIN_ENTRIES);
        self.admin = Ring::new(&*self.device, 0, entries, entries, self.page, self.dstrd);
        let aqa = Aqa::new().with_asqs(ADMIN_ENTRIES - 1).with_acqs(ADMIN_ENTRIES - 1);
        self.device.write32(offset::AQA, aqa.into_bits()).unwrap();
        self.device.write64(offset::ASQ, self.admin.sq.iova()).unwrap();
        self.device.write64(offset::ACQ, self.admin.cq.iova()).unwrap();
        self.io.clear();
    }

    pub(crate) fn disable(&mut self) {
        self.write_cc(self.cc().with_en(false));
        self.step();
        assert!(!self.csts().rdy());
    }

    pub(crate) fn step(&self) -> Activity {
        self.device.step(self.now)
    }

    pub(crate) fn pass(&mut self, time: Duration) -> Activity {
        self.now += time;
        self.step()
    }

    pub(crate) fn cid(&mut self) -> u16 {
        self.next_cid = (self.next_cid + 1) % 0x7fff;
        self.next_cid
    }

    pub(crate) fn ring(&mut self, qid: u16) -> &mut Ring {
        if qid == 0 { &mut self.admin } else { self.io.iter_mut().find(|ring| ring.qid == qid).unwrap() }
    }

    /// Sends a command and gives its identifier.
    pub(crate) fn submit(&mut self, qid: u16, command: &Command) -> u16 {
        let cid = self.cid();
        let command = Command { cdw0: command.cdw0.with_cid(cid), ..*command };
        let ring = self.ring(qid);
        ring.push(&command);
        ring.ring();
        cid
    }

    /// Sends a command, and waits for its completion.
    pub(crate) fn run(&mut self, qid: u16, command: &Command) -> Completion {
        let cid = self.submit(qid, command);
        self.step();
        let completion = self.ring(qid).pop().expect("no completion");
        assert_eq!((completion.cid, completion.sqid), (cid, qid));
        completion
    }

    pub(crate) fn admin(&mut self, command: &Command) -> Completion {
        self.run(0, command)
    }

    /// An admin command that has to succeed; gives dword 0.
    #[track_caller]
    pub(crate) fn admin_ok(&mut self, command: &Command) -> u32 {
        let completion = self.admin(command);
        assert!(completion.status.is_success(), "{:?}", completion.status.status());
        completion.dw0
    }

    #[track_caller]
    pub(crate) fn admin_fails(&mut self, command: &Command, status: Status) {
        assert_eq!(self.admin(command).status.status(), status);
    }

    /// An I/O command on queue 1.
    pub(crate) fn io(&mut self, command: &Command) -> Status {
        self.run(1, command).status.status()
    }

    #[track_caller]
    pub(crate) fn io_ok(&mut self, command: &Command) {
        assert_eq!(self.io(command), Status::SUCCESS);
    }

    pub(crate) fn allocate(&self, len: usize) -> DmaMemory {
        self.device.allocate(len, self.page).unwrap()
    }

    /// Creates a queue pair; both queues have `size` entries.
    pub(crate) fn create_queue_pair(&mut self, qid: u16, size: u32) {
        let ring = Ring::new(&*self.device, qid, size, size, self.page, self.dstrd);
        self.admin_ok(&nvme_spec::admin::create_io_cq(qid, size, ring.cq.iova(), Some(0)));
        self.admin_ok(&nvme_spec::admin::create_io_sq(qid, size, ring.sq.iova(), qid));
        self.io.push(ring);
    }

    /// PRPs for `len` bytes from `offset` on of a buffer that begins at a page, and what keeps the lists.
    pub(crate) fn prp(&self, buffer: &DmaMemory, offset: u64, len: u64) -> (DataPointer, Vec<DmaMemory>) {
        let page = self.page;
        let first = buffer.iova() + offset;
        let end = first + len;
        let second = (first / page + 1) * page;
        if end <= second {
            return (DataPointer::prp(first, 0), Vec::new());
        }
        let pages: Vec<u64> = (second..end).step_by(page as usize).collect();
        if let [only] = pages[..] {
            return (DataPointer::prp(first, only), Vec::new());
        }
        let lists = self.lists(&pages);
        (DataPointer::prp(first, lists[0].iova()), lists)
    }

    /// A chain of list pages with these entries.
    pub(crate) fn lists(&self, entries: &[u64]) -> Vec<DmaMemory> {
        let slots = self.page as usize / 8;
        let mut rest = entries;
        let mut lists: Vec<DmaMemory> = Vec::new();
        while !rest.is_empty() {
            let list = self.allocate(self.page as usize);
            let count = if rest.len() > slots { slots - 1 } else { rest.len() };
            for (to, from) in list.host().words().iter().zip(&rest[..count]) {
                to.store(*from, Ordering::Relaxed);
            }
            if let Some(before) = lists.last() {
                before.host().words()[slots - 1].store(list.iova(), Ordering::Relaxed);
            }
            lists.push(list);
            rest = &rest[count..];
        }
        lists
    }

    pub(crate) fn write(&mut self, lba: u64, data: &[u8]) -> Status {
        self.transfer(NvmOpcode::WRITE, lba, data.to_vec()).0
    }

    pub(crate) fn read(&mut self, lba: u64, len: usize) -> Result<Vec<u8>, Status> {
        match self.transfer(NvmOpcode::READ, lba, vec![0xa5; len]) {
            (Status::SUCCESS, data) => Ok(data),
            (status, _) => Err(status),
        }
    }

    /// A command on 4096-byte blocks of namespace 1.
    pub(crate) fn transfer(&mut self, opcode: NvmOpcode, lba: u64, data: Vec<u8>) -> (Status, Vec<u8>) {
        let buffer = self.allocate(data.len());
        buffer.host().write_at(0, &data).unwrap();
        let (dptr, _lists) = self.prp(&buffer, 0, data.len() as u64);
        let status = self.io(&Command { dptr, ..blocks(opcode, lba, (data.len() / 4096) as u32) });
        (status, bytes(&buffer, data.len()))
    }

    /// Identify: a page.
    pub(crate) fn identify(&mut self, cns: u8, nsid: u32) -> Result<Vec<u8>, Status> {
        let buffer = self.allocate(4096);
        buffer.host().write_at(0, &[0xee; 4096]).unwrap();
        let command = Command {
            nsid,
            cdw10: cns.into(),
            dptr: DataPointer::prp(buffer.iova(), 0),
            ..AdminOpcode::IDENTIFY.command()
        };
        match self.admin(&command).status.status() {
            Status::SUCCESS => Ok(bytes(&buffer, 4096)),
            status => Err(status),
        }
    }

    pub(crate) fn identify_as<T: FromBytes + KnownLayout + Immutable>(&mut self, cns: u8, nsid: u32) -> T {
        T::read_from_bytes(&self.identify(cns, nsid).unwrap()).unwrap()
    }
}

/// A command on blocks of namespace 1.
pub(crate) fn blocks(opcode: NvmOpcode, lba: u64, count: u32) -> Command {
    let mut command = Command { nsid: 1, cdw12: count - 1, ..io_command(opcode) };
    command.set_cdw10_11(lba);
    command
}

pub(crate) fn io_command(opcode: NvmOpcode) -> Command {
    Command { nsid: 1, ..AdminOpcode(opcode.0).command() }
}

pub(crate) fn bytes(memory: &DmaMemory, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.host().read_at(0, &mut bytes).unwrap();
    bytes
}

/// DMA memory with this in it.
pub(crate) fn memory_with(host: &Host, value: &(impl IntoBytes + Immutable + ?Sized)) -> DmaMemory {
    let memory = host.allocate(value.as_bytes().len());
    memory.host().write_at(0, value.as_bytes()).unwrap();
    memory
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}
