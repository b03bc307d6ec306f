//! Measuring: time, allocations, and instructions and system calls by callgrind.

use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::bench::Bench;
use crate::case::Case;

/// What a case costs, per command.
#[derive(Clone)]
pub(crate) struct Measured {
    /// Nanoseconds of each sample, ascending.
    pub(crate) nanoseconds: Vec<f64>,
    pub(crate) allocations: f64,
    pub(crate) counted: Option<Counted>,
}

/// What callgrind counted, per command.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
}

impl Measured {
    pub(crate) fn median(&self) -> f64 {
        self.nanoseconds.get(self.nanoseconds.len() / 2).copied().unwrap_or_default()
    }
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) samples: usize,
    pub(crate) commands: usize,
    pub(crate) instructions: bool,
}

pub(crate) fn measure(case: Case, in_flight: usize, effort: Effort) -> anyhow::Result<Measured> {
    let Effort { samples, commands, .. } = effort;
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
    let counted = effort.instructions.then(|| count(case, in_flight)).transpose()?;
    Ok(Measured { nanoseconds, allocations: (long - short) / (long_ran - short_ran), counted })
}

/// Instructions of a case, net of its floors.
pub(crate) fn net_instructions(case: Case, in_flight: usize) -> anyhow::Result<f64> {
    let mut net = count(case, in_flight)?.instructions;
    for floor in case.floors() {
        // A floor is the same however many are in flight, from a few on; and the bare rings are not longer.
        net -= count(*floor, in_flight.min(128))?.instructions;
    }
    Ok(net)
}

/// The difference of two run lengths, so that set-up does not count.
fn count(case: Case, in_flight: usize) -> anyhow::Result<Counted> {
    // As often on each queue.
    let round = in_flight * case.shape.queues as usize;
    let short = (20 * in_flight).next_multiple_of(round);
    let long = short + 4000usize.next_multiple_of(round);
    let (less, more) = std::thread::scope(|scope| {
        let less = scope.spawn(|| callgrind(case, in_flight, short));
        let more = callgrind(case, in_flight, long);
        (less.join(), more)
    });
    let less = less.map_err(|_| anyhow::anyhow!("a count ended early"))??;
    let per_command = |less: u64, more: u64| more.saturating_sub(less) as f64 / (long - short) as f64;
    let more = more?;
    Ok(Counted { instructions: per_command(less.0, more.0), system_calls: per_command(less.1, more.1) })
}

/// Instructions and system calls.
fn callgrind(case: Case, in_flight: usize, commands: usize) -> anyhow::Result<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-systime=yes"])
        .arg("--toggle-collect=*Bench::run*")
        .arg(std::env::current_exe()?)
        .args(["--silent", "--case", &case.name()])
        .args(["--in-flight", &in_flight.to_string(), "--commands", &commands.to_string()])
        .output()
        .context("valgrind could not be started; it is Debian's package valgrind")?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text.lines().find_map(|line| line.split("Collected :").nth(1));
    let collected = collected.with_context(|| format!("callgrind counted nothing:\n{text}"))?;
    // Instructions, system calls and their time; without system calls, just the first.
    let mut counts = collected.split_whitespace().map(str::parse);
    let instructions = counts.next().context("callgrind counted nothing")?;
    let system_calls = counts.next().unwrap_or(Ok(0));
    Ok((instructions.context("callgrind's count is not a number")?, system_calls?))
}
