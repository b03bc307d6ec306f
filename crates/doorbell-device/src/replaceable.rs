use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, mmap_anonymous, msync};

use crate::{DeviceError, HostMemory};

/// Shared memory in whose place other memory can be put while it is in use: the registers of a device whose server may
/// die and come back.
#[derive(Debug)]
pub struct ReplaceableMemory {
    memory: HostMemory,
}

impl ReplaceableMemory {
    /// Maps `len` bytes of a file, whole pages, as [`HostMemory::from_file`].
    pub fn from_file(file: Arc<File>, offset: u64, len: usize) -> Result<Self, DeviceError> {
        if len == 0 || !len.is_multiple_of(4096) {
            return Err(DeviceError::Unmappable { len, reason: "it is not whole pages".into() });
        }
        Ok(Self { memory: HostMemory::from_file(file, offset, len)? })
    }

    /// The memory. Its [file](HostMemory::file) stays the first one.
    pub fn memory(&self) -> &HostMemory {
        &self.memory
    }

    /// Puts another file in the place of the one before, for all clones of the memory at once. An access at the same
    /// time goes to the one or the other.
    pub fn replace(&self, file: &Arc<File>, offset: u64) -> Result<(), DeviceError> {
        // That it can be mapped is found out elsewhere: here, it must not fail.
        let trial = HostMemory::from_file(file.clone(), offset, self.memory.len())?;
        self.put(Some((file.as_fd(), offset)))?;
        drop(trial);
        Ok(())
    }

    /// Puts zeroes of this process's own in its place: what is written goes nowhere.
    pub fn detach(&self) -> Result<(), DeviceError> {
        self.put(None)
    }

    fn put(&self, file: Option<(BorrowedFd<'_>, u64)>) -> Result<(), DeviceError> {
        let (place, len) = (self.memory.as_ptr().cast(), self.memory.len());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let put = match file {
            // SAFETY: the place is a mapping of `len` bytes, whole pages, that `self.memory` owns, so nobody else's memory is
            // taken away. All that is made of it are atomics and volatile copies, for which memory that suddenly has
            // other contents is what they always expect; the system exchanges the mapping at once for all threads.
            Some((fd, offset)) => unsafe {
                mmap(place, len, protection, MapFlags::SHARED | MapFlags::FIXED, fd, offset)
            },
            // SAFETY: as above.
            None => unsafe { mmap_anonymous(place, len, protection, MapFlags::PRIVATE | MapFlags::FIXED) },
        };
        let Err(error) = put else { return Ok(()) };
        // SAFETY: it changes no memory, and reports a place where none is mapped.
        if unsafe { msync(place, len, MsyncFlags::ASYNC) } == Err(Errno::NOMEM) {
            // Older kernels unmap first, and then may be out of memory. A place that is free would be given to somebody
            // else, whose memory the doorbells would then write to.
            std::process::abort();
        }
        Err(DeviceError::io("replacing a mapping")(error))
    }
}
