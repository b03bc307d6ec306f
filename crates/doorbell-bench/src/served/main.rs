//! `served`: a driver on one core, a server on another, both polling, and a socket's worth of protocol between them.
//!
//! Random 4 KiB reads, in units of one cache line's round trip between the same two cores in the same run. Server and
//! client are threads of one process; they share what two processes would share: the mapped doorbells, the client's
//! memory in a file, and the socket.

mod client;
mod cores;

use std::io::Write;

use clap::Parser;
use comfy_table::{Cell, CellAlignment, Table};

use client::{Backing, Client, LARGE, SMALL};
use cores::Cores;

/// Random 4 KiB reads from a server on another core, in round trips of a cache line.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Runs, each of all cases in turn; medians are reported.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// I/Os of a case in a run.
    #[arg(long, default_value_t = 300_000)]
    ios: usize,
    /// The client's core.
    #[arg(long, default_value_t = 0)]
    client: usize,
    /// The server's core.
    #[arg(long, default_value_t = 1)]
    server: usize,
    /// Just this many in flight, on a null namespace, with nothing measured: for a profiler.
    #[arg(long)]
    profile: Option<usize>,
    /// That on a RAM namespace of so many bytes.
    #[arg(long, requires = "profile")]
    ram: Option<u64>,
}

const IN_FLIGHT: [usize; 3] = [1, 32, 128];

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let cores = Cores { client: arguments.client, server: arguments.server };
    if let Some(in_flight) = arguments.profile {
        let mut client = Client::start(&cores, arguments.ram.map_or(Backing::Null, Backing::Ram))?;
        client.read(in_flight, arguments.ios);
        return Ok(());
    }
    let backings = [Backing::Null, Backing::Ram(SMALL), Backing::Ram(LARGE)];
    let mut clients =
        backings.map(|backing| Client::start(&cores, backing)).into_iter().collect::<Result<Vec<_>, _>>()?;
    // To be warm.
    for client in &mut clients {
        client.read(32, arguments.ios.min(100_000));
    }
    let mut rows = vec![
        Row::new("a cache line's round trip", None),
        Row::new("a copy of 4 KiB that the other core wrote", None),
        Row::new("a copy of 4 KiB at random out of 65536 KiB", None),
    ];
    for client in &clients {
        rows.extend(IN_FLIGHT.map(|in_flight| Row::new(client.backing.name(), Some(in_flight))));
    }
    for _ in 0..arguments.runs {
        let round_trip = cores.round_trip()?;
        let mut measured = vec![round_trip, cores.copy()?, cores.copy_at_random(LARGE)?];
        for client in &mut clients {
            for in_flight in IN_FLIGHT {
                // Fewer alone: each takes as long as many together.
                let ios = if in_flight == 1 { arguments.ios / 4 } else { arguments.ios };
                // The other controller's thread sleeps meanwhile: it has no doorbells to look at.
                measured.push(client.read(in_flight, ios));
            }
        }
        for (row, nanoseconds) in rows.iter_mut().zip(measured) {
            row.nanoseconds.push(nanoseconds);
            row.round_trips.push(nanoseconds / round_trip);
        }
    }
    print(&mut rows)
}

struct Row {
    what: String,
    in_flight: Option<usize>,
    nanoseconds: Vec<f64>,
    round_trips: Vec<f64>,
}

impl Row {
    fn new(what: impl Into<String>, in_flight: Option<usize>) -> Self {
        Self { what: what.into(), in_flight, nanoseconds: Vec::new(), round_trips: Vec::new() }
    }
}

fn print(rows: &mut [Row]) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header(["4 KiB random reads", "in flight", "round trips (median)", "(min..max)", "ns (median)"]);
    for row in rows {
        row.nanoseconds.sort_unstable_by(f64::total_cmp);
        row.round_trips.sort_unstable_by(f64::total_cmp);
        let median = |sorted: &[f64]| sorted[sorted.len() / 2];
        let (least, most) = (row.round_trips[0], row.round_trips[row.round_trips.len() - 1]);
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(&row.what),
            number(row.in_flight.map_or(String::new(), |in_flight| in_flight.to_string())),
            number(format!("{:.2}", median(&row.round_trips))),
            number(format!("{least:.2}..{most:.2}")),
            number(format!("{:.0}", median(&row.nanoseconds))),
        ]);
    }
    writeln!(std::io::stdout(), "{table}")?;
    Ok(())
}
