//! `bench_cost`: what `doorbell bench` adds to an I/O itself, so that it is known how much of what it prints is the device.
//!
//! A device that does no work completes commands 32 at a time. `doorbell bench` reads from it, and `per_io` does the same I/Os
//! through the same driver in a loop that chooses nothing, times nothing and is woken by nobody. The two run in turn, each
//! a process of its own, and what is reported is the difference of neighbours.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::Value;

/// What `doorbell bench` adds to an I/O itself. `doorbell` and `per_io` must have been built beside it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Runs of each; medians are reported.
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// I/Os of a run, about.
    #[arg(long, default_value_t = 4_000_000)]
    ios: u64,
}

fn main() -> Result<()> {
    let Arguments { runs, ios } = Arguments::parse();
    ensure!(runs > 0, "no runs");
    let mut rows = [
        Row { what: "doorbell bench zero-work:32, all of it", nanoseconds: Vec::new() },
        Row { what: "the same I/Os without bench", nanoseconds: Vec::new() },
        Row { what: "what bench adds", nanoseconds: Vec::new() },
    ];
    for _ in 0..runs {
        // As long as the other, about.
        let time = format!("{}ms", ios / 10_000);
        let bench = ["bench", "zero-work:32", "--iodepth", "32", "--completion", "polling", "--runtime", &time];
        let printed = run("doorbell", &[&bench[..], &["-o", "json"]].concat())?;
        let iops = printed.get("iops").and_then(Value::as_f64).context("`doorbell bench` says nothing of its IOPS")?;
        let commands = ios.to_string();
        let same = ["--case", "completed together", "--in-flight", "32", "--samples", "1", "--commands", &commands];
        let printed = run("per_io", &[&same[..], &["--format", "json"]].concat())?;
        let without = printed.pointer("/0/ns").and_then(Value::as_f64).context("`per_io` says nothing of its time")?;
        let with = 1e9 / iops;
        for (row, nanoseconds) in rows.iter_mut().zip([with, without, with - without]) {
            row.nanoseconds.push(nanoseconds);
        }
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["4 KiB random reads, 32 in flight", "ns an I/O (median)", "(min..max)"]);
    for Row { what, mut nanoseconds } in rows {
        nanoseconds.sort_unstable_by(f64::total_cmp);
        let (least, most) = (nanoseconds[0], nanoseconds[nanoseconds.len() - 1]);
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let median = format!("{:.1}", nanoseconds[nanoseconds.len() / 2]);
        table.add_row([Cell::new(what), number(median), number(format!("{least:.1}..{most:.1}"))]);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}

struct Row {
    what: &'static str,
    nanoseconds: Vec<f64>,
}

/// What a program beside this one prints.
fn run(program: &str, arguments: &[&str]) -> Result<Value> {
    let path: PathBuf = std::env::current_exe()?.with_file_name(program);
    let output = Command::new(&path).args(arguments).output();
    let output = output.with_context(|| format!("{} cannot be run; has it been built?", path.display()))?;
    ensure!(output.status.success(), "`{program}`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}
