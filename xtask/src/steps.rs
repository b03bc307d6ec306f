//! Steps one after the other, each with a heading and its duration.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::tests::Count;
use crate::{duration, table};

/// Steps that have run.
#[derive(Default)]
pub(crate) struct Steps {
    done: Vec<(&'static str, Duration, bool)>,
    /// The tests of all steps.
    pub(crate) tests: Count,
}

impl Steps {
    /// Runs one step. Its error says which one failed.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce(&mut Count) -> Result<()>) -> Result<()> {
        println!("\n=== {name}");
        let begun = Instant::now();
        let result = run(&mut self.tests);
        let took = begun.elapsed();
        self.done.push((name, took, result.is_ok()));
        match result {
            Ok(()) => {
                println!("--- {name}: {}", duration::shown(took));
                Ok(())
            }
            Err(error) => {
                println!("--- {name}: FAILED after {}: {error:#}", duration::shown(took));
                Err(error.context(format!("step {name}")))
            }
        }
    }

    /// Shows what each step took and, last, what the tests counted. An error of theirs is passed on.
    pub(crate) fn close(self, errors: impl IntoIterator<Item = Error>) -> Result<()> {
        println!("\n=== summary");
        println!("{}\n\n{}", self.durations(), self.tests);
        let mut errors: Vec<Error> = errors.into_iter().collect();
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => {
                let all: Vec<String> = errors.iter().map(|error| format!("{error:#}")).collect();
                Err(anyhow!("{} steps failed: {}", all.len(), all.join("; ")))
            }
        }
    }

    fn durations(&self) -> String {
        let mut table = table::new(["step", "took", ""]);
        for (name, took, passed) in &self.done {
            table.add_row([*name, &duration::shown(*took), if *passed { "" } else { "FAILED" }]);
        }
        let all = self.done.iter().map(|(_, took, _)| *took).sum();
        table.add_row(["all", &duration::shown(all), ""]);
        table::right(&mut table, 1);
        table::shown(&table)
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_failed_step_is_named() {
        let mut steps = Steps::default();
        steps.step("first", |_| Ok(())).expect("it passes");
        let error = steps.step("second", |_| Err(anyhow!("it broke"))).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "step second: it broke");
        assert!(steps.durations().lines().any(|line| line.contains("second") && line.contains("FAILED")));
        assert!(steps.close([error]).is_err());
    }

    #[test]
    fn several_failures_are_one_line() {
        let error = Steps::default().close([anyhow!("a"), anyhow!("b")]).expect_err("two failed");
        assert_eq!(error.to_string(), "2 steps failed: a; b");
    }
}
