//! The client's memory, as far as it lets the controller reach it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Weak};

use doorbell_device::inprocess::DmaSpace;
use doorbell_device::sigbus::{self, Guard, Substitute};
use doorbell_device::{Access, DeviceError, HostMemory, Interrupt};
use rustix::fs::{OFlags, SealFlags, fcntl_add_seals, fcntl_get_seals};
use rustix::io::Errno;
use vfio_user::wire;

use crate::takeover::{Descriptors, TakeoverError, damaged, pass, state};

/// Mappings that a client can have at a time.
pub(crate) const MAX_MAPPINGS: usize = 8192;
/// Files that they can be of.
const MAX_FILES: usize = 512;
/// Bytes that they can be in all: what else needs addresses in this process keeps most of them.
const MAX_BYTES: u64 = 16 << 40;
/// The only page size.
const PAGE: u64 = 4096;

/// `FUSE_SUPER_MAGIC` of statfs(2).
const FUSE_MAGIC: rustix::fs::FsWord = 0x6573_5546;

/// The mappings of one client. They all go when it goes.
#[derive(Default)]
pub(crate) struct Mappings {
    space: DmaSpace,
    /// By first address.
    ranges: BTreeMap<u64, Range>,
    bytes: u64,
    /// Files that were mapped, so that each takes one descriptor however many mappings it has.
    files: Vec<(FileId, Weak<File>)>,
    /// Raised when guarded memory is lost.
    lost: Option<Interrupt>,
}

struct Range {
    len: u64,
    /// As the client asked for it.
    flags: u32,
    offset: u64,
    /// None where there is no memory behind it.
    file: Option<Arc<File>>,
    /// Memory that the client can truncate is guarded.
    guard: Option<Guard>,
}

/// What makes two descriptors the same to us.
#[derive(PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    mode: OFlags,
}

impl Mappings {
    /// What the controller reaches.
    pub(crate) fn space(&self) -> &DmaSpace {
        &self.space
    }

    /// How many mappings there are, and of how many bytes.
    pub(crate) fn size(&self) -> (usize, u64) {
        (self.ranges.len(), self.bytes)
    }

    /// Adds memory, as a client asks. Without a descriptor the range is taken, and cannot be used.
    pub(crate) fn map(&mut self, map: wire::DmaMap, file: Option<OwnedFd>) -> Result<(), Errno> {
        let wire::DmaMap { flags, offset, address, size, .. } = map;
        let aligned = [offset, address, size].iter().all(|value| value.is_multiple_of(PAGE));
        let end = address.checked_add(size).ok_or(Errno::INVAL)?;
        if size == 0 || !aligned || flags & !(wire::DMA_READ | wire::DMA_WRITE) != 0 {
            tracing::warn!(?map, "a DMA mapping that is empty, not of whole pages, or has unknown flags");
            return Err(Errno::INVAL);
        }
        let before = self.ranges.range(..end).next_back();
        if before.is_some_and(|(first, range)| first.saturating_add(range.len) > address) {
            return Err(Errno::EXIST);
        }
        let bytes = self.bytes.checked_add(size).filter(|&bytes| bytes <= MAX_BYTES).ok_or(Errno::NOSPC)?;
        if self.ranges.len() >= MAX_MAPPINGS {
            return Err(Errno::NOSPC);
        }
        let access = match (flags & wire::DMA_READ != 0, flags & wire::DMA_WRITE != 0) {
            (true, false) => Some(Access::Read),
            (false, true) => Some(Access::Write),
            (true, true) => Some(Access::ReadWrite),
            (false, false) => None,
        };
        let (file, guard) = match (file, access) {
            (Some(file), Some(access)) => {
                let file = self.same_file(file)?;
                let guard = self.insert(map, &file, access)?;
                (Some(file), guard)
            }
            _ => {
                // ROMs and what is behind other devices come so; it matters where the controller is sent there.
                tracing::info!(
                    "the client shares no file for the {size:#x} bytes at {address:#x}: they cannot be reached"
                );
                (None, None)
            }
        };
        self.bytes = bytes;
        self.ranges.insert(address, Range { len: size, flags, offset, file, guard });
        Ok(())
    }

