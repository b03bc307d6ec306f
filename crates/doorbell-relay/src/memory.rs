//! Memory of clients, as drives know it.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, Weak};

use doorbell::{GuestMemory, PAGE_SIZE, PagedRange};
use doorbell_device::inprocess::MappedPart;
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::Data;
use nvme_spec::Status;

use crate::drive::Drive;

const PAGE: u64 = PAGE_SIZE as u64;

/// A mapping of a client's. The addresses of its [`memory`](Self::memory) are the client's.
pub(crate) struct Share {
    iova: u64,
    host: HostMemory,
    allowed: Access,
    /// Registered with the drive, if the drive can be given it; otherwise its data goes through buffers.
    pub(crate) memory: GuestMemory,
}

/// A mapping that some lane of a drive has a share of.
pub(crate) struct Registered {
    share: Weak<Share>,
}

impl Share {
    fn is_of(&self, iova: u64, part: &MappedPart<'_>) -> bool {
        self.iova == iova
            && self.host.as_ptr() == part.host.as_ptr()
            && self.host.len() == part.host.len()
            && self.allowed == part.allowed
    }
}

impl Drive {
    /// The mapping that a part at `iova` belongs to: the one there is, or a new one.
    fn share(&self, iova: u64, part: &MappedPart<'_>) -> Result<Arc<Share>, Status> {
        let mut known = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|known| known.share.strong_count() > 0);
        let same = known.iter().filter_map(|known| known.share.upgrade()).find(|share| share.is_of(iova, part));
        if let Some(share) = same {
            return Ok(share);
        }
        let (host, allowed) = (part.host.clone(), part.allowed);
        let inherited = self.inherit(|memory| is_the_same(memory, iova, &host, allowed)).pop();
        let memory = match inherited {
            Some(memory) => memory,
            None => self.register(iova, &host, allowed)?,
        };
        let share = Arc::new(Share { iova, host, allowed, memory });
        known.push(Registered { share: Arc::downgrade(&share) });
        Ok(share)
    }

    fn register(&self, iova: u64, host: &HostMemory, allowed: Access) -> Result<GuestMemory, Status> {
        let memory = GuestMemory::builder().region(iova, host.clone(), allowed).build();
        let memory = memory.map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(self.driver.register_memory(&memory).unwrap_or_else(|error| {
            let len = host.len();
            tracing::warn!(%error, "{len:#x} bytes at {iova:#x} cannot be given to the drive: they go through buffers");
            memory
        }))
    }
}

/// Whether memory that the process before had registered is this mapping, by the file that both lie in.
fn is_the_same(memory: &GuestMemory, iova: u64, host: &HostMemory, allowed: Access) -> bool {
    let mut regions = memory.regions();
    let (Some((at, other, access)), None) = (regions.next(), regions.next()) else { return false };
    at == iova
        && other.len() == host.len()
        && access == allowed
        && place(other).is_some_and(|is| Some(is) == place(host))
}

/// Which file, and where in it.
fn place(memory: &HostMemory) -> Option<(u64, u64, u64)> {
    let (file, offset) = memory.file()?;
    let file = file.metadata().ok()?;
    Some((file.dev(), file.ino(), offset))
}

/// Whether a client's addresses are among those of memory.
pub(crate) fn touches(memory: &GuestMemory, iova: u64, len: u64) -> bool {
    let end = iova.saturating_add(len);
    memory.regions().any(|(at, host, _)| at < end && iova < at.saturating_add(host.len() as u64))
}

/// The data of a command.
pub(crate) enum Place {
    /// Whole pages, but for the first one's beginning and the last one's end.
    Pages(Pages),
    /// Pieces of any kind; where there is no memory, what would be written is thrown away.
    Pieces(Vec<(Option<(HostMemory, usize)>, usize)>),
}

pub(crate) struct Pages {
    pub(crate) memory: GuestMemory,
    gpns: Vec<u64>,
    offset: usize,
    len: usize,
}

