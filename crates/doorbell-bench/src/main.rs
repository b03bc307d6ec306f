//! `per_io`: what the driver adds to an I/O, against a device that does no work; and what the emulated controller costs.
//!
//! The device lives in the same thread: it takes the doorbell, moves no data, and posts completions when told, which is
//! after every submitted future has returned `Pending` once. So each command is truly in flight and its waker woken
//! once. All figures of the driver are net of the bare ring, the loop that writes the same commands, rings and reads
//! the same completions with no driver at all, and of the loop that polls futures, with futures that do nothing. Those of the
//! emulated controller, which works in the call that rings, are with that bare ring.

mod bare;
mod bench;
mod case;
mod count;
mod driver;
mod report;
mod rounds;
mod scaling;

use anyhow::ensure;
use clap::Parser;

use case::Case;
use count::{Effort, Measured};

/// What the driver adds to an I/O, in nanoseconds, instructions, allocations and system calls.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  per_io\n  per_io --in-flight 1 --case 'read 4 KiB'\n  per_io --instructions --format json\n  per_io --curves"
)]
struct Arguments {
    /// Only cases whose names have this in them.
    #[arg(long)]
    case: Option<String>,
    /// Commands in flight; may be given several times.
    #[arg(long, default_values_t = [1, 4, 32, 128])]
    in_flight: Vec<usize>,
    /// Measurements a case; the median is reported, with the spread.
    #[arg(long, default_value_t = 9)]
    samples: usize,
    /// Commands a measurement.
    #[arg(long, default_value_t = 400_000)]
    commands: usize,
    /// Count instructions and system calls too, with callgrind (valgrind must be installed).
    #[arg(long)]
    instructions: bool,
    /// Count instructions where there are more queues, namespaces, regions or commands, instead.
    #[arg(long)]
    curves: bool,
    /// Count the ends of the curves too.
    #[arg(long, hide = true)]
    ends: bool,
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
    let wanted = arguments.case.as_deref().unwrap_or_default();
    if arguments.silent {
        let case = Case::named(wanted).ok_or_else(|| anyhow::anyhow!("there is no case {wanted:?}"))?;
        let mut bench = bench::Bench::new(case, arguments.in_flight[0])?;
        bench.run(arguments.commands);
        return Ok(());
    }
    if arguments.curves {
        return report::print_curves(&scaling::curves()?, arguments.format);
    }
    let mut cases = Vec::new();
    for in_flight in &arguments.in_flight {
        let of_name = Case::ALL.into_iter().filter(|case| case.name().contains(wanted) && case.allows(*in_flight));
        cases.extend(of_name.map(|case| (case, *in_flight)));
    }
    if arguments.ends {
        cases.extend(scaling::ends());
    }
    ensure!(!cases.is_empty(), "no case has {wanted:?} in its name");
    let effort =
        Effort { samples: arguments.samples, commands: arguments.commands, instructions: arguments.instructions };
    report::print(&measure(&cases, effort)?, arguments.format)
}

/// Every case, and after those of a number in flight their floors.
fn measure(cases: &[(Case, usize)], effort: Effort) -> anyhow::Result<Vec<report::Row>> {
    let mut rows = Vec::new();
    for same in cases.chunk_by(|one, other| one.1 == other.1) {
        let mut floors: Vec<(Case, usize, Measured)> = Vec::new();
        for (case, in_flight) in same {
            // A floor is the same however many are in flight, from a few on; and the bare rings are not longer.
            let below = (*in_flight).min(128);
            for floor in case.floors() {
                if !floors.iter().any(|(other, ..)| other == floor) {
                    floors.push((*floor, below, count::measure(*floor, below, effort)?));
                }
            }
            let own: Vec<&Measured> = case
                .floors()
                .iter()
                .filter_map(|floor| floors.iter().find(|(other, ..)| other == floor).map(|(.., measured)| measured))
                .collect();
            rows.push(report::Row::new(*case, *in_flight, &count::measure(*case, *in_flight, effort)?, &own));
        }
        rows.extend(floors.iter().map(|(case, in_flight, floor)| report::Row::new(*case, *in_flight, floor, &[])));
    }
    Ok(rows)
}
