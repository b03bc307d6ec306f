//! Doorbells: registers, and their shadows in the host's memory.

use std::sync::atomic::Ordering;

use doorbell_device::inprocess::{DmaFault, DmaView};
use doorbell_device::{Access, HostMemory};
use nvme_spec::registers::doorbell_stride;

/// Where a doorbell is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DoorbellSlot {
    index: usize,
    stride: usize,
}

impl DoorbellSlot {
    pub(crate) fn tail(qid: u16, dstrd: u8) -> Self {
        Self { index: usize::from(qid).saturating_mul(2), stride: doorbell_stride(dstrd) }
    }

    pub(crate) fn head(qid: u16, dstrd: u8) -> Self {
        Self { index: usize::from(qid).saturating_mul(2).saturating_add(1), stride: doorbell_stride(dstrd) }
    }

    fn offset(self) -> usize {
        self.index.saturating_mul(self.stride)
    }

    pub(super) fn dword(self) -> usize {
        self.offset() / 4
    }

    /// The shadow of a queue that comes from elsewhere, with the event index as it was last written.
    pub(super) fn restore(self, buffers: Option<ShadowBuffers>, published: Option<u32>) -> Option<Shadow> {
        let shadow = self.shadow(buffers?)?;
        published.map(|published| Shadow { published, ..shadow })
    }

    fn shadow(self, buffers: ShadowBuffers) -> Option<Shadow> {
        let offset = self.offset() as u64;
        if offset >= u64::from(buffers.len) {
            return None;
        }
        Some(Shadow {
            value: buffers.values.wrapping_add(offset),
            event_index: buffers.event_indices.wrapping_add(offset),
            published: u32::MAX,
        })
    }
}

/// A doorbell was given a value that its queue cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InvalidDoorbell;

/// The buffers of Doorbell Buffer Config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShadowBuffers {
    pub(crate) values: u64,
    pub(crate) event_indices: u64,
    /// Bytes of each: doorbells behind the end, which a large stride brings there, have no shadow.
    pub(crate) len: u32,
}

/// A doorbell in the host's memory (NVMe Base 2.0, "Doorbell Buffer Config command").
#[derive(Debug, Clone, Copy)]
pub(super) struct Shadow {
    value: u64,
    event_index: u64,
    /// The event index as last written.
    pub(super) published: u32,
}

impl Shadow {
    pub(super) fn read(&self, dma: &DmaView<'_>) -> Result<u32, DmaFault> {
        let (memory, offset) = dma.resolve(self.value, 4, Access::Read)?;
        if let Some(word) = memory.dwords().get(offset / 4) {
            return Ok(word.load(Ordering::Acquire));
        }
        let mut bytes = [0; 4];
        dma.read(self.value, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn write(&self, dma: &DmaView<'_>, address: u64, value: u32) -> Result<(), DmaFault> {
        let (memory, offset) = dma.resolve(address, 4, Access::Write)?;
        if let Some(word) = memory.dwords().get(offset / 4) {
            word.store(value, Ordering::Release);
        }
        Ok(())
    }

    /// Asks to be told by a real doorbell once the shadow moves past `index`. True if the index was not that before:
    /// then the shadow has to be read again, for what the host wrote before it saw this.
    pub(super) fn arm(&mut self, dma: &DmaView<'_>, index: u32) -> Result<bool, DmaFault> {
        if self.published == index {
            return Ok(false);
        }
        self.write(dma, self.event_index, index)?;
        self.published = index;
        doorbell_device::mb();
        Ok(true)
    }
}

/// Puts a shadow doorbell to use, from a value on.
pub(super) fn start(
    dma: &DmaView<'_>,
    slot: DoorbellSlot,
    buffers: ShadowBuffers,
    value: u32,
) -> Result<Option<Shadow>, DmaFault> {
    let Some(mut shadow) = slot.shadow(buffers) else { return Ok(None) };
    shadow.write(dma, shadow.value, value)?;
    shadow.arm(dma, value)?;
    Ok(Some(shadow))
}

/// The doorbell as the host last wrote it.
#[inline]
pub(super) fn register(doorbells: &HostMemory, dword: usize) -> u32 {
    doorbells.dwords().get(dword).map_or(0, |doorbell| doorbell.load(Ordering::Acquire))
}

pub(super) fn clear(doorbells: &HostMemory, dword: usize) {
    if let Some(doorbell) = doorbells.dwords().get(dword) {
        doorbell.store(0, Ordering::Relaxed);
    }
}