impl Pages {
    pub(crate) fn range(&self) -> Option<PagedRange<'_>> {
        PagedRange::new(self.offset, self.len, &self.gpns)
    }
}

/// Finds where a command's data is, for a drive. `shares` are the lane's, which grow.
pub(crate) fn locate(drive: &Drive, shares: &mut Vec<Arc<Share>>, data: &Data<'_>) -> Result<Place, Status> {
    let mut gpns = Vec::new();
    let (mut offset, mut len, mut end) = (0, 0usize, None);
    let mut used: Vec<usize> = Vec::new();
    for piece in data.pieces() {
        let piece = piece?;
        let Some(part) = piece.memory else { return pieces(data) };
        let in_page = piece.iova & PAGE.saturating_sub(1);
        match end {
            None => offset = in_page as usize,
            Some(end) if in_page == 0 && u64::is_multiple_of(end, PAGE) => {}
            Some(_) => return pieces(data),
        }
        let last = piece.iova.saturating_add(piece.len as u64);
        gpns.extend(piece.iova / PAGE..last.div_ceil(PAGE));
        (end, len) = (Some(last), len.saturating_add(piece.len));
        let iova = piece.iova.saturating_sub(part.offset as u64);
        let index = match shares.iter().position(|share| share.is_of(iova, &part)) {
            Some(index) => index,
            None => {
                shares.push(drive.share(iova, &part)?);
                shares.len().saturating_sub(1)
            }
        };
        if used.last() != Some(&index) && !used.contains(&index) {
            used.push(index);
        }
    }
    let memory = match used[..] {
        [only] => shares.get(only).map(|share| share.memory.clone()),
        // The driver knows a command's memory by one registration: here the data goes through buffers.
        _ => together(used.iter().filter_map(|index| shares.get(*index))),
    };
    Ok(Place::Pages(Pages { memory: memory.ok_or(Status::INTERNAL_ERROR)?, gpns, offset, len }))
}

fn together<'a>(shares: impl Iterator<Item = &'a Arc<Share>>) -> Option<GuestMemory> {
    let builder = GuestMemory::builder();
    shares.fold(builder, |builder, share| builder.region(share.iova, share.host.clone(), share.allowed)).build().ok()
}

fn pieces(data: &Data<'_>) -> Result<Place, Status> {
    let piece =
        |piece: doorbell_emulator::Piece<'_>| (piece.memory.map(|part| (part.host.clone(), part.offset)), piece.len);
    Ok(Place::Pieces(data.pieces().map(|found| found.map(piece)).collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_process_before_is_known_by_its_file() {
        let host = HostMemory::allocate(0x4000).unwrap();
        let (file, _) = host.file().unwrap();
        let of = |at, offset, len| {
            let host = HostMemory::from_file(file.clone(), offset, len).unwrap();
            GuestMemory::builder().region(at, host, Access::ReadWrite).build().unwrap()
        };
        let part = HostMemory::from_file(file.clone(), 0x1000, 0x2000).unwrap();
        let same = |memory: &GuestMemory| is_the_same(memory, 0x10_0000, &part, Access::ReadWrite);
        assert!(same(&of(0x10_0000, 0x1000, 0x2000)));
        for (at, offset, len) in [(0x10_1000, 0x1000, 0x2000), (0x10_0000, 0, 0x2000), (0x10_0000, 0x1000, 0x1000)] {
            assert!(!same(&of(at, offset, len)), "{at:#x} {offset:#x} {len:#x}");
        }
        let other = HostMemory::allocate(0x4000).unwrap();
        let (file, _) = other.file().unwrap();
        let other = HostMemory::from_file(file.clone(), 0x1000, 0x2000).unwrap();
        assert!(!same(&GuestMemory::builder().region(0x10_0000, other, Access::ReadWrite).build().unwrap()));
        assert!(touches(&of(0x10_0000, 0, 0x4000), 0x10_3fff, 1));
        assert!(!touches(&of(0x10_0000, 0, 0x4000), 0x10_4000, u64::MAX));
    }
}
