//! Memory for the data of commands: page-aligned, and reachable for the device.

use anyhow::Result;
use doorbell::{GuestMemory, NvmeDriver, PAGE_SIZE, PagedRange};
use doorbell_device::{Access, HostMemory};

/// Memory that the device reaches, as a guest of `len` bytes from address 0 on.
pub(crate) struct Payload {
    /// What commands are given.
    pub(crate) memory: GuestMemory,
    /// What we look at.
    pub(crate) host: HostMemory,
    gpns: Vec<u64>,
}

impl Payload {
    /// New memory of at least `len` bytes. Without `registered`, the driver moves its data through bounce buffers.
    pub(crate) fn new(driver: &NvmeDriver, len: usize, registered: bool) -> Result<Self> {
        let host = HostMemory::allocate(len)?;
        let memory = GuestMemory::builder().region(0, host.clone(), Access::ReadWrite).build()?;
        let memory = if registered { driver.register_memory(&memory)? } else { memory };
        Ok(Self::arrived(memory, host))
    }

    /// Memory from address 0 on that is there already: what commands are given, and the same for us to look at.
    pub(crate) fn arrived(memory: GuestMemory, host: HostMemory) -> Self {
        let gpns = (0..host.len().div_ceil(PAGE_SIZE) as u64).collect();
        Self { memory, host, gpns }
    }

    /// Memory that holds `data`.
    pub(crate) fn of(driver: &NvmeDriver, data: &[u8]) -> Result<Self> {
        let payload = Self::new(driver, data.len(), true)?;
        payload.host.write_at(0, data)?;
        Ok(payload)
    }

    /// Bytes `offset..offset + len`; none if there are not so many.
    pub(crate) fn range(&self, offset: usize, len: usize) -> PagedRange<'_> {
        const NONE: PagedRange<'static> = PagedRange::new(0, 0, &[]).unwrap();
        let first = offset / PAGE_SIZE;
        let pages = self.gpns.get(first..).unwrap_or_default();
        PagedRange::new(offset % PAGE_SIZE, len, pages).unwrap_or(NONE)
    }

    /// The first `len` bytes, copied.
    pub(crate) fn to_vec(&self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.host.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}
