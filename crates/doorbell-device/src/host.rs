use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, memfd_create};
use vm_memory::{FileOffset, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

use crate::DeviceError;

/// A page, as the host and the smallest NVMe controllers count them.
const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// Which way a device may use memory, or which way a page allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads.
    Read,
    /// The device writes.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether everything that `wanted` needs is allowed.
    pub fn allows(self, wanted: Access) -> bool {
        self == Access::ReadWrite || self == wanted
    }
}

/// An access outside a piece of memory, or a write to memory that is read-only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len:#x} bytes at offset {offset:#x} do not fit in, or may not be written to, {size:#x} bytes of memory")]
pub struct OutOfRange {
    /// Byte offset of the access.
    pub offset: usize,
    /// Bytes accessed.
    pub len: usize,
    /// Bytes there are.
    pub size: usize,
}

/// A piece of this process's memory that others (a device, a guest, another process) read and write at any time.
///
/// It is never a Rust slice of bytes: access is by atomic words or by volatile copies. Cheap to clone; the mapping
/// lives as long as the last clone.
#[derive(Clone)]
pub struct HostMemory {
    region: Arc<MmapRegion>,
    // Cached from `region`, for the I/O path.
    base: *mut u8,
    len: usize,
}

// SAFETY: `base` points into the mapping that `region` keeps alive. All access through it is atomic or volatile, so
// it may be used from every thread.
unsafe impl Send for HostMemory {}
// SAFETY: as for `Send`.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// New zeroed memory of `len` bytes, rounded up to whole pages, in a memfd of its own, so that it can be shared
    /// with another process. Huge pages are used for sizes of whole 2 MiB when the system has some free.
    pub fn allocate(len: usize) -> Result<Self, DeviceError> {
        let len = len
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| DeviceError::Unmappable { len, reason: "the size overflows".into() })?;
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(memory) = Self::from_memfd(len, MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)
        {
            return Ok(memory);
        }
        Self::from_memfd(len, MemfdFlags::CLOEXEC)
    }

    fn from_memfd(len: usize, flags: MemfdFlags) -> Result<Self, DeviceError> {
        let fd: OwnedFd = memfd_create("doorbell", flags).map_err(DeviceError::io("memfd_create"))?;
        rustix::fs::ftruncate(&fd, len as u64).map_err(DeviceError::io("sizing a memfd"))?;
        // Reserving the pages now turns a later SIGBUS for want of (huge) pages into an error here.
        rustix::fs::fallocate(&fd, rustix::fs::FallocateFlags::empty(), 0, len as u64)
            .map_err(DeviceError::io("allocating memory"))?;
        Self::from_file(Arc::new(File::from(fd)), 0, len)
    }

    /// Maps `len` bytes of a file (a memfd of a peer, say) from `offset` on, shared, for reading and writing.
    ///
    /// The file must not shrink below that while the memory is in use: touching what is no longer there raises
    /// SIGBUS.
    pub fn from_file(file: Arc<File>, offset: u64, len: usize) -> Result<Self, DeviceError> {
        let end = offset.checked_add(len as u64);
        let size = file.metadata().map_err(DeviceError::io("asking a file's size"))?.len();
        if end.is_none_or(|end| end > size) {
            let reason = format!("the range from {offset:#x} ends beyond the file's {size:#x} bytes");
            return Err(DeviceError::Unmappable { len, reason });
        }
        let region = MmapRegion::from_file(FileOffset::from_arc(file, offset), len)
            .map_err(|e| DeviceError::Unmappable { len, reason: e.to_string() })?;
        Ok(Self::from_region(Arc::new(region)))
    }

    /// The memory behind one region of a guest.
    pub fn from_guest_region(region: &GuestRegionMmap) -> Self {
        Self::from_region(region.get_mmap())
    }

    fn from_region(region: Arc<MmapRegion>) -> Self {
        Self { base: region.as_ptr(), len: region.size(), region }
    }

    /// Bytes of memory.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no memory at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether this process may write to it.
    pub fn is_writable(&self) -> bool {
        self.region.prot() & PROT_WRITE != 0
    }

    /// The address in this process, for an IOMMU to map. Reading or writing through it is the caller's proof to make.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base
    }

    /// The file behind the memory and the offset in it, where there is one: what another process needs to map it.
    pub fn file(&self) -> Option<(&Arc<File>, u64)> {
        self.region.file_offset().map(|f| (f.arc(), f.start()))
    }

    /// The memory as 64-bit words. Empty where the memory is not writable.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // A mapping starts at a page boundary, so `base` is aligned; a file offset keeps it so.
        let len = if self.is_word_accessible() { self.len / 8 } else { 0 };
        // SAFETY: `base` is aligned for u64 (checked), valid for `len` bytes as long as `region`, which outlives the
        // borrow, and only ever accessed atomically or volatilely in this process.
        unsafe { std::slice::from_raw_parts(self.base.cast::<AtomicU64>(), len) }
    }

    /// The memory as 32-bit words. Empty where the memory is not writable.
    #[inline]
    pub fn dwords(&self) -> &[AtomicU32] {
        let len = if self.is_word_accessible() { self.len / 4 } else { 0 };
        // SAFETY: as for `words`, with the weaker alignment of u32.
        unsafe { std::slice::from_raw_parts(self.base.cast::<AtomicU32>(), len) }
    }

    #[inline]
    fn is_word_accessible(&self) -> bool {
        self.is_writable() && self.base.addr().is_multiple_of(8)
    }

    /// A bounds-checked volatile window.
    pub fn slice(&self, offset: usize, len: usize) -> Result<VolatileSlice<'_>, OutOfRange> {
        self.region.get_slice(offset, len).map_err(|_| self.out_of_range(offset, len))
    }

    /// Copies out of the memory.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfRange> {
        self.slice(offset, to.len())?.copy_to(to);
        Ok(())
    }

    /// Copies into the memory.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<(), OutOfRange> {
        if !self.is_writable() {
            return Err(self.out_of_range(offset, from.len()));
        }
        self.slice(offset, from.len())?.copy_from(from);
        Ok(())
    }

    /// Copies `len` bytes from one memory to another, or within one.
    pub fn copy_to(&self, offset: usize, to: &HostMemory, to_offset: usize, len: usize) -> Result<(), OutOfRange> {
        if !to.is_writable() {
            return Err(to.out_of_range(to_offset, len));
        }
        self.slice(offset, len)?.copy_to_volatile_slice(to.slice(to_offset, len)?);
        Ok(())
    }

    /// Writes zeroes.
    pub fn zero(&self, offset: usize, len: usize) -> Result<(), OutOfRange> {
        const ZEROES: [u8; PAGE] = [0; PAGE];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(PAGE);
            self.write_at(offset.saturating_add(done), &ZEROES[..part])?;
            done += part;
        }
        Ok(())
    }

    fn out_of_range(&self, offset: usize, len: usize) -> OutOfRange {
        OutOfRange { offset, len, size: self.len }
    }
}

/// `PROT_WRITE` of `mmap`, as `MmapRegion::prot` reports it.
const PROT_WRITE: i32 = 2;

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory").field("len", &self.len).field("writable", &self.is_writable()).finish()
    }
}
