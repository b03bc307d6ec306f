use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestRegionMmap, MmapRegion, VolatileMemory, VolatileSlice};

use crate::DeviceError;
use crate::mapping::Mapping;

/// A page, as the host and the smallest NVMe controllers count them.
const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// From what size on it is asked whether the system has so much.
const LARGE: usize = 256 << 20;

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

/// An access outside a piece of memory, or one that the memory's protection forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len:#x} bytes at offset {offset:#x} are not in, or may not be accessed so in, {size:#x} bytes of memory")]
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
///
/// # Races
/// Whoever is on the other side is outside of Rust's memory model, and no more is expected of what it writes than that
/// it can be anything at any time. Inside this process:
/// * Words are atomic. Accesses of different sizes to the same bytes at the same time ([`words`](Self::words) here,
///   [`dwords`](Self::dwords) there) are not something Rust defines; what they compile to is: each byte read is one that
///   was written, in LLVM as in the processors, and no value of either type is invalid. Keep to one size for what two
///   threads share, and nothing of this is needed.
/// * Copies are not atomic, and one that races with a write may be a mixture of old and new. It is made once: the
///   compiler cannot go back to the shared memory for what was copied, so what is checked is what is used.
#[derive(Clone)]
pub struct HostMemory {
    region: Arc<MmapRegion>,
    /// What keeps the memory in place where `region` is not its owner.
    _owner: Option<Arc<Owner>>,
    // What follows is derived from `region`, for the I/O path.
    len: usize,
    /// The start of the mapping, as words; dangling where there are none.
    words: NonNull<AtomicU64>,
    /// How many; 0 where the memory cannot be used by words.
    word_count: usize,
}

/// Who unmaps memory that several regions are, or that can be replaced.
enum Owner {
    Device(#[expect(dead_code, reason = "it is kept, and unmapped when dropped")] Arc<Mapping>),
    Parts(#[expect(dead_code, reason = "they are kept, and unmapped when dropped")] Box<[HostMemory]>),
}

// SAFETY: the only field that is not `Send` by itself is `words`. It is an address in the mapping that `region` owns and
// keeps in place in whatever thread it is; what is made of it are references to atomics, which are `Send`.
unsafe impl Send for HostMemory {}
// SAFETY: through `&HostMemory`, `words` is only turned into references to atomics, which are `Sync`.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// New zeroed memory of `len` bytes, rounded up to whole pages, in a memfd of its own, so that it can be shared
    /// with another process. Huge pages are used for sizes of whole 2 MiB when the system has some free.
    pub fn allocate(len: usize) -> Result<Self, DeviceError> {
        let len = len
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| DeviceError::Unmappable { len, reason: "the size overflows".into() })?;
        if cfg!(miri) {
            // Miri has no memfd and no mmap; vm-memory puts an allocation in its place.
            let region = MmapRegion::new(len).map_err(|e| DeviceError::Unmappable { len, reason: e.to_string() })?;
            return Ok(Self::from_region(Arc::new(region)));
        }
        if len >= LARGE
            && let Some(available) = available_memory()
            && len as u64 > available
        {
            // Otherwise the system would look for it until it kills processes, this one or others.
            let reason = format!("the system has only {available:#x} bytes available");
            return Err(DeviceError::Unmappable { len, reason });
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(memory) = Self::from_memfd(len, flags | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB)
        {
            return Ok(memory);
        }
        Self::from_memfd(len, flags)
    }

    fn from_memfd(len: usize, flags: MemfdFlags) -> Result<Self, DeviceError> {
        let fd: OwnedFd = memfd_create("doorbell", flags).map_err(DeviceError::io("memfd_create"))?;
        rustix::fs::ftruncate(&fd, len as u64).map_err(DeviceError::io("sizing a memfd"))?;
        // A peer that is given the descriptor cannot shrink the file, which would be a SIGBUS for us.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fcntl_add_seals(&fd, seals).map_err(DeviceError::io("sealing a memfd"))?;
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

    /// The memory behind one region of a guest, with the protection that the region has.
    pub fn from_guest_region(region: &GuestRegionMmap) -> Self {
        Self::from_region(region.get_mmap())
    }

    /// A device's registers.
    pub(crate) fn from_mapping(mapping: Arc<Mapping>) -> Result<Self, DeviceError> {
        let (start, len) = (mapping.start(), mapping.len());
        let memory = Self::at(start, len, READ_WRITE, None)?;
        Ok(Self { _owner: Some(Arc::new(Owner::Device(mapping))), ..memory })
    }

    /// Pieces of memory as one, if each begins where the one before ends, in this process and in the file behind them,
    /// and all have the same protection.
    pub fn joined(parts: &[HostMemory]) -> Option<HostMemory> {
        let first = parts.first()?;
        let follows = |(a, b): (&HostMemory, &HostMemory)| {
            let in_file = match (a.file(), b.file()) {
                (None, None) => true,
                (Some((a_file, a_start)), Some((b_file, b_start))) => {
                    Arc::ptr_eq(a_file, b_file) && a_start.checked_add(a.len as u64) == Some(b_start)
                }
                _ => false,
            };
            in_file && a.as_ptr().wrapping_add(a.len) == b.as_ptr() && a.region.prot() == b.region.prot()
        };
        if !parts.iter().zip(parts.iter().skip(1)).all(follows) {
            return None;
        }
        let len = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.len))?;
        let file = first.file().map(|(file, start)| FileOffset::from_arc(file.clone(), start));
        let memory = Self::at(first.as_ptr(), len, first.region.prot(), file).ok()?;
        Some(Self { _owner: Some(Arc::new(Owner::Parts(parts.into()))), ..memory })
    }

