//! What each process of a bench that hands itself over says of its part, a line of JSON each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::pattern::Miscompare;

/// One process's part.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Leg {
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) lost: u64,
    pub(super) checked_blocks: u64,
    pub(super) miscompares: u64,
    pub(super) examples: Vec<Miscompare>,
    /// Nanoseconds, and how often.
    pub(super) latency: Vec<(u64, u64)>,
    pub(super) elapsed_ns: u64,
    pub(super) cpu_ns: u64,
    pub(super) interrupted: bool,
    /// Whether no other process comes after it.
    pub(super) last: bool,
    pub(super) handovers: Handovers,
}

/// What the handovers were like, of one process or of all.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Handovers {
    /// The longest that a job had no completion, for each handover, in nanoseconds.
    pub(super) pauses: Vec<u64>,
    /// How long `save` took, for each, in nanoseconds.
    pub(super) saves: Vec<u64>,
    /// Commands that were in flight, or had ended unseen.
    pub(super) inherited: u64,
    /// Those that did not cross over.
    pub(super) lost: u64,
    /// Those that crossed over twice, or that nobody had sent.
    pub(super) repeated: u64,
    /// Handovers that failed.
    pub(super) failed: u64,
    pub(super) first_failure: Option<String>,
}

impl Leg {
    pub(super) fn of(outcome: &Outcome, elapsed: Duration, cpu: Duration) -> Self {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            reads: outcome.reads,
            writes: outcome.writes,
            errors: outcome.errors,
            first_error: outcome.first_error.clone(),
            lost: outcome.lost,
            checked_blocks: outcome.checked_blocks,
            miscompares: outcome.miscompares,
            examples: outcome.examples.clone(),
            latency: outcome.latency.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect(),
            elapsed_ns: ns(elapsed),
            cpu_ns: ns(cpu),
            ..Self::default()
        }
    }

    /// Adds it to what is known of the others.
    pub(super) fn add_to(self, all: &mut Outcome) {
        let mut other = Outcome::new();
        (other.reads, other.writes) = (self.reads, self.writes);
        (other.errors, other.first_error) = (self.errors, self.first_error);
        (other.lost, other.checked_blocks) = (self.lost, self.checked_blocks);
        (other.miscompares, other.examples) = (self.miscompares, self.examples);
        for (value, count) in self.latency {
            other.latency.saturating_record_n(value, count);
        }
        all.add(other);
    }
}

impl Handovers {
    pub(super) fn add(&mut self, other: Self) {
        self.pauses.extend(other.pauses);
        self.saves.extend(other.saves);
        self.inherited += other.inherited;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    /// The median, the 99th percentile and the longest of some times.
    pub(super) fn spread(times: &[u64]) -> [u64; 3] {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(index).copied().unwrap_or(0)
        };
        [at(50), at(99), at(100)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_middle_the_end_and_nearly_the_end() {
        assert_eq!(Handovers::spread(&[]), [0, 0, 0]);
        assert_eq!(Handovers::spread(&[7]), [7, 7, 7]);
        let times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(Handovers::spread(&times), [100, 198, 200]);
    }

    #[test]
    fn what_is_said_is_understood() {
        let mut outcome = Outcome::new();
        outcome.record(true);
        outcome.latency.saturating_record(1000);
        outcome.error(|| "one".into());
        let leg = Leg { last: true, ..Leg::of(&outcome, Duration::from_secs(1), Duration::ZERO) };
        let text = serde_json::to_string(&leg).unwrap();
        assert!(!text.contains('\n'));
        let leg: Leg = serde_json::from_str(&text).unwrap();
        assert!(leg.last && leg.elapsed_ns == 1_000_000_000);
        let mut all = Outcome::new();
        leg.add_to(&mut all);
        assert_eq!((all.ios(), all.errors, all.latency.len()), (1, 1, 1));
    }
}
