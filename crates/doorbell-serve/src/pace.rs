//! How often doorbells are looked at: all the time while they ring, less and less often when they do not.
//!
//! A client that has mapped the doorbells rings them with a plain store, which wakes nobody. So who waits for one looks for
//! it. `docs/decisions` says why this is not left to messages.

use std::time::{Duration, Instant};

/// How long an idle controller looks for doorbells without a pause.
const SPIN: Duration = Duration::from_micros(100);
/// A pause is this part of the time for which nothing was found, so that it adds as much to what was idle before.
const PART: u32 = 8;
/// The longest pause: 200 looks a second, a thousandth of a processor.
const LONGEST: Duration = Duration::from_millis(5);

/// The pace of one controller.
#[derive(Debug)]
pub(crate) struct Pace {
    idle_since: Option<Instant>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { idle_since: None }
    }

    /// Something was found.
    pub(crate) fn worked(&mut self) {
        self.idle_since = None;
    }

    /// Nothing was found at `now`: how long to pause before the next look.
    pub(crate) fn idle(&mut self, now: Instant) -> Option<Duration> {
        let idle = now.saturating_duration_since(*self.idle_since.get_or_insert(now));
        let pause = idle.checked_div(PART).unwrap_or_default().min(LONGEST);
        (idle >= SPIN).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_with_the_time_that_nothing_was_found() {
        let start = Instant::now();
        let mut pace = Pace::new();
        assert_eq!(pace.idle(start), None);
        assert_eq!(pace.idle(start + SPIN / 2), None, "looks on");
        assert_eq!(pace.idle(start + Duration::from_micros(800)), Some(Duration::from_micros(100)));
        assert_eq!(pace.idle(start + Duration::from_millis(8)), Some(Duration::from_millis(1)));
        assert_eq!(pace.idle(start + Duration::from_secs(60)), Some(LONGEST));
        pace.worked();
        assert_eq!(pace.idle(start + Duration::from_secs(60)), None);
    }
}
