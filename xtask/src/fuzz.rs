//! The fuzzers, each for a while.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process;
use crate::workspace::root;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only this one
    target: Option<String>,
    /// How long each
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> =
        targets.iter().filter(|target| arguments.target.as_ref().is_none_or(|name| name == *target)).collect();
    ensure!(!chosen.is_empty(), "there is no such fuzzer; there are {}", targets.join(", "));
    chosen.into_iter().try_for_each(|target| fuzz(target, arguments.seconds))
}

/// Each for so many seconds.
pub(crate) fn all(seconds: u32) -> Result<()> {
    targets()?.iter().try_for_each(|target| fuzz(target, seconds))
}

/// Their names: a file each.
fn targets() -> Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// What is found is kept in `fuzz/target`; a crash or a hang fails.
fn fuzz(target: &str, seconds: u32) -> Result<()> {
    println!("{target}: {seconds} s");
    let mut command = Command::new("fuzz/run");
    command.current_dir(root()).args([
        target,
        "-max_len=2048",
        "-len_control=0",
        "-timeout=30",
        "-verbosity=0",
        "-print_funcs=0",
    ]);
    process::run(command.arg(format!("-max_total_time={seconds}")))
}
