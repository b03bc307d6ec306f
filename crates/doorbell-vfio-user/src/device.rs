use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use doorbell_device::{Access, Device, DeviceError, DmaMemory, Doorbell, HostMemory, Interrupt, Leaving, MapRequest};
use vfio_user::Call;
use vfio_user::wire::region::BAR0;

use crate::bar::DOORBELLS;
use crate::function;
use crate::keeper::{Presence, Shared};
use crate::link::{End, How};
use crate::options::VfioUserOptions;
use crate::pool::{HUGE, LARGEST, Pool, Taken};
use crate::space::Placed;

/// An NVMe controller that another process serves at a socket.
///
/// The connection lasts as long as this or any memory that was mapped through it.
pub struct VfioUserDevice {
    pub(crate) handle: Arc<Handle>,
}

/// Ends the connection when it goes, unless another process has it.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pool: Mutex<Pool>,
    keeper: Option<JoinHandle<()>>,
}

impl VfioUserDevice {
    /// Connects to a server.
    ///
    /// # Errors
    /// [`DeviceError::Io`] if there is no such socket; [`DeviceError::Unusable`] if nobody answers there, or what
    /// answers is no NVMe controller; [`DeviceError::Misbehaved`] if it breaks the protocol.
    pub fn open(options: VfioUserOptions) -> Result<Arc<Self>, DeviceError> {
        let (shared, receiving) = Shared::open(options)?;
        Self::attended(Arc::new(shared), |kept| kept.keep(receiving))
    }

    /// With the thread that looks after the connection.
    pub(crate) fn attended(
        shared: Arc<Shared>,
        keep: impl FnOnce(&Shared) + Send + 'static,
    ) -> Result<Arc<Self>, DeviceError> {
        let kept = shared.clone();
        let thread = std::thread::Builder::new().name("doorbell-vfio-user".into());
        let thread = thread.spawn(move || keep(&kept)).map_err(DeviceError::io("starting a thread"))?;
        let handle = Handle { shared, pool: Mutex::default(), keeper: Some(thread) };
        Ok(Arc::new(Self { handle: Arc::new(handle) }))
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        let size = self.shared().bar.size();
        if !offset.is_multiple_of(len) || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DeviceError::BadRegister { offset, len, size });
        }
        Ok(())
    }

    fn read<const LEN: usize>(&self, offset: usize) -> Result<[u8; LEN], DeviceError> {
        self.check(offset, LEN)?;
        if offset >= DOORBELLS {
            // Servers refuse it, or wait for somebody who answers.
            return Err(DeviceError::Unsupported("reading a doorbell"));
        }
        let mut bytes = [0; LEN];
        self.shared().ask(|server| server.region_read(BAR0, offset as u64, &mut bytes))?;
        Ok(bytes)
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check(offset, bytes.len())?;
        self.shared().ask(|server| server.region_write(BAR0, offset as u64, bytes))
    }
}

impl Handle {
    fn map_all(self: &Arc<Self>, requests: Vec<MapRequest>) -> Result<Vec<DmaMemory>, DeviceError> {
        let placed = self.shared.space.map(|| self.shared.link(), requests)?;
        let memory = |Placed { host, iova, region }| {
            let handle = self.clone();
            DmaMemory::new(host, iova, move || handle.release(region))
        };
        Ok(placed.into_iter().map(memory).collect())
    }

    pub(crate) fn release(&self, region: u64) -> Result<(), DeviceError> {
        self.shared.space.release(|| self.shared.link(), region)
    }

    fn map_one(&self, host: HostMemory) -> Result<Placed, DeviceError> {
        let request = MapRequest { host, access: Access::ReadWrite, align: HUGE as u64, offset: 0 };
        let mut placed = self.shared.space.map(|| self.shared.link(), vec![request])?;
        placed.pop().ok_or(DeviceError::Unsupported("mapping memory"))
    }

    /// Part of a chunk.
    fn allocate(self: &Arc<Self>, len: usize, align: usize) -> Result<DmaMemory, DeviceError> {
        let mut pool = self.lock_pool();
        let taken = match pool.take(len, align) {
            Some(taken) => taken?,
            None => {
                let placed = self.map_one(HostMemory::allocate(pool.next_chunk(len))?)?;
                pool.add(placed);
                pool.take(len, align).ok_or(DeviceError::Unsupported("allocating"))??
            }
        };
        drop(pool);
        Ok(self.lend(taken))
    }

    fn lend(self: &Arc<Self>, taken: Taken) -> DmaMemory {
        let (handle, place) = (self.clone(), taken.place());
        DmaMemory::new(taken.host, taken.iova, move || handle.give(place))
    }

    /// Memory that was in use in another process; `None` if that cannot be.
    pub(crate) fn in_use(self: &Arc<Self>, iova: u64, len: usize) -> Option<DmaMemory> {
        if let Some(taken) = self.lock_pool().take_at(iova, len) {
            return Some(self.lend(taken));
        }
        let Placed { host, iova, region } = self.shared.space.part(iova, len)?;
        let handle = self.clone();
        Some(DmaMemory::new(host, iova, move || handle.release(region)))
    }

