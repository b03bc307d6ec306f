//! How a command names its data (NVMe Base 2.0, Physical Region Page Entry and List; Scatter Gather List).

use nvme_spec::sgl::SglDescriptor;
use nvme_spec::{Cdw0, Command, DataPointer};

use crate::memory::PAGE_SIZE;
use crate::queue::List;
use crate::sync::{AtomicU64, Ordering};

/// What the controller takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Bytes of a page as CC.MPS says, as a power of two: the I/O path shifts, it does not divide.
    pub(crate) page_shift: u32,
    /// Its bytes, less one.
    pub(crate) page_mask: u64,
    /// Whether I/O commands may carry SGLs.
    pub(crate) sgl: bool,
    /// What data must be aligned to in an SGL, less one.
    pub(crate) sgl_align_mask: u64,
}

impl Layout {
    /// PRPs only, for pages of `page_size` bytes, a power of two.
    pub(crate) fn prps(page_size: usize) -> Self {
        let page_shift = page_size.trailing_zeros();
        Self { page_shift, page_mask: (1 << page_shift) - 1, sgl: false, sgl_align_mask: 0 }
    }

    #[inline(always)]
    fn page_size(&self) -> u64 {
        self.page_mask + 1
    }

    /// Whether PRP1 alone says it: bytes within one page, the first dword aligned.
    #[inline(always)]
    pub(crate) fn is_one_page(&self, iova: u64, len: usize) -> bool {
        iova & 3 == 0 && (iova & self.page_mask) as usize + len <= self.page_size() as usize
    }

    /// Whether a guest's page is one of the controller's.
    #[inline(always)]
    pub(crate) fn has_guest_pages(&self) -> bool {
        self.page_size() == PAGE_SIZE as u64
    }

    /// Names `len` bytes that lie together as one SGL data block, if the controller takes that.
    pub(crate) fn data_block(&self, iova: u64, len: usize) -> Option<Pointers> {
        let len = u32::try_from(len).ok()?;
        let block = || SglDescriptor::data_block(iova, len);
        (self.sgl && iova & self.sgl_align_mask == 0)
            .then(|| Pointers { dptr: DataPointer::sgl(block()), psdt: Cdw0::PSDT_SGL })
    }

    /// How many pages `len` bytes touch that begin at `offset` in a page.
    #[inline]
    fn pages(&self, offset: usize, len: usize) -> usize {
        (offset.saturating_add(len) + (self.page_size() as usize - 1)) >> self.page_shift
    }
}

/// A data pointer, and the PSDT field that says what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointers {
    pub(crate) dptr: DataPointer,
    pub(crate) psdt: u8,
}

impl Pointers {
    #[inline(always)]
    pub(crate) fn put(self, command: &mut Command) {
        command.dptr = self.dptr;
        command.cdw0.set_psdt(self.psdt);
    }

    /// Names data for which [`Layout::is_one_page`] holds.
    #[inline(always)]
    pub(crate) fn one_page(iova: u64) -> Self {
        Self::prps(iova, 0)
    }

    #[inline(always)]
    pub(crate) fn prps(prp1: u64, prp2: u64) -> Self {
        Self { dptr: DataPointer::prp(prp1, prp2), psdt: Cdw0::PSDT_PRP }
    }

    /// Names `len` bytes that lie together; `None` if that cannot be done.
    pub(crate) fn contiguous(
        layout: &Layout,
        list: List<'_>,
        chain: Option<Chain<'_>>,
        iova: u64,
        len: usize,
    ) -> Option<Self> {
        if layout.is_one_page(iova, len) {
            return Some(Self::one_page(iova));
        }
        let mut builder = Builder::new(*layout, list, chain, len);
        builder.push(iova, len);
        builder.finish()
    }
}

/// How many list pages, besides a slot's own, a PRP list may need for `len` bytes that begin anywhere in a page.
#[inline(always)]
pub(crate) fn chain_pages(layout: &Layout, list_words: usize, len: usize) -> usize {
    if len >> layout.page_shift < list_words {
        return 0;
    }
    // Beginning at the last dword of a page needs the most entries; the first is PRP1.
    let entries = layout.pages(layout.page_size() as usize - 4, len) - 1;
    list_pages(entries, list_words) - 1
}

/// How many pages of `words` entries a list of `entries` takes: in all but the last page, the last entry points to
/// the next page.
#[inline]
fn list_pages(entries: usize, words: usize) -> usize {
    if entries <= words { 1 } else { (entries - 1).div_ceil(words - 1) }
}

/// Builds a data pointer from pieces in order.
pub(crate) struct Builder<'a> {
    layout: Layout,
    list: List<'a>,
    /// The list's words.
    words: &'a [AtomicU64],
    /// Further list pages: where the host writes them, and where the device finds them.
    chain: Option<Chain<'a>>,
    /// Bytes in all.
    len: usize,
    start: u64,
    end: u64,
    second: u64,
    entries: usize,
    list_entries: usize,
    contiguous: bool,
    prp: bool,
}

/// List pages past a slot's own: a run of the pool.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'a> {
    pub(crate) memory: &'a doorbell_device::DmaMemory,
    pub(crate) offset: usize,
}

impl Chain<'_> {
    fn iova(&self) -> u64 {
        self.memory.iova() + self.offset as u64
    }

    fn set(&self, word: usize, value: u64) {
        // The run was sized for the longest list of this length.
        if let Some(cell) = self.memory.host().words().get(self.offset / 8 + word) {
            cell.store(value, Ordering::Relaxed);
        }
    }
}

