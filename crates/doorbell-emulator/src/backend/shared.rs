use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use doorbell_device::{DeviceError, HostMemory};
use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom};

use super::ram::{CHUNK, Part, parts};
use super::{Backend, BackendError, Crossing};
use crate::transfer::{FromHost, ToHost};

/// Bytes that a mapping is a multiple of.
const PAGE: u64 = 4096;

/// Storage in memory that other processes can be given: a memfd, allocated where it is written to.
pub struct SharedRamBackend {
    file: Arc<File>,
    memory: HostMemory,
    size: u64,
    /// Chunks that were written to, a bit each: to read others would allocate them.
    written: Vec<u64>,
}

impl SharedRamBackend {
    /// Storage of `size` bytes, all zero.
    ///
    /// # Errors
    /// If the system has no addresses for so much.
    pub fn new(size: u64) -> Result<Self, DeviceError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("doorbell-ram", flags).map_err(DeviceError::io("memfd_create"))?;
        rustix::fs::ftruncate(&file, mapped(size)).map_err(DeviceError::io("sizing a memfd"))?;
        Self::of(File::from(file), size)
    }

    /// The storage that another process had, from the file that is behind it.
    ///
    /// # Errors
    /// If the file is smaller, or cannot be mapped.
    pub fn from_file(file: File, size: u64) -> Result<Self, DeviceError> {
        let mut storage = Self::of(file, size)?;
        storage.find_written().map_err(DeviceError::io("looking for what memory is in use"))?;
        Ok(storage)
    }

    fn of(file: File, size: u64) -> Result<Self, DeviceError> {
        let file = Arc::new(file);
        let memory = map(&file, size)?;
        Ok(Self { file, memory, size, written: vec![0; words(size)] })
    }

    /// What the file has pages for was written to.
    fn find_written(&mut self) -> rustix::io::Result<()> {
        let mut at = 0;
        loop {
            let start = match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(error),
            };
            at = rustix::fs::seek(&self.file, SeekFrom::Hole(start))?;
            for part in parts(start, at.saturating_sub(start)) {
                self.mark(part.chunk);
            }
        }
    }

    /// The file that is behind it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn bit(chunk: u64) -> (usize, u64) {
        ((chunk / 64) as usize, 1 << (chunk % 64))
    }

    #[inline]
    fn is_written(&self, chunk: u64) -> bool {
        let (word, bit) = Self::bit(chunk);
        self.written.get(word).is_some_and(|word| word & bit != 0)
    }

    #[inline]
    fn mark(&mut self, chunk: u64) {
        let (word, bit) = Self::bit(chunk);
        if let Some(word) = self.written.get_mut(word) {
            *word |= bit;
        }
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, mapped(size))?)
    }

    fn check(&self, offset: u64, len: u64) -> Result<(), BackendError> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size => Ok(()),
            _ => Err(BackendError::OutOfRange { offset, len }),
        }
    }
}

/// Bytes of the file behind so much storage.
fn mapped(size: u64) -> u64 {
    size.max(1).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX)
}

fn map(file: &Arc<File>, size: u64) -> Result<HostMemory, DeviceError> {
    let unmappable = |_| DeviceError::Unmappable { len: usize::MAX, reason: "there are not so many addresses".into() };
    HostMemory::from_file(file.clone(), 0, usize::try_from(mapped(size)).map_err(unmappable)?)
}

/// Words of a bit for each chunk.
fn words(size: u64) -> usize {
    size.div_ceil(CHUNK as u64).div_ceil(64) as usize
}

/// Where a part begins.
fn start(part: &Part) -> usize {
    (part.chunk as usize).saturating_mul(CHUNK).saturating_add(part.start)
}

impl Backend for SharedRamBackend {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_bytes(&self, offset: u64, to: &mut [u8]) -> Result<(), BackendError> {
        self.check(offset, to.len() as u64)?;
        let mut to = to;
        for part in parts(offset, to.len() as u64) {
            let (now, later) = to.split_at_mut_checked(part.len()).ok_or_else(|| part.out_of_range())?;
            if self.is_written(part.chunk) {
                self.memory.read_at(start(&part), now).map_err(|_| part.out_of_range())?;
            } else {
                now.fill(0);
            }
            to = later;
        }
        Ok(())
    }

