//! The tests under the compiler's sanitizers, which only a nightly compiler has.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::process;
use crate::tests::{self, Count};
use crate::workspace::{cargo, root, target};

/// What reaches memory that others reach, by raw pointers or from several threads.
const PACKAGES: [&str; 9] = [
    "doorbell",
    "doorbell-contract",
    "doorbell-device",
    "doorbell-emulator",
    "doorbell-handover",
    "doorbell-relay",
    "doorbell-serve",
    "doorbell-vfio-user",
    "vfio-user",
];

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sanitizer {
    /// Accesses outside of what was allocated, or after it was given back
    Address,
    /// Accesses from several threads that nothing orders
    Thread,
}

impl Sanitizer {
    /// As the compiler calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Thread => "thread",
        }
    }
}

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which; both if not said
    sanitizer: Option<Sanitizer>,
    /// Only tests whose name contains this
    #[arg(long)]
    filter: Option<String>,
}

impl Arguments {
    pub(crate) fn all() -> Self {
        Self { sanitizer: None, filter: None }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    check(arguments, &mut Count::default())
}

/// Runs the tests, and adds them to the count.
pub(crate) fn check(arguments: &Arguments, total: &mut Count) -> Result<()> {
    let both = [Sanitizer::Address, Sanitizer::Thread];
    let chosen = both.into_iter().filter(|one| arguments.sanitizer.is_none_or(|chosen| chosen == *one));
    let mut own = Count::default();
    for sanitizer in chosen {
        for package in PACKAGES {
            println!("{package}, {}", sanitizer.name());
            own += tests::run(&mut command(sanitizer, package, arguments.filter.as_deref())?, total)?;
        }
    }
    ensure!(own.passed > 0, "no test has such a name");
    Ok(())
}

fn command(sanitizer: Sanitizer, package: &str, filter: Option<&str>) -> Result<Command> {
    let name = sanitizer.name();
    let mut command = cargo(["+nightly", "test", "--lib", "--tests", "--no-fail-fast", "--target", &host()?]);
    if sanitizer == Sanitizer::Thread {
        // The standard library's own accesses have to be seen too.
        command.arg("-Zbuild-std");
    }
    command
        .args(["--package", package])
        .arg("--target-dir")
        .arg(target().join(name))
        .args(filter.map(|filter| ["--", filter]).into_iter().flatten());
    command.env("RUSTFLAGS", format!("-Zsanitizer={name} -Copt-level=1")).env("CARGO_INCREMENTAL", "0");
    // Memory that a device may still reach is leaked on purpose, and tests of the guard for SIGBUS want it to themselves.
    command.env("ASAN_OPTIONS", "detect_leaks=0:handle_sigbus=0");
    let suppressions = root().join("xtask/src/sanitize/thread.suppressions");
    command
        .env("TSAN_OPTIONS", format!("suppressions={}:report_thread_leaks=0:handle_sigbus=0", suppressions.display()));
    Ok(command)
}

/// What is compiled for, which has to be said, lest build scripts be sanitized too.
fn host() -> Result<String> {
    let said = process::output(Command::new("rustc").args(["+nightly", "-vV"]))
        .context("sanitizers need a nightly compiler (`rustup toolchain install nightly -c rust-src`)")?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it compiles for")
}
