//! Tests in a Linux guest under QEMU: a kernel's VFIO, IOMMU and nvme driver, and controllers that no one here wrote.

mod apt;
mod catalog;
mod compare;
mod cpio;
mod host;
mod initrd;
mod iommufd;
mod kernel;
mod lab;
mod machine;
mod pairwise;
mod programs;
mod qmp;
mod served;
mod session;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::catalog::{Catalog, Machine, Test};
use self::initrd::Programs;
use self::lab::{Lab, Release};
use self::session::Outcome;
use crate::tests::Count;
use crate::{bench, duration, workspace};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Only tests whose names, after their machine's and a slash, have this in them
    #[arg(long, value_name = "PART")]
    filter: Option<String>,
    /// All combinations of the tests that vary something, not just those of every change
    #[arg(long)]
    all: bool,
    /// Measure the kernel's driver and Doorbell side by side, and write the result to docs/benchmarks.md
    #[arg(long, conflicts_with_all = ["filter", "all", "list"])]
    compare: bool,
    /// List the tests
    #[arg(long)]
    list: bool,
    /// Which releases of QEMU and of the kernel
    #[arg(long, value_enum, default_value_t = Release::TrixieBackports)]
    lab: Release,
    /// Guests that run at the same time
    #[arg(long, default_value_t = GUESTS)]
    guests: usize,
    /// Show what passed tests logged, too
    #[arg(long)]
    log: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        let lab = Release::TrixieBackports;
        Self { filter: None, all: false, compare: false, list: false, lab, guests: GUESTS, log: false }
    }
}

/// How many guests run at the same time: while one boots, which one CPU does, another has the rest.
const GUESTS: usize = 2;

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.compare {
        return measure(arguments);
    }
    if !arguments.list {
        return count(arguments, &mut Count::default());
    }
    let tests = chosen(arguments, Catalog::read()?.tests)?;
    tests.iter().for_each(|test| println!("{}", full_name(test)));
    Ok(())
}

/// The tests of every change.
pub(crate) fn check(total: &mut Count) -> Result<()> {
    count(&Arguments::default(), total)
}

/// All tests.
pub(crate) fn check_all(total: &mut Count) -> Result<()> {
    count(&Arguments { all: true, ..Arguments::default() }, total)
}

fn count(arguments: &Arguments, total: &mut Count) -> Result<()> {
    let catalog = Catalog::read()?;
    let tests = chosen(arguments, catalog.tests)?;
    let count = run_tests(arguments, &catalog.machines, &tests)?;
    println!("\n{count}");
    *total += count;
    ensure!(count.failed == 0, "{} guest tests failed", count.failed);
    Ok(())
}

const BEGIN: &str = "<!-- guest: written by `cargo xtask guest --compare` -->";
const END: &str = "<!-- guest: end -->";

/// Has the guest measure, and keeps what it found.
fn measure(arguments: &Arguments) -> Result<()> {
    let catalog = Catalog::read()?;
    let (lab, programs) = (Lab::ready(arguments.lab)?, programs::build(true)?);
    let mut notes = Vec::new();
    for test in catalog.tests.iter().filter(|test| test.measures) {
        let machine = catalog.machines.iter().find(|machine| machine.name == test.machine);
        let machine = machine.with_context(|| format!("{} has no machine", test.name))?;
        let folder = folder(arguments, machine)?;
        let mut failed = None;
        session::run(&lab, machine, std::slice::from_ref(test), &programs, &folder, &mut |outcome| {
            show(&outcome, arguments.log);
            failed = outcome.failure;
            notes.extend(outcome.notes);
        });
        ensure!(failed.is_none(), "{} failed", test.name);
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let section = format!("{}\n{}, under emulation. {}", compare::table(&notes)?, lab.versions, bench::machine()?);
    bench::keep(&section, BEGIN, END)
}

fn chosen(arguments: &Arguments, mut tests: Vec<Test>) -> Result<Vec<Test>> {
    tests.retain(|test| {
        let wanted = arguments.filter.as_ref().is_none_or(|part| full_name(test).contains(part));
        wanted && !test.measures && (arguments.all || test.every_change || arguments.filter.is_some())
    });
    ensure!(!tests.is_empty(), "no test has this in its name");
    Ok(tests)
}

fn run_tests(arguments: &Arguments, machines: &[Machine], tests: &[Test]) -> Result<Count> {
    let lab = Lab::ready(arguments.lab)?;
    let programs = programs::build(false)?;
    println!("{}, {} tests", lab.versions, tests.len());
    let here = |labs: &[String]| {
        labs.is_empty() || labs.iter().any(|name| name == arguments.lab.name() || name == arguments.lab.base().name())
    };
    let mut guests: VecDeque<(&Machine, Vec<Test>)> = VecDeque::new();
    for machine in machines {
        let its = tests.iter().filter(|test| test.machine == machine.name);
        let (runs, not): (Vec<Test>, Vec<Test>) =
            its.cloned().partition(|test| here(&machine.labs) && here(&test.labs));
        for test in not {
            println!("absent               {}: {} lacks what it needs", full_name(&test), arguments.lab.name());
        }
        if !runs.is_empty() {
            guests.push_back((machine, runs));
        }
    }
    // The longest first, so that nobody waits for it at the end.
    guests
        .make_contiguous()
        .sort_by_key(|(_, tests)| std::cmp::Reverse(tests.iter().map(|test| test.limit).sum::<Duration>()));
    let (queue, count) = (Mutex::new(guests), Mutex::new(Count::default()));
    let one_after_the_other = || -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((machine, tests)) = next else { return Ok(()) };
            run_guest(arguments, &lab, machine, &tests, &programs, &count)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.guests.max(1)).map(|_| scope.spawn(one_after_the_other)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(count.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Boots one guest. Its folder stays if something failed.
fn run_guest(
    arguments: &Arguments,
    lab: &Lab,
    machine: &Machine,
    tests: &[Test],
    programs: &Programs,
    count: &Mutex<Count>,
) -> Result<()> {
    let folder = folder(arguments, machine)?;
    let begun = Instant::now();
    let mut failed = 0;
    session::run(lab, machine, tests, programs, &folder, &mut |outcome| {
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome.failure {
            None => count.passed += 1,
            Some(_) => count.failed += 1,
        }
        failed += u64::from(outcome.failure.is_some());
        show(&outcome, arguments.log);
    });
    println!("       {:>10}    {}: whole guest", duration::shown(begun.elapsed()), machine.name);
    if failed == 0 {
        fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    Ok(())
}

/// An empty folder for what a guest needs and leaves.
fn folder(arguments: &Arguments, machine: &Machine) -> Result<PathBuf> {
    let folder = workspace::target().join("guest-run").join(arguments.lab.name()).join(&machine.name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    Ok(folder)
}

fn show(outcome: &Outcome, log: bool) {
    let (name, took) = (full_name(&outcome.test), duration::shown(outcome.took));
    match &outcome.failure {
        None => println!("ok     {took:>10}    {name}"),
        Some(reason) => println!("FAILED {took:>10}    {name}: {reason}"),
    }
    if log || outcome.failure.is_some() {
        outcome.log.iter().for_each(|line| println!("       | {line}"));
    }
    outcome.notes.iter().for_each(|note| println!("       {note}"));
}

fn full_name(test: &Test) -> String {
    format!("{}/{}", test.machine, test.name)
}
