//! Tests under the model checker: every order in which threads can meet, up to a number of preemptions.

use std::process::Command;

use anyhow::{Result, ensure};
use clap::Args;

use crate::tests::{self, Count};
use crate::workspace::{cargo, target};

/// Enough for nearly all bugs of this kind, and done in minutes.
pub(crate) const PREEMPTIONS: u32 = 3;

/// What swaps atomics and locks for the model checker's. Not plain `loom`: crates that we depend on listen to that.
const CFG: &str = "doorbell_loom";

/// What the names of these tests begin with: other tests cannot run outside a model.
const PREFIX: &str = "loom_";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only tests whose name contains this after `loom_`
    filter: Option<String>,
    /// How often a model's thread may be interrupted
    #[arg(long, default_value_t = PREEMPTIONS)]
    preemptions: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    check(arguments.filter.as_deref(), arguments.preemptions, &mut Count::default())
}

/// Runs the tests, and adds them to the count.
pub(crate) fn check(filter: Option<&str>, preemptions: u32, total: &mut Count) -> Result<()> {
    let filter = filtered(filter.unwrap_or_default());
    let mut command = cargo(["test", "--package", "doorbell", "--release", "--lib"]);
    configure(&mut command, preemptions);
    let count = tests::run(command.arg("--target-dir").arg(target().join("loom")).args(["--", &filter]), total)?;
    ensure!(count.passed > 0, "no test of package `doorbell` matches `{filter}`");
    Ok(())
}

/// What the model checker needs of a build, and of a run.
pub(crate) fn configure(command: &mut Command, preemptions: u32) {
    command
        .env("RUSTFLAGS", format!("--cfg {CFG}"))
        .env("LOOM_MAX_PREEMPTIONS", preemptions.to_string())
        // Speed matters here only with build and run taken together, and the code's own assertions count.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
}

fn filtered(filter: &str) -> String {
    if filter.starts_with(PREFIX) { filter.to_owned() } else { format!("{PREFIX}{filter}") }
}

#[cfg(test)]
mod unit {
    use super::filtered;

    #[test]
    fn only_models_run_under_the_model_checker() {
        assert_eq!(filtered(""), "loom_");
        assert_eq!(filtered("slots"), "loom_slots");
        assert_eq!(filtered("loom_slots"), "loom_slots");
    }
}
