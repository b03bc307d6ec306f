use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nvme_spec::registers::offset;

use super::bar::Bar;
use super::function::Function;
use super::loss::Loss;
use super::merge::merge;
use super::open::{self, Opened};
use super::options::{Interface, InterruptKind, VfioOptions};
use super::space::Space;
use super::vectors::Vectors;
use crate::pci::PciAddress;
use crate::{Device, DeviceError, DmaMemory, Doorbell, Interrupt, Leaving, MapRequest};

/// An NVMe drive of this machine, through VFIO.
pub struct VfioDevice {
    pub(super) options: VfioOptions,
    interface: Interface,
    pub(super) function: Arc<Function>,
    registers: Bar,
    pub(super) vectors: Vectors,
    pub(super) space: Arc<Space>,
    pub(super) loss: Loss,
    pub(super) me: Weak<Self>,
    /// Whether it is this process's to use: not before it has come from another one, nor after it has left for one.
    ours: AtomicBool,
    /// Whether it was let go; held while that is done.
    released: Mutex<bool>,
    /// The same, to be looked at without waiting.
    let_go: AtomicBool,
}

impl VfioDevice {
    /// Opens the drive at an address with the defaults.
    ///
    /// # Errors
    /// [`DeviceError::Unusable`] says what has to be changed on the machine; others what the system refused.
    pub fn open(address: &PciAddress) -> Result<Arc<Self>, DeviceError> {
        Self::open_with(VfioOptions::new(*address))
    }

    /// Opens a drive as told.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(options: VfioOptions) -> Result<Arc<Self>, DeviceError> {
        let Opened { device, iommu, interface } = open::open(options.address, options.interface)?;
        let (interrupts, most) = (options.interrupts, options.vectors.unwrap_or_else(enough_vectors));
        let (space, loss) = (Space::new(iommu)?, Loss::new()?);
        let device = Self::assembled(options, interface, device, loss, space, |function| {
            function.switch_on()?;
            Vectors::new(function, interrupts, most)
        })?;
        device.loss.watch(&device.function)?;
        device.ours(true);
        tracing::debug!(?device, "opened");
        Ok(device)
    }

    /// A device of all its parts. It is nobody's yet: dropped, it leaves everything as it is.
    pub(super) fn assembled(
        options: VfioOptions,
        interface: Interface,
        device: OwnedFd,
        loss: Loss,
        space: Arc<Space>,
        vectors: impl FnOnce(&Arc<Function>) -> Result<Vectors, DeviceError>,
    ) -> Result<Arc<Self>, DeviceError> {
        let function = Arc::new(Function::new(device)?);
        let vectors = vectors(&function)?;
        let registers = Bar::new(function.clone(), loss.vanished())?;
        let (ours, released, let_go) = (AtomicBool::new(false), Mutex::new(false), AtomicBool::new(false));
        Ok(Arc::new_cyclic(|me| {
            let me = me.clone();
            Self { options, interface, function, registers, vectors, space, loss, me, ours, released, let_go }
        }))
    }

    /// How it is reached.
    #[must_use]
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// How it interrupts.
    #[must_use]
    pub fn interrupt_kind(&self) -> InterruptKind {
        self.vectors.kind()
    }

    /// Reads the function's configuration space (PCI Local Bus 3.0, Configuration Space), as VFIO shows it.
    ///
    /// # Errors
    /// If there is nothing at the offset, or the device is gone.
    pub fn read_config32(&self, offset: u16) -> Result<u32, DeviceError> {
        Ok(u32::from_le_bytes(self.function.read_config(offset.into())?))
    }

    /// Writes the function's configuration space, as far as VFIO allows.
    ///
    /// # Errors
    /// As [`read_config32`](Self::read_config32).
    pub fn write_config32(&self, offset: u16, value: u32) -> Result<(), DeviceError> {
        self.function.write_config(offset.into(), &value.to_le_bytes())
    }

    /// All ones may be what a register holds; that the version is all ones says that nothing is there.
    fn unless_gone<T: PartialEq>(&self, value: T, all_ones: T) -> Result<T, DeviceError> {
        if value == all_ones && self.registers.read32(offset::VS)? == u32::MAX {
            return Err(self.loss.all_ones());
        }
        Ok(value)
    }

    pub(super) fn ours(&self, ours: bool) {
        self.ours.store(ours, Ordering::SeqCst);
    }

    /// An error if its registers are of no use here.
    fn check_reachable(&self) -> Result<(), DeviceError> {
        if !self.ours.load(Ordering::SeqCst) {
            return Err(DeviceError::Gone("it is another process's".into()));
        }
        self.loss.check_reachable()
    }

    /// Another process has it: nothing here reaches it, and what is dropped here is not taken from it.
    pub(super) fn left(&self) {
        self.ours(false);
        if let Err(error) = self.let_go_here() {
            tracing::error!(%error, "the registers stay mapped");
        }
        self.space.decide(true);
    }

    /// Without a word to the device, or to the system about it.
    fn let_go_here(&self) -> Result<(), DeviceError> {
        let replaced = self.registers.release();
        self.function.close();
        replaced
    }

    fn let_go(&self) -> Result<(), DeviceError> {
        self.space.wait_decided();
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        if *released {
            return Ok(());
        }
        self.let_go.store(true, Ordering::SeqCst);
        self.loss.let_go();
        if self.ours.load(Ordering::SeqCst) {
            self.vectors.release(&self.function);
            self.loss.release(&self.function);
            if let Err(error) = self.function.stop_bus_master() {
                tracing::debug!(%error, "the device is stopped by closing it");
            }
        }
        // The system takes interrupts, bus mastering and the mappings from a device that nobody has open any more.
        let replaced = self.let_go_here();
        self.space.release();
        *released = replaced.is_ok();
        replaced
    }
}

