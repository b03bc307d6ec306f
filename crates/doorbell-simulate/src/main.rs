//! Drawn schedules of I/O, faults and changes, carried out in virtual time and held against a model of what storage
//! promises. `docs/testing.md` says how to run it, and how to replay what it finds.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod act;
mod agreement;
mod blame;
mod ended;
mod fault;
mod handover;
mod host;
mod model;
mod operation;
mod quiet;
mod report;
mod reserve;
mod rng;
mod run;
mod scenario;
mod shrink;
mod storage;
mod tally;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

use crate::handover::{Saves, Then};
use crate::run::{Failure, Outcome};
use crate::scenario::Scenario;
use crate::tally::Tally;

/// Simulates drivers and controllers under drawn faults, and checks them against a model.
#[derive(Parser)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Goes on past those seeds until so many I/Os were simulated
    #[arg(long, default_value_t = 0)]
    io: u64,
    /// Steps of each seed
    #[arg(long, default_value_t = 2000)]
    steps: usize,
    /// Threads that simulate, each a seed at a time; as many as there are CPUs unless given
    #[arg(long)]
    threads: Option<usize>,
    /// Makes the schedule of a seed that fails as short as it gets
    #[arg(long)]
    shrink: bool,
    /// Saves the drivers at this moment: after so many looks at futures, tasks and devices
    #[arg(long)]
    save_at: Option<u64>,
    /// What becomes of them
    #[arg(long, value_enum, default_value = "handed-over", requires = "save_at")]
    then: Then,
    /// Only these steps, such as 3,17-20
    #[arg(long)]
    keep: Option<String>,
    /// Tells each step as it is done, and what drivers and devices log
    #[arg(long)]
    tell: bool,
    /// Goes on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Fails if a kind of fault struck less often, or an outcome never came
    #[arg(long, default_value_t = 0)]
    least: u64,
}

