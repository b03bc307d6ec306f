//! The memory that the device can reach.

mod passed;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

pub(super) use self::passed::{PassedMapping, PassedMemory};
use super::iommu::Iommu;
use super::iova::Iovas;
use crate::{DeviceError, DmaMemory, MapRequest};

const PAGE: usize = 4096;
const HUGE_PAGE: u64 = 2 << 20;

/// The mappings of a device, until it is let go.
#[derive(Debug)]
pub(super) struct Space {
    live: Mutex<Option<Live>>,
    /// Notified when it is decided whether another process has it.
    decided: Condvar,
}

#[derive(Debug)]
struct Live {
    whose: Whose,
    iommu: Iommu,
    iovas: Iovas,
    /// Which of the mappings are of memory that no other process can have.
    not_shareable: BTreeSet<u64>,
    /// Bytes mapped.
    mapped: u64,
}

/// Who decides what is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    /// Held still, until it is known whose it is.
    Undecided,
    /// Still another process's.
    Theirs,
}

impl Space {
    pub(super) fn new(iommu: Iommu) -> Result<Arc<Self>, DeviceError> {
        let iovas = Iovas::new(iommu.ranges()?);
        Ok(Self::made(Live { whose: Whose::Ours, iommu, iovas, not_shareable: BTreeSet::new(), mapped: 0 }))
    }

    fn made(live: Live) -> Arc<Self> {
        Arc::new(Self { live: Mutex::new(Some(live)), decided: Condvar::new() })
    }

    /// Maps memory for the device.
    pub(super) fn map(self: &Arc<Self>, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        let MapRequest { host, access, align, offset } = request;
        let len = host.len();
        let refuse = |reason: String| DeviceError::Unmappable { len, reason };
        let vaddr = host.as_ptr().expose_provenance();
        if len == 0 || !len.is_multiple_of(PAGE) || !vaddr.is_multiple_of(PAGE) {
            return Err(refuse(format!("at {vaddr:#x} it is not whole pages of {PAGE} bytes")));
        }
        if !align.is_power_of_two() || !offset.is_multiple_of(PAGE as u64) {
            return Err(refuse(format!("offset {offset:#x} from a multiple of {align:#x} is no page")));
        }
        // With both addresses in the same place of a huge page, the IOMMU can map huge pages.
        let large = len as u64 >= HUGE_PAGE && align < HUGE_PAGE && offset == 0;
        let align = if large && (vaddr as u64).is_multiple_of(HUGE_PAGE) { HUGE_PAGE } else { align.max(PAGE as u64) };

        let mut live = self.lock();
        let live = match &mut *live {
            Some(live) if live.whose == Whose::Ours => live,
            Some(_) => return Err(DeviceError::Gone("another process has it".into())),
            None => return Err(DeviceError::Gone("it was let go".into())),
        };
        let iova = live.iovas.take(len as u64, align, offset);
        let iova = iova.ok_or_else(|| refuse("no range of IOVAs that the IOMMU allows has so much room".into()))?;
        if let Err(error) = live.iommu.map(iova, &host, access) {
            live.iovas.give_back(iova);
            return Err(live.explain(error, len));
        }
        live.mapped = live.mapped.saturating_add(len as u64);
        if host.check_shareable().is_err() {
            live.not_shareable.insert(iova);
        }
        let space = self.clone();
        Ok(DmaMemory::new(host, iova, move || space.unmap(iova, len as u64)))
    }

    fn unmap(&self, iova: u64, len: u64) -> Result<(), DeviceError> {
        match &mut *self.lock() {
            Some(live) if live.whose == Whose::Ours => {
                live.iommu.unmap(iova, len)?;
                live.iovas.give_back(iova);
                live.not_shareable.remove(&iova);
                live.mapped = live.mapped.saturating_sub(len);
                Ok(())
            }
            // All mappings went with the device, or are another process's to take down.
            _ => Ok(()),
        }
    }

    /// Takes all mappings down for good. The device itself must be closed by now: the system keeps them until then. Those
    /// of a device that is another process's stay.
    pub(super) fn release(&self) {
        drop(self.lock().take());
    }

    /// Waits as long as it is not known whose the device is.
    fn lock(&self) -> MutexGuard<'_, Option<Live>> {
        let undecided = |live: &mut Option<Live>| live.as_ref().is_some_and(|live| live.whose == Whose::Undecided);
        self.decided.wait_while(self.lock_now(), undecided).unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_now(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    /// Why a mapping was refused: there are two limits, and who meets one wants to know which.
    fn explain(&self, error: io::Error, len: usize) -> DeviceError {
        let count = self.iovas.count();
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC) => DeviceError::MappingLimit(format!(
                "there are {count} of this device, and the system allows no more (dma_entry_limit of the module \
                 vfio_iommu_type1, {})",
                match self.iommu.mappings_left() {
                    Some(left) => format!("{left} left"),
                    None => "how many are left is not said".into(),
                }
            )),
            Some(Errno::NOMEM) => match getrlimit(Resource::Memlock).current {
                Some(limit) => DeviceError::MappingLimit(format!(
                    "{len} bytes more than the {} that are mapped would have to be locked, and this process may lock \
                     {limit} bytes (RLIMIT_MEMLOCK, ulimit -l {})",
                    self.mapped,
                    limit / 1024
                )),
                None => DeviceError::Unmappable { len, reason: "the system has no memory left to lock".into() },
            },
            Some(Errno::FAULT) => DeviceError::Unmappable {
                len,
                reason: "the system cannot lock these pages: they are not all there, or not writable".into(),
            },
            _ => DeviceError::io("mapping memory for DMA")(error),
        }
    }
}
