//! The log of what runs for long: whoever makes it say things, a client of a server say, cannot have it say without end.

use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines a second.
const LINES: u64 = 200;

/// Standard error, for so many lines a second; then it is said how many were left out.
#[derive(Default)]
pub(crate) struct Limited {
    second: Mutex<Option<Second>>,
}

struct Second {
    began: Instant,
    lines: u64,
}

impl Limited {
    /// Whether a line may be written at `now`, and how many were left out before it.
    fn admit(&self, now: Instant) -> (bool, u64) {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        let this = second.get_or_insert(Second { began: now, lines: 0 });
        let mut left_out = 0;
        if now.saturating_duration_since(this.began) >= Duration::from_secs(1) {
            left_out = this.lines.saturating_sub(LINES);
            *this = Second { began: now, lines: 0 };
        }
        this.lines = this.lines.saturating_add(1);
        (this.lines <= LINES, left_out)
    }

    /// Where the next line goes.
    pub(crate) fn writer(&self) -> Box<dyn Write> {
        let (admitted, left_out) = self.admit(Instant::now());
        if left_out > 0 {
            let _ = writeln!(io::stderr(), "({left_out} lines of the log were left out)");
        }
        if admitted { Box::new(io::stderr()) } else { Box::new(io::sink()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let (log, start) = (Limited::default(), Instant::now());
        let written = (0..1000).filter(|_| log.admit(start).0).count();
        assert_eq!(written, 200);
        assert_eq!(log.admit(start + Duration::from_secs(1)), (true, 800));
        assert_eq!(log.admit(start + Duration::from_secs(1)), (true, 0));
    }
}
