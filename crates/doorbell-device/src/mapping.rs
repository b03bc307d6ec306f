//! A piece of a device, mapped into this process, whose place outlives the device.

use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::ffi::c_void;
use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, munmap};

use crate::DeviceError;

/// A mapping that can be replaced in place: whoever has an address in it can go on using that.
pub(crate) struct Mapping {
    start: *mut c_void,
    len: usize,
}

// SAFETY: an address and a length; what is at the address is shared memory, which any thread may map and unmap.
unsafe impl Send for Mapping {}
// SAFETY: as above; through `&Mapping`, the mapping is only replaced, which the system does at once.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of a device for reading and writing.
    pub(crate) fn of_device(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<Self, DeviceError> {
        if len == 0 || !len.is_multiple_of(4096) || isize::try_from(len).is_err() {
            return Err(DeviceError::Unmappable { len, reason: "it is not whole pages of registers".into() });
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the system chooses a place that is free.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, flags, fd, offset) };
        let start = start.map_err(DeviceError::io("mapping the device's registers"))?;
        Ok(Self { start, len })
    }

    pub(crate) fn start(&self) -> *mut u8 {
        self.start.cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Puts memory of all ones in the device's place, at once: it reads as a device that is gone, what is written is
    /// forgotten, and the device has one user less.
    pub(crate) fn replace_with_ones(&self) -> Result<(), DeviceError> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: the system chooses a place that is free.
        let ones = unsafe { mmap_anonymous(ptr::null_mut(), self.len, protection, flags) };
        let ones = ones.map_err(DeviceError::io("allocating memory in the registers' place"))?;
        // SAFETY: `len` bytes that were just mapped for writing, and that nobody else knows of.
        unsafe { ptr::write_bytes(ones.cast::<u8>(), 0xff, self.len) };
        let (flags, len) = (MremapFlags::MAYMOVE, self.len);
        // SAFETY: the memory moves from where nobody uses it to where `self` has a mapping of the same length, in whose
        // place it is from then on. All that is made of that mapping are atomics and volatile copies, for which memory
        // that suddenly has other contents is what they always expect.
        let moved = unsafe { mremap_fixed(ones, len, len, flags, self.start) };
        if let Err(error) = moved {
            // SAFETY: it did not move; nobody else knows of it.
            let _ = unsafe { munmap(ones, self.len) };
            return Err(DeviceError::io("replacing the mapping of the registers")(error));
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `of_device`; whoever uses it keeps `self`.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}
