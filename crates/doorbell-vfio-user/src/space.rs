mod passed;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use doorbell_device::{Access, DeviceError, HostMemory, MapRequest};
use rustix::io::Errno;
use vfio_user::wire::{Command, DMA_READ, DMA_WRITE, DmaAccess, DmaMap};
use vfio_user::{Call, CallError, Message};
use zerocopy::{FromBytes, IntoBytes};

pub(crate) use self::passed::{Arrived, PassedRegion};
use crate::link::{End, How, Link};

/// The first IOVA handed out. Not 0, so that an address nobody set is a fault.
const FIRST_IOVA: u64 = 1 << 32;
/// Bytes that a server may move in one message.
pub(crate) const MAX_DATA: u64 = 1 << 20;

/// What the server has been told of, or is to be told of again when it comes back: memory at IOVAs.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// By IOVA; none overlap.
    regions: RwLock<BTreeMap<u64, Region>>,
    changes: Mutex<Changes>,
}

/// Held while the server is told of a change, so that what it knows and `regions` stay the same.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Below it, every address was handed out or skipped.
    pub(crate) used: u64,
}

/// One DMA mapping: memory that lies in one file without gaps.
#[derive(Debug, Clone)]
struct Region {
    len: u64,
    access: Access,
    file: Arc<File>,
    offset: u64,
    /// What it consists of, and how much of that is still in use.
    parts: Vec<HostMemory>,
    users: usize,
}

/// Where memory is reachable.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) host: HostMemory,
    pub(crate) iova: u64,
    /// The IOVA of the region it is part of.
    pub(crate) region: u64,
}

impl Space {
    /// Nobody else changes anything while what is returned lives.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the server of memory, in as few regions as possible. All of it or none.
    pub(crate) fn map(
        &self,
        link: impl FnOnce() -> Result<Arc<Link>, End>,
        requests: Vec<MapRequest>,
    ) -> Result<Vec<Placed>, DeviceError> {
        let mut changes = self.lock();
        // Under the lock: another server that comes is told either of all this, or of nothing.
        let link = link().map_err(|end| end.error())?;
        let limits = link.server;
        let (max, page) = (limits.max_dma_maps, smallest_page(limits.pgsizes));
        let (regions, placed) = arrange(requests, page, &mut changes.used)?;
        let there_are = self.regions().len();
        if there_are.saturating_add(regions.len()) as u64 > max {
            let reason = format!("the server takes {max}, there are {there_are}, and {} are to come", regions.len());
            return Err(DeviceError::MappingLimit(reason));
        }
        let mut done = Vec::new();
        for (iova, region) in regions {
            // The server may use it before its reply is here.
            self.regions_mut().insert(iova, region.clone());
            done.push(iova);
            if let Err(error) = link.ask(|server| announce(server, iova, &region)) {
                let refused = link.ended().is_none();
                if refused {
                    done.pop();
                    self.regions_mut().remove(&iova);
                }
                for iova in done {
                    // What could not be taken back is not given back either.
                    let _ = self.unmap(&link, iova);
                }
                return Err(match error {
                    DeviceError::Io { source, .. } if source.kind() == ErrorKind::StorageFull => {
                        DeviceError::MappingLimit(source.to_string())
                    }
                    error => error,
                });
            }
        }
        Ok(placed)
    }

    /// One user less for a region; after the last, the server is told to let go of it, and has when this returns.
    ///
    /// # Errors
    /// If it is not certain that the server has: then the memory must never be used for anything else.
    pub(crate) fn release(
        &self,
        link: impl FnOnce() -> Result<Arc<Link>, End>,
        region: u64,
    ) -> Result<(), DeviceError> {
        let _changes = self.lock();
        let last = self.regions_mut().get_mut(&region).is_some_and(|found| {
            found.users = found.users.saturating_sub(1);
            found.users == 0
        });
        if !last {
            return Ok(());
        }
        match link() {
            Ok(link) => self.unmap(&link, region),
            Err(end) => self.forget(region, end.how, end.error()),
        }
    }

