use doorbell_device::{Access, DmaMemory};

use super::guest::{LASTING, Life, Reach};
use super::pointers::{Builder, Chain, Layout, Pointers, SglBuilder};
use super::{DmaBuffer, GuestMemory, MemoryError, PAGE_SIZE, PagedRange};
use crate::queue::List;
use crate::sync::Ordering;

/// What a transfer moves.
pub(crate) enum Payload<'a> {
    /// Guest pages.
    Guest(&'a GuestMemory, PagedRange<'a>),
    /// A buffer that is the transfer's own meanwhile. Empty once it is given back.
    Buffer(Option<DmaBuffer>),
    /// An ordinary slice to read into.
    Into(&'a mut [u8]),
    /// An ordinary slice to write from.
    From(&'a [u8]),
}

impl Payload<'_> {
    /// Bytes.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Payload::Guest(_, range) => range.len(),
            Payload::Buffer(buffer) => buffer.as_ref().map_or(0, DmaBuffer::len),
            Payload::Into(slice) => slice.len(),
            Payload::From(slice) => slice.len(),
        }
    }

    /// Checks, before anything is sent, that `len` bytes from `offset` on are there and may be accessed so.
    pub(crate) fn check(&self, offset: usize, len: usize, access: Access) -> Result<(), MemoryError> {
        if let Payload::Guest(memory, range) = self {
            let range = range.subrange(offset, len).ok_or(MemoryError::NotPresent { gpa: u64::MAX })?;
            for (gpa, len) in range.pieces() {
                memory.host(gpa, len, access)?;
            }
        }
        Ok(())
    }

    /// The registration that keeps its memory reachable for a driver's device: 0 where none is needed, `None` where
    /// the device cannot reach it.
    #[inline(always)]
    pub(crate) fn registration(&self, driver: u64) -> Option<u64> {
        match self {
            Payload::Guest(memory, _) => memory.registration_key(driver),
            Payload::Buffer(Some(buffer)) => buffer.iova(driver).map(|_| 0),
            _ => None,
        }
    }

    /// Where the device finds the first `len` bytes, if it reaches them and PRP1 alone can say so; and how long it does.
    #[inline(always)]
    pub(crate) fn in_one_page(&self, driver: u64, layout: &Layout, access: Access, len: usize) -> Option<(u64, &Life)> {
        if let Payload::Guest(memory, range) = self {
            let registration = memory.registration(driver)?;
            // In one page of the guest is in one of the controller's, which are no smaller.
            let (gpn, offset) = range.in_one_page(len)?;
            if offset & 3 != 0 {
                return None;
            }
            return Some((memory.page_iova(gpn, access)?.wrapping_add(offset as u64), &registration.life));
        }
        let Payload::Buffer(Some(buffer)) = self else { return None };
        let iova = buffer.iova(driver)?;
        (len <= buffer.len() && layout.is_one_page(iova, len)).then_some((iova, &LASTING))
    }

    /// Names `len` bytes from `offset` on to the device, `None` if that cannot be done without a copy. Under the lock
    /// of the queue: from then on, unregistering the memory waits for the command.
    #[inline(always)]
    pub(crate) fn pointers(
        &self,
        driver: u64,
        layout: &Layout,
        list: List<'_>,
        chain: Option<Chain<'_>>,
        access: Access,
        (offset, len): (usize, usize),
    ) -> Result<Option<Pointers>, MemoryError> {
        match self {
            Payload::Guest(memory, range) => {
                let Some(registration) = memory.registration(driver) else { return Ok(None) };
                registration.check_alive()?;
                let range = range.subrange(offset, len).ok_or(MemoryError::NotPresent { gpa: u64::MAX })?;
                scattered(memory.reach(access), range, layout, list, chain)
            }
            Payload::Buffer(Some(buffer)) => {
                let Some(iova) = buffer.iova(driver) else { return Ok(None) };
                Ok(Pointers::contiguous(layout, list, chain, iova.wrapping_add(offset as u64), len))
            }
            Payload::Buffer(None) | Payload::Into(_) | Payload::From(_) => Ok(None),
        }
    }

    /// Copies `len` bytes from `offset` on to where the device can reach them.
    pub(crate) fn copy_out(&self, (offset, len): (usize, usize), to: &DmaMemory, at: usize) -> Result<(), MemoryError> {
        let nowhere = |_| MemoryError::NotPresent { gpa: u64::MAX };
        match self {
            Payload::Guest(memory, range) => {
                let range = range.subrange(offset, len).ok_or(MemoryError::NotPresent { gpa: u64::MAX })?;
                let mut at = at;
                for (gpa, len) in range.pieces() {
                    let (host, offset) = memory.host(gpa, len, Access::Read)?;
                    host.copy_to(offset, to.host(), at, len).map_err(|_| MemoryError::NotPresent { gpa })?;
                    at = at.saturating_add(len);
                }
                Ok(())
            }
            Payload::Buffer(Some(buffer)) => {
                buffer.memory().host().copy_to(offset, to.host(), at, len).map_err(nowhere)
            }
            Payload::From(slice) => match slice.get(offset..offset.saturating_add(len)) {
                Some(part) => to.host().write_at(at, part).map_err(nowhere),
                None => Ok(()),
            },
            Payload::Buffer(None) | Payload::Into(_) => Ok(()),
        }
    }

    /// Copies `len` bytes, to `offset` on, from where the device put them.
    pub(crate) fn copy_in(
        &mut self,
        (offset, len): (usize, usize),
        from: &DmaMemory,
        at: usize,
    ) -> Result<(), MemoryError> {
        let nowhere = |_| MemoryError::NotPresent { gpa: u64::MAX };
        match self {
            Payload::Guest(memory, range) => {
                let range = range.subrange(offset, len).ok_or(MemoryError::NotPresent { gpa: u64::MAX })?;
                let mut at = at;
                for (gpa, len) in range.pieces() {
                    let (host, offset) = memory.host(gpa, len, Access::Write)?;
                    from.host().copy_to(at, host, offset, len).map_err(|_| MemoryError::ReadOnly { gpa })?;
                    at = at.saturating_add(len);
                }
                Ok(())
            }
            Payload::Buffer(Some(buffer)) => {
                from.host().copy_to(at, buffer.memory().host(), offset, len).map_err(nowhere)
            }
            Payload::Into(slice) => match slice.get_mut(offset..offset.saturating_add(len)) {
                Some(part) => from.host().read_at(at, part).map_err(nowhere),
                None => Ok(()),
            },
            Payload::Buffer(None) | Payload::From(_) => Ok(()),
        }
    }
}

