use std::fmt;
use std::sync::{Arc, Mutex};

use nvme_spec::registers::{Cc, Csts, offset};

use super::{lock, on_unmap, pass_on};
use crate::{Access, Device, DeviceError, DmaMemory, Doorbell, Interrupt, MapRequest};

/// Keeps account of the memory that the device can reach, so that a test can prove that none is freed while the device
/// may use it.
///
/// The history interleaves mappings with what starts and stops the device: CC.EN, CSTS.RDY and resets, as the driver
/// writes and sees them.
///
/// ```
/// use doorbell_device::wrap::DmaLedger;
/// use doorbell_device::zero_work::ZeroWork;
/// use doorbell_device::Device;
///
/// let ledger = DmaLedger::new(ZeroWork::new(Default::default())?);
/// let memory = ledger.allocate(8192, 4096)?;
/// assert!(ledger.is_live(memory.iova() + 100, 8000));
/// drop(memory);
/// assert_eq!(ledger.live_ranges(), []);
/// assert_eq!(ledger.history().len(), 2);
/// # Ok::<(), doorbell_device::DeviceError>(())
/// ```
pub struct DmaLedger {
    device: Arc<dyn Device>,
    book: Arc<Mutex<Book>>,
}

/// Memory that the device can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveRange {
    /// Where the device finds it.
    pub iova: u64,
    /// Bytes.
    pub len: usize,
    /// What the device may do.
    pub access: Access,
}

impl LiveRange {
    /// Whether any byte of it is among `len` bytes at `iova`.
    pub fn overlaps(&self, iova: u64, len: usize) -> bool {
        let (this, other) = (u128::from(self.iova), u128::from(iova));
        this < other + len as u128 && other < this + self.len as u128
    }
}

/// A line of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Counts from 1 in the order in which things happened.
    pub sequence: u64,
    /// What happened.
    pub event: LedgerEvent,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerEvent {
    /// Memory was made reachable.
    Mapped(LiveRange),
    /// Memory is about to be no longer reachable, and may be freed after.
    Unmapped(LiveRange),
    /// CC.EN is about to be written as 1, after a 0: the device may use memory from now on.
    Enabled,
    /// The driver read CSTS.RDY as 0 after it wrote CC.EN as 0: the device no longer uses memory.
    Disabled,
    /// A function reset returned: the device no longer uses memory.
    Reset,
}

#[derive(Default)]
struct Book {
    live: Vec<LiveRange>,
    history: Vec<LedgerEntry>,
    /// CC.EN as last written.
    enabled: bool,
    /// Whether the device may use memory: from [`LedgerEvent::Enabled`] on, until disabled or reset.
    running: bool,
    unmapped_while_running: Vec<LiveRange>,
}

impl DmaLedger {
    /// Keeps account of `device`.
    pub fn new(device: Arc<dyn Device>) -> Arc<Self> {
        Arc::new(Self { device, book: Arc::default() })
    }

    /// What the device can reach now, in the order of mapping.
    pub fn live_ranges(&self) -> Vec<LiveRange> {
        lock(&self.book).live.clone()
    }

    /// Whether the device can reach all of `len` bytes at `iova`, in one mapping.
    pub fn is_live(&self, iova: u64, len: usize) -> bool {
        let inside = |range: &LiveRange| {
            iova.checked_sub(range.iova).is_some_and(|at| u128::from(at) + len as u128 <= range.len as u128)
        };
        lock(&self.book).live.iter().any(inside)
    }

    /// Everything that happened, from the beginning.
    pub fn history(&self) -> Vec<LedgerEntry> {
        lock(&self.book).history.clone()
    }

    /// Whether the device may use memory, as far as the driver can know.
    pub fn is_running(&self) -> bool {
        lock(&self.book).running
    }

    /// What was unmapped while the device might use memory. For data that is in order, once no command names it; for
    /// queues and what a command names, it is a bug: compare with their addresses.
    pub fn unmapped_while_running(&self) -> Vec<LiveRange> {
        lock(&self.book).unmapped_while_running.clone()
    }

    fn mapped(&self, memory: DmaMemory, access: Access) -> DmaMemory {
        let range = LiveRange { iova: memory.iova(), len: memory.len(), access };
        {
            let mut book = lock(&self.book);
            book.live.push(range);
            book.add(LedgerEvent::Mapped(range));
        }
        let book = self.book.clone();
        on_unmap(memory, move || lock(&book).unmapped(range))
    }

    fn wrote(&self, offset: usize, value: u64) {
        if offset == offset::CC {
            lock(&self.book).configured(Cc::from_bits(value as u32).en());
        }
    }

    fn read(&self, offset: usize, value: u64) {
        if offset == offset::CSTS {
            lock(&self.book).saw_status(Csts::from_bits(value as u32));
        }
    }
}

impl Book {
    fn add(&mut self, event: LedgerEvent) {
        let sequence = self.history.len() as u64 + 1;
        self.history.push(LedgerEntry { sequence, event });
    }

    fn unmapped(&mut self, range: LiveRange) {
        if let Some(at) = self.live.iter().position(|live| *live == range) {
            self.live.remove(at);
        }
        if self.running {
            self.unmapped_while_running.push(range);
        }
        self.add(LedgerEvent::Unmapped(range));
    }

    fn configured(&mut self, enabled: bool) {
        if enabled && !self.enabled {
            self.running = true;
            self.add(LedgerEvent::Enabled);
        }
        self.enabled = enabled;
    }

    fn saw_status(&mut self, status: Csts) {
        // All ones, of a device that is gone, has RDY as 1.
        if self.running && !self.enabled && !status.rdy() {
            self.running = false;
            self.add(LedgerEvent::Disabled);
        }
    }
}

impl Device for DmaLedger {
    pass_on! {
        address() -> String;
        doorbell(offset: usize) -> Result<Doorbell, DeviceError>;
        doorbells_are_slow() -> bool;
        interrupt_count() -> u32;
        completes_inline() -> bool;
        loss() -> Option<Interrupt>;
        check_present() -> Result<(), DeviceError>;
        may_return() -> bool;
        release() -> Result<(), DeviceError>;
        interrupt(vector: u32) -> Result<Interrupt, DeviceError>;
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        let value = self.device.read32(offset)?;
        self.read(offset, value.into());
        Ok(value)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        let value = self.device.read64(offset)?;
        // CSTS is the upper half of a pair.
        self.read(offset.saturating_add(4), value >> 32);
        Ok(value)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.wrote(offset, value.into());
        self.device.write32(offset, value)
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        // CC is the upper half of a pair.
        self.wrote(offset.saturating_add(4), value >> 32);
        self.device.write64(offset, value)
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let access = request.access;
        Ok(self.mapped(self.device.map(request)?, access))
    }

    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        Ok(self.mapped(self.device.allocate(len, align)?, Access::ReadWrite))
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.device.reset()?;
        let mut book = lock(&self.book);
        book.enabled = false;
        book.running = false;
        book.add(LedgerEvent::Reset);
        Ok(())
    }
}

impl fmt::Debug for DmaLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaLedger").field("device", &self.address()).field("live", &self.live_ranges()).finish()
    }
}
