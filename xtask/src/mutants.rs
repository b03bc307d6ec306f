//! Kept mutants: each breaks one rule of the contract, and the tests named in it must notice.

mod mutant;
mod outcome;
mod rules;
mod session;
mod suite;
mod tree;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::table;
use crate::workspace::root;
use mutant::Mutant;
use outcome::Report;
use session::Session;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only mutants of this rule, or with this in their names
    #[arg(long, value_name = "RULE|TEXT")]
    filter: Option<String>,
    /// Show the mutants and what they break, and run nothing
    #[arg(long)]
    list: bool,
    /// Check the mutants' files and that every rule has a mutant and a test, and run nothing
    #[arg(long, conflicts_with = "list")]
    check: bool,
    /// Go on after a mutant that was not caught
    #[arg(long)]
    keep_going: bool,
    /// Only those that the simulation finds too, and by it
    #[arg(long)]
    simulated: bool,
}

impl Arguments {
    /// All mutants, to the end.
    pub(crate) fn all() -> Self {
        Self { filter: None, list: false, check: false, keep_going: true, simulated: false }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut all = mutant::read_all(&folder())?;
    if arguments.simulated {
        all.retain(|mutant| mutant.file.simulated);
        all = all.into_iter().map(Mutant::in_simulation).collect();
    }
    let mutants = mutant::matching(all, arguments.filter.as_deref());
    if let Some(filter) = arguments.filter.as_deref().filter(|_| mutants.is_empty()) {
        bail!("no mutant matches `{filter}`");
    }
    if arguments.list {
        list(&mutants);
        return Ok(());
    }
    let problems = problems(&mutants, arguments.filter.is_some() || arguments.simulated)?;
    if arguments.check {
        return told(&mutants, &problems);
    }
    let mut report = Report::new(problems);
    if report.good() || arguments.keep_going {
        Session::begin(&mutants)?.run(mutants, arguments.keep_going, &mut report)?;
    }
    println!("\n{report}");
    report.verdict()
}

/// What can be seen without running anything: files in order, each rule with a mutant and a test.
pub(crate) fn check() -> Result<()> {
    let mutants = mutant::read_all(&folder())?;
    told(&mutants, &problems(&mutants, false)?)
}

fn told(mutants: &[Mutant], problems: &[String]) -> Result<()> {
    problems.iter().for_each(|problem| println!("{problem}"));
    let (first, more) = match problems {
        [] => {
            println!("{} mutants in order; every rule of the contract has a mutant and a test", mutants.len());
            return Ok(());
        }
        [first, more @ ..] => (first, more.len()),
    };
    if more == 0 { bail!("{first}") } else { bail!("{first} (and {more} more)") }
}

/// A line for each thing that is wrong with the files. Of a selection, only the files themselves are looked at.
fn problems(mutants: &[Mutant], selection: bool) -> Result<Vec<String>> {
    let contract = std::fs::read_to_string(root().join(rules::CONTRACT))
        .with_context(|| format!("{} cannot be read", rules::CONTRACT))?;
    let known = rules::listed(&contract);
    ensure!(!known.is_empty(), "{} lists no rules", rules::CONTRACT);
    let mut tests = Vec::new();
    for folder in rules::TESTS {
        tests.extend(rules::tests(&root().join(folder))?);
    }
    let mut problems = Vec::new();
    for mutant in mutants {
        problems.extend(mutant.problems(&root(), &known, &tests));
    }
    if !selection {
        problems.extend(rules::uncovered(&known, mutants, &tests));
    }
    Ok(problems)
}

fn list(mutants: &[Mutant]) {
    let mut table = table::new(["rule", "mutant", "what is broken"]);
    for mutant in mutants {
        table.add_row([&mutant.file.rule, &mutant.name, &mutant.file.what]);
    }
    println!("{}", table::shown(&table));
}

fn folder() -> PathBuf {
    root().join("tests/mutants")
}