thread_local! {
    /// Where and why this thread panicked last.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Carries a scenario out; a panic is a failure.
fn try_one(scenario: &Scenario, tell: bool) -> Result<Outcome, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| run::run(scenario, tell)));
    result.unwrap_or_else(|_| {
        let text = PANIC.with_borrow(Clone::clone);
        Err(Failure { kind: "panic", text, step: None })
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
    if arguments.tell {
        // Time is virtual, and told with each step.
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).without_time().init();
    }
    let begun = Instant::now();
    let (tally, failed) = simulate(&arguments);
    print!("{}", report::shown(&tally, begun.elapsed()));
    let lacking = report::lacking(&tally, arguments.least);
    lacking.iter().for_each(|line| eprintln!("error: {line}"));
    for (seed, failure) in &failed {
        tell_failure(&arguments, *seed, failure);
    }
    if failed.is_empty() && lacking.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn simulate(arguments: &Arguments) -> (Tally, Vec<(u64, Failure)>) {
    let total = Mutex::new(Tally::default());
    let failed = Mutex::new(Vec::new());
    let (next, done, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let threads = arguments.threads.or_else(|| Some(std::thread::available_parallelism().ok()?.get())).unwrap_or(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, Ordering::Relaxed);
                    let enough = nth >= arguments.seeds && done.load(Ordering::Relaxed) >= arguments.io;
                    if enough || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let seed = arguments.seed.wrapping_add(nth);
                    match try_one(&scenario(arguments, seed), arguments.tell) {
                        Ok(outcome) => {
                            done.fetch_add(outcome.tally.io, Ordering::Relaxed);
                            if arguments.seeds == 1 && arguments.io == 0 {
                                println!("seed {seed}: trace {:016x}", outcome.hash);
                            }
                            total.lock().unwrap_or_else(|e| e.into_inner()).add(&outcome.tally);
                        }
                        Err(failure) => {
                            println!("seed {seed}: {}", failure.kind);
                            failed.lock().unwrap_or_else(|e| e.into_inner()).push((seed, failure));
                            stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(|e| e.into_inner());
    (total, failed.into_inner().unwrap_or_else(|e| e.into_inner()))
}

fn scenario(arguments: &Arguments, seed: u64) -> Scenario {
    let mut scenario = Scenario::draw(seed, arguments.steps);
    let then = arguments.then;
    if let Some(first) = arguments.save_at {
        scenario.setup.saves = Some(Saves { first, every: u64::MAX, then });
    }
    if let Some(keep) = &arguments.keep {
        scenario.steps.retain(|(number, _)| shrink::is_kept(keep, *number));
    }
    scenario
}

fn tell_failure(arguments: &Arguments, seed: u64, failure: &Failure) {
    let mut scenario = scenario(arguments, seed);
    let mut failure = failure.clone();
    if arguments.shrink {
        (scenario, failure) = shrink::shrink(&scenario, &failure);
        println!("\nseed {seed} fails with these steps:\n  {:?}", scenario.setup);
        for (number, step) in &scenario.steps {
            println!("  {number:>6} {step}");
        }
    }
    let at = failure.step.map_or("at the end".to_owned(), |step| format!("in step {step}"));
    println!("\nseed {seed} failed {at}: {}: {}", failure.kind, failure.text);
    let keep = match arguments.shrink {
        true => format!(" --keep {}", shrink::numbers(&scenario)),
        false => " --shrink".to_owned(),
    };
    println!("cargo xtask simulate --seed {seed} --steps {}{keep}", arguments.steps);
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::scenario::Setup;

    #[test]
    fn a_seed_runs_the_same_each_time() {
        for seed in 1..6 {
            let scenario = Scenario::draw(seed, 400);
            let hash = || try_one(&scenario, false).map(|outcome| outcome.hash).map_err(|failure| failure.text);
            assert_eq!(hash(), hash(), "seed {seed}");
        }
    }

    /// The first seeds, as far as they go in a test; `DOORBELL_SIMULATED_IO` says otherwise.
    #[test]
    fn simulated_io_is_in_order() {
        std::panic::set_hook(Box::new(|info| PANIC.set(info.to_string())));
        let io = std::env::var("DOORBELL_SIMULATED_IO").unwrap_or_else(|_| "50000".to_owned());
        let arguments = Arguments::parse_from(["simulate", "--io", &io]);
        let (tally, failed) = simulate(&arguments);
        for (seed, failure) in &failed {
            let text = failure.text.lines().next().unwrap_or_default();
            eprintln!("found: {} in seed {seed}, after {} I/Os: {text:.160}", failure.kind, tally.io);
        }
        assert_eq!(failed.len(), 0);
    }

    /// A short scenario, and the same with a save at each moment of it in turn: in the middle of a bring-up of queues, of I/O,
    /// of events and of recovery. Two scenarios, or a hundred with `DOORBELL_LONG`.
    #[test]
    fn drivers_can_be_saved_at_any_moment() {
        let (mut handed_over, mut refused) = (0, 0);
        let seeds = if std::env::var_os("DOORBELL_LONG").is_some() { 100 } else { 2 };
        for seed in 1..=seeds {
            let mut scenario = Scenario::draw(seed, 14);
            scenario.setup.saves = None;
            let moments = try_one(&scenario, false).expect("it is in order without a save").tally.moments;
            for first in 1..=moments {
                for then in [Then::HandedOver, Then::HandedOverLater, Then::GoneOnWith] {
                    let saves = Some(Saves { first, every: u64::MAX, then });
                    let setup = Setup { saves, ..scenario.setup.clone() };
                    let outcome = try_one(&Scenario { setup, ..scenario.clone() }, false);
                    let outcomes = match outcome {
                        Ok(outcome) => outcome.tally.outcomes,
                        Err(failure) => {
                            panic!("seed {seed}, saved at {first} and {then:?}: {}: {}", failure.kind, failure.text)
                        }
                    };
                    let count = |name: &str| outcomes.get(name).copied().unwrap_or(0);
                    handed_over += count("save: handed over");
                    refused += count("save: the controller is being reset") + count("save: an I/O queue is being made");
                }
            }
        }
        assert!(handed_over > 100 && refused > 10, "{handed_over} handed over, {refused} not yet");
    }

    #[test]
    fn steps_are_named_as_they_are_kept() {
        let mut scenario = Scenario::draw(1, 12);
        scenario.steps.retain(|(number, _)| [1, 2, 3, 7, 9, 10].contains(number));
        let keep = shrink::numbers(&scenario);
        assert_eq!(keep, "1-3,7,9-10");
        assert!((0..12).all(|number| shrink::is_kept(&keep, number) == [1, 2, 3, 7, 9, 10].contains(&number)));
    }
}
