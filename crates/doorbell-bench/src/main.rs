//! `per_io`: what the driver adds to an I/O, against a device that does no work.
//!
//! The device lives in the same thread: it takes the doorbell, moves no data, and posts completions when told, which is
//! after every submitted future has returned `Pending` once. So each command is truly in flight and its waker woken
//! once. All figures of the driver are net of the bare ring, the loop that writes the same commands, rings and reads
//! the same completions with no driver at all, and of the loop that polls futures, with futures that do nothing.

mod bare;
mod cases;
mod count;
mod report;

use clap::Parser;

use cases::Case;

/// What the driver adds to an I/O, in nanoseconds, instructions and allocations.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  per_io\n  per_io --in-flight 1 --case guest-read\n  per_io --instructions --format json"
)]
struct Arguments {
    /// Only this case.
    #[arg(long, value_enum)]
    case: Option<Case>,
    /// Commands in flight; may be given several times.
    #[arg(long, default_values_t = [1, 32, 128])]
    in_flight: Vec<usize>,
    /// Measurements a case; the median is reported, with the spread.
    #[arg(long, default_value_t = 9)]
    samples: usize,
    /// Commands a measurement.
    #[arg(long, default_value_t = 400_000)]
    commands: usize,
    /// Count instructions too, with callgrind (valgrind must be installed).
    #[arg(long)]
    instructions: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t = report::Format::Table)]
    format: report::Format,
    /// Run one case once and print nothing: what is run under callgrind.
    #[arg(long, hide = true)]
    silent: bool,
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // The one place that writes to standard error.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("per_io: {error:#}\n").as_bytes());
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let cases: Vec<Case> = arguments.case.map_or_else(Case::all, |case| vec![case]);
    if arguments.silent {
        let mut bench = cases::Bench::new(cases[0], arguments.in_flight[0])?;
        bench.run(arguments.commands);
        return Ok(());
    }
    let mut rows = Vec::new();
    for in_flight in &arguments.in_flight {
        let measure =
            |case| count::measure(case, *in_flight, arguments.samples, arguments.commands, arguments.instructions);
        let (bare, executor) = (measure(Case::Bare)?, measure(Case::Executor)?);
        for case in cases.iter().filter(|case| !matches!(case, Case::Bare | Case::Executor)) {
            // There are no futures to poll.
            let executor = if *case == Case::Exclusive { &count::Measured::NOTHING } else { &executor };
            rows.push(report::Row::new(*case, *in_flight, &measure(*case)?, [&bare, executor]));
        }
        rows.push(report::Row::floor(Case::Bare, *in_flight, &bare));
        rows.push(report::Row::floor(Case::Executor, *in_flight, &executor));
    }
    report::print(&rows, arguments.format)
}
