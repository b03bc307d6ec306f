//! What became of mutants, and how it is shown.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::mutant::Mutant;
use super::rules;
use super::suite::Results;
use crate::{duration, table};

/// What became of a mutant.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// By these tests, or by a hang, or by a dead process.
    Caught(String),
    /// The tests it names pass with it.
    Survived,
    /// It is no mutant: it does not apply, or does not compile.
    Unfit(String),
}

impl Outcome {
    /// `expected` are the tests that passed without the mutant.
    pub(crate) fn of(results: &Results, expected: &[String]) -> Self {
        let mut by = results.failed.iter().map(|name| short(name)).collect::<Vec<_>>().join(", ");
        let mut also = |what: String| by = if by.is_empty() { what } else { format!("{by}; {what}") };
        if results.hung {
            let silent = |name: &&String| !results.passed.contains(name) && !results.failed.contains(name);
            let waiting: Vec<&str> = expected.iter().filter(silent).map(|name| short(name)).collect();
            also(format!("hang in {}", waiting.join(", ")));
        } else if let Some(how) = &results.died {
            also(format!("the tests' process {how}"));
        }
        match &results.found {
            Some(found) => Self::Caught(format!("simulation: {found}")),
            None if by.is_empty() => Self::Survived,
            None => Self::Caught(by),
        }
    }

    pub(crate) fn caught(&self) -> bool {
        matches!(self, Self::Caught(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(by) => write!(f, "{by}"),
            Self::Survived => write!(f, "SURVIVED"),
            Self::Unfit(why) => write!(f, "UNFIT: {why}"),
        }
    }
}

/// Without the modules.
fn short(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// All that became of a run's mutants.
pub(crate) struct Report {
    problems: Vec<String>,
    rows: Vec<(Mutant, Outcome, Duration)>,
}

impl Report {
    /// With problems that were seen beforehand.
    pub(crate) fn new(problems: Vec<String>) -> Self {
        Self { problems, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, mutant: Mutant, outcome: Outcome, took: Duration) {
        self.rows.push((mutant, outcome, took));
    }

    /// Whether nothing has failed so far.
    pub(crate) fn good(&self) -> bool {
        self.failed() == 0
    }

    pub(crate) fn verdict(&self) -> Result<()> {
        ensure!(self.good(), "{} of the mutants and rules failed", self.failed());
        Ok(())
    }

    fn passed(&self) -> usize {
        self.rows.iter().filter(|(_, outcome, _)| outcome.caught()).count()
    }

    fn failed(&self) -> usize {
        self.problems.len() + self.rows.len() - self.passed()
    }
}

/// A table, then the problems, then one line with the counts.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(mutant, ..)| (rules::order(&mutant.file.rule), &mutant.name));
        let mut table = table::new(["rule", "mutant", "time", "caught by"]);
        for (mutant, outcome, took) in rows {
            table.add_row([&mutant.file.rule, &mutant.name, &duration::shown(*took), &outcome.to_string()]);
        }
        table::right(&mut table, 2);
        writeln!(f, "{}\n", table::shown(&table))?;
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        write!(f, "{} passed, {} failed", self.passed(), self.failed())
    }
}

#[cfg(test)]
mod unit {
    use super::super::mutant::unit::mutant;
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_failure_a_hang_and_a_death_are_catches() {
        let expected = names(&["data::d1_a", "data::d1_b"]);
        let outcome = |results: Results| Outcome::of(&results, &expected);
        let failed = Results { failed: names(&["data::d1_a"]), ..Results::default() };
        assert_eq!(outcome(failed), Outcome::Caught("d1_a".to_owned()));
        let hung = Results { passed: names(&["data::d1_b"]), hung: true, ..Results::default() };
        assert_eq!(outcome(hung), Outcome::Caught("hang in d1_a".to_owned()));
        let died = Results { died: Some("failed (signal: 6)".to_owned()), ..Results::default() };
        assert_eq!(outcome(died), Outcome::Caught("the tests' process failed (signal: 6)".to_owned()));
        let passed = Results { passed: expected.clone(), ..Results::default() };
        assert_eq!(outcome(passed), Outcome::Survived);
    }

    #[test]
    fn the_last_line_counts() {
        let mut report = Report::new(vec!["rule D3 has no mutant in tests/mutants".to_owned()]);
        assert!(!report.good());
        let caught = Outcome::Caught("d10_a".to_owned());
        report.add(mutant("D10", "d10-a"), caught, Duration::from_secs(3));
        report.add(mutant("D2", "d2-a"), Outcome::Survived, Duration::from_secs(65));
        let text = report.to_string();
        assert_eq!(text.lines().last(), Some("1 passed, 2 failed"));
        let place = |what: &str| text.find(what).unwrap_or(usize::MAX);
        assert!(place("d2-a") < place("d10-a") && place("d10-a") < place("rule D3"), "{text}");
        assert!(text.contains("SURVIVED") && text.contains("1 min 05 s"));
        assert!(report.verdict().is_err());
    }
}
