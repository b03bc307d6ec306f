use std::fmt;

use doorbell_device::{DmaMemory, OutOfRange};

use super::buffers::Lent;

/// Memory that the device reaches directly, handed out by [`NvmeDriver::allocate_buffer`].
///
/// It goes into an I/O call by value and comes back with the result, so nobody looks at it while the device works on
/// it, and a dropped future cannot free it too early.
///
/// [`NvmeDriver::allocate_buffer`]: crate::NvmeDriver::allocate_buffer
pub struct DmaBuffer {
    /// One word to move: on its way through an I/O call a buffer is moved several times.
    lending: Box<Lending>,
}

struct Lending {
    iova: u64,
    len: usize,
    driver: u64,
    lent: Lent,
}

impl DmaBuffer {
    pub(crate) fn new(lent: Lent, len: usize, driver: u64) -> Self {
        Self { lending: Box::new(Lending { iova: lent.memory.iova(), len, driver, lent }) }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lending.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lending.len == 0
    }

    /// Copies out of the buffer, from byte `offset` on.
    ///
    /// # Errors
    /// If the buffer ends before `to` is full.
    pub fn read_at(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfRange> {
        self.check(offset, to.len())?;
        self.lending.lent.memory.host().read_at(offset, to)
    }

    /// Copies into the buffer, from byte `offset` on.
    ///
    /// # Errors
    /// If the buffer ends before `from` does.
    pub fn write_at(&mut self, offset: usize, from: &[u8]) -> Result<(), OutOfRange> {
        self.check(offset, from.len())?;
        self.lending.lent.memory.host().write_at(offset, from)
    }

    /// The whole buffer, copied.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.lending.len];
        // It is as long as the buffer, so this cannot fail.
        let _ = self.read_at(0, &mut bytes);
        bytes
    }

    fn check(&self, offset: usize, len: usize) -> Result<(), OutOfRange> {
        match offset.checked_add(len) {
            Some(end) if end <= self.lending.len => Ok(()),
            _ => Err(OutOfRange { offset, len, size: self.lending.len }),
        }
    }

    /// Where the device finds it, if it is this driver's device.
    #[inline]
    pub(crate) fn iova(&self, driver: u64) -> Option<u64> {
        (self.lending.driver == driver).then_some(self.lending.iova)
    }

    pub(crate) fn memory(&self) -> &DmaMemory {
        &self.lending.lent.memory
    }
}

impl fmt::Debug for DmaBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DmaBuffer").field("len", &self.lending.len).finish_non_exhaustive()
    }
}
