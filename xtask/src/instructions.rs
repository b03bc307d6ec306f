//! The regression gate: instructions, allocations and system calls per I/O, which unlike time are the same on every run.

mod gate;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;
use crate::workspace::{cargo, require, root};
use gate::{Figures, Gate};

/// What counts them, and how it is asked.
const PACKAGE: &str = "doorbell-bench";
/// Time is measured too, but of no use here: little of it.
const COUNT: &str = "run --release --package doorbell-bench --bin per_io -- \
                     --format json --instructions --in-flight 1 --in-flight 32 --ends --samples 1 --commands 10000";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Keep what is counted now as what later runs are compared with
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.update { update() } else { check() }
}

/// Fails with a table if a case needs more than was kept.
pub(crate) fn check() -> Result<()> {
    let text = fs::read_to_string(kept()).with_context(|| {
        format!("{} cannot be read (made by `cargo xtask instructions --update`)", kept().display())
    })?;
    let gate = Gate::new(gate::read(&text).context("the kept figures are not understood")?, count()?);
    println!("{}", gate.table());
    gate.verdict()
}

fn update() -> Result<()> {
    let figures = count()?;
    let path = kept();
    path.parent().map_or(Ok(()), fs::create_dir_all).context("the figures cannot be kept")?;
    fs::write(&path, gate::written(&figures)).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{} cases kept in {}", figures.len(), path.display());
    Ok(())
}

fn count() -> Result<Vec<Figures>> {
    require(PACKAGE, "counts instructions")?;
    let text = process::output(&mut cargo(COUNT.split_whitespace()))?;
    let figures = gate::read(&text).context("what `per_io` printed is not understood")?;
    ensure!(!figures.is_empty(), "`per_io` counted nothing");
    Ok(figures)
}

fn kept() -> PathBuf {
    root().join("benches/instructions.json")
}
