use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doorbell_device::{Access, DmaMemory, HostMemory};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

const PAGE: u64 = super::PAGE_SIZE as u64;

/// Guest memory that cannot be used for a transfer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No memory there.
    #[error("guest address {gpa:#x} is not present")]
    NotPresent {
        /// The guest address.
        gpa: u64,
    },
    /// The device would write, but the guest's memory there is read-only.
    #[error("guest address {gpa:#x} is read-only")]
    ReadOnly {
        /// The guest address.
        gpa: u64,
    },
    /// Two regions share addresses, one is empty, or one ends past the address space.
    #[error("the guest memory region of {len:#x} bytes at {gpa:#x} is empty, overflows or overlaps another")]
    BadRegion {
        /// Its guest address.
        gpa: u64,
        /// Its bytes.
        len: u64,
    },
    /// The memory was unregistered from the driver.
    #[error("the guest memory is no longer registered")]
    Unregistered,
}

/// A guest's memory: regions of host memory at guest addresses.
///
/// As made here, its data goes through bounce buffers. [`NvmeDriver::register_memory`] makes it reachable for a
/// device, and what it returns is moved without a copy. Cheap to clone.
///
/// ```
/// use doorbell::GuestMemory;
/// use vm_memory::{GuestAddress, GuestMemoryMmap};
///
/// let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
/// let memory = GuestMemory::new(&mmap).unwrap();
/// memory.write_at(0x1000, b"hello").unwrap();
/// ```
///
/// [`NvmeDriver::register_memory`]: crate::NvmeDriver::register_memory
#[derive(Clone)]
pub struct GuestMemory {
    inner: Arc<Inner>,
}

struct Inner {
    /// The largest region that a device may read and write, where most I/O goes. Empty if it is registered with no driver.
    main: Window,
    registration: Arc<Registration>,
    /// By guest address.
    regions: Box<[Region]>,
}

#[derive(Clone)]
struct Region {
    gpa: u64,
    end: u64,
    /// What to add to a guest address to get an IOVA.
    iova_offset: u64,
    access: Access,
    host: HostMemory,
}

/// The tie between guest memory and one driver's device.
pub(crate) struct Registration {
    /// Which driver; 0 is none.
    pub(crate) driver: u64,
    pub(crate) life: Life,
    /// Keeps the memory reachable. Emptied when it is unregistered.
    pub(crate) mappings: std::sync::Mutex<Vec<DmaMemory>>,
    /// The guest address of each, and what the device may do there.
    pub(crate) regions: Vec<(u64, Access)>,
    /// Called when the last handle goes.
    pub(crate) on_drop: Box<dyn Fn(u64) + Send + Sync>,
}

/// What a command has to know of the memory that it goes to.
pub(crate) struct Life {
    /// By which slots name it; 0 is memory that nobody can take away.
    pub(crate) key: u64,
    /// Set when it is being unregistered: no new I/O may use it.
    dead: AtomicBool,
}

/// Of memory that lasts as long as any command that uses it.
pub(crate) static LASTING: Life = Life::new(0);

impl Life {
    pub(crate) const fn new(key: u64) -> Self {
        Self { key, dead: AtomicBool::new(false) }
    }

    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        (self.registration.on_drop)(self.registration.life.key);
    }
}

/// Puts guest memory together from regions.
#[derive(Default)]
pub struct GuestMemoryBuilder {
    regions: Vec<Region>,
}

impl GuestMemoryBuilder {
    /// Adds host memory at a guest address. `access` is what a device may do there.
    #[must_use]
    pub fn region(mut self, gpa: u64, host: HostMemory, access: Access) -> Self {
        let end = gpa.saturating_add(host.len() as u64);
        self.regions.push(Region { gpa, end, iova_offset: 0, access, host });
        self
    }

    /// The memory.
    ///
    /// # Errors
    /// [`MemoryError::BadRegion`] if regions are empty, overlap or end past the address space.
    pub fn build(mut self) -> Result<GuestMemory, MemoryError> {
        self.regions.sort_by_key(|r| r.gpa);
        let mut floor = 0;
        for region in &self.regions {
            let len = region.host.len() as u64;
            if len == 0 || region.gpa < floor || region.gpa.checked_add(len).is_none() {
                return Err(MemoryError::BadRegion { gpa: region.gpa, len });
            }
            floor = region.end;
        }
        let regions = self.regions.into();
        let registration = Arc::new(Registration::none());
        Ok(GuestMemory { inner: Arc::new(Inner { main: Window::default(), registration, regions }) })
    }
}

