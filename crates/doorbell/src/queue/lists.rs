use super::words::Words;
use crate::sync::AtomicU64;

/// The PRP list (or SGL segment) memory of all slots, an equal part each that crosses no page.
pub(crate) struct Lists {
    pub(crate) words: Words<1>,
    pub(crate) words_per_slot: usize,
}

/// The list memory of one slot.
#[derive(Clone, Copy)]
pub(crate) struct List<'a> {
    lists: &'a Lists,
    slot: u16,
}

impl Lists {
    #[inline(always)]
    pub(crate) fn of(&self, slot: u16) -> List<'_> {
        List { lists: self, slot }
    }
}

impl<'a> List<'a> {
    #[inline]
    fn first(self) -> usize {
        usize::from(self.slot) * self.lists.words_per_slot
    }

    /// The words.
    #[inline]
    pub(crate) fn words(self) -> &'a [AtomicU64] {
        self.lists.words.slice(self.first(), self.lists.words_per_slot)
    }

    /// Where the device finds it.
    #[inline]
    pub(crate) fn iova(self) -> u64 {
        self.lists.words.iova() + self.first() as u64 * 8
    }
}