impl<'a> Builder<'a> {
    /// For `len` bytes.
    #[inline]
    pub(crate) fn new(layout: Layout, list: List<'a>, chain: Option<Chain<'a>>, len: usize) -> Self {
        Self {
            layout,
            list,
            words: list.words(),
            chain,
            len,
            start: 0,
            end: 0,
            second: 0,
            entries: 0,
            list_entries: 0,
            contiguous: true,
            prp: true,
        }
    }

    /// The next `len` bytes of the data.
    #[inline(always)]
    pub(crate) fn push(&mut self, iova: u64, len: usize) {
        let whole = (iova | self.end) & self.layout.page_mask == 0 && len as u64 <= self.layout.page_size();
        if whole && self.entries != 0 {
            // One page after another, as nearly all are.
            self.contiguous &= self.end == iova;
            self.push_page(iova);
            self.end = iova.wrapping_add(len as u64);
        } else {
            self.push_any(iova, len);
        }
    }

    #[inline(never)]
    fn push_any(&mut self, iova: u64, len: usize) {
        let mask = self.layout.page_mask;
        let end = iova.wrapping_add(len as u64);
        if self.entries == 0 {
            self.start = iova;
            self.entries = 1;
            self.prp = iova & 3 == 0;
            let pages = self.layout.pages((iova & mask) as usize, self.len);
            self.list_entries = pages.saturating_sub(1);
            self.push_pages((iova | mask).wrapping_add(1), end);
        } else if self.end == iova {
            self.push_pages(iova.wrapping_add(mask) & !mask, end);
        } else {
            self.contiguous = false;
            // Only the first page may begin, and only the last end, in the middle.
            self.prp &= (iova | self.end) & mask == 0;
            self.push_pages(iova, end);
        }
        self.end = end;
    }

    /// Adds the pages that begin in `from..to`.
    fn push_pages(&mut self, from: u64, to: u64) {
        let mut page = from;
        while page < to && self.prp {
            self.push_page(page);
            page += self.layout.page_size();
        }
    }

    #[inline(always)]
    fn push_page(&mut self, page: u64) {
        let index = self.entries - 1;
        self.entries += 1;
        if index == 0 {
            self.second = page;
        }
        if self.list_entries <= self.words.len() {
            if let Some(word) = self.words.get(index) {
                word.store(page, Ordering::Relaxed);
            }
        } else {
            self.set_chained(index, page);
        }
    }

    /// Writes entry `index` of a PRP list of several pages, and the pointer to its page if it is the first there.
    #[cold]
    fn set_chained(&mut self, index: usize, value: u64) {
        let words = self.words.len();
        let Some(chain) = &self.chain else {
            self.prp = false;
            return;
        };
        let last = list_pages(self.list_entries, words) - 1;
        let page = (index / (words - 1)).min(last);
        let word = index - page * (words - 1);
        let set = |word: usize, value| {
            if let Some(cell) = self.words.get(word) {
                cell.store(value, Ordering::Relaxed);
            }
        };
        let pointer = |page: usize| chain.iova() + (page - 1) as u64 * self.layout.page_size();
        if word == 0 && page != 0 {
            match page {
                1 => set(words - 1, pointer(page)),
                _ => chain.set((page - 2) * words + words - 1, pointer(page)),
            }
        }
        match page {
            0 => set(word, value),
            _ => chain.set((page - 1) * words + word, value),
        }
    }

    /// The data pointer; `None` if neither PRPs nor one SGL data block can say it.
    #[inline]
    pub(crate) fn finish(self) -> Option<Pointers> {
        if self.contiguous
            && (self.entries > 2 || !self.prp)
            && let Some(block) = self.layout.data_block(self.start, self.len)
        {
            return Some(block);
        }
        let prp2 = match self.entries {
            1 => 0,
            2 => self.second,
            _ => self.list.iova(),
        };
        self.prp.then(|| Pointers::prps(self.start, prp2))
    }
}

/// Builds an SGL of several data blocks in a slot's list memory, for data that PRPs cannot say.
pub(crate) struct SglBuilder<'a> {
    list: List<'a>,
    words: &'a [AtomicU64],
    align_mask: u64,
    blocks: usize,
    current: Option<(u64, usize)>,
    ok: bool,
}

impl<'a> SglBuilder<'a> {
    pub(crate) fn new(layout: Layout, list: List<'a>) -> Self {
        let words = list.words();
        Self { list, words, align_mask: layout.sgl_align_mask, blocks: 0, current: None, ok: layout.sgl }
    }

    /// The next `len` bytes of the data.
    pub(crate) fn push(&mut self, iova: u64, len: usize) {
        match &mut self.current {
            Some((start, so_far)) if start.wrapping_add(*so_far as u64) == iova => *so_far += len,
            _ => {
                self.flush();
                self.current = Some((iova, len));
            }
        }
    }

    fn flush(&mut self) {
        let Some((iova, len)) = self.current.take() else { return };
        let at = self.blocks * 2;
        let Ok(bytes) = u32::try_from(len) else {
            self.ok = false;
            return;
        };
        let aligned = (iova | u64::from(bytes)) & self.align_mask == 0;
        match self.words.get(at..at + 2) {
            Some(cells) if aligned => {
                for (cell, word) in cells.iter().zip(SglDescriptor::data_block(iova, bytes).to_words()) {
                    cell.store(word, Ordering::Relaxed);
                }
            }
            _ => self.ok = false,
        }
        self.blocks += 1;
    }

    /// The data pointer; `None` if the blocks are too many or not aligned.
    pub(crate) fn finish(mut self) -> Option<Pointers> {
        self.flush();
        let bytes = u32::try_from(self.blocks * 16).ok()?;
        let segment = SglDescriptor::last_segment(self.list.iova(), bytes);
        self.ok.then(|| Pointers { dptr: DataPointer::sgl(segment), psdt: Cdw0::PSDT_SGL })
    }
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
