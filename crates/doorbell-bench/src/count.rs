//! Measuring: time, allocations, and instructions by callgrind.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::cases::{Bench, Case};

/// What a case costs, per command.
pub(crate) struct Measured {
    /// Nanoseconds of each sample, ascending.
    pub(crate) nanoseconds: Vec<f64>,
    pub(crate) allocations: f64,
    pub(crate) instructions: Option<f64>,
}

impl Measured {
    /// Of what costs nothing.
    pub(crate) const NOTHING: Self = Self { nanoseconds: Vec::new(), allocations: 0.0, instructions: Some(0.0) };

    pub(crate) fn median(&self) -> f64 {
        self.nanoseconds.get(self.nanoseconds.len() / 2).copied().unwrap_or_default()
    }
}

pub(crate) fn measure(
    case: Case,
    in_flight: usize,
    samples: usize,
    commands: usize,
    instructions: bool,
) -> anyhow::Result<Measured> {
    let mut bench = Bench::new(case, in_flight)?;
    // Caches and the queue's memory warm up.
    bench.run(commands / 10 + 1);
    let mut nanoseconds: Vec<f64> = (0..samples.max(1))
        .map(|_| {
            let started = Instant::now();
            let ran = bench.run(commands);
            started.elapsed().as_nanos() as f64 / ran as f64
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    // Two lengths, so that what a run allocates once does not count.
    let allocations = |commands: usize, bench: &mut Bench| {
        let mut ran = 0;
        let counted = allocation_counter::measure(|| ran = bench.run(commands));
        (counted.count_total as f64, ran as f64)
    };
    let (short, short_ran) = allocations(in_flight, &mut bench);
    let (long, long_ran) = allocations(in_flight * 100, &mut bench);
    let instructions = instructions.then(|| count_instructions(case, in_flight)).transpose()?;
    Ok(Measured { nanoseconds, allocations: (long - short) / (long_ran - short_ran), instructions })
}

/// The difference of two run lengths, so that set-up does not count.
fn count_instructions(case: Case, in_flight: usize) -> anyhow::Result<f64> {
    let short = 20 * in_flight;
    let long = short + (4000usize).next_multiple_of(in_flight);
    let difference = callgrind(case, in_flight, long)?.saturating_sub(callgrind(case, in_flight, short)?);
    Ok(difference as f64 / (long - short) as f64)
}

fn callgrind(case: Case, in_flight: usize, commands: usize) -> anyhow::Result<u64> {
    let case = clap::ValueEnum::to_possible_value(&case).context("a case has a name")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*Bench::run*"])
        .arg(std::env::current_exe()?)
        .args(["--silent", "--case", case.get_name()])
        .args(["--in-flight", &in_flight.to_string(), "--commands", &commands.to_string()])
        .output()
        .context("valgrind could not be started; it is Debian's package valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    let collected = collected.with_context(|| format!("callgrind counted nothing:\n{text}"))?;
    collected.trim().parse().context("callgrind's count is not a number")
}
