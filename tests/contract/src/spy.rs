//! A device around an emulated one that reads each submission queue entry when its doorbell rings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use doorbell_device::{Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};
use nvme_spec::admin::{CreateCqCdw11, CreateQueueCdw10};
use nvme_spec::registers::{Aqa, offset, sq_tail_doorbell};
use nvme_spec::{AdminOpcode, Command, NvmOpcode};

use crate::bench;

/// See the module.
pub(crate) struct Spy {
    device: bench::Device,
    dstrd: u8,
    slow: bool,
    noise: Option<Interrupt>,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    /// Submission queues: where, how many entries, and the tail.
    queues: BTreeMap<u16, (u64, u32, u32)>,
    asq: u64,
    rings: Vec<Ring>,
}

/// A doorbell that rang, and what was new behind it.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    pub(crate) queue: u16,
    pub(crate) commands: Vec<Command>,
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spy {
    pub(crate) fn new(device: bench::Device) -> Arc<Self> {
        Arc::new(Self::around(device))
    }

    fn around(device: bench::Device) -> Self {
        let dstrd = device.with_controller(|controller| controller.config().dstrd);
        Self { device, dstrd, slow: false, noise: None, book: Arc::default() }
    }

    /// Of a device that says that its doorbells are slow.
    pub(crate) fn slow(device: bench::Device) -> Arc<Self> {
        Arc::new(Self { slow: true, ..Self::around(device) })
    }

    /// Of a device whose interrupt pin never falls silent.
    pub(crate) fn noisy(device: bench::Device) -> Arc<Self> {
        let itself: Arc<OnceLock<Interrupt>> = Arc::default();
        let again = itself.clone();
        let raise = move || again.get().into_iter().for_each(Interrupt::raise);
        let noise = Interrupt::level_triggered(raise).expect("an interrupt");
        let noise = itself.get_or_init(|| noise).clone();
        Arc::new(Self { noise: Some(noise), ..Self::around(device) })
    }

    pub(crate) fn device(&self) -> &bench::Device {
        &self.device
    }

    /// Submission doorbells of I/O queues since the last [`clear`](Self::clear).
    pub(crate) fn rings(&self) -> Vec<Ring> {
        lock(&self.book).rings.iter().filter(|ring| ring.queue != 0).cloned().collect()
    }

    /// I/O commands, each with its queue.
    pub(crate) fn io(&self) -> Vec<(u16, Command)> {
        let rings = self.rings().into_iter();
        rings.flat_map(|ring| ring.commands.into_iter().map(move |command| (ring.queue, command))).collect()
    }

    /// I/O commands of an opcode.
    pub(crate) fn of(&self, opcode: NvmOpcode) -> Vec<Command> {
        self.io().into_iter().map(|(_, command)| command).filter(|c| c.cdw0.opcode() == opcode.0).collect()
    }

    /// Admin commands of an opcode.
    pub(crate) fn admin(&self, opcode: AdminOpcode) -> Vec<Command> {
        let rings = lock(&self.book).rings.clone();
        let admin = rings.into_iter().filter(|ring| ring.queue == 0).flat_map(|ring| ring.commands);
        admin.filter(|command| command.cdw0.opcode() == opcode.0).collect()
    }

    pub(crate) fn clear(&self) {
        lock(&self.book).rings.clear();
    }

    /// As [`clear`](Self::clear), but admin commands are kept.
    pub(crate) fn clear_io(&self) {
        lock(&self.book).rings.retain(|ring| ring.queue == 0);
    }
}

impl Book {
    /// Reads what is new on a queue.
    fn rang(&mut self, device: &bench::Device, queue: u16, new_tail: u32) {
        let Some((base, entries, tail)) = self.queues.get_mut(&queue) else { return };
        let mut commands = Vec::new();
        while *tail != new_tail {
            let mut bytes = [0; 64];
            device.dma_space().view().read(*base + u64::from(*tail) * 64, &mut bytes).expect("a submission queue");
            let word = |i: usize| u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().expect("8 bytes"));
            commands.push(Command::from_words(std::array::from_fn(word)));
            *tail = (*tail + 1) % *entries;
        }
        for command in commands.iter().filter(|_| queue == 0) {
            if command.cdw0.opcode() == AdminOpcode::CREATE_IO_SQ.0 {
                let cdw10 = CreateQueueCdw10::from(command.cdw10);
                self.queues.insert(cdw10.qid(), (command.dptr.prp1(), u32::from(cdw10.qsize()) + 1, 0));
            }
        }
        self.rings.push(Ring { queue, commands });
    }
}

/// The vector of a Create I/O Completion Queue, if it has one.
pub(crate) fn vector(create: &Command) -> Option<u16> {
    let cdw11 = CreateCqCdw11::from(create.cdw11);
    cdw11.ien().then(|| cdw11.iv())
}

impl Device for Spy {
    fn address(&self) -> String {
        self.device.address()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.device.read32(offset)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.device.read64(offset)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        let mut book = lock(&self.book);
        match offset {
            offset::AQA => {
                let entries = u32::from(Aqa::from_bits(value).asqs()) + 1;
                let asq = book.asq;
                book.queues.insert(0, (asq, entries, 0));
            }
            offset::ASQ => book.asq = book.asq & !0xffff_ffff | u64::from(value),
            _ => {}
        }
        drop(book);
        self.device.write32(offset, value)
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        if offset == offset::ASQ {
            let mut book = lock(&self.book);
            book.asq = value;
            if let Some(admin) = book.queues.get_mut(&0) {
                admin.0 = value;
            }
        }
        self.device.write64(offset, value)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        let inner = self.device.doorbell(offset)?;
        let Some(queue) = (0..=64).find(|queue| sq_tail_doorbell(*queue, self.dstrd) == offset) else {
            return Ok(inner);
        };
        let (device, book) = (self.device.clone(), self.book.clone());
        Ok(Doorbell::from_fn(move |value| {
            lock(&book).rang(&device, queue, value);
            inner.ring(value);
        }))
    }

    fn completes_inline(&self) -> bool {
        self.device.completes_inline()
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.device.map(request)
    }

    fn interrupt_count(&self) -> u32 {
        self.device.interrupt_count()
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        self.noise.clone().map_or_else(|| self.device.interrupt(vector), Ok)
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.device.reset()
    }

    fn doorbells_are_slow(&self) -> bool {
        self.slow
    }

    fn loss(&self) -> Option<Interrupt> {
        self.device.loss()
    }

    fn check_present(&self) -> Result<(), DeviceError> {
        self.device.check_present()
    }

    fn may_return(&self) -> bool {
        self.device.may_return()
    }

    fn release(&self) -> Result<(), DeviceError> {
        self.device.release()
    }
}
