use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvme_spec::registers::{Cap, Cc, Crto, Csts, Version, doorbell_stride, offset};

use super::admin::Controller;
use super::queue::{DoorbellWord, Queue};
use crate::inprocess::DmaSpace;
use crate::{Device, DeviceError, DmaMemory, Doorbell, HostMemory, Interrupt, MapRequest};

/// What a [`ZeroWork`] device looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The block size of a namespace, as a power of two: 9 to 16.
    pub block_shift: u8,
    /// Blocks of a namespace.
    pub block_count: u64,
    /// The largest transfer, as a power of two of 4 KiB pages; 0 for no limit.
    pub mdts: u8,
    /// I/O queue pairs, 1 to 64.
    pub queues: u16,
    /// Entries of the largest queue, 2 to 4096.
    pub queue_entries: u16,
    /// CAP.DSTRD, up to 6: 0 packs the doorbells, 4 gives each a cache line of its own.
    pub doorbell_stride: u8,
    /// Whether SGLs are offered as well as PRPs. Neither is looked at.
    pub sgls: bool,
    /// Interrupt vectors. 0 is a device that can only be polled.
    pub interrupts: u32,
    /// Namespaces, all alike: 1 to 1024.
    pub namespaces: u32,
    /// A queue's commands are completed, all of them, in the call that rings for so many: 1 is each in its own. 0 is
    /// only when told.
    pub completes_at: u32,
}

impl Default for Options {
    /// 1 TiB of 4 KiB blocks, transfers up to 2 MiB, 64 queues of 4096 entries, a cache line a doorbell, PRPs, polled,
    /// one namespace, completions when told.
    fn default() -> Self {
        Self {
            block_shift: 12,
            block_count: 1 << 28,
            mdts: 9,
            queues: 64,
            queue_entries: 4096,
            doorbell_stride: 4,
            sgls: false,
            interrupts: 0,
            namespaces: 1,
            completes_at: 0,
        }
    }
}

/// A device that does no work; see the [module](super).
#[derive(Debug)]
pub struct ZeroWork {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) space: Arc<DmaSpace>,
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) fatal: Arc<AtomicBool>,
    doorbells: HostMemory,
    controller: Mutex<Controller>,
}

