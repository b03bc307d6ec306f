//! `shared_lines`: shows that on the I/O path two CPUs write to no cache line in common.
//!
//! Runs itself under valgrind's lackey, which tells every access to memory: it submits and completes I/O of all
//! kinds on two CPUs' queues, in turns, on one thread, whose stack is left out. A line that one of them writes and the other touches is shared: a lock, a
//! counter, a reference count, or two things that have nothing to do with each other. What the device does is not
//! looked at. To show that it would be found, a counter is shared on purpose after.

mod trace;
mod work;

use std::io::{BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use clap::Parser;

use trace::Touched;

/// Shows that on the I/O path two CPUs write to no cache line in common.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Say where the marks are, and do nothing: what is run first.
    #[arg(long, hide = true)]
    marks: bool,
    /// Do the I/O: what is run under valgrind.
    #[arg(long, hide = true)]
    work: bool,
    /// Share a counter between the CPUs.
    #[arg(long, hide = true)]
    share: bool,
    /// With shadow doorbells.
    #[arg(long, hide = true)]
    shadows: bool,
}

fn main() -> ExitCode {
    let Arguments { marks, work, share, shadows } = Arguments::parse();
    let result = match (marks, work) {
        (true, _) => say(&format!("{:x} {:x}", work::marks(), std::ptr::from_ref(&share).addr())),
        (_, true) => work::run(share, shadows),
        _ => check(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one place that writes to standard error.
            let _ = std::io::stderr().write_all(format!("shared_lines: {error:#}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

fn check() -> anyhow::Result<()> {
    // In processes of their own: what one has freed the next uses again.
    for (arguments, how) in [(&["--work"][..], "doorbells"), (&["--work", "--shadows"], "shadow doorbells")] {
        let touched = touched(arguments)?;
        let (lines, shared) = (touched.lines(), touched.shared());
        ensure!(lines.iter().all(|count| *count > 50), "the CPUs touched just {lines:?} lines");
        let (one, other, count) = (lines[0], lines[1], shared.len());
        say(&format!("with {how}, two CPUs touch {one} and {other} cache lines, and share {count} that are written"))?;
        for line in &shared {
            say(&format!("  {line}"))?;
        }
        ensure!(shared.is_empty(), "the CPUs share {count} cache lines");
    }
    let on_purpose = of_counter()?;
    ensure!(on_purpose == 1, "of a counter shared on purpose, {on_purpose} lines were found");
    Ok(())
}

/// How many lines are found where a counter is shared.
fn of_counter() -> anyhow::Result<usize> {
    Ok(touched(&["--work", "--share"])?.shared().len())
}

/// What each CPU's thread touches.
fn touched(arguments: &[&str]) -> anyhow::Result<Touched> {
    let own = std::env::current_exe()?;
    let valgrind = |tool: &[&str], arguments: &[&str]| {
        let mut command = Command::new("valgrind");
        command.args(tool).arg(&own).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    // Under valgrind a program is always loaded at the same address.
    let marks = valgrind(&["--tool=none", "-q"], &["--marks"]).output();
    let marks = marks.context("valgrind could not be started; it is Debian's package valgrind")?;
    let said = String::from_utf8_lossy(&marks.stdout);
    let mut addresses = said.split_whitespace().map(|address| u64::from_str_radix(address, 16));
    let marks = addresses.next().context("no marks")??;
    let stack = addresses.next().context("no stack")??;
    let mut child = valgrind(&["--tool=lackey", "--trace-mem=yes"], arguments).spawn()?;
    let trace = child.stderr.take().context("valgrind says nothing")?;
    let touched = Touched::read(BufReader::with_capacity(1 << 20, trace), marks, stack)?;
    ensure!(child.wait()?.success(), "the I/O failed");
    Ok(touched)
}
