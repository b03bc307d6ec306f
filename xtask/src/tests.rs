//! Test runs, and what they counted.

use std::ops::AddAssign;
use std::process::Command;

use anyhow::Result;

use crate::process;

/// Runs a test command, shows what it prints, and counts its tests, failed ones too.
pub(crate) fn run(command: &mut Command, total: &mut Count) -> Result<Count> {
    let finished = process::run_and_tell(command)?;
    let count = Count::of(&finished.stdout);
    *total += count;
    process::require_success(command, &finished)?;
    Ok(count)
}

/// How many tests ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    /// The sum of all results that the text tells.
    pub(crate) fn of(text: &str) -> Self {
        let mut count = Self::default();
        for results in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            // "ok. 3 passed; 0 failed; 1 ignored; ..."
            let words: Vec<&str> = results.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                match pair {
                    [number, "passed"] => count.passed += number.parse().unwrap_or(0),
                    [number, "failed"] => count.failed += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        }
        count
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn results_add_up() {
        let text = "running 2 tests\ntest a ... ok\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; \
                    3 filtered out; finished in 0.00s\n\n\
                    test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(Count::of(text), Count { passed: 41, failed: 2 });
        assert_eq!(Count::of(text).to_string(), "41 passed, 2 failed");
        assert_eq!(Count::of("nothing of the kind"), Count::default());
    }
}