impl ZeroWork {
    /// A device, not enabled.
    pub fn new(mut options: Options) -> Result<Arc<Self>, DeviceError> {
        options.block_shift = options.block_shift.clamp(9, 16);
        options.queues = options.queues.clamp(1, 64);
        options.queue_entries = options.queue_entries.clamp(2, 4096);
        options.doorbell_stride = options.doorbell_stride.min(6);
        options.namespaces = options.namespaces.clamp(1, 1024);
        let doorbells = 2 * (usize::from(options.queues) + 1) * doorbell_stride(options.doorbell_stride);
        let interrupts = (0..options.interrupts).map(|_| Interrupt::new()).collect::<Result<_, _>>()?;
        let shared = Shared {
            options,
            space: Arc::new(DmaSpace::new()),
            interrupts,
            fatal: Arc::default(),
            doorbells: HostMemory::allocate(doorbells)?,
            controller: Mutex::default(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// An I/O submission queue that the driver has created, by its identifier: the way to complete commands without
    /// looking the queue up each time.
    pub fn queue(&self, qid: u16) -> Option<Queue> {
        self.shared.lock().queue(qid).map(Queue::new)
    }

    /// Completes up to `max` commands of an I/O submission queue and returns how many, as [`Queue::complete`].
    pub fn complete(&self, qid: u16, max: usize) -> usize {
        self.queue(qid).map_or(0, |queue| queue.complete(max))
    }

    /// Completes all commands that wait for more to come with them ([`Options::completes_at`]): to be called now and then if
    /// no more may come. Any thread may do so.
    pub fn complete_waiting(&self) {
        let controller = self.shared.lock();
        for queue in controller.queues() {
            queue.complete(usize::MAX);
        }
    }

    /// The memory the device was given.
    pub fn dma_space(&self) -> &Arc<DmaSpace> {
        &self.shared.space
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Controller> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The doorbell of a queue: its submission queue's tail, or its completion queue's head.
    pub(super) fn doorbell_of(&self, qid: u16, completion: bool) -> DoorbellWord {
        let index = 2 * usize::from(qid) + usize::from(completion);
        let dword = index * doorbell_stride(self.options.doorbell_stride) / 4;
        DoorbellWord { memory: self.doorbells.clone(), dword }
    }

    pub(super) fn clear_doorbells(&self) {
        for word in self.doorbells.dwords() {
            word.store(0, Ordering::Release);
        }
    }

    fn capabilities(&self) -> Cap {
        Cap::new()
            .with_mqes(self.options.queue_entries - 1)
            .with_cqr(true)
            .with_to(1)
            .with_dstrd(self.options.doorbell_stride)
            .with_css(Cap::CSS_NVM)
            .with_crms(Cap::CRMS_WITH_MEDIA)
    }

    fn status(&self, cc: Cc) -> Csts {
        let shutdown = if cc.shn() == Cc::SHN_NONE { Csts::SHST_NONE } else { Csts::SHST_COMPLETE };
        Csts::new().with_rdy(cc.en()).with_cfs(self.fatal.load(Ordering::Relaxed)).with_shst(shutdown)
    }

    fn register_space(&self) -> usize {
        offset::DOORBELLS + self.doorbells.len()
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        let size = self.register_space();
        if !offset.is_multiple_of(len) || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DeviceError::BadRegister { offset, len, size });
        }
        Ok(())
    }

    /// An aligned pair of registers, as the 64 bits they are.
    fn read(&self, offset: usize) -> u64 {
        let controller = self.lock();
        match offset {
            offset::CAP => self.capabilities().into_bits(),
            offset::VS => Version::V2_0.into_bits().into(),
            // INTMC in the lower half.
            0x10 => u64::from(controller.cc.into_bits()) << 32,
            // CSTS in the upper half.
            0x18 => u64::from(self.status(controller.cc).into_bits()) << 32,
            // AQA in the upper half.
            0x20 => u64::from(controller.aqa.into_bits()) << 32,
            offset::ASQ => controller.asq,
            offset::ACQ => controller.acq,
            offset::CRTO => Crto::new().with_crwmt(1).into_bits().into(),
            _ => 0,
        }
    }

    fn write(&self, offset: usize, value: u32) {
        let mut controller = self.lock();
        let low = |old: u64| old & !0xffff_ffff | u64::from(value);
        let high = |old: u64| old & 0xffff_ffff | u64::from(value) << 32;
        match offset {
            offset::CC => controller.configure(self, Cc::from_bits(value)),
            offset::AQA => controller.aqa = value.into(),
            offset::ASQ => controller.asq = low(controller.asq),
            0x2c => controller.asq = high(controller.asq),
            offset::ACQ => controller.acq = low(controller.acq),
            0x34 => controller.acq = high(controller.acq),
            _ => {}
        }
    }

    fn ring(&self, dword: usize, value: u32) {
        if let Some(word) = self.doorbells.dwords().get(dword) {
            word.store(value, Ordering::Release);
        }
        if dword == 0 {
            self.lock().run_admin(self);
        } else if self.options.completes_at != 0 {
            self.complete_if_enough(dword);
        }
    }

    /// A doorbell rang: completes what waits in its queue, if that is enough.
    fn complete_if_enough(&self, dword: usize) {
        let index = dword * 4 / doorbell_stride(self.options.doorbell_stride);
        // Those of completion queues are the odd ones.
        if !index.is_multiple_of(2) {
            return;
        }
        // Locked meanwhile, as others may complete what waits.
        let controller = self.lock();
        let queue = controller.queue((index / 2) as u16).map(Queue::new);
        if let Some(queue) = queue.filter(|queue| queue.pending() >= self.options.completes_at as usize) {
            queue.complete(usize::MAX);
        }
    }
}

impl Device for ZeroWork {
    fn address(&self) -> String {
        "zero-work:".into()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.shared.check(offset, 4)?;
        let pair = self.shared.read(offset & !7);
        Ok(if offset.is_multiple_of(8) { pair as u32 } else { (pair >> 32) as u32 })
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.shared.check(offset, 8)?;
        Ok(self.shared.read(offset))
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.shared.check(offset, 4)?;
        match offset.checked_sub(offset::DOORBELLS) {
            Some(at) => self.shared.ring(at / 4, value),
            None => self.shared.write(offset, value),
        }
        Ok(())
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.shared.check(offset, 8)?;
        self.write32(offset, value as u32)?;
        self.write32(offset + 4, (value >> 32) as u32)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.shared.check(offset, 4)?;
        let bad = DeviceError::BadRegister { offset, len: 4, size: self.shared.register_space() };
        match offset.checked_sub(offset::DOORBELLS) {
            // The doorbell does not keep the device alive: the device may keep the doorbell's owner's memory alive.
            Some(at) if at == 0 || self.shared.options.completes_at != 0 => {
                let shared = Arc::downgrade(&self.shared);
                Ok(Doorbell::from_fn(move |value| {
                    if let Some(shared) = shared.upgrade() {
                        shared.ring(at / 4, value);
                    }
                }))
            }
            Some(at) => Doorbell::in_memory(self.shared.doorbells.clone(), at).ok_or(bad),
            None => Err(bad),
        }
    }

    fn completes_inline(&self) -> bool {
        self.shared.options.completes_at == 1
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.shared.space.map(request)
    }

    fn interrupt_count(&self) -> u32 {
        self.shared.options.interrupts
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let count = self.interrupt_count();
        self.shared.interrupts.get(vector as usize).cloned().ok_or(DeviceError::BadVector { vector, count })
    }

    fn reset(&self) -> Result<(), DeviceError> {
        *self.shared.lock() = Controller::default();
        self.shared.fatal.store(false, Ordering::Relaxed);
        self.shared.clear_doorbells();
        Ok(())
    }
}
