//! What every change must pass, in order. Cheap steps come first; the first that fails ends it.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;
use crate::workspace::{TEST, cargo, root};
use crate::{deny, fuzz, guest, instructions, licences, loom, mutants, process, security, simulate, tests};

pub(crate) fn run() -> Result<()> {
    let mut steps = Steps::default();
    let result = all(&mut steps);
    steps.close(result.err())
}

fn all(steps: &mut Steps) -> Result<()> {
    // Of every platform, so that the licences of all can be read. Fails if Cargo.lock is out of date.
    steps.step("fetch", |_| process::run(&mut cargo(["fetch", "--locked", "--quiet"])))?;
    steps.step("format", |_| process::run(&mut cargo(["fmt", "--check"])))?;
    steps.step("lints", |_| {
        process::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    steps
        .step("docs", |_| process::run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-Dwarnings")))?;
    steps.step("licences", |_| licences::run())?;
    steps.step("deny", |_| deny::run())?;
    steps.step("rules", |_| mutants::check())?;
    steps.step("security", |_| security::check())?;
    steps.step("readme", |_| readme())?;
    steps.step("tests", |total| tests::run(&mut cargo(TEST), total).map(drop))?;
    steps.step("simulation", |_| simulate::check())?;
    steps.step("fuzz", |_| fuzz::all(10))?;
    steps.step("loom", |total| loom::check(None, loom::PREEMPTIONS, total))?;
    steps.step("instructions", |_| instructions::check())?;
    steps.step("shared lines", |_| {
        process::run(&mut cargo(["run", "--package", "doorbell-bench", "--bin", "shared_lines"]))
    })?;
    steps.step("guest", guest::check)
}

/// README's test command is the one that runs here.
fn readme() -> Result<()> {
    let command = format!("cargo {}", TEST.join(" "));
    let text = fs::read_to_string(root().join("README.md")).context("README.md cannot be read")?;
    ensure!(text.contains(&command), "README.md does not give the tests' command, `{command}`");
    println!("README.md gives the tests' command, `{command}`");
    Ok(())
}
