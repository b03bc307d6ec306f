use doorbell_device::{DeviceError, HostMemory};

use crate::space::Placed;

/// What is larger gets a mapping of its own.
pub(crate) const LARGEST: usize = 16 << 20;
/// Huge pages, where there are any.
pub(crate) const HUGE: usize = 2 << 20;
const LARGEST_CHUNK: usize = 64 << 20;

/// Small allocations, in few large ones: servers take only so many mappings.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    chunks: Vec<Chunk>,
}

/// One mapping, shared by allocations.
#[derive(Debug)]
struct Chunk {
    placed: Placed,
    free: FreeList,
}

/// Part of a chunk that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) host: HostMemory,
    pub(crate) iova: u64,
    /// The chunk's region.
    pub(crate) region: u64,
    offset: usize,
    len: usize,
}

impl Pool {
    /// Takes zeroed memory from what there is; `None` if there is too little. `len` is of whole pages.
    pub(crate) fn take(&mut self, len: usize, align: usize) -> Option<Result<Taken, DeviceError>> {
        self.chunks.iter_mut().find_map(|chunk| {
            let offset = chunk.free.take(len, align)?;
            let taken = chunk.part(offset, len);
            if taken.is_err() {
                chunk.free.give(offset, len);
            }
            Some(taken)
        })
    }

    /// How large the next chunk is to be, in which `len` bytes have to fit: as large as all so far, so that there are few.
    pub(crate) fn next_chunk(&self, len: usize) -> usize {
        let there_is: usize = self.chunks.iter().map(|chunk| chunk.placed.host.len()).sum();
        there_is.max(len).next_power_of_two().clamp(HUGE, LARGEST_CHUNK)
    }

    /// Adds a chunk. It lies at an IOVA that is a multiple of every alignment that is asked for.
    pub(crate) fn add(&mut self, placed: Placed) {
        let free = FreeList::new(placed.host.len());
        self.chunks.push(Chunk { placed, free });
    }

    /// The regions of all chunks.
    pub(crate) fn regions(&self) -> impl Iterator<Item = u64> {
        self.chunks.iter().map(|chunk| chunk.placed.region)
    }

    /// Takes what is in use in another process too; `None` if that is not in a chunk, or in use already.
    pub(crate) fn take_at(&mut self, iova: u64, len: usize) -> Option<Taken> {
        self.chunks.iter_mut().find_map(|chunk| {
            let offset = usize::try_from(iova.checked_sub(chunk.placed.iova)?).ok()?;
            chunk.free.take_at(offset, len).then_some(())?;
            let host = chunk.placed.host.part(offset, len).ok()?;
            Some(Taken { host, iova, region: chunk.placed.region, offset, len })
        })
    }

    /// Gives back what was taken. A chunk of which nothing is in use comes out.
    pub(crate) fn give(&mut self, region: u64, offset: usize, len: usize) -> Option<Placed> {
        let at = self.chunks.iter().position(|chunk| chunk.placed.region == region)?;
        let chunk = self.chunks.get_mut(at)?;
        chunk.free.give(offset, len);
        let unused = chunk.free.is_all(chunk.placed.host.len());
        unused.then(|| self.chunks.swap_remove(at).placed)
    }
}

impl Chunk {
    fn part(&self, offset: usize, len: usize) -> Result<Taken, DeviceError> {
        let whole = &self.placed.host;
        let unmappable = |reason: String| DeviceError::Unmappable { len, reason };
        let host = whole.part(offset, len).map_err(|error| unmappable(error.to_string()))?;
        host.zero(0, len).map_err(|error| unmappable(error.to_string()))?;
        let iova = self.placed.iova.saturating_add(offset as u64);
        Ok(Taken { host, iova, region: self.placed.region, offset, len })
    }
}

impl Taken {
    /// What [`Pool::give`] wants to know.
    pub(crate) fn place(&self) -> (u64, usize, usize) {
        (self.region, self.offset, self.len)
    }
}

/// Which bytes are free: starts and ends, in order, none empty, none touching another.
#[derive(Debug, PartialEq, Eq)]
struct FreeList {
    ranges: Vec<(usize, usize)>,
}

impl FreeList {
    fn new(len: usize) -> Self {
        Self { ranges: vec![(0, len)] }
    }

    fn is_all(&self, len: usize) -> bool {
        self.ranges == [(0, len)]
    }

