//! Drawn schedules of I/O and faults, in virtual time, against a model.

use anyhow::Result;
use clap::Args;

use crate::process;
use crate::workspace::cargo;

/// What every change is tried with: so many I/Os, and each kind of fault at least so often.
const CI: &str = "--io 10000000 --least 1000 --shrink";
/// What the nightly run goes through, with other seeds.
const NIGHTLY: &str = "--seed 1000000 --io 50000000 --least 5000 --shrink";

#[derive(Args)]
pub(crate) struct Arguments {
    /// What `doorbell-simulate --help` shows: --seed S --steps N --seeds K --io N --shrink --keep STEPS ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    simulate(arguments.arguments.iter().map(String::as_str))
}

pub(crate) fn check() -> Result<()> {
    simulate(CI.split_whitespace())
}

pub(crate) fn check_more() -> Result<()> {
    simulate(NIGHTLY.split_whitespace())
}

fn simulate<'a>(arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    // As the tests are built: optimised lightly, and with all assertions.
    let command = ["run", "--quiet", "--package", "doorbell-simulate", "--"];
    process::run(&mut cargo(command.into_iter().chain(arguments)))
}
