//! Arrays that begin and end with a cache line, so that what one queue's CPU writes shares none with anything else.

/// `N` to a line.
pub(crate) struct Apart<T, const N: usize> {
    lines: Box<[Line<T, N>]>,
    len: usize,
}

#[repr(align(64))]
struct Line<T, const N: usize>([T; N]);

impl<T, const N: usize> Apart<T, N> {
    /// At least `len` of them; the last line is full.
    pub(crate) fn new(len: usize, mut make: impl FnMut(usize) -> T) -> Self {
        let lines = (0..len.div_ceil(N)).map(|line| Line(std::array::from_fn(|i| make(line * N + i)))).collect();
        Self { lines, len }
    }

    /// How many were asked for.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.lines.get(index / N)?.0.get(index % N)
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.lines.get_mut(index / N)?.0.get_mut(index % N)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.lines.iter_mut().flat_map(|line| &mut line.0)
    }
}
