/// Bytes of a guest page, as [`PagedRange`] counts them.
pub const PAGE_SIZE: usize = 4096;

/// A range of guest memory as a list of guest page numbers, and an offset and a length in the bytes of those pages
/// laid end to end.
///
/// ```
/// use doorbell::PagedRange;
///
/// // 6000 bytes: the last 3096 of page 7, then the first 2904 of page 3.
/// let range = PagedRange::new(1000, 6000, &[7, 3]).unwrap();
/// assert_eq!(range.len(), 6000);
/// // More bytes than the pages have.
/// assert!(PagedRange::new(1000, 8000, &[7, 3]).is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagedRange<'a> {
    /// In the first page.
    offset: usize,
    len: usize,
    gpns: &'a [u64],
}

impl<'a> PagedRange<'a> {
    /// `len` bytes from `offset` on in the pages `gpns` (guest page numbers, pages of 4096 bytes). `None` if they are
    /// not that long.
    #[must_use]
    pub const fn new(offset: usize, len: usize, gpns: &'a [u64]) -> Option<Self> {
        match (offset.checked_add(len), gpns.len().checked_mul(PAGE_SIZE)) {
            (Some(end), Some(size)) if end <= size => Some(Self::from_its_page(offset, len, gpns)),
            _ => None,
        }
    }

    /// A range that begins in the first of its pages. It must end within them.
    #[inline(always)]
    const fn from_its_page(offset: usize, len: usize, gpns: &'a [u64]) -> Self {
        let (_, gpns) = gpns.split_at(offset / PAGE_SIZE);
        Self { offset: offset % PAGE_SIZE, len, gpns }
    }

    /// Bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part of `len` bytes from byte `offset` of this range on; `None` if it is not that long.
    #[inline]
    #[must_use]
    pub fn subrange(&self, offset: usize, len: usize) -> Option<Self> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        Some(Self::from_its_page(self.offset.saturating_add(offset), len, self.gpns))
    }

    /// The page that its first `len` bytes lie in, and where they begin there; `None` if there are several or none.
    #[inline(always)]
    pub(crate) fn in_one_page(&self, len: usize) -> Option<(u64, usize)> {
        let gpn = *self.gpns.first()?;
        (len <= self.len && self.offset.wrapping_add(len) <= PAGE_SIZE).then_some((gpn, self.offset))
    }

    /// The pages that it has a part in, and where in the first of them it begins.
    pub(crate) fn pages(&self) -> (usize, &'a [u64]) {
        let count = self.offset.saturating_add(self.len).div_ceil(PAGE_SIZE);
        (self.offset, self.gpns.get(..count).unwrap_or_default())
    }

    /// The pieces, page by page: guest address and bytes.
    #[inline]
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (u64, usize)> + 'a {
        let mut offset = self.offset;
        let mut left = self.len;
        self.gpns.iter().map_while(move |gpn| {
            if left == 0 {
                return None;
            }
            let piece = (address(*gpn, offset), left.min(PAGE_SIZE.saturating_sub(offset)));
            left = left.saturating_sub(piece.1);
            offset = 0;
            Some(piece)
        })
    }
}

/// A guest address; one past the address space is its last, where no memory can be.
#[inline(always)]
fn address(gpn: u64, offset: usize) -> u64 {
    gpn.saturating_mul(PAGE_SIZE as u64) | offset as u64
}
