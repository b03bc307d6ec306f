//! Arrays that what one queue's CPU writes lies in, and that share no cache line with anything else.

/// Bytes of a cache line.
const LINE: usize = 64;

/// An array with unused places before and behind it, a cache line of them each.
pub(crate) struct Apart<T> {
    places: Box<[T]>,
    len: usize,
}

impl<T: Default> Apart<T> {
    const UNUSED: usize = LINE.div_ceil(size_of::<T>());

    pub(crate) fn new(len: usize, make: impl FnMut(usize) -> T) -> Self {
        let unused = || (0..Self::UNUSED).map(|_| T::default());
        Self { places: unused().chain((0..len).map(make)).chain(unused()).collect(), len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// `None` for those that are far from the end; between them and the end lies what nobody uses.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.places.get(index + Self::UNUSED)
    }

    /// As [`get`](Self::get).
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.places.get_mut(index + Self::UNUSED)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().skip(Self::UNUSED).take(self.len)
    }
}
