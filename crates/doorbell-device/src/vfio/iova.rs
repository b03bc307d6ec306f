//! Which I/O virtual addresses are taken.

use std::collections::BTreeMap;

/// Between two mappings, and after the last of a range: a device that runs past the end of one hits nothing.
const GUARD: u64 = 4096;
/// Below this nothing is mapped: an address that a device has of a null pointer leads nowhere.
const LOWEST: u64 = 1 << 20;

/// The IOVAs of one device, and what is taken of them.
#[derive(Debug)]
pub(super) struct Iovas {
    /// What the IOMMU allows, first and last of each range, ascending. Windows reserved for other use, such as that of
    /// interrupts at `0xfee00000`, are between them.
    allowed: Vec<(u64, u64)>,
    /// Where each mapping begins, and its length.
    taken: BTreeMap<u64, u64>,
    /// Where the last mapping ended: the search goes on there, so that many mappings are no long search for each.
    next: u64,
}

impl Iovas {
    pub(super) fn new(mut allowed: Vec<(u64, u64)>) -> Self {
        allowed.retain(|(start, last)| start <= last && *last >= LOWEST);
        allowed.sort_unstable();
        for (start, _) in &mut allowed {
            *start = (*start).max(LOWEST);
        }
        Self { allowed, taken: BTreeMap::new(), next: 0 }
    }

    /// How many mappings there are.
    pub(super) fn count(&self) -> usize {
        self.taken.len()
    }

    /// Takes `len` bytes at an address that is `offset` more than a multiple of `align`, a power of two.
    pub(super) fn take(&mut self, len: u64, align: u64, offset: u64) -> Option<u64> {
        let found = self.find(self.next, len, align, offset).or_else(|| self.find(0, len, align, offset))?;
        self.taken.insert(found, len);
        self.next = found.saturating_add(len);
        Some(found)
    }

    /// Takes what is known to be mapped: whether it could be, next to what is taken.
    pub(super) fn insert(&mut self, iova: u64, len: u64) -> bool {
        let Some(end) = iova.checked_add(len).filter(|_| len != 0) else { return false };
        let allowed = self.allowed.iter().any(|(start, last)| iova >= *start && end.saturating_sub(1) <= *last);
        let before = self.taken.range(..end).next_back();
        let free = before.is_none_or(|(begins, len)| begins.saturating_add(*len) <= iova);
        let fits = allowed && free;
        if fits {
            self.taken.insert(iova, len);
            self.next = self.next.max(end);
        }
        fits
    }

    /// All mappings: where each begins, and its length.
    pub(super) fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        self.taken.iter().map(|(iova, len)| (*iova, *len))
    }

    /// The mapping that lies around some memory.
    pub(super) fn around(&self, iova: u64, len: u64) -> Option<(u64, u64)> {
        let (start, mapped) = self.taken.range(..=iova).next_back()?;
        let end = iova.checked_sub(*start)?.checked_add(len)?;
        (end <= *mapped).then_some((*start, *mapped))
    }

    pub(super) fn give_back(&mut self, iova: u64) {
        self.taken.remove(&iova);
    }

    /// The first fitting place from `from` on.
    fn find(&self, from: u64, len: u64, align: u64, offset: u64) -> Option<u64> {
        self.allowed.iter().filter(|(_, last)| *last >= from).find_map(|(start, last)| {
            let mut at = aligned((*start).max(from), align, offset)?;
            loop {
                let end = at.checked_add(len)?.checked_add(GUARD)?;
                if end.saturating_sub(1) > *last {
                    return None;
                }
                // Whatever begins before the end, and does not end before the start.
                let before = self.taken.range(..end).next_back();
                match before.map(|(begins, len)| begins.saturating_add(*len).saturating_add(GUARD)) {
                    Some(free) if free > at => at = aligned(free, align, offset)?,
                    _ => return Some(at),
                }
            }
        })
    }
}

