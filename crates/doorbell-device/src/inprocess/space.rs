use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vm_memory::VolatileSlice;

use crate::{Access, DeviceError, DmaMemory, HostMemory, MapRequest, OutOfRange};

/// The first IOVA handed out. Not 0, so that an address nobody set is a fault.
const FIRST_IOVA: u64 = 1 << 32;
/// How many faults are remembered; all are counted.
const FAULTS_KEPT: usize = 64;

/// An access by the device to memory that it was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DMA fault: {len:#x} bytes at IOVA {iova:#x} ({access:?}) are not mapped")]
pub struct DmaFault {
    /// First address of the access.
    pub iova: u64,
    /// Bytes of the access.
    pub len: usize,
    /// What the device wanted.
    pub access: Access,
}

/// The memory a software controller can reach, by IOVA: a software IOMMU.
///
/// Removing a range waits for accesses under way, and none follows; that is what lets the memory be freed after. A
/// thread that has a [view](Self::view) must not change the space, nor take a second view: it would wait for itself.
#[derive(Debug, Default)]
pub struct DmaSpace {
    regions: RwLock<Vec<Region>>,
    /// How many threads wait to change `regions`: who views it all the time makes way for them.
    changers: AtomicU32,
    fault_count: AtomicU64,
    faults: Mutex<VecDeque<DmaFault>>,
    /// Below it, every address was handed out or skipped.
    used: Mutex<u64>,
}

#[derive(Debug)]
struct Region {
    iova: u64,
    len: u64,
    host: HostMemory,
    access: Access,
}

impl DmaSpace {
    /// A space without memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds memory at an address of the space's own choice, until the last clone of what is returned goes: how a back
    /// end serves [`Device::map`](crate::Device::map).
    ///
    /// No address is handed out twice, so that a late access by the device is always a fault.
    pub fn map(self: &Arc<Self>, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let MapRequest { host, access, align, offset } = request;
        let len = host.len() as u64;
        let align = align.max(4096);
        if !align.is_power_of_two() || !offset.is_multiple_of(4096) || !len.is_multiple_of(4096) {
            let reason = format!("alignment {align:#x}, offset {offset:#x} or the size is not of whole pages");
            return Err(DeviceError::Unmappable { len: host.len(), reason });
        }
        let iova = self
            .choose(len, align, offset)
            .ok_or_else(|| DeviceError::MappingLimit("the IOVA space is used up".into()))?;
        self.insert(iova, host.clone(), access)?;
        let space = self.clone();
        Ok(DmaMemory::new(host, iova, move || space.remove(iova, len)))
    }

    fn choose(&self, len: u64, align: u64, offset: u64) -> Option<u64> {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        let iova = (*used).max(FIRST_IOVA).checked_next_multiple_of(align)?.checked_add(offset % align)?;
        // A page is left out between two mappings, so that what runs over the end of one is a fault as well.
        *used = iova.checked_add(len)?.checked_add(4096)?;
        Some(iova)
    }

    /// Adds memory at an address. An overlap with what is there is an error, and so is access to memory that this
    /// process itself may not access so.
    pub fn insert(&self, iova: u64, host: HostMemory, access: Access) -> Result<(), DeviceError> {
        let len = host.len() as u64;
        let unmappable = |reason: String| DeviceError::Unmappable { len: host.len(), reason };
        let allowed = match access {
            Access::Read => host.is_readable(),
            // Copying into memory takes a window on it, and that has to be readable.
            Access::Write | Access::ReadWrite => host.is_readable() && host.is_writable(),
        };
        if !allowed {
            return Err(unmappable(format!("this process may not access it itself ({access:?})")));
        }
        let end = iova.checked_add(len).ok_or_else(|| unmappable(format!("IOVA {iova:#x} overflows")))?;
        let mut regions = self.change();
        let at = regions.partition_point(|r| r.iova < iova);
        let before = at.checked_sub(1).and_then(|i| regions.get(i));
        let overlaps = before.is_some_and(|r| r.iova + r.len > iova) || regions.get(at).is_some_and(|r| r.iova < end);
        if len == 0 || overlaps {
            return Err(unmappable(format!("IOVA {iova:#x} is empty or overlaps a mapping")));
        }
        regions.insert(at, Region { iova, len, host, access });
        Ok(())
    }

    /// Removes exactly what was inserted at an address.
    pub fn remove(&self, iova: u64, len: u64) -> Result<(), DeviceError> {
        let mut regions = self.change();
        match regions.iter().position(|r| r.iova == iova && r.len == len) {
            Some(at) => {
                regions.remove(at);
                Ok(())
            }
            None => Err(DeviceError::Unmappable {
                len: len as usize,
                reason: format!("nothing of that size is mapped at IOVA {iova:#x}"),
            }),
        }
    }