    /// `len` bytes of it from `offset` on, both whole pages. All of it stays mapped as long as this lives.
    pub fn part(&self, offset: usize, len: usize) -> Result<HostMemory, OutOfRange> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !inside || len == 0 || !offset.is_multiple_of(PAGE) || !len.is_multiple_of(PAGE) {
            return Err(self.out_of_range(offset, len));
        }
        let start = self.as_ptr().wrapping_add(offset);
        let file = self
            .file()
            .and_then(|(file, begins)| Some(FileOffset::from_arc(file.clone(), begins.checked_add(offset as u64)?)));
        let memory = Self::at(start, len, self.region.prot(), file).map_err(|_| self.out_of_range(offset, len))?;
        Ok(Self { _owner: Some(Arc::new(Owner::Parts([self.clone()].into()))), ..memory })
    }

    /// Memory that is there already, and that somebody else keeps there for as long as what is returned is used.
    fn at(start: *mut u8, len: usize, protection: i32, file: Option<FileOffset>) -> Result<Self, DeviceError> {
        let mut builder = MmapRegionBuilder::new(len).with_mmap_prot(protection).with_mmap_flags(MAP_SHARED);
        if let Some(file) = file {
            builder = builder.with_file_offset(file);
        }
        // SAFETY: the callers have mappings from `start` on for `len` bytes, which the owner that they add keeps.
        let builder = unsafe { builder.with_raw_mmap_pointer(start) };
        let region = builder.build().map_err(|e| DeviceError::Unmappable { len, reason: e.to_string() })?;
        Ok(Self::from_region(Arc::new(region)))
    }

    fn from_region(region: Arc<MmapRegion>) -> Self {
        let len = region.size();
        // All of this holds for every mapping that is readable and writable. It is checked because `words` depends on
        // it, and because a region can be made of a pointer, by unsafe code elsewhere.
        let words = NonNull::new(region.as_ptr().cast::<AtomicU64>()).filter(|words| {
            region.prot() & READ_WRITE == READ_WRITE && words.is_aligned() && isize::try_from(len).is_ok()
        });
        let word_count = if words.is_some() { len / 8 } else { 0 };
        Self { len, words: words.unwrap_or(NonNull::dangling()), word_count, region, _owner: None }
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

    /// Whether this process may read it.
    pub fn is_readable(&self) -> bool {
        self.region.prot() & PROT_READ != 0
    }

    /// The address in this process, for an IOMMU to map. Reading or writing through it is the caller's proof to make.
    pub fn as_ptr(&self) -> *mut u8 {
        self.region.as_ptr()
    }

    /// The file behind the memory and the offset in it, where there is one: what another process needs to map it. None
    /// where what is written stays this process's own (`MAP_PRIVATE`).
    pub fn file(&self) -> Option<(&Arc<File>, u64)> {
        let shared = self.region.flags() & MAP_SHARED != 0;
        self.region.file_offset().filter(|_| shared).map(|f| (f.arc(), f.start()))
    }

    /// Whether another process can use it just as this one does.
    ///
    /// # Errors
    /// [`DeviceError::NotShareable`] says why not.
    pub fn check_shareable(&self) -> Result<(), DeviceError> {
        let reason = match self.file() {
            None => "it does not lie in a file, such as a memfd, that is mapped as shared",
            Some(_) if !self.is_readable() || !self.is_writable() => {
                "it is not mapped for both reading and writing here"
            }
            Some(_) => return Ok(()),
        };
        Err(DeviceError::NotShareable { len: self.len, reason: reason.into() })
    }

    /// The memory as 64-bit words. Empty where the memory is not both readable and writable.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `from_raw_parts` asks that the words are
        // * in one allocation, non-null, aligned, and no more than `isize::MAX` bytes: `from_region` has checked all but
        //   the first, which is what an `MmapRegion` is; of no words, a dangling pointer is the start;
        // * valid for as long as the borrow: `region` unmaps them when it goes, and is borrowed with `self`;
        // * initialised: a mapping is, and every bit pattern is a u64;
        // * not mutated but inside `UnsafeCell`: atomics are such cells. No `&mut` and no reference to plain bytes is
        //   ever made of the mapping, here or in vm-memory.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.word_count) }
    }

    /// The memory as 32-bit words. Empty where the memory is not both readable and writable.
    #[inline]
    pub fn dwords(&self) -> &[AtomicU32] {
        // SAFETY: as for `words`: it is the same bytes, and what is aligned for a u64 is aligned for a u32.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr().cast::<AtomicU32>(), self.word_count.wrapping_mul(2)) }
    }

    /// A bounds-checked volatile window on memory that is readable.
    ///
    /// vm-memory has no window for reading only: writing through one on memory that is not
    /// [writable](Self::is_writable) is a fault of the process.
    pub fn slice(&self, offset: usize, len: usize) -> Result<VolatileSlice<'_>, OutOfRange> {
        let readable = if self.is_readable() { self.region.get_slice(offset, len).ok() } else { None };
        readable.ok_or(self.out_of_range(offset, len))
    }

    /// Copies out of the memory.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfRange> {
        self.slice(offset, to.len())?.copy_to(to);
        // vm-memory copies more than a word with a plain memcpy, of which the compiler might make another, from the
        // shared memory again, for a copy of the copy. Not across this: others may have written by then.
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }

    /// Copies into the memory.
    pub fn write_at(&self, offset: usize, from: &[u8]) -> Result<(), OutOfRange> {
        self.writable_slice(offset, from.len())?.copy_from(from);
        // Nor is it left out because it is overwritten later.
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }

    /// Copies `len` bytes from one memory to another, or within one.
    pub fn copy_to(&self, offset: usize, to: &HostMemory, to_offset: usize, len: usize) -> Result<(), OutOfRange> {
        let to = to.writable_slice(to_offset, len)?;
        self.slice(offset, len)?.copy_to_volatile_slice(to);
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }

    fn writable_slice(&self, offset: usize, len: usize) -> Result<VolatileSlice<'_>, OutOfRange> {
        if self.is_writable() { self.slice(offset, len) } else { Err(self.out_of_range(offset, len)) }
    }

    /// Writes zeroes.
    pub fn zero(&self, offset: usize, len: usize) -> Result<(), OutOfRange> {
        let window = self.writable_slice(offset, len)?;
        let guard = window.ptr_guard_mut();
        // SAFETY: the guard's pointer is valid for writes of the window's `len` bytes for as long as the guard lives, and
        // bytes need no alignment. Others may access the memory at the same time, as with vm-memory's own copies: what
        // they see is theirs to check, and no reference to these bytes exists.
        unsafe { guard.as_ptr().write_bytes(0, len) };
        compiler_fence(Ordering::SeqCst);
        Ok(())
    }

    fn out_of_range(&self, offset: usize, len: usize) -> OutOfRange {
        OutOfRange { offset, len, size: self.len }
    }
}

/// How many bytes the system could give out now without swapping (`MemAvailable` of proc(5)), if it says so.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// `PROT_READ` and `PROT_WRITE` of `mmap`, as `MmapRegion::prot` reports them.
const PROT_READ: i32 = 1;
const PROT_WRITE: i32 = 2;
/// `MAP_SHARED`.
const MAP_SHARED: i32 = 1;
const READ_WRITE: i32 = PROT_READ | PROT_WRITE;

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory").field("len", &self.len).field("writable", &self.is_writable()).finish()
    }
}
