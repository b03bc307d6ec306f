//! A run over mutants: the tests must pass without any, then fail with each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::mutant::{Command, Mutant};
use super::outcome::{Outcome, Report};
use super::suite::{self, Build, Results, Suite};
use super::tree::Tree;
use crate::duration;

/// Tests may take this many times what they take without a mutant, within bounds.
const PATIENCE: u32 = 2;
const SHORTEST: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(180);

/// The tests without a mutant do not take longer than this.
const UNMUTATED: Duration = Duration::from_secs(15 * 60);

/// A copy of the sources whose tests pass.
pub(crate) struct Session {
    tree: Tree,
    suites: HashMap<Suite, Baseline>,
}

/// How a suite does without a mutant.
struct Baseline {
    passed: Vec<String>,
    limit: Duration,
}

impl Session {
    /// Copies the sources, and runs all tests that the mutants name.
    pub(crate) fn begin(mutants: &[Mutant]) -> Result<Self> {
        let mut session = Self { tree: Tree::sync()?, suites: HashMap::new() };
        for mutant in mutants {
            let suite = mutant.suite();
            if !session.suites.contains_key(&suite) {
                let baseline = session.baseline(&suite, mutants)?;
                session.suites.insert(suite, baseline);
            }
        }
        for mutant in mutants {
            session.require_tests(mutant)?;
        }
        Ok(session)
    }

    /// Puts in one mutant after the other.
    pub(crate) fn run(&self, mut mutants: Vec<Mutant>, keep_going: bool, report: &mut Report) -> Result<()> {
        // Mutants of one file next to each other: taking out one and putting in the next is one build.
        mutants.sort_by_cached_key(|mutant| {
            let file = &mutant.file;
            (file.package.clone(), file.command == Command::Loom, file.file.clone(), mutant.name.clone())
        });
        let all = mutants.len();
        for (number, mutant) in mutants.into_iter().enumerate() {
            let begun = Instant::now();
            let outcome = self.outcome(&mutant)?;
            let (caught, took) = (outcome.caught(), begun.elapsed());
            let mark = if caught { "caught by " } else { "" };
            println!("[{}/{all}] {}: {mark}{outcome} ({})", number + 1, mutant.name, duration::shown(took));
            report.add(mutant, outcome, took);
            if !caught && !keep_going {
                println!("stopped here (`--keep-going` goes on)");
                break;
            }
        }
        Ok(())
    }

    fn outcome(&self, mutant: &Mutant) -> Result<Outcome> {
        let suite = mutant.suite();
        let baseline = self.suites.get(&suite).context("a suite was not run without mutants")?;
        let _changed = match self.tree.change(&mutant.file.file, |source| mutant.applied(source)) {
            Ok(changed) => changed,
            Err(error) => return Ok(Outcome::Unfit(format!("{error:#}"))),
        };
        let executables = match suite.build(self.tree.folder())? {
            Build::Done(executables) => executables,
            Build::Failed(error) => return Ok(Outcome::Unfit(format!("it does not compile: {error}"))),
        };
        let results = suite.run(&executables, &mutant.file.caught_by, baseline.limit, true)?;
        Ok(Outcome::of(&results, &matching(&baseline.passed, &mutant.file.caught_by)))
    }

    fn baseline(&self, suite: &Suite, mutants: &[Mutant]) -> Result<Baseline> {
        println!("building the tests of `{}` without mutants", suite.package);
        let begun = Instant::now();
        let executables = suite::built(suite.build(self.tree.folder())?, suite)?;
        let mut filters: Vec<String> =
            mutants.iter().filter(|mutant| mutant.suite() == *suite).flat_map(|m| m.file.caught_by.clone()).collect();
        filters.sort();
        filters.dedup();
        let built = begun.elapsed();
        let begun = Instant::now();
        let Results { passed, failed, hung, died, .. } = suite.run(&executables, &filters, UNMUTATED, false)?;
        let took = begun.elapsed();
        ensure!(failed.is_empty(), "these tests fail without a mutant: {}", failed.join(", "));
        ensure!(!hung, "the tests of `{}` hang without a mutant", suite.package);
        if let Some(how) = died {
            bail!("the tests of `{}` {how} without a mutant", suite.package);
        }
        let limit = match suite.command {
            Command::Simulation => LONGEST,
            Command::Test | Command::Loom => (took * PATIENCE).clamp(SHORTEST, LONGEST),
        };
        println!(
            "built in {}; {} named tests pass in {}; longer than {} is a hang",
            duration::shown(built),
            passed.len(),
            duration::shown(took),
            duration::shown(limit)
        );
        Ok(Baseline { passed, limit })
    }

    /// Every name that a mutant gives is some test's.
    fn require_tests(&self, mutant: &Mutant) -> Result<()> {
        let baseline = self.suites.get(&mutant.suite()).context("a suite was not run without mutants")?;
        for filter in &mutant.file.caught_by {
            let found = baseline.passed.iter().any(|name| name.contains(filter));
            ensure!(found, "mutant {}: there is no test {filter}", mutant.name);
        }
        Ok(())
    }
}

fn matching(names: &[String], filters: &[String]) -> Vec<String> {
    names.iter().filter(|name| filters.iter().any(|filter| name.contains(filter))).cloned().collect()
}
