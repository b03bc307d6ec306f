//! Time as the CPU counts it, which costs one instruction to read, and is made seconds of only where somebody wants to know.

use std::time::Duration;

use quanta::{Clock, Instant};

/// What the counter showed. Later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticks(u64);

impl Ticks {
    /// Before all others, and after.
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u64::MAX);

    /// How many came since an earlier moment.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> usize {
        usize::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(usize::MAX)
    }

    pub(super) fn later(self, ticks: usize) -> Self {
        Self(self.0.saturating_add(ticks as u64))
    }
}

pub(super) struct Stopwatch {
    clock: Clock,
}

impl Stopwatch {
    /// The first of the process finds out how fast the counter is, which takes a while.
    pub(super) fn new() -> Self {
        Self { clock: Clock::new() }
    }

    #[inline]
    pub(super) fn now(&self) -> Ticks {
        Ticks(self.clock.raw())
    }

    /// From one moment to a later one, in nanoseconds.
    #[inline]
    pub(super) fn nanoseconds(&self, from: Ticks, to: Ticks) -> u64 {
        self.clock.delta_as_nanos(from.0, to.0)
    }

    /// When it will be that much later.
    pub(super) fn after(&self, moment: Ticks, time: Duration) -> Ticks {
        Ticks(moment.0.saturating_add(self.ticks(time)))
    }

    pub(super) fn instant(&self, moment: Ticks) -> Instant {
        self.clock.scaled(moment.0)
    }

    /// When something was that others saw the time of.
    pub(super) fn before_now(&self, past: Instant) -> Ticks {
        let now = self.now();
        Ticks(now.0.saturating_sub(self.ticks(self.instant(now).saturating_duration_since(past))))
    }

    /// The least number that is so much time. The clock knows only the other direction.
    fn ticks(&self, time: Duration) -> u64 {
        let wanted = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (mut least, mut most) = (0, 1 << 62);
        while least < most {
            let middle = least + (most - least) / 2;
            match self.clock.delta_as_nanos(0, middle) >= wanted {
                true => most = middle,
                false => least = middle + 1,
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_time_are_the_same() {
        let watch = Stopwatch::new();
        let start = watch.now();
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3), Duration::from_secs(1 << 20)] {
            let measured = u128::from(watch.nanoseconds(start, watch.after(start, time)));
            let off = measured.abs_diff(time.as_nanos());
            assert!(off <= 1 + time.as_nanos() / 1_000_000, "{time:?} is {measured} ns");
        }
        let then = watch.instant(start);
        let back = watch.before_now(then);
        let off = watch.nanoseconds(back.min(start), back.max(start));
        assert!(off < 1_000, "{off} ns off");
        assert!(watch.now() >= start);
    }
}