/// One for the admin queue, and one for each CPU.
fn enough_vectors() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(u32::MAX));
    cpus.saturating_add(1)
}

impl Device for VfioDevice {
    fn address(&self) -> String {
        self.options.to_string()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        self.check_reachable()?;
        self.unless_gone(self.registers.read32(offset)?, u32::MAX)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.check_reachable()?;
        self.unless_gone(self.registers.read64(offset)?, u64::MAX)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.check_reachable()?;
        self.registers.write32(offset, value)
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.check_reachable()?;
        self.registers.write64(offset, value)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.registers.doorbell(offset)
    }

    /// Only controllers that a hypervisor makes offer shadow doorbells, and it has to notice each write of a register.
    fn doorbells_are_slow(&self) -> bool {
        true
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.space.map(request)
    }

    fn map_all(&self, requests: Vec<MapRequest>) -> Result<Vec<DmaMemory>, DeviceError> {
        let mut mapped = Vec::with_capacity(requests.len());
        for group in merge(requests) {
            let whole = self.space.map(group.request.clone())?;
            mapped.extend(group.split(&whole));
        }
        Ok(mapped)
    }

    fn interrupt_count(&self) -> u32 {
        self.vectors.count()
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        self.vectors.get(vector)
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.space.wait_decided();
        // Of a device that is not there it would be waited for in vain.
        self.check_reachable()?;
        self.function.reset()?;
        // The system restores configuration space; should it not have, the device would be dead.
        self.function.switch_on()?;
        self.vectors.unmask();
        Ok(())
    }

    fn loss(&self) -> Option<Interrupt> {
        Some(self.loss.any().clone())
    }

    fn check_present(&self) -> Result<(), DeviceError> {
        self.loss.check()
    }

    fn release(&self) -> Result<(), DeviceError> {
        self.let_go()
    }

    fn check_leave(&self) -> Result<(), DeviceError> {
        self.check_pass()
    }

    fn leave(&self, memory: &[DmaMemory]) -> Result<Leaving, DeviceError> {
        self.pass(memory)
    }
}

impl Drop for VfioDevice {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            tracing::error!(%error, "the registers stay mapped");
        }
    }
}

impl fmt::Debug for VfioDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioDevice")
            .field("address", &self.options.to_string())
            .field("interface", &self.interface)
            .field("interrupts", &self.vectors.kind())
            .field("vectors", &self.vectors.count())
            .field("let_go", &self.let_go)
            .finish_non_exhaustive()
    }
}
