//! `handovers`: how long I/O pauses when `doorbell bench` hands itself to a fresh process, beside an equal run that does not.
//!
//! `doorbell serve` has the controller, with a queue for each of four jobs, which check what they read. The pause of a handover is
//! the longest that a job had no completion around it. On a busy machine there are such gaps without handovers too: the
//! longest latency of the equal run says how long.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table};
use serde_json::Value;

/// How long I/O pauses when it is handed to another process. `doorbell` must have been built beside it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How long each depth is handed on, again and again, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

const DEPTHS: [u32; 3] = [1, 32, 256];
const HEADER: [&str; 8] = [
    "in flight on each of 4 queues",
    "handovers",
    "I/Os that crossed over",
    "lost or twice",
    "longest gap without, ms",
    "pause, ms (median)",
    "(99 %)",
    "save, ms (median)",
];

fn main() -> Result<()> {
    let Arguments { seconds } = Arguments::parse();
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("socket");
    let _server = Server::start(&socket)?;
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(HEADER);
    for depth in DEPTHS {
        let without = bench(&socket, depth, seconds, &[])?;
        let with = bench(&socket, depth, seconds, &["--handover-every", "100ms"])?;
        let at = |printed: &Value, place: &str| {
            printed.pointer(place).and_then(Value::as_f64).with_context(|| format!("bench says nothing of {place}"))
        };
        let count = |place: &str| Ok::<_, anyhow::Error>(format!("{:.0}", at(&with, &format!("/handovers/{place}"))?));
        let milliseconds =
            |printed: &Value, place: &str| Ok::<_, anyhow::Error>(format!("{:.2}", at(printed, place)? / 1e6));
        let wrong = at(&with, "/handovers/lost")? + at(&with, "/handovers/repeated")?;
        let cells = [
            depth.to_string(),
            count("count")?,
            count("inherited")?,
            format!("{wrong:.0}"),
            milliseconds(&without, "/latency_ns/max")?,
            milliseconds(&with, "/handovers/pause_ns/p50")?,
            milliseconds(&with, "/handovers/pause_ns/p99")?,
            milliseconds(&with, "/handovers/save_ns/p50")?,
        ];
        table.add_row(cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}

/// `doorbell serve`, until it is dropped.
struct Server(Child);

impl Server {
    fn start(socket: &Path) -> Result<Self> {
        let mut command = doorbell()?;
        command.arg("serve").arg("--socket").arg(socket).args(["--namespace", "ram:256M"]);
        let server = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            ensure!(Instant::now() < deadline, "`doorbell serve` does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bench(socket: &Path, depth: u32, seconds: u64, more: &[&str]) -> Result<Value> {
    let mut command = doorbell()?;
    command.arg("bench").arg(format!("vfio-user:{}", socket.display()));
    command.args(["--completion", "interrupt", "--rw", "randrw", "--verify", "--size", "64M", "--numjobs", "4"]);
    command.args(["--iodepth", &depth.to_string(), "--runtime", &format!("{seconds}s"), "-o", "json"]).args(more);
    let output = command.output()?;
    ensure!(output.status.success(), "`doorbell bench`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn doorbell() -> Result<Command> {
    let path = std::env::current_exe()?.with_file_name("doorbell");
    ensure!(path.exists(), "{} is not there; it has to be built", path.display());
    Ok(Command::new(path))
}
