//! Memory that the server knows of, from one process to another.

use std::fs::File;
use std::sync::Arc;

use doorbell_device::{Access, DeviceError, Files, HostMemory};
use prost::Message;

use super::{Changes, Placed, Region, Space};

/// A DMA mapping that crosses over.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PassedRegion {
    #[prost(uint64, tag = "1")]
    pub(crate) iova: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) len: u64,
    #[prost(bool, tag = "3")]
    pub(crate) readable: bool,
    #[prost(bool, tag = "4")]
    pub(crate) writable: bool,
    /// Which of the files.
    #[prost(uint32, tag = "5")]
    pub(crate) file: u32,
    /// Where in it.
    #[prost(uint64, tag = "6")]
    pub(crate) offset: u64,
    /// Whether small allocations share it.
    #[prost(bool, tag = "7")]
    pub(crate) shared: bool,
}

impl Space {
    /// All mappings, and the files that they lie in.
    pub(crate) fn pass(&self, _locked: &Changes) -> Result<(Vec<PassedRegion>, Files), DeviceError> {
        let mut files = Files::default();
        let mut passed = Vec::new();
        for (iova, region) in self.regions().iter() {
            region.check_shareable()?;
            passed.push(PassedRegion {
                iova: *iova,
                len: region.len,
                readable: region.access.allows(Access::Read),
                writable: region.access.allows(Access::Write),
                file: files.number(&region.file),
                offset: region.offset,
                shared: false,
            });
        }
        Ok((passed, files))
    }

    /// Whether all memory can go to another process.
    pub(crate) fn check_shareable(&self) -> Result<(), DeviceError> {
        self.regions().values().try_for_each(Region::check_shareable)
    }

    /// The region that lies around some memory: its IOVA.
    pub(crate) fn around(&self, iova: u64, len: u64) -> Option<u64> {
        let regions = self.regions();
        let (start, region) = regions.range(..=iova).next_back()?;
        let end = iova.checked_sub(*start)?.checked_add(len)?;
        (end <= region.len).then_some(*start)
    }
}

impl Region {
    fn check_shareable(&self) -> Result<(), DeviceError> {
        self.parts.iter().try_for_each(HostMemory::check_shareable)
    }
}

/// What the server knows of, in the process that goes on with it.
pub(crate) struct Arrived {
    pub(crate) space: Space,
    /// All mappings, none of them used by anybody yet.
    pub(crate) regions: Vec<Placed>,
}

impl Arrived {
    /// Maps what another process has [passed](Space::pass).
    pub(crate) fn new(passed: &[PassedRegion], files: &[Arc<File>], used: u64) -> Result<Self, DeviceError> {
        let bad = |what: String| DeviceError::NotAdoptable(what);
        let (space, mut regions) = (Space::default(), Vec::new());
        space.lock().used = used;
        for PassedRegion { iova, len, readable, writable, file, offset, .. } in passed {
            let access = match (readable, writable) {
                (true, true) => Access::ReadWrite,
                (true, false) => Access::Read,
                (false, true) => Access::Write,
                (false, false) => return Err(bad(format!("nobody may use the memory at IOVA {iova:#x}"))),
            };
            let file = files.get(*file as usize).ok_or_else(|| bad(format!("file {file} is missing")))?;
            let bytes = usize::try_from(*len).ok().filter(|len| *len != 0 && len.is_multiple_of(4096));
            let bytes = bytes.ok_or_else(|| bad(format!("{len:#x} bytes of memory at IOVA {iova:#x}")))?;
            let end = iova.checked_add(*len).filter(|end| *end <= used);
            let free = space.regions().range(..end.unwrap_or(0)).next_back().is_none_or(|(other, region)| {
                other.checked_add(region.len).is_some_and(|other_end| other_end <= *iova)
            });
            if end.is_none() || !free || !iova.is_multiple_of(4096) {
                return Err(bad(format!("IOVA {iova:#x} is in use twice, or was never given out")));
            }
            let host = HostMemory::from_file(file.clone(), *offset, bytes)?;
            let parts = vec![host.clone()];
            let region = Region { len: *len, access, file: file.clone(), offset: *offset, parts, users: 0 };
            space.regions_mut().insert(*iova, region);
            regions.push(Placed { host, iova: *iova, region: *iova });
        }
        Ok(Self { space, regions })
    }
}

impl Space {
    /// One user more for a region.
    pub(crate) fn use_too(&self, region: u64) {
        if let Some(found) = self.regions_mut().get_mut(&region) {
            found.users = found.users.saturating_add(1);
        }
    }

    /// A piece of what has arrived, and one user more for the region.
    pub(crate) fn part(&self, iova: u64, len: usize) -> Option<Placed> {
        let region = self.around(iova, len as u64)?;
        let offset = usize::try_from(iova.checked_sub(region)?).ok()?;
        let host = self.regions().get(&region)?.parts.first()?.part(offset, len).ok()?;
        self.use_too(region);
        Some(Placed { host, iova, region })
    }

    /// Regions that nobody uses: the server is told to let go of them.
    pub(crate) fn unused(&self) -> Vec<u64> {
        self.regions().iter().filter(|(_, region)| region.users == 0).map(|(iova, _)| *iova).collect()
    }
}