    fn write_bytes(&mut self, offset: u64, from: &[u8]) -> Result<(), BackendError> {
        self.check(offset, from.len() as u64)?;
        parts(offset, from.len() as u64).for_each(|part| self.mark(part.chunk));
        let outside = BackendError::OutOfRange { offset, len: from.len() as u64 };
        self.memory.write_at(offset as usize, from).map_err(|_| outside)
    }

    #[inline]
    fn read(&self, offset: u64, len: usize, to: &mut ToHost<'_>) -> Result<(), BackendError> {
        self.check(offset, len as u64)?;
        for part in parts(offset, len as u64) {
            if self.is_written(part.chunk) {
                to.put_from(&self.memory, start(&part), part.len())?;
            } else {
                to.zero(part.len())?;
            }
        }
        Ok(())
    }

    #[inline]
    fn write(&mut self, offset: u64, len: usize, from: &mut FromHost<'_>) -> Result<(), BackendError> {
        self.check(offset, len as u64)?;
        parts(offset, len as u64).for_each(|part| self.mark(part.chunk));
        Ok(from.take_into(&self.memory, offset as usize, len)?)
    }

    fn deallocate(&mut self, offset: u64, len: u64) -> Result<(), BackendError> {
        if len == 0 {
            return Ok(());
        }
        self.check(offset, len)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, offset, len).map_err(io::Error::from)?;
        const EACH: u64 = CHUNK as u64;
        for chunk in offset.div_ceil(EACH)..offset.saturating_add(len) / EACH {
            let (word, bit) = Self::bit(chunk);
            if let Some(word) = self.written.get_mut(word) {
                *word &= !bit;
            }
        }
        Ok(())
    }

    fn resize(&mut self, size: u64) -> Result<(), BackendError> {
        let grows = size > self.size;
        if grows {
            self.set_len(size)?;
        } else {
            self.deallocate(size, self.size.saturating_sub(size))?;
        }
        // Nothing is mapped any more of what goes.
        self.memory = map(&self.file, size).map_err(io::Error::other)?;
        if !grows {
            self.set_len(size)?;
        }
        self.written.resize(words(size), 0);
        self.size = size;
        Ok(())
    }

    fn crossing(&self) -> Option<Crossing<'_>> {
        Some(Crossing::Memory(self.file.as_fd()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::RamBackend;

    const SIZE: u64 = 5 * CHUNK as u64 + 512;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// It behaves as the memory that cannot be shared, also after another has taken it over by its descriptor.
        #[test]
        fn it_is_memory(steps in prop::collection::vec((0..5u8, 0..SIZE, 0..3 * CHUNK as u64, any::<u8>()), 1..30)) {
            let mut shared = SharedRamBackend::new(SIZE).unwrap();
            let mut model = RamBackend::new(SIZE);
            for (what, offset, len, byte) in steps {
                let offset = offset.min(model.size());
                let len = len.min(model.size() - offset);
                match what {
                    0 | 1 => {
                        let bytes = vec![byte; len as usize];
                        shared.write_bytes(offset, &bytes).unwrap();
                        model.write_bytes(offset, &bytes).unwrap();
                    }
                    2 => {
                        shared.deallocate(offset, len).unwrap();
                        model.deallocate(offset, len).unwrap();
                    }
                    3 => {
                        let size = offset.max(512);
                        shared.resize(size).unwrap();
                        model.resize(size).unwrap();
                    }
                    _ => {
                        let Some(Crossing::Memory(file)) = shared.crossing() else { panic!("it crosses as memory") };
                        let file = File::from(file.try_clone_to_owned().unwrap());
                        shared = SharedRamBackend::from_file(file, shared.size()).unwrap();
                    }
                }
                prop_assert_eq!(shared.size(), model.size());
                let (mut now, mut expected) = (vec![0; model.size() as usize], vec![1; model.size() as usize]);
                shared.read_bytes(0, &mut now).unwrap();
                model.read_bytes(0, &mut expected).unwrap();
                prop_assert!(now == expected);
            }
        }
    }

    #[test]
    fn what_was_never_written_takes_no_memory() {
        let mut shared = SharedRamBackend::new(1 << 40).unwrap();
        shared.write_bytes(1 << 39, &[7; 512]).unwrap();
        shared.read_bytes(1 << 38, &mut [0; 4096]).unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks(&shared.file.metadata().unwrap());
        assert!(blocks * 512 <= CHUNK as u64, "{blocks}");
        assert!(shared.read_bytes((1 << 40) - 1, &mut [0; 2]).is_err());
        assert!(shared.write_bytes(u64::MAX, &[0; 2]).is_err());
    }
}