    fn unmap(&self, link: &Link, iova: u64) -> Result<(), DeviceError> {
        let len = self.regions().get(&iova).map_or(0, |region| region.len);
        match link.ask(|server| server.dma_unmap(iova, len)) {
            Ok(()) => self.forget(iova, How::Closed, DeviceError::Gone(String::new())),
            // A server that is gone has let go of everything.
            Err(error) => self.forget(iova, link.ended().map_or(How::GivenUp, |end| end.how), error),
        }
    }

    /// Knows no more of a region. If a server could still write to it for this process, it is never given back.
    fn forget(&self, iova: u64, how: How, error: DeviceError) -> Result<(), DeviceError> {
        let region = self.regions_mut().remove(&iova);
        // It does nothing for us any more, or another process keeps it there.
        if matches!(how, How::Closed | How::Elsewhere) {
            return Ok(());
        }
        std::mem::forget(region);
        Err(error)
    }

    /// Tells a new server of everything. The caller holds the [lock](Self::lock).
    pub(crate) fn announce_all(&self, by: &mut impl Call, _locked: &Changes) -> Result<(), CallError> {
        let regions = self.regions().clone();
        regions.iter().try_for_each(|(iova, region)| announce(by, *iova, region))
    }

    fn regions(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u64, Region>> {
        self.regions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn regions_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u64, Region>> {
        self.regions.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what the server asks for: it may move data by messages, if it cannot map memory. The payload of the reply.
    pub(crate) fn serve(&self, message: &Message) -> Result<Vec<u8>, Errno> {
        let (access, data) = DmaAccess::read_from_prefix(&message.payload).map_err(|_| Errno::INVAL)?;
        let wanted = match Command::from_code(message.header.command) {
            Some(Command::DmaRead) if data.is_empty() => Access::Read,
            Some(Command::DmaWrite) if data.len() as u64 == access.count => Access::Write,
            Some(Command::DmaRead | Command::DmaWrite) => return Err(Errno::INVAL),
            _ => return Err(Errno::NOTSUP),
        };
        if access.count > MAX_DATA {
            return Err(Errno::INVAL);
        }
        let len = usize::try_from(access.count).map_err(|_| Errno::INVAL)?;
        let mut reply = access.as_bytes().to_vec();
        let start = reply.len();
        if wanted == Access::Read {
            reply.resize(start.saturating_add(len), 0);
        }
        self.each_part(access.address, len, wanted, |host, at, range| match wanted {
            Access::Read => host.read_at(at, reply.get_mut(start..)?.get_mut(range)?).ok(),
            _ => host.write_at(at, data.get(range)?).ok(),
        })?;
        Ok(reply)
    }

    /// Calls `each` for each piece of memory at an IOVA, with where in it and which bytes of all.
    fn each_part(
        &self,
        iova: u64,
        len: usize,
        wanted: Access,
        mut each: impl FnMut(&HostMemory, usize, std::ops::Range<usize>) -> Option<()>,
    ) -> Result<(), Errno> {
        let regions = self.regions();
        let (start, region) = regions.range(..=iova).next_back().ok_or(Errno::FAULT)?;
        let mut skip = iova.checked_sub(*start).ok_or(Errno::FAULT)?;
        let inside = skip.checked_add(len as u64).is_some_and(|end| end <= region.len);
        if !inside || !region.access.allows(wanted) {
            return Err(Errno::FAULT);
        }
        let mut done = 0usize;
        for host in &region.parts {
            let there_is = host.len() as u64;
            if skip >= there_is {
                skip = skip.saturating_sub(there_is);
                continue;
            }
            let at = usize::try_from(skip).map_err(|_| Errno::FAULT)?;
            let count = host.len().saturating_sub(at).min(len.saturating_sub(done));
            let end = done.saturating_add(count);
            each(host, at, done..end).ok_or(Errno::FAULT)?;
            (done, skip) = (end, 0);
            if done == len {
                break;
            }
        }
        Ok(())
    }
}

/// Finds IOVAs for memory, from `used` on. What follows another in its file follows it there too, and is one region.
#[expect(clippy::type_complexity, reason = "two lists")]
fn arrange(
    requests: Vec<MapRequest>,
    page: u64,
    used: &mut u64,
) -> Result<(Vec<(u64, Region)>, Vec<Placed>), DeviceError> {
    let mut regions: Vec<(u64, Region)> = Vec::new();
    let mut placed = Vec::new();
    let mut floor = *used;
    for MapRequest { host, access, align, offset } in requests {
        let (bytes, len) = (host.len(), host.len() as u64);
        let unmappable = |reason: String| DeviceError::Unmappable { len: bytes, reason };
        let (align, file) = (align.max(4096), host.file().map(|(file, at)| (file.clone(), at)));
        let Some((file, at)) = file else {
            let reason = "it has no file that the server could map; memory to share is that of a memfd or a file";
            return Err(unmappable(reason.into()));
        };
        if !align.is_power_of_two() || !offset.is_multiple_of(4096) || len == 0 || !len.is_multiple_of(page) {
            let reason = format!("alignment {align:#x}, offset {offset:#x} or the size is not of pages of {page:#x}");
            return Err(unmappable(reason));
        }
        let allowed = match access {
            Access::Read => host.is_readable(),
            Access::Write | Access::ReadWrite => host.is_readable() && host.is_writable(),
        };
        if !allowed {
            return Err(unmappable(format!("this process may not access it itself ({access:?})")));
        }
        let within = offset & align.saturating_sub(1);
        if let Some((start, last)) = regions.last_mut()
            && let Some(next) = start.checked_add(last.len)
            && last.access == access
            && last.offset.checked_add(last.len) == Some(at)
            && next & align.saturating_sub(1) == within
            && is_same_file(&last.file, &file)
            && let Some(end) = next.checked_add(len)
        {
            (last.len, last.users) = (last.len.saturating_add(len), last.users.saturating_add(1));
            last.parts.push(host.clone());
            placed.push(Placed { host, iova: next, region: *start });
            floor = end.saturating_add(page);
            continue;
        }
        let choose = || floor.max(FIRST_IOVA).checked_next_multiple_of(align)?.checked_add(within);
        let room = choose().filter(|iova| iova.is_multiple_of(page));
        let room = room.and_then(|iova| Some((iova, iova.checked_add(len)?)));
        let (iova, end) = room.ok_or_else(|| {
            unmappable(format!("there is no IOVA left that is {offset:#x} more than a multiple of {align:#x}"))
        })?;
        // A page is left out after each region, so that what runs over its end is a fault as well.
        floor = end.saturating_add(page);
        regions.push((iova, Region { len, access, file, offset: at, parts: vec![host.clone()], users: 1 }));
        placed.push(Placed { host, iova, region: iova });
    }
    *used = floor;
    Ok((regions, placed))
}

fn is_same_file(a: &Arc<File>, b: &Arc<File>) -> bool {
    let of = |file: &File| file.metadata().ok().map(|data| (data.dev(), data.ino()));
    Arc::ptr_eq(a, b) || (of(a).is_some() && of(a) == of(b))
}

/// The smallest page that mappings consist of.
fn smallest_page(sizes: u64) -> u64 {
    let smallest = sizes & sizes.wrapping_neg();
    smallest.max(4096)
}

fn announce(by: &mut impl Call, iova: u64, region: &Region) -> Result<(), CallError> {
    let flags = match region.access {
        Access::Read => DMA_READ,
        Access::Write => DMA_WRITE,
        Access::ReadWrite => DMA_READ | DMA_WRITE,
    };
    let map = DmaMap { argsz: 0, flags, offset: region.offset, address: iova, size: region.len };
    by.dma_map(map, Some(region.file.as_fd()))
}
