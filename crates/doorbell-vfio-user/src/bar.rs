use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use doorbell_device::sigbus::{self, Guard, Substitute};
use doorbell_device::{DeviceError, Doorbell, Interrupt, ReplaceableMemory};
use prost::Message;
use rustix::fs::{SealFlags, fcntl_add_seals};
use vfio_user::Region;
use vfio_user::wire::{REGION_MMAP, REGION_READ, REGION_WRITE, SparseArea};

/// Where the doorbells begin (NVMe over PCIe Transport, Submission Queue 0 Tail Doorbell).
pub(crate) const DOORBELLS: usize = 0x1000;
/// How much of an area is mapped: more than there can be doorbells of.
const LARGEST_AREA: u64 = 16 << 20;
/// How many areas are mapped.
const MOST_AREAS: usize = 16;

/// BAR0: registers, of which nothing is mapped, and doorbells, as far as the server lets them be mapped.
#[derive(Debug)]
pub(crate) struct Bar {
    size: usize,
    areas: Vec<Area>,
}

#[derive(Debug)]
struct Area {
    offset: usize,
    memory: ReplaceableMemory,
    /// The file that it is now, and where in it.
    file: Mutex<(Arc<File>, u64)>,
    /// For a server that truncates its file.
    guard: Mutex<Option<Guard>>,
}

impl Bar {
    /// `lost` is raised if the server truncates the file behind it.
    pub(crate) fn new(region: Region, lost: &Interrupt) -> Result<Self, DeviceError> {
        let size = size(&region)?;
        let (file, wanted) = mappable(region);
        let mut areas = Vec::new();
        for wanted in wanted {
            let Some(file) = &file else { break };
            areas.push(Area::new(wanted.offset, file.clone(), wanted.at, wanted.len, lost)?);
        }
        Ok(Self { size, areas })
    }

    /// What another process needs to go on with it.
    pub(crate) fn pass(&self) -> (Option<Arc<File>>, Vec<PassedArea>) {
        let mut file = None;
        let passed = self.areas.iter().map(|area| {
            let (behind, at) = area.lock_file().clone();
            file = Some(behind);
            PassedArea { offset: area.offset as u64, len: area.memory.memory().len() as u64, at }
        });
        let passed = passed.collect();
        (file, passed)
    }

    /// Goes on with the BAR of another process. `lost` as for [`new`](Self::new).
    pub(crate) fn adopt(
        size: usize,
        passed: &[PassedArea],
        file: Option<Arc<File>>,
        lost: &Interrupt,
    ) -> Result<Self, DeviceError> {
        let bad = || DeviceError::NotAdoptable("its registers are not where registers are".into());
        if size <= DOORBELLS || passed.len() > MOST_AREAS {
            return Err(bad());
        }
        let mut areas = Vec::new();
        for PassedArea { offset, len, at } in passed {
            let file = file.clone().ok_or_else(bad)?;
            let fits = offset.checked_add(*len).is_some_and(|end| end <= size as u64);
            let (offset, len) = (usize::try_from(*offset), usize::try_from(*len));
            let (Ok(offset @ DOORBELLS..), Ok(len), true) = (offset, len, fits) else { return Err(bad()) };
            areas.push(Area::new(offset, file, *at, len, lost)?);
        }
        Ok(Self { size, areas })
    }

    /// Goes on with the BAR of another server, which has to be the same in all but what is in it.
    pub(crate) fn replace(&self, region: Region, lost: &Interrupt) -> Result<(), DeviceError> {
        let size = size(&region)?;
        let (file, wanted) = mappable(region);
        let same = self.areas.len() == wanted.len()
            && self
                .areas
                .iter()
                .zip(&wanted)
                .all(|(area, wanted)| (area.offset, area.memory.memory().len()) == (wanted.offset, wanted.len));
        if size != self.size || !same {
            return Err(DeviceError::Misbehaved("the server has come back with another BAR0".into()));
        }
        let Some(file) = file else { return Ok(()) };
        self.areas.iter().zip(wanted).try_for_each(|(area, wanted)| {
            area.memory.replace(&file, wanted.at)?;
            *area.lock_file() = (file.clone(), wanted.at);
            area.guard(lost)
        })
    }

