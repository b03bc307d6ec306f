//! A file that is read and written by the kernel on its own (io_uring), straight into and from shared memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use crate::{DeviceError, HostMemory, Interrupt};

/// A piece of memory: the memory, where in it, and how long.
pub type MemoryPiece = (HostMemory, usize, usize);

/// Reads, writes and syncs of one file, many at a time, which end in any order.
///
/// The memory that an operation is about stays mapped until it has ended, whatever becomes of the ring. Memory whose file
/// was truncated is an error of the operation (`EFAULT`), and no signal.
pub struct FileRing {
    ring: IoUring,
    file: Arc<File>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Signalled when something has ended.
    ended: Interrupt,
}

/// What the kernel uses while an operation is under way.
#[derive(Default)]
struct Slot {
    busy: bool,
    token: u64,
    pieces: Vec<libc::iovec>,
    _memory: Vec<HostMemory>,
}

// SAFETY: what is not `Send` by itself are the addresses in `Slot::pieces`: of mappings that the slot's memory, which is
// `Send`, keeps in place in whatever thread it is. Nothing is done with them but to hand them to the kernel.
unsafe impl Send for FileRing {}

impl FileRing {
    /// For up to `depth` operations at a time.
    ///
    /// # Errors
    /// Where the kernel has no io_uring, or does not let this process use it.
    pub fn new(file: Arc<File>, depth: u32) -> Result<Self, DeviceError> {
        let ring = IoUring::new(depth).map_err(DeviceError::io("io_uring_setup"))?;
        let ended = Interrupt::new()?;
        let registered = ring.submitter().register_eventfd(ended.as_fd().as_raw_fd());
        registered.map_err(DeviceError::io("registering an eventfd with io_uring"))?;
        let slots: Vec<_> = (0..depth).map(|_| Slot::default()).collect();
        let free = (0..slots.len()).rev().collect();
        Ok(Self { ring, file, slots, free, ended })
    }

    /// Signalled when something has ended, if that is [wanted](Self::signal).
    pub fn ended(&self) -> &Interrupt {
        &self.ended
    }

    /// Whether what ends from now on is to be signalled. What has ended before may not have been.
    pub fn signal(&mut self, wanted: bool) {
        if wanted {
            self.ring.completion().enable_eventfd();
            // The kernel adds what has ended, then looks whether to signal it; this says that it is to, then looks for what
            // has ended. One of the two sees the other.
            crate::mb();
        } else {
            self.ring.completion().disable_eventfd();
        }
    }

    /// Whether something has ended that was not taken.
    pub fn has_ended(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Whether another operation can be taken.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Operations under way.
    pub fn in_flight(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Reads from an offset of the file into memory.
    ///
    /// # Errors
    /// If there is no room, or the memory is not as long, or cannot be written to. Nothing is under way then.
    pub fn read(&mut self, token: u64, offset: u64, to: &[MemoryPiece]) -> Result<(), DeviceError> {
        let (slot, pieces) = self.take(token, to, HostMemory::is_writable)?;
        let entry = opcode::Readv::new(self.fd(), pieces, to.len() as u32).offset(offset).build();
        self.push(slot, entry)
    }

    /// Writes memory to the file from an offset on. If it is to be `durable`, the data is on disk when it has ended.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&mut self, token: u64, offset: u64, from: &[MemoryPiece], durable: bool) -> Result<(), DeviceError> {
        let (slot, pieces) = self.take(token, from, HostMemory::is_readable)?;
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let entry = opcode::Writev::new(self.fd(), pieces, from.len() as u32).offset(offset);
        self.push(slot, entry.rw_flags(flags).build())
    }

    /// Has what was written, and has ended, on disk (fdatasync).
    ///
    /// # Errors
    /// If there is no room.
    pub fn sync(&mut self, token: u64) -> Result<(), DeviceError> {
        let (slot, _) = self.take(token, &[], |_| true)?;
        let entry = opcode::Fsync::new(self.fd()).flags(types::FsyncFlags::DATASYNC).build();
        self.push(slot, entry)
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.file.as_raw_fd())
    }

    /// A slot with this memory, and where the memory's pieces are listed in it.
    fn take(
        &mut self,
        token: u64,
        memory: &[MemoryPiece],
        allowed: impl Fn(&HostMemory) -> bool,
    ) -> Result<(usize, *const libc::iovec), DeviceError> {
        let mut pieces = Vec::with_capacity(memory.len());
        for (memory, offset, len) in memory {
            let inside = offset.checked_add(*len).is_some_and(|end| end <= memory.len());
            if !inside || !allowed(memory) {
                let reason = "the piece is not in the memory, or may not be used so".into();
                return Err(DeviceError::Unmappable { len: *len, reason });
            }
            pieces.push(libc::iovec { iov_base: memory.as_ptr().wrapping_add(*offset).cast(), iov_len: *len });
        }
        let Some((index, slot)) = self.free.pop().and_then(|index| Some((index, self.slots.get_mut(index)?))) else {
            return Err(DeviceError::Unsupported("more operations at a time"));
        };
        let memory = memory.iter().map(|(memory, ..)| memory.clone()).collect();
        *slot = Slot { busy: true, token, pieces, _memory: memory };
        Ok((index, slot.pieces.as_ptr()))
    }

    fn push(&mut self, slot: usize, entry: squeue::Entry) -> Result<(), DeviceError> {
        let entry = entry.user_data(slot as u64);
        // SAFETY: what the entry names is valid until its completion was taken: the file is open and the memory mapped as
        // long as `self.file` and the slot's memory are kept, and the iovecs lie in the slot's `Vec`, which is not touched
        // before `take_ended` takes the completion, or ever if `drop` does not see it. `take` has checked that the memory is as
        // long, and may be used so. Others may access it at the same time, which `HostMemory` is for.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            return Ok(());
        }
        // The ring is as long as there are slots, so there is room unless the kernel has not looked at it.
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = Slot::default();
        }
        self.free.push(slot);
        Err(DeviceError::Unsupported("more operations at a time"))
    }

    /// Has the kernel begin with all that was taken.
    ///
    /// # Errors
    /// If it refuses; what was taken stays to be submitted.
    pub fn submit(&mut self) -> io::Result<()> {
        if self.ring.submission().is_empty() {
            return Ok(());
        }
        match self.ring.submit() {
            // Completions are to be taken first.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result.map(drop),
        }
    }

    /// What has ended: its token, and how many bytes were moved.
    pub fn take_ended(&mut self) -> Option<(u64, io::Result<usize>)> {
        let completion = self.ring.completion().next()?;
        let index = usize::try_from(completion.user_data()).ok()?;
        let slot = self.slots.get_mut(index).filter(|slot| slot.busy)?;
        let token = std::mem::take(slot).token;
        self.free.push(index);
        let result = completion.result();
        let moved = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.wrapping_neg()));
        Some((token, moved))
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        // The kernel may use the memory of what is under way until it has ended.
        while self.in_flight() > 0 {
            let waited = self.ring.submit_and_wait(1);
            if let Err(error) = waited
                && error.kind() != io::ErrorKind::Interrupted
                && error.raw_os_error() != Some(libc::EBUSY)
            {
                tracing::error!(%error, "waiting for io_uring failed, memory is leaked");
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            while self.take_ended().is_some() {}
        }
    }
}

impl std::fmt::Debug for FileRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileRing").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