    pub(crate) fn lock_pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, (region, offset, len): (u64, usize, usize)) -> Result<(), DeviceError> {
        let unused = self.lock_pool().give(region, offset, len);
        // What it is part of goes when the server has let go of it, and otherwise never.
        unused.map_or(Ok(()), |placed| self.release(placed.region))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

impl Device for VfioUserDevice {
    fn address(&self) -> String {
        self.shared().options.address()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.read(offset).map(u32::from_le_bytes)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.read(offset).map(u64::from_le_bytes)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.write(offset, &value.to_le_bytes())
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.write(offset, &value.to_le_bytes())
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.check(offset, 4)?;
        if offset < DOORBELLS {
            return Err(DeviceError::BadRegister { offset, len: 4, size: self.shared().bar.size() });
        }
        if let Some(doorbell) = self.shared().bar.doorbell(offset) {
            return Ok(doorbell);
        }
        // Not the handle: the doorbell's owner may belong to what memory of the device keeps.
        let shared: Weak<Shared> = Arc::downgrade(&self.handle.shared);
        Ok(Doorbell::from_fn(move |value| {
            let Some(shared) = shared.upgrade() else { return };
            if let Ok(link) = shared.link() {
                // If that fails the connection has ended, and all who use the device learn of that.
                let _ = link.post(BAR0, offset as u64, value.to_le_bytes());
            }
        }))
    }

    /// They are messages, unless the server lets them be mapped.
    fn doorbells_are_slow(&self) -> bool {
        self.shared().bar.doorbell(DOORBELLS).is_none()
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let mut mapped = self.handle.map_all(vec![request])?;
        mapped.pop().ok_or(DeviceError::Unsupported("mapping memory"))
    }

    fn map_all(&self, requests: Vec<MapRequest>) -> Result<Vec<DmaMemory>, DeviceError> {
        self.handle.map_all(requests)
    }

    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        let align = usize::try_from(align.max(4096)).ok().filter(|align| align.is_power_of_two());
        let reason = || "its size, rounded up to the alignment, overflows, or that is no power of two".into();
        let unmappable = || DeviceError::Unmappable { len, reason: reason() };
        let align = align.ok_or_else(unmappable)?;
        let whole = len.max(1).checked_next_multiple_of(4096).ok_or_else(unmappable)?;
        if whole <= LARGEST && align <= HUGE {
            return self.handle.allocate(whole, align);
        }
        let whole = whole.checked_next_multiple_of(align.max(HUGE)).ok_or_else(unmappable)?;
        let host = HostMemory::allocate(whole)?;
        let request = MapRequest { host, access: Access::ReadWrite, align: align.max(HUGE) as u64, offset: 0 };
        self.map(request)
    }

    fn interrupt_count(&self) -> u32 {
        u32::try_from(self.shared().interrupts.len()).unwrap_or(u32::MAX)
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let found = self.shared().interrupts.get(vector as usize).cloned();
        found.ok_or(DeviceError::BadVector { vector, count: self.interrupt_count() })
    }

    fn reset(&self) -> Result<(), DeviceError> {
        let shared = self.shared();
        if !shared.can_reset {
            return Err(DeviceError::Unsupported("a reset"));
        }
        shared.ask(|server| server.reset())?;
        // It may have forgotten that it may reach memory, and how to interrupt.
        shared.ask(|server| function::prepare(server, &shared.interrupts))
    }

    fn loss(&self) -> Option<Interrupt> {
        Some(self.shared().loss.clone())
    }

    fn check_present(&self) -> Result<(), DeviceError> {
        let shared = self.shared();
        if shared.bar.is_cut_short()
            && let Ok(link) = shared.link()
        {
            link.end(End { reason: "its server truncated the file of its doorbells".into(), how: How::GivenUp });
        }
        shared.link().map(drop).map_err(|end| end.error())
    }

    fn may_return(&self) -> bool {
        match self.shared().presence() {
            Presence::Here(_) => self.shared().options.reconnect.is_some(),
            Presence::Gone { awaited, .. } => awaited,
        }
    }

    fn release(&self) -> Result<(), DeviceError> {
        let shared = self.shared();
        let end = shared.take_leave();
        shared.bar.detach()?;
        match end {
            Some(end) if end.how == How::Closed => Ok(()),
            Some(end) => Err(end.error()),
            None => Err(DeviceError::Gone("its server has not closed the connection, and may still be at work".into())),
        }
    }

    fn check_leave(&self) -> Result<(), DeviceError> {
        let shared = self.shared();
        shared.link().map_err(|end| end.error())?;
        shared.space.check_shareable()
    }

    fn leave(&self, memory: &[DmaMemory]) -> Result<Leaving, DeviceError> {
        self.pass(memory)
    }
}

impl fmt::Debug for VfioUserDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioUserDevice").field("shared", &self.handle.shared).finish_non_exhaustive()
    }
}
