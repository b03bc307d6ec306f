//! Latencies, as a job counts them.

use hdrhistogram::Histogram;

/// Latencies of fewer nanoseconds are counted each for itself, with one addition: of what takes longer, a histogram's
/// arithmetic is no part.
const SHORT: usize = 1 << 14;

pub(super) struct Latencies {
    short: Box<[u64]>,
    long: Histogram<u64>,
}

impl Latencies {
    /// To be added to a histogram of these bounds.
    pub(super) fn new(long: Histogram<u64>) -> Self {
        Self { short: vec![0; SHORT].into(), long }
    }

    #[inline]
    pub(super) fn record(&mut self, nanoseconds: u64) {
        match usize::try_from(nanoseconds).ok().and_then(|short| self.short.get_mut(short)) {
            Some(count) => *count += 1,
            None => self.long.saturating_record(nanoseconds),
        }
    }

    /// All of them.
    pub(super) fn histogram(mut self) -> Histogram<u64> {
        for (nanoseconds, count) in (0..).zip(self.short).filter(|(_, count)| *count != 0) {
            self.long.saturating_record_n(nanoseconds, count);
        }
        self.long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_is_what_it_would_have_been() {
        let empty = || Histogram::<u64>::new_with_bounds(1, 1 << 40, 3).unwrap();
        let (mut latencies, mut all) = (Latencies::new(empty()), empty());
        let border = SHORT as u64;
        for nanoseconds in [0, 1, 77, 77, 3000, border - 1, border, border + 1, 1 << 30, u64::MAX] {
            latencies.record(nanoseconds);
            all.saturating_record(nanoseconds);
        }
        assert_eq!(latencies.histogram(), all);
    }
}