    fn insert(&mut self, map: wire::DmaMap, file: &Arc<File>, access: Access) -> Result<Option<Guard>, Errno> {
        let sealed = is_sealed(file);
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "a DMA mapping of {:#x} bytes at {:#x} is refused", map.size, map.address);
            Errno::INVAL
        };
        let len = usize::try_from(map.size).map_err(|_| Errno::INVAL)?;
        let memory = HostMemory::from_file(file.clone(), map.offset, len).map_err(|e| refused(&e))?;
        let guard = if sealed { None } else { self.guard(&memory).map_err(|e| refused(&e))? };
        self.space.insert(map.address, memory, access).map_err(|e| refused(&e))?;
        Ok(guard)
    }

    /// Guards memory that may be truncated, if this process handles SIGBUS.
    fn guard(&mut self, memory: &HostMemory) -> Result<Option<Guard>, DeviceError> {
        if !sigbus::is_installed() {
            return Ok(None);
        }
        if self.lost.is_none() {
            self.lost = Some(Interrupt::new()?);
        }
        self.lost.as_ref().map(|lost| sigbus::guard(memory.clone(), Substitute::Zeroes, lost)).transpose()
    }

    /// Whether the client has taken memory away that it had shared, by truncating its file.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.as_ref().is_some_and(|lost| lost.take() > 0)
    }

    /// The file behind a descriptor: the one that is there already, if it is the same.
    fn same_file(&mut self, fd: OwnedFd) -> Result<Arc<File>, Errno> {
        let mode = rustix::fs::fcntl_getfl(&fd)? & OFlags::RWMODE;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|_| Errno::BADF)?;
        let id = FileId { device: metadata.dev(), inode: metadata.ino(), mode };
        self.files.retain(|(_, file)| file.strong_count() > 0);
        if let Some(known) = self.files.iter().find(|(known, _)| *known == id).and_then(|(_, file)| file.upgrade()) {
            return Ok(known);
        }
        if self.files.len() >= MAX_FILES {
            return Err(Errno::NFILE);
        }
        if rustix::fs::fstatfs(&file)?.f_type == FUSE_MAGIC {
            // A page of it comes when its server, which may be the client, is so kind.
            tracing::warn!("the client's memory is a FUSE file, which is refused");
            return Err(Errno::INVAL);
        }
        // It must not shrink, which would take memory away under our feet. Not every file can be sealed.
        let _ = fcntl_add_seals(&file, SealFlags::SHRINK);
        let file = Arc::new(file);
        self.files.push((id, Arc::downgrade(&file)));
        Ok(file)
    }

    /// Whether an address is one that the client has named without sharing memory for it.
    pub(crate) fn is_unusable(&self, address: u64) -> bool {
        let below = self.ranges.range(..=address).next_back();
        below.is_some_and(|(first, range)| {
            range.file.is_none() && address.checked_sub(*first).is_some_and(|at| at < range.len)
        })
    }

    /// Takes memory away: just what was mapped. No command that comes after can name it; what is returned is kept until
    /// those before are done.
    pub(crate) fn unmap(&mut self, address: u64, size: u64) -> Result<Option<Guard>, Errno> {
        let range = self.ranges.get(&address).filter(|range| range.len == size).ok_or(Errno::NOENT)?;
        if range.file.is_some()
            && let Err(error) = self.space.remove(address, size)
        {
            tracing::error!(%error, "what was mapped cannot be unmapped");
            return Err(Errno::INVAL);
        }
        self.bytes = self.bytes.saturating_sub(size);
        Ok(self.ranges.remove(&address).and_then(|range| range.guard))
    }

    /// Takes all memory away.
    pub(crate) fn unmap_all(&mut self) -> Vec<Guard> {
        let all: Vec<_> = self.ranges.iter().map(|(&address, range)| (address, range.len)).collect();
        all.into_iter().filter_map(|(address, len)| self.unmap(address, len).ok().flatten()).collect()
    }
}

impl Mappings {
    /// The mappings, and each file that they are of once.
    pub(crate) fn save(&self, fds: &mut Vec<OwnedFd>) -> std::io::Result<Vec<state::Mapping>> {
        let mut places: Vec<(&Arc<File>, u32)> = Vec::new();
        let mut saved = Vec::new();
        for (&address, range) in &self.ranges {
            let Range { len, flags, offset, file, .. } = range;
            let file = match file {
                None => None,
                Some(file) => Some(match places.iter().find(|(other, _)| Arc::ptr_eq(other, file)) {
                    Some((_, at)) => *at,
                    None => {
                        let at = pass(fds, file.as_fd())?;
                        places.push((file, at));
                        at
                    }
                }),
            };
            saved.push(state::Mapping { address, len: *len, flags: *flags, offset: *offset, file });
        }
        Ok(saved)
    }

    /// Maps all of it as the client had asked.
    pub(crate) fn restore(saved: &[state::Mapping], fds: &Descriptors) -> Result<Self, TakeoverError> {
        let mut mappings = Self::default();
        for &state::Mapping { address, len, flags, offset, file } in saved {
            let file = file.map(|at| fds.share(at)).transpose()?;
            let map = wire::DmaMap { flags, offset, address, size: len, ..wire::DmaMap::default() };
            if let Err(error) = mappings.map(map, file) {
                return damaged(format!("memory at {address:#x} cannot be mapped: {error}"));
            }
        }
        Ok(mappings)
    }
}

fn is_sealed(file: &File) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}