impl GuestMemory {
    /// The memory of a guest, as `vm-memory` has it. It stays mapped as long as this lives.
    ///
    /// # Errors
    /// [`MemoryError::BadRegion`], which `vm-memory` rules out itself.
    pub fn new(memory: &GuestMemoryMmap) -> Result<Self, MemoryError> {
        let mut builder = Self::builder();
        for region in GuestMemoryBackend::iter(memory) {
            let host = HostMemory::from_guest_region(region);
            let access = if host.is_writable() { Access::ReadWrite } else { Access::Read };
            let GuestAddress(gpa) = region.start_addr();
            builder = builder.region(gpa, host, access);
        }
        builder.build()
    }

    /// Puts guest memory together from regions.
    #[must_use]
    pub fn builder() -> GuestMemoryBuilder {
        GuestMemoryBuilder::default()
    }

    /// The regions: guest address, host memory, and what a device may do there.
    pub fn regions(&self) -> impl Iterator<Item = (u64, &HostMemory, Access)> {
        self.inner.regions.iter().map(|r| (r.gpa, &r.host, r.access))
    }

    /// This memory, reachable through `mappings`, one a region in order.
    pub(crate) fn registered(&self, registration: Arc<Registration>, iovas: &[u64]) -> Self {
        let regions = self.inner.regions.iter().zip(iovas);
        let regions = regions.map(|(r, iova)| Region { iova_offset: iova.wrapping_sub(r.gpa), ..r.clone() });
        let regions: Box<[Region]> = regions.collect();
        let whole = regions.iter().filter(|region| region.access == Access::ReadWrite).map(Window::of);
        let main = whole.max_by_key(|window| window.count).unwrap_or_default();
        Self { inner: Arc::new(Inner { main, registration, regions }) }
    }

    /// The tie to a driver, if there is one, alive or not.
    #[inline(always)]
    pub(crate) fn registration(&self, driver: u64) -> Option<&Registration> {
        Some(&*self.inner.registration).filter(|registration| registration.driver == driver)
    }

    /// The key of its registration with a driver, alive or not.
    pub(crate) fn registration_key(&self, driver: u64) -> Option<u64> {
        self.registration(driver).map(|r| r.life.key)
    }

    /// Where the device finds a guest page, all of which it reaches; `None` also if its address there is no page's.
    #[inline(always)]
    pub(crate) fn page_iova(&self, gpn: u64, access: Access) -> Option<u64> {
        match self.inner.main.iova(gpn) {
            None => self.page_elsewhere(gpn, access),
            iova => iova,
        }
    }

    #[inline(never)]
    fn page_elsewhere(&self, gpn: u64, access: Access) -> Option<u64> {
        self.reach(access).page(gpn, PAGE as usize)
    }

    #[inline(always)]
    fn find(&self, gpa: u64, len: usize) -> Result<&Region, MemoryError> {
        let regions = &self.inner.regions;
        let found = match &regions[..] {
            [only] => Some(only),
            _ => regions.partition_point(|r| r.gpa <= gpa).checked_sub(1).and_then(|i| regions.get(i)),
        };
        match found {
            Some(region) if region.holds(gpa, len) => Ok(region),
            _ => Err(MemoryError::NotPresent { gpa }),
        }
    }

    /// A look-up of where the device finds it.
    #[inline(always)]
    pub(crate) fn reach(&self, access: Access) -> Reach<'_> {
        Reach { memory: self, access, last: None, window: Window::default() }
    }

    /// The host memory of `len` bytes at a guest address, within one page, and the offset in it.
    pub(crate) fn host(&self, gpa: u64, len: usize, access: Access) -> Result<(&HostMemory, usize), MemoryError> {
        let region = self.find(gpa, len)?;
        if !region.access.allows(access) {
            return Err(MemoryError::ReadOnly { gpa });
        }
        Ok((&region.host, gpa.saturating_sub(region.gpa) as usize))
    }

    /// Copies out of guest memory.
    ///
    /// # Errors
    /// [`MemoryError::NotPresent`]; what lies before the missing address is copied.
    pub fn read_at(&self, gpa: u64, to: &mut [u8]) -> Result<(), MemoryError> {
        for (gpa, part) in pages(gpa, to.len()) {
            let Some(part) = to.get_mut(part) else { break };
            let (host, offset) = self.host(gpa.0, part.len(), Access::Read)?;
            host.read_at(offset, part).map_err(|_| MemoryError::NotPresent { gpa: gpa.0 })?;
        }
        Ok(())
    }

    /// Copies into guest memory.
    ///
    /// # Errors
    /// [`MemoryError::NotPresent`] or [`MemoryError::ReadOnly`]; what lies before that address is copied.
    pub fn write_at(&self, gpa: u64, from: &[u8]) -> Result<(), MemoryError> {
        for (gpa, part) in pages(gpa, from.len()) {
            let Some(part) = from.get(part) else { break };
            let (host, offset) = self.host(gpa.0, part.len(), Access::Write)?;
            host.write_at(offset, part).map_err(|_| MemoryError::ReadOnly { gpa: gpa.0 })?;
        }
        Ok(())
    }
}

