//! What came of a job's phase: counted without a division or an allocation for each I/O, added up at the end.

use hdrhistogram::Histogram;
use quanta::Instant;

use super::pattern::Miscompare;

/// Latencies up to an hour are told apart.
const LONGEST_NS: u64 = 3_600_000_000_000;
/// How many miscompares are kept to be shown.
pub(super) const EXAMPLES: usize = 10;

/// What came of one or more jobs.
pub(super) struct Outcome {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// I/Os that did not end in the time they were given.
    pub(super) lost: u64,
    pub(super) checked_blocks: u64,
    pub(super) miscompares: u64,
    pub(super) examples: Vec<Miscompare>,
    /// When the last I/O ended.
    pub(super) last: Option<Instant>,
    /// In nanoseconds.
    pub(super) latency: Histogram<u64>,
}

impl Outcome {
    pub(super) fn new() -> Self {
        let latency = match Histogram::new_with_bounds(1, LONGEST_NS, 3) {
            Ok(histogram) => histogram,
            Err(error) => unreachable!("the bounds are constants that are right: {error}"),
        };
        Self {
            reads: 0,
            writes: 0,
            errors: 0,
            first_error: None,
            lost: 0,
            checked_blocks: 0,
            miscompares: 0,
            examples: Vec::new(),
            last: None,
            latency,
        }
    }

    /// I/Os that succeeded.
    #[inline]
    pub(super) fn ios(&self) -> u64 {
        self.reads + self.writes
    }

    /// One more that succeeded.
    #[inline]
    pub(super) fn record(&mut self, write: bool) {
        match write {
            true => self.writes += 1,
            false => self.reads += 1,
        }
    }

    #[cold]
    pub(super) fn error(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(what());
        }
    }

    #[cold]
    pub(super) fn miscompare(&mut self, miscompare: Miscompare) {
        self.miscompares += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(miscompare);
        }
    }

    /// Adds another job's, or another phase's.
    pub(super) fn add(&mut self, other: Outcome) {
        self.reads += other.reads;
        self.writes += other.writes;
        // The histograms have the same bounds.
        let _ = self.latency.add(&other.latency);
        self.last = self.last.max(other.last);
        self.add_findings(other);
    }

    /// Adds what another phase found, but not what it did.
    pub(super) fn add_findings(&mut self, other: Outcome) {
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.lost += other.lost;
        self.checked_blocks += other.checked_blocks;
        self.miscompares += other.miscompares;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}
