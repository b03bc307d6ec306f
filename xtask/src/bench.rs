//! Measures what an I/O costs, and writes it between two marks of docs/benchmarks.md.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::{cargo, require, root};

const PACKAGE: &str = "doorbell-bench";
const PAGE: &str = "docs/benchmarks.md";

/// A program that measures, and where its table goes.
struct Measured {
    command: &'static str,
    begin: &'static str,
    end: &'static str,
}

const MEASURED: [Measured; 6] = [
    Measured {
        command: "run --release --package doorbell-bench --bin per_io -- --format markdown --instructions",
        begin: "<!-- per_io: written by `cargo xtask bench` -->",
        end: "<!-- per_io: end -->",
    },
    Measured {
        command: "run --release --package doorbell-bench --bin bench_cost",
        begin: "<!-- bench_cost: written by `cargo xtask bench` -->",
        end: "<!-- bench_cost: end -->",
    },
    Measured {
        command: "run --release --package doorbell-bench --bin per_io -- --format markdown --curves",
        begin: "<!-- curves: written by `cargo xtask bench` -->",
        end: "<!-- curves: end -->",
    },
    Measured {
        command: "run --release --package doorbell-bench --bin modes",
        begin: "<!-- modes: written by `cargo xtask bench` -->",
        end: "<!-- modes: end -->",
    },
    Measured {
        command: "run --release --package doorbell-bench --bin served",
        begin: "<!-- served: written by `cargo xtask bench` -->",
        end: "<!-- served: end -->",
    },
    Measured {
        command: "run --release --package doorbell-bench --bin handovers",
        begin: "<!-- handovers: written by `cargo xtask bench` -->",
        end: "<!-- handovers: end -->",
    },
];

pub(crate) fn run() -> Result<()> {
    require(PACKAGE, "measures what an I/O costs")?;
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("{PAGE} cannot be read"))?;
    for Measured { begin, end, .. } in &MEASURED {
        ensure!(replaced(&page, "", begin, end).is_some(), "{PAGE} lacks the line {begin} or {end}");
    }
    // One of them runs the command itself.
    process::run(
        cargo(["build", "--quiet", "--release", "--package", "doorbell-cli", "--package", PACKAGE]).arg("--bins"),
    )?;
    for Measured { command, begin, end } in &MEASURED {
        let table = process::output(&mut cargo(command.split_whitespace()))?;
        ensure!(!table.trim().is_empty(), "`{command}` measured nothing");
        keep(&format!("{}\n\n{}", table.trim_end(), machine()?), begin, end)?;
    }
    Ok(())
}

/// Puts text between two marks of the page.
pub(crate) fn keep(section: &str, begin: &str, end: &str) -> Result<()> {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("{PAGE} cannot be read"))?;
    let page =
        replaced(&page, section, begin, end).with_context(|| format!("{PAGE} lacks the line {begin} or {end}"))?;
    fs::write(&path, page).with_context(|| format!("{PAGE} cannot be written"))?;
    println!("{section}\n\nwritten to {PAGE}");
    Ok(())
}

/// Figures mean little without it.
pub(crate) fn machine() -> Result<String> {
    let compiler = process::output(Command::new("rustc").arg("--version"))?;
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let today = process::output(Command::new("date").args(["-u", "+%F"]))?;
    Ok(format!("On {}, {}, with {}.", processor(&cpus), today.trim(), compiler.trim()))
}

fn processor(cpuinfo: &str) -> String {
    let values = |key: &'static str| {
        cpuinfo.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    let model = values("model name").next().unwrap_or_else(|| "an unnamed processor".to_owned());
    format!("{} CPUs of {model}", values("processor").count().max(1))
}

/// The page with other text between its marks.
fn replaced(page: &str, text: &str, begin: &str, end: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{text}\n{end}{after}"))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let (begin, end) = ("<!-- begin -->", "<!-- end -->");
        let page = format!("# A\nb\n{begin}\nold\n{end}\nc\n");
        assert_eq!(replaced(&page, "new", begin, end), Some(format!("# A\nb\n{begin}\nnew\n{end}\nc\n")));
        assert_eq!(replaced("# A\n", "new", begin, end), None);
    }

    #[test]
    fn the_processor_is_named() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU\n\nprocessor\t: 1\nmodel name\t: Some CPU\n";
        assert_eq!(processor(cpuinfo), "2 CPUs of Some CPU");
        assert_eq!(processor(""), "1 CPUs of an unnamed processor");
    }
}