    /// The first place with room.
    fn take(&mut self, len: usize, align: usize) -> Option<usize> {
        let (at, start, range) = self.ranges.iter().enumerate().find_map(|(at, range)| {
            let start = range.0.checked_next_multiple_of(align)?;
            (start.checked_add(len)? <= range.1).then_some((at, start, *range))
        })?;
        let end = start.saturating_add(len);
        let rest = [(range.0, start), (end, range.1)].into_iter().filter(|(start, end)| start < end);
        self.ranges.splice(at..=at, rest);
        Some(start)
    }

    /// Takes what is at a place. Whether all of it was free.
    fn take_at(&mut self, start: usize, len: usize) -> bool {
        let end = start.saturating_add(len);
        let found = self.ranges.iter().position(|range| range.0 <= start && end <= range.1);
        let Some((at, range)) = found.and_then(|at| Some((at, *self.ranges.get(at)?))) else { return false };
        let rest = [(range.0, start), (end, range.1)].into_iter().filter(|(start, end)| start < end);
        self.ranges.splice(at..=at, rest);
        len != 0
    }

    /// Back to be taken. What is free already is not taken note of twice.
    fn give(&mut self, start: usize, len: usize) {
        let (mut start, mut end) = (start, start.saturating_add(len));
        let first = self.ranges.partition_point(|range| range.1 < start);
        let last = self.ranges.partition_point(|range| range.0 <= end);
        for range in self.ranges.get(first..last).unwrap_or_default() {
            (start, end) = (start.min(range.0), end.max(range.1));
        }
        self.ranges.splice(first..last, [(start, end)]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNIT: usize = 4096;

    proptest! {
        #[test]
        fn what_is_taken_is_taken_once_and_comes_back_whole(
            steps in prop::collection::vec((any::<bool>(), 1usize..9, 0u32..4, any::<prop::sample::Index>()), 1..200),
        ) {
            let total = 64 * UNIT;
            let mut list = FreeList::new(total);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (take, len, align, which) in steps {
                if take {
                    let (len, align) = (len * UNIT, UNIT << align);
                    let found = list.take(len, align);
                    let fits = |start: usize| {
                        start + len <= total && taken.iter().all(|&(at, n)| start + len <= at || at + n <= start)
                    };
                    match found {
                        Some(start) => {
                            prop_assert!(start.is_multiple_of(align) && fits(start));
                            taken.push((start, len));
                        }
                        None => prop_assert!(!(0..total).step_by(align).any(fits), "there was room"),
                    }
                } else if !taken.is_empty() {
                    let (start, len) = taken.swap_remove(which.index(taken.len()));
                    list.give(start, len);
                }
            }
            for (start, len) in taken {
                prop_assert!(!list.is_all(total));
                list.give(start, len);
            }
            prop_assert!(list.is_all(total));
        }
    }

    #[test]
    fn chunks_grow_with_what_there_is() {
        let mut pool = Pool::default();
        let mut sizes = Vec::new();
        for region in 0..4u64 {
            let len = pool.next_chunk(UNIT);
            sizes.push(len >> 20);
            pool.add(Placed { host: HostMemory::allocate(len).unwrap(), iova: region << 32, region });
        }
        assert_eq!(sizes, [2, 2, 4, 8]);
        assert_eq!(pool.next_chunk(LARGEST), LARGEST);
    }

    #[test]
    fn a_chunk_is_shared_zeroed_and_given_back_when_nothing_uses_it() {
        let mut pool = Pool::default();
        assert!(pool.take(UNIT, UNIT).is_none());
        pool.add(Placed { host: HostMemory::allocate(HUGE).unwrap(), iova: 7 << 32, region: 7 << 32 });
        let one = pool.take(UNIT, UNIT).unwrap().unwrap();
        let two = pool.take(3 * UNIT, 4 * UNIT).unwrap().unwrap();
        assert_eq!((one.iova, two.iova), (7 << 32, (7 << 32) + 4 * UNIT as u64));
        assert_eq!(two.host.file().unwrap().1, 4 * UNIT as u64);
        two.host.write_at(0, b"old").unwrap();
        let (region, offset, len) = two.place();
        assert!(pool.give(region, offset, len).is_none());
        let again = pool.take(3 * UNIT, 4 * UNIT).unwrap().unwrap();
        let mut bytes = [1; 3];
        again.host.read_at(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 3]);
        assert!(pool.take(HUGE, UNIT).is_none());
        for taken in [one, again] {
            let (region, offset, len) = taken.place();
            let chunk = pool.give(region, offset, len);
            assert_eq!(chunk.is_some(), offset != 0, "{offset:#x}");
        }
    }
}
