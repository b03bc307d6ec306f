use crate::{Access, DeviceError, DmaMemory, Doorbell, HostMemory, Interrupt, Leaving};

/// An NVMe controller, as seen through whatever carries it.
///
/// Register access may be slow (a millisecond each over some carriers): it is for bring-up and recovery, never for
/// the I/O path, which uses [`Doorbell`]s and shared memory only.
pub trait Device: Send + Sync + 'static {
    /// The address a user would name it by, such as `emulated:size=1G` or `pci:0000:01:00.0`.
    fn address(&self) -> String;

    /// Reads a 32-bit register at a byte offset (NVMe Base 2.0, Controller Properties).
    fn read32(&self, offset: usize) -> Result<u32, DeviceError>;

    /// Reads a 64-bit register.
    fn read64(&self, offset: usize) -> Result<u64, DeviceError>;

    /// Writes a 32-bit register. Doorbells are better written through [`doorbell`](Self::doorbell).
    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError>;

    /// Writes a 64-bit register.
    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError>;

    /// The doorbell at a byte offset from the start of the registers.
    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError>;

    /// Whether commands are mostly completed within the call that rings their doorbell, so that a look right after it is
    /// worth it.
    fn completes_inline(&self) -> bool {
        false
    }

    /// Whether ringing a doorbell costs much more than a store to memory: because it is a message to another process, or
    /// because a hypervisor has to notice it. Shadow doorbells, where the controller offers them, save most of that.
    fn doorbells_are_slow(&self) -> bool {
        false
    }

    /// Makes memory reachable for the device. It stays so until the last clone of what is returned goes.
    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError>;

    /// As [`map`](Self::map), for memory that is to be reachable together, such as a guest's: a device with few mappings
    /// may make one of several. All or none are mapped.
    fn map_all(&self, requests: Vec<MapRequest>) -> Result<Vec<DmaMemory>, DeviceError> {
        requests.into_iter().map(|request| self.map(request)).collect()
    }

    /// New zeroed memory of at least `len` bytes, reachable for the device in both directions at an IOVA that is a
    /// multiple of `align`, a power of two.
    fn allocate(&self, len: usize, align: u64) -> Result<DmaMemory, DeviceError> {
        let align = align.max(4096);
        let rounded = usize::try_from(align).ok().and_then(|align| len.max(1).checked_next_multiple_of(align));
        let reason = || "its size, rounded up to the alignment, overflows".into();
        let rounded = rounded.ok_or_else(|| DeviceError::Unmappable { len, reason: reason() })?;
        let host = HostMemory::allocate(rounded)?;
        self.map(MapRequest { host, access: Access::ReadWrite, align, offset: 0 })
    }

    /// How many interrupt vectors there are; 0 where the device can only be polled.
    fn interrupt_count(&self) -> u32;

    /// The interrupt of a vector, below [`interrupt_count`](Self::interrupt_count). Asking again gives the same one.
    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError>;

    /// Resets the function (PCIe FLR or what stands for it): when it returns, the device touches no memory of ours.
    fn reset(&self) -> Result<(), DeviceError>;

    /// Signalled when the device may be lost: its unplugging was asked for, its link failed, its server died. Then
    /// [`check_present`](Self::check_present) says which. `None` where only using the device shows that.
    fn loss(&self) -> Option<Interrupt> {
        None
    }

    /// [`DeviceError::Gone`], with the reason, if the device is known to be lost or is asked back. No register is read.
    fn check_present(&self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Whether a device that [`check_present`](Self::check_present) reports as lost may come back by itself: it is being
    /// waited for. When it is back, `check_present` says so, and [`reset`](Self::reset) and all that follows work with
    /// the memory, the doorbells and the interrupts there were. It then is as after a reset.
    fn may_return(&self) -> bool {
        false
    }

    /// Lets go of the device for good, so that whoever takes it away waits no longer. When it returns, the device
    /// touches no memory of ours; registers read as [`DeviceError::Gone`] and doorbells lead nowhere from now on.
    /// Called when a device that is lost was given up.
    fn release(&self) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("letting go of it"))
    }

    /// Whether another process could go on with the device and the memory that is mapped for it. Changes nothing.
    fn check_leave(&self) -> Result<(), DeviceError> {
        Err(DeviceError::Unsupported("being handed over to another process"))
    }

    /// Holds the device still for another process to go on with it, enabled as it is. `memory` is what that process is to
    /// have of what was mapped here; it is told in the same order. All other memory, the device has no more use for.
    ///
    /// Whoever uses the device meanwhile waits until it is decided whether it leaves.
    ///
    /// # Errors
    /// Then, nothing is held still.
    fn leave(&self, memory: &[DmaMemory]) -> Result<Leaving, DeviceError> {
        let _ = memory;
        Err(DeviceError::Unsupported("being handed over to another process"))
    }
}

/// Memory to make reachable, and where.
#[derive(Debug, Clone)]
pub struct MapRequest {
    /// The memory.
    pub host: HostMemory,
    /// What the device may do with it.
    pub access: Access,
    /// The IOVA is `offset` more than a multiple of this power of two; at least 4096. With guest memory, an `align`
    /// of the controller's page size and the guest address as `offset` keeps pages pages.
    pub align: u64,
    /// See `align`. A multiple of 4096; taken modulo `align`.
    pub offset: u64,
}