/// Names guest memory of several pages.
#[inline(never)]
fn scattered(
    mut reach: Reach<'_>,
    range: PagedRange<'_>,
    layout: &Layout,
    list: List<'_>,
    chain: Option<Chain<'_>>,
) -> Result<Option<Pointers>, MemoryError> {
    if let Some(pointers) = whole_pages(&mut reach, range, layout, list) {
        return Ok(Some(pointers));
    }
    let mut builder = Builder::new(*layout, list, chain, range.len());
    for (gpa, len) in range.pieces() {
        builder.push(reach.iova(gpa, len)?, len);
    }
    match builder.finish() {
        None if layout.sgl => {
            let mut builder = SglBuilder::new(*layout, list);
            for (gpa, len) in range.pieces() {
                builder.push(reach.iova(gpa, len)?, len);
            }
            Ok(builder.finish())
        }
        pointers => Ok(pointers),
    }
}

/// Names guest memory page by page, as nearly all is: where a guest's page is one of the controller's, and the slot's
/// own list is long enough. `None` where it is not so.
fn whole_pages(reach: &mut Reach<'_>, range: PagedRange<'_>, layout: &Layout, list: List<'_>) -> Option<Pointers> {
    let (offset, [first, middle @ .., last]) = range.pages() else { return None };
    let words = list.words();
    if !layout.has_guest_pages() || middle.len() >= words.len() || offset & 3 != 0 {
        return None;
    }
    let page = reach.page(*first, PAGE_SIZE)?;
    let start = page.wrapping_add(offset as u64);
    let mut expected = page.wrapping_add(PAGE_SIZE as u64);
    let mut apart = 0;
    for (gpn, word) in middle.iter().zip(words) {
        let page = reach.page(*gpn, PAGE_SIZE)?;
        apart |= page ^ expected;
        expected = page.wrapping_add(PAGE_SIZE as u64);
        word.store(page, Ordering::Relaxed);
    }
    let rest = range.len().wrapping_add(offset).wrapping_sub(middle.len().wrapping_add(1).wrapping_mul(PAGE_SIZE));
    let page = reach.page(*last, rest)?;
    apart |= page ^ expected;
    if let Some(word) = words.get(middle.len()) {
        word.store(page, Ordering::Relaxed);
    }
    Some(match middle {
        [] => Pointers::prps(start, page),
        _ => layout.data_block(start, range.len()).filter(|_| apart == 0).unwrap_or(Pointers::prps(start, list.iova())),
    })
}

/// Names a run of the pool to the device.
pub(crate) fn run_pointers(
    memory: &DmaMemory,
    offset: usize,
    layout: Layout,
    list: List<'_>,
    chain: Option<Chain<'_>>,
    len: usize,
) -> Option<Pointers> {
    Pointers::contiguous(&layout, list, chain, memory.iova().wrapping_add(offset as u64), len)
}