    /// Whether the server has truncated the file behind it, and zeroes have taken its place.
    pub(crate) fn is_cut_short(&self) -> bool {
        let is_cut = |area: &Area| area.lock_guard().as_ref().is_some_and(|guard| guard.replaced() != 0);
        self.areas.iter().any(is_cut)
    }

    /// Doorbells lead nowhere from now on.
    pub(crate) fn detach(&self) -> Result<(), DeviceError> {
        self.areas.iter().try_for_each(|area| area.memory.detach())
    }

    /// Bytes of registers and doorbells.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A doorbell that is mapped.
    pub(crate) fn doorbell(&self, offset: usize) -> Option<Doorbell> {
        self.areas.iter().find_map(|area| {
            let at = offset.checked_sub(area.offset)?;
            Doorbell::in_memory(area.memory.memory().clone(), at)
        })
    }
}

impl Area {
    fn new(offset: usize, file: Arc<File>, at: u64, len: usize, lost: &Interrupt) -> Result<Self, DeviceError> {
        let memory = ReplaceableMemory::from_file(file.clone(), at, len)?;
        let area = Self { offset, memory, file: Mutex::new((file, at)), guard: Mutex::default() };
        area.guard(lost)?;
        Ok(area)
    }

    fn lock_file(&self) -> MutexGuard<'_, (Arc<File>, u64)> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn guard(&self, lost: &Interrupt) -> Result<(), DeviceError> {
        let mut guard = self.lock_guard();
        // Not two at the same time for the same memory.
        *guard = None;
        *guard = Some(sigbus::guard(self.memory.memory().clone(), Substitute::Zeroes, lost)?);
        Ok(())
    }

    fn lock_guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is mapped of BAR0, for another process.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct PassedArea {
    /// Where it is in the BAR.
    #[prost(uint64, tag = "1")]
    pub(crate) offset: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) len: u64,
    /// Where it is in the file.
    #[prost(uint64, tag = "3")]
    pub(crate) at: u64,
}

/// What to map of a file.
struct Wanted {
    /// Where it is in the BAR.
    offset: usize,
    len: usize,
    /// Where it is in the file.
    at: u64,
}

fn size(region: &Region) -> Result<usize, DeviceError> {
    let info = &region.info;
    let size = usize::try_from(info.size).ok().filter(|size| *size > DOORBELLS);
    let usable = info.flags & (REGION_READ | REGION_WRITE) == REGION_READ | REGION_WRITE;
    size.filter(|_| usable).ok_or_else(|| {
        let reason =
            format!("BAR0 has {:#x} bytes and flags {:#x}: no registers to read and write", info.size, info.flags);
        DeviceError::Misbehaved(reason)
    })
}

/// What is mapped of the region: the doorbells, as far as they can be.
fn mappable(region: Region) -> (Option<Arc<File>>, Vec<Wanted>) {
    let Region { info, areas, file } = region;
    if info.flags & REGION_MMAP == 0 {
        return (None, Vec::new());
    }
    let Some(file) = file else {
        tracing::warn!("BAR0 can be mapped, but there is no descriptor: doorbells will be slow");
        return (None, Vec::new());
    };
    // The server may have left it to its clients to make sure that the file does not shrink under them.
    let _ = fcntl_add_seals(&file, SealFlags::SHRINK);
    let whole = SparseArea { offset: 0, size: info.size & !0xfff };
    let areas = areas.unwrap_or_else(|| vec![whole]);
    let wanted = areas.into_iter().filter_map(|SparseArea { offset, size }| {
        let end = offset.checked_add(size)?;
        let start = offset.max(DOORBELLS as u64);
        let len = end.checked_sub(start).filter(|len| *len > 0)?.min(LARGEST_AREA);
        let at = info.offset.checked_add(start)?;
        Some(Wanted { offset: usize::try_from(start).ok()?, len: usize::try_from(len).ok()?, at })
    });
    (Some(Arc::new(File::from(file))), wanted.take(MOST_AREAS).collect())
}
