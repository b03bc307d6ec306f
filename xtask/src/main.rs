//! `cargo xtask`: what is done to Doorbell rather than by it.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod ci;
mod deny;
mod duration;
mod fuzz;
mod guest;
mod instructions;
mod licences;
mod loom;
mod mutants;
mod nightly;
mod process;
mod sanitize;
mod security;
mod simulate;
mod spdx;
mod steps;
mod table;
mod tests;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What is done to Doorbell rather than by it: CI, mutants, model checks, the instruction gate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// What every change must pass: lints, docs, rules, tests, simulation, fuzzers, models, instruction counts, guests
    Ci,
    /// What takes longer: all mutants, more property-test cases, deeper model checks, long tests
    Nightly(nightly::Arguments),
    /// Break one rule of the contract at a time, and see that its tests notice
    Mutants(mutants::Arguments),
    /// Run the tests of rings, slots and locks under the model checker
    Loom(loom::Arguments),
    /// Run tests under the address and the thread sanitizer (needs a nightly compiler with its source)
    Sanitize(sanitize::Arguments),
    /// Run the fuzzers, each for a while
    Fuzz(fuzz::Arguments),
    /// Run the tests that need a Linux guest under QEMU
    Guest(guest::Arguments),
    /// Simulate drivers and controllers under drawn faults, and check them against a model
    Simulate(simulate::Arguments),
    /// Count instructions and allocations per I/O, and fail if they grew
    Instructions(instructions::Arguments),
    /// Measure what an I/O costs, and write it to docs/benchmarks.md
    Bench,
    /// Check that every dependency's licence is one that deny.toml allows
    Licences,
}

fn main() -> ExitCode {
    let task = Arguments::parse().task;
    match process::end_on_interrupt().and_then(|()| run(task)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Ci => ci::run(),
        Task::Nightly(arguments) => nightly::run(&arguments),
        Task::Mutants(arguments) => mutants::run(&arguments),
        Task::Loom(arguments) => loom::run(&arguments),
        Task::Sanitize(arguments) => sanitize::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Guest(arguments) => guest::run(&arguments),
        Task::Simulate(arguments) => simulate::run(&arguments),
        Task::Instructions(arguments) => instructions::run(&arguments),
        Task::Bench => bench::run(),
        Task::Licences => licences::run(),
    }
}

#[cfg(test)]
mod unit {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Arguments::command().debug_assert();
    }
}
