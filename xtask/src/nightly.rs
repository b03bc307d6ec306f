//! What takes too long for every change. Each step runs, whatever became of those before it.

use anyhow::Result;
use clap::Args;

use crate::steps::Steps;
use crate::workspace::{TEST, cargo};
use crate::{fuzz, guest, loom, mutants, sanitize, simulate, tests};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Cases of each property test
    #[arg(long, default_value_t = 20_000)]
    cases: u32,
    /// How often a model's thread may be interrupted
    #[arg(long, default_value_t = 5)]
    preemptions: u32,
    /// Seconds for each fuzzer
    #[arg(long, default_value_t = 600)]
    fuzz: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut steps = Steps::default();
    let errors = [
        steps.step("long tests", |total| {
            let mut command = cargo(TEST);
            command.env("DOORBELL_LONG", "1").env("PROPTEST_CASES", arguments.cases.to_string());
            tests::run(&mut command, total).map(drop)
        }),
        steps.step("loom", |total| loom::check(None, arguments.preemptions, total)),
        steps.step("sanitizers", |total| sanitize::check(&sanitize::Arguments::all(), total)),
        steps.step("fuzz", |_| fuzz::all(arguments.fuzz)),
        steps.step("simulation", |_| simulate::check_more()),
        steps.step("guest", guest::check_all),
        steps.step("mutants", |_| mutants::run(&mutants::Arguments::all())),
    ];
    steps.close(errors.into_iter().filter_map(Result::err))
}
