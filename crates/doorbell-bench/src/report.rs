//! Printing what was measured.

use std::io::Write;

use comfy_table::{Cell, CellAlignment, Table};

use crate::cases::Case;
use crate::count::Measured;

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

/// What a case costs per command, net of the bare ring.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Row {
    case: &'static str,
    in_flight: usize,
    /// Median.
    ns: f64,
    ns_min: f64,
    ns_max: f64,
    instructions: Option<f64>,
    allocations: f64,
}

impl Row {
    /// Net of the floors.
    pub(crate) fn new(case: Case, in_flight: usize, measured: &Measured, floors: [&Measured; 2]) -> Self {
        let net = |ns: f64| ns - floors[0].median() - floors[1].median();
        let floor = floors[0].instructions.zip(floors[1].instructions).map(|(one, other)| one + other);
        Self {
            case: case.name(),
            in_flight,
            ns: net(measured.median()),
            ns_min: net(measured.nanoseconds[0]),
            ns_max: net(measured.nanoseconds[measured.nanoseconds.len() - 1]),
            instructions: measured.instructions.zip(floor).map(|(gross, floor)| gross - floor),
            allocations: measured.allocations,
        }
    }

    /// A floor itself, gross.
    pub(crate) fn floor(case: Case, in_flight: usize, floor: &Measured) -> Self {
        Self {
            case: case.name(),
            in_flight,
            ns: floor.median(),
            ns_min: floor.nanoseconds[0],
            ns_max: floor.nanoseconds[floor.nanoseconds.len() - 1],
            instructions: floor.instructions,
            allocations: floor.allocations,
        }
    }
}

pub(crate) fn print(rows: &[Row], format: Format) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(rows)?)?;
        return Ok(());
    }
    let mut table = Table::new();
    let style =
        if format == Format::Markdown { comfy_table::presets::ASCII_MARKDOWN } else { comfy_table::presets::NOTHING };
    table.load_style(style);
    table.set_header([
        "per I/O, net of the floors below",
        "in flight",
        "ns (median)",
        "ns (min..max)",
        "instructions",
        "allocations",
    ]);
    for row in rows {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(row.case),
            number(row.in_flight.to_string()),
            number(format!("{:.1}", row.ns)),
            number(format!("{:.1}..{:.1}", row.ns_min, row.ns_max)),
            number(row.instructions.map_or("-".into(), |n| format!("{n:.0}"))),
            number(format!("{:.2}", row.allocations)),
        ]);
    }
    writeln!(out, "{table}")?;
    Ok(())
}
