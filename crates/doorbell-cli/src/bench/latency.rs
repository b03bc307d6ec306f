//! Latencies, as a job counts them.

use hdrhistogram::Histogram;

use super::stopwatch::{Stopwatch, Ticks};

/// Latencies of fewer ticks are counted each for itself, with one addition, and made nanoseconds of at the end: of what takes
/// longer, a histogram's arithmetic is no part.
const SHORT: usize = 1 << 15;

pub(super) struct Latencies {
    short: Box<[u64]>,
    long: Histogram<u64>,
}

impl Latencies {
    /// To be added to a histogram of these bounds.
    pub(super) fn new(long: Histogram<u64>) -> Self {
        Self { short: vec![0; SHORT].into(), long }
    }

    /// An I/O that began and ended then.
    #[inline]
    pub(super) fn record(&mut self, watch: &Stopwatch, began: Ticks, ended: Ticks) {
        match self.short.get_mut(ended.since(began)) {
            Some(count) => *count += 1,
            None => self.record_long(watch.nanoseconds(began, ended)),
        }
    }

    #[cold]
    fn record_long(&mut self, nanoseconds: u64) {
        self.long.saturating_record(nanoseconds);
    }

    /// All of them, in nanoseconds.
    pub(super) fn histogram(mut self, watch: &Stopwatch) -> Histogram<u64> {
        for (ticks, count) in self.short.into_iter().enumerate().filter(|(_, count)| *count != 0) {
            self.long.saturating_record_n(watch.nanoseconds(Ticks::FIRST, Ticks::FIRST.later(ticks)), count);
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
        let watch = Stopwatch::new();
        let began = watch.now();
        for ticks in [0, 1, 77, 77, 3000, SHORT - 1, SHORT, SHORT + 1, 1 << 30, 1 << 50] {
            let ended = began.later(ticks);
            latencies.record(&watch, began, ended);
            all.saturating_record(watch.nanoseconds(began, ended));
        }
        latencies.record(&watch, began.later(5), began);
        all.saturating_record(0);
        assert_eq!(latencies.histogram(&watch), all);
    }
}