/// The lowest address from `from` on that is `offset` more than a multiple of `align`.
fn aligned(from: u64, align: u64, offset: u64) -> Option<u64> {
    let offset = offset & align.saturating_sub(1);
    let below = (from & !align.saturating_sub(1)).checked_add(offset)?;
    if below >= from { Some(below) } else { below.checked_add(align) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WITH_HOLE: [(u64, u64); 2] = [(0, 0xfedf_ffff), (0xfef0_0000, 0xff_ffff_ffff)];

    #[test]
    fn a_reserved_window_is_never_touched() {
        let mut iovas = Iovas::new(WITH_HOLE.to_vec());
        let gibibyte = 1 << 30;
        let taken: Vec<u64> = (0..8).map(|_| iovas.take(gibibyte, 2 << 20, 0).unwrap()).collect();
        for at in taken {
            assert!(at + gibibyte <= 0xfee0_0000 || at >= 0xfef0_0000, "{at:#x}");
        }
    }

    #[test]
    fn a_full_space_takes_again_what_was_given_back() {
        let mut iovas = Iovas::new(vec![(LOWEST, LOWEST + 4 * 8192 - 1)]);
        let taken: Vec<u64> = std::iter::from_fn(|| iovas.take(4096, 4096, 0)).collect();
        assert_eq!(taken.len(), 4);
        iovas.give_back(taken[1]);
        assert_eq!(iovas.take(4096, 4096, 0), Some(taken[1]));
        assert_eq!(iovas.take(4096, 4096, 0), None);
    }

    #[test]
    fn what_cannot_be_fails() {
        let mut iovas = Iovas::new(WITH_HOLE.to_vec());
        assert_eq!(iovas.take(u64::MAX - 4096, 4096, 0), None);
        assert_eq!(iovas.take(1 << 40, 4096, 0), None);
        assert_eq!(iovas.take(4096, 1 << 63, 0), None);
        assert_eq!(Iovas::new(vec![]).take(4096, 4096, 0), None);
        assert_eq!(Iovas::new(vec![(0, 4095)]).take(4096, 4096, 0), None);
    }

    #[test]
    fn what_another_process_mapped_is_taken_once_and_where_it_may_be() {
        let mut iovas = Iovas::new(WITH_HOLE.to_vec());
        for (iova, len, fits) in [
            (0x10_0000, 0x2000, true),
            (0x10_1000, 0x1000, false),
            (0x0f_f000, 0x1_0000, false),
            (0x10_2000, 0x1000, true),
            (0x1000, 0x1000, false),
            (0xfedf_f000, 0x2000, false),
            (u64::MAX, 2, false),
            (0x20_0000, 0, false),
        ] {
            assert_eq!(iovas.insert(iova, len), fits, "{iova:#x}");
        }
        assert_eq!(iovas.all().collect::<Vec<_>>(), [(0x10_0000, 0x2000), (0x10_2000, 0x1000)]);
        assert_eq!(iovas.around(0x10_1000, 0x1000), Some((0x10_0000, 0x2000)));
        assert_eq!(iovas.around(0x10_1000, 0x1001), None);
        assert_eq!(iovas.around(0x1000, 1), None);
        assert!(iovas.take(4096, 4096, 0).is_some_and(|iova| iova >= 0x10_4000));
    }

    proptest! {
        #[test]
        fn mappings_keep_a_page_apart_and_their_alignment(
            steps in prop::collection::vec((1u64..64, 12u32..22, 0u64..512, any::<prop::sample::Index>(), any::<bool>()), 1..200),
        ) {
            let mut iovas = Iovas::new(vec![(0, 0x0fff_ffff), (0x2000_0000, 0x23ff_ffff)]);
            let mut live: Vec<(u64, u64)> = Vec::new();
            for (pages, align, offset, which, give_back) in steps {
                if give_back && !live.is_empty() {
                    let (at, _) = live.swap_remove(which.index(live.len()));
                    iovas.give_back(at);
                    continue;
                }
                let (len, align, offset) = (pages * 4096, 1u64 << align, offset * 4096);
                let Some(at) = iovas.take(len, align, offset) else { continue };
                prop_assert_eq!(at % align, offset % align);
                prop_assert!(at >= LOWEST);
                prop_assert!((at + len <= 0x1000_0000) || (at >= 0x2000_0000 && at + len <= 0x2400_0000));
                for (other, other_len) in &live {
                    prop_assert!(at + len + GUARD <= *other || other + other_len + GUARD <= at);
                }
                live.push((at, len));
                prop_assert_eq!(iovas.count(), live.len());
            }
        }
    }
}