    /// Looks at the space; nothing is removed from it while the view lives.
    pub fn view(&self) -> DmaView<'_> {
        // A lock that is taken again as soon as it is given back is not had by who waits for it.
        while self.is_to_change() {
            std::thread::yield_now();
        }
        DmaView { space: self, regions: self.regions.read().unwrap_or_else(|e| e.into_inner()) }
    }

    /// Whether somebody waits for the views to go.
    #[inline]
    pub(super) fn is_to_change(&self) -> bool {
        self.changers.load(Ordering::Relaxed) > 0
    }

    fn change(&self) -> RwLockWriteGuard<'_, Vec<Region>> {
        self.changers.fetch_add(1, Ordering::Relaxed);
        let regions = self.regions.write().unwrap_or_else(|e| e.into_inner());
        self.changers.fetch_sub(1, Ordering::Relaxed);
        regions
    }

    /// How many accesses were refused so far.
    pub fn fault_count(&self) -> u64 {
        self.fault_count.load(Ordering::Relaxed)
    }

    /// The latest refused accesses, oldest first.
    pub fn faults(&self) -> Vec<DmaFault> {
        self.faults.lock().unwrap_or_else(|e| e.into_inner()).iter().copied().collect()
    }

    #[cold]
    fn fault(&self, fault: DmaFault) -> DmaFault {
        let before = self.fault_count.fetch_add(1, Ordering::Relaxed);
        // A device that keeps at it, or a guest that has it do so, does not fill the log.
        if before < FAULTS_KEPT as u64 {
            tracing::warn!(%fault, "refused");
        }
        let mut faults = self.faults.lock().unwrap_or_else(|e| e.into_inner());
        if faults.len() == FAULTS_KEPT {
            faults.pop_front();
        }
        faults.push_back(fault);
        fault
    }
}

/// A part of an access that lies in one mapping.
#[derive(Debug, Clone, Copy)]
pub struct MappedPart<'a> {
    /// The memory of the whole mapping.
    pub host: &'a HostMemory,
    /// Where in it the part begins.
    pub offset: usize,
    /// Bytes of the part.
    pub len: usize,
    /// What the device may do with the mapping.
    pub allowed: Access,
}

/// A look at a [`DmaSpace`] during which it does not change.
pub struct DmaView<'a> {
    space: &'a DmaSpace,
    regions: RwLockReadGuard<'a, Vec<Region>>,
}

impl DmaView<'_> {
    /// The memory at an address, if all of it lies in one mapping that allows `access`: its host memory and the byte
    /// offset in it.
    #[inline]
    pub fn resolve(&self, iova: u64, len: usize, access: Access) -> Result<(&HostMemory, usize), DmaFault> {
        let found = match &self.regions[..] {
            [only] => Some(only),
            regions => regions.partition_point(|r| r.iova <= iova).checked_sub(1).and_then(|i| regions.get(i)),
        };
        if let Some(region) = found
            && let Some(offset) = iova.checked_sub(region.iova)
            && offset.checked_add(len as u64).is_some_and(|end| end <= region.len)
            && region.access.allows(access)
        {
            return Ok((&region.host, offset as usize));
        }
        Err(self.space.fault(DmaFault { iova, len, access }))
    }

    /// The first part of an access: what of it lies in one mapping.
    pub fn part(&self, iova: u64, most: usize, access: Access) -> Result<MappedPart<'_>, DmaFault> {
        let len = self.contiguous(iova, most);
        let (host, offset) = self.resolve(iova, len, access)?;
        let index = self.regions.partition_point(|r| r.iova <= iova);
        let region = index.checked_sub(1).and_then(|i| self.regions.get(i));
        Ok(MappedPart { host, offset, len, allowed: region.map_or(access, |region| region.access) })
    }

    /// A volatile window on memory that lies in one mapping.
    pub fn slice(&self, iova: u64, len: usize, access: Access) -> Result<VolatileSlice<'_>, DmaFault> {
        let (host, offset) = self.resolve(iova, len, access)?;
        host.slice(offset, len).map_err(|_| self.space.fault(DmaFault { iova, len, access }))
    }

    /// The device reads host memory, across mappings if need be.
    pub fn read(&self, iova: u64, to: &mut [u8]) -> Result<(), DmaFault> {
        self.by_mapping(iova, to.len(), Access::Read, |host, offset, part| {
            host.read_at(offset, to.get_mut(part).unwrap_or_default())
        })
    }

    /// The device writes host memory, across mappings if need be. What lies before a fault is written.
    pub fn write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        self.by_mapping(iova, from.len(), Access::Write, |host, offset, part| {
            host.write_at(offset, from.get(part).unwrap_or_default())
        })
    }

    /// Calls `each` for each part of an access that lies in one mapping.
    fn by_mapping(
        &self,
        iova: u64,
        len: usize,
        access: Access,
        mut each: impl FnMut(&HostMemory, usize, Range<usize>) -> Result<(), OutOfRange>,
    ) -> Result<(), DmaFault> {
        if iova.checked_add(len as u64).is_none() {
            return Err(self.space.fault(DmaFault { iova, len, access }));
        }
        let mut done = 0;
        while done < len {
            let at = iova + done as u64;
            let part = self.contiguous(at, len - done);
            let (host, offset) = self.resolve(at, part, access)?;
            let fault = |_| self.space.fault(DmaFault { iova: at, len: part, access });
            each(host, offset, done..done + part).map_err(fault)?;
            done += part;
        }
        Ok(())
    }

    /// How many of `len` bytes lie in the mapping of the first; all of them where there is none, so that the access
    /// fails as a whole.
    fn contiguous(&self, iova: u64, len: usize) -> usize {
        let index = self.regions.partition_point(|r| r.iova <= iova);
        let end = index.checked_sub(1).and_then(|i| self.regions.get(i)).map_or(0, |r| r.iova + r.len);
        match end.checked_sub(iova) {
            Some(rest) if rest > 0 => len.min(usize::try_from(rest).unwrap_or(usize::MAX)),
            _ => len,
        }
    }
}
