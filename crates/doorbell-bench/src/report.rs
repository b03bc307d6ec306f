//! Printing what was measured.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::case::Case;
use crate::count::{Counted, Measured};
use crate::scaling::Point;

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For machines.
    Json,
    /// For documents.
    Markdown,
}

/// What a case costs per command, net of its floors.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Row {
    case: String,
    in_flight: usize,
    /// Median.
    ns: f64,
    ns_min: f64,
    ns_max: f64,
    /// With its floors, as many times the bare ring's time in the same run.
    times_bare: Option<f64>,
    instructions: Option<f64>,
    allocations: f64,
    system_calls: Option<f64>,
}

impl Row {
    /// Net of the floors, the first of which is the bare ring.
    pub(crate) fn new(case: Case, in_flight: usize, measured: &Measured, floors: &[&Measured]) -> Self {
        let floor_ns: f64 = floors.iter().map(|floor| floor.median()).sum();
        let of_floors =
            |of: fn(&Counted) -> f64| -> f64 { floors.iter().filter_map(|f| f.counted.as_ref()).map(of).sum() };
        let net = |of: fn(&Counted) -> f64| measured.counted.as_ref().map(|counted| of(counted) - of_floors(of));
        let (least, most) = (measured.nanoseconds.first(), measured.nanoseconds.last());
        Self {
            case: case.name(),
            in_flight,
            ns: measured.median() - floor_ns,
            ns_min: least.map_or(0.0, |ns| ns - floor_ns),
            ns_max: most.map_or(0.0, |ns| ns - floor_ns),
            times_bare: floors.first().map(|bare| measured.median() / bare.median()),
            instructions: net(|counted| counted.instructions),
            allocations: measured.allocations,
            system_calls: net(|counted| counted.system_calls),
        }
    }
}

pub(crate) fn print(rows: &[Row], format: Format) -> anyhow::Result<()> {
    let headings = [
        "per I/O, net of the floors",
        "in flight",
        "ns (median)",
        "ns (min..max)",
        "times the bare ring",
        "instructions",
        "allocations",
        "system calls",
    ];
    let cells = |row: &Row| {
        let or_dash = |text: Option<String>| text.unwrap_or("-".into());
        vec![
            row.case.clone(),
            row.in_flight.to_string(),
            format!("{:.1}", row.ns),
            format!("{:.1}..{:.1}", row.ns_min, row.ns_max),
            or_dash(row.times_bare.map(|times| format!("{times:.1}"))),
            or_dash(row.instructions.map(|count| format!("{count:.0}"))),
            format!("{:.2}", row.allocations),
            or_dash(row.system_calls.map(|count| format!("{count:.2}"))),
        ]
    };
    print_table(rows, format, &headings, cells)
}

pub(crate) fn print_curves(points: &[Point], format: Format) -> anyhow::Result<()> {
    let headings = ["of these", "so many", "instructions an I/O", "times the first"];
    let cells = |point: &Point| {
        vec![
            point.axis.to_owned(),
            point.point.to_string(),
            format!("{:.0}", point.instructions),
            format!("{:.2}", point.ratio),
        ]
    };
    print_table(points, format, &headings, cells)
}

/// The first column is text, the others are numbers.
fn print_table<T: serde::Serialize>(
    rows: &[T],
    format: Format,
    headings: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(rows)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(if format == Format::Markdown { presets::ASCII_MARKDOWN } else { presets::NOTHING });
    table.set_header(headings);
    for row in rows {
        let cells = cells(row).into_iter().enumerate().map(|(column, text)| match column {
            0 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        });
        table.add_row(cells);
    }
    writeln!(out, "{table}")?;
    Ok(())
}