/// `len` bytes from a guest address on, page by page: the address of each part, and where it lies in the whole.
fn pages(gpa: u64, len: usize) -> impl Iterator<Item = (GuestAddress, std::ops::Range<usize>)> {
    const PAGE: usize = super::PAGE_SIZE;
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let at = gpa.saturating_add(done as u64);
        let part = done..len.min(done.saturating_add(PAGE.saturating_sub(at as usize % PAGE)));
        done = part.end;
        (!part.is_empty()).then_some((GuestAddress(at), part))
    })
}

impl Region {
    #[inline(always)]
    fn holds(&self, gpa: u64, len: usize) -> bool {
        gpa >= self.gpa && gpa.checked_add(len as u64).is_some_and(|end| end <= self.end)
    }
}

impl Registration {
    /// With no driver.
    fn none() -> Self {
        Self {
            driver: 0,
            life: Life::new(0),
            mappings: std::sync::Mutex::default(),
            regions: Vec::new(),
            on_drop: Box::new(|_| ()),
        }
    }

    /// An error if no new I/O may use it.
    pub(crate) fn check_alive(&self) -> Result<(), MemoryError> {
        if self.life.has_ended() { Err(MemoryError::Unregistered) } else { Ok(()) }
    }
}

/// Finds where the device reaches guest memory, page by page: the next page mostly lies in the region of the last.
pub(crate) struct Reach<'a> {
    memory: &'a GuestMemory,
    access: Access,
    last: Option<&'a Region>,
    window: Window,
}

/// The whole pages of a region.
#[derive(Clone, Copy, Default)]
struct Window {
    /// The first one's number, and how many there are.
    first: u64,
    count: u64,
    /// What to add to a guest address to get an IOVA.
    iova_offset: u64,
}

impl Window {
    /// None where pages do not stay pages.
    fn of(region: &Region) -> Self {
        let first = region.gpa.div_ceil(PAGE);
        let pages = (region.end / PAGE).saturating_sub(first);
        let count = if region.iova_offset.is_multiple_of(PAGE) { pages } else { 0 };
        Self { first, count, iova_offset: region.iova_offset }
    }

    #[inline(always)]
    fn iova(&self, gpn: u64) -> Option<u64> {
        let inside = gpn.wrapping_sub(self.first) < self.count;
        inside.then(|| gpn.wrapping_mul(PAGE).wrapping_add(self.iova_offset))
    }
}

impl Reach<'_> {
    /// Where the device finds the first `len` bytes of a guest page; `None` if it does not, or not at the start of a page.
    #[inline(always)]
    pub(crate) fn page(&mut self, gpn: u64, len: usize) -> Option<u64> {
        match self.window.iova(gpn) {
            None => self.page_elsewhere(gpn, len),
            iova => iova,
        }
    }

    /// As [`page`](Self::page), in another region than the last.
    #[inline(never)]
    fn page_elsewhere(&mut self, gpn: u64, len: usize) -> Option<u64> {
        let iova = self.iova(gpn.saturating_mul(PAGE), len).ok().filter(|iova| iova.is_multiple_of(PAGE))?;
        if let Some(region) = self.last {
            self.window = Window::of(region);
        }
        Some(iova)
    }

    /// Where the device finds `len` bytes at a guest address, within one page.
    #[inline(always)]
    pub(crate) fn iova(&mut self, gpa: u64, len: usize) -> Result<u64, MemoryError> {
        let region = match self.last {
            Some(region) if region.holds(gpa, len) => region,
            _ => {
                let region = self.memory.find(gpa, len)?;
                if !region.access.allows(self.access) {
                    return Err(MemoryError::ReadOnly { gpa });
                }
                self.last = Some(region);
                region
            }
        };
        Ok(gpa.wrapping_add(region.iova_offset))
    }
}

impl fmt::Debug for GuestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions = self.inner.regions.iter().map(|r| format!("{:#x}..{:#x} {:?}", r.gpa, r.end, r.access));
        f.debug_struct("GuestMemory")
            .field("regions", &regions.collect::<Vec<_>>())
            .field("registered", &(self.inner.registration.driver != 0))
            .finish()
    }
}
