//! The counts as tables.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::fault::Kind;
use crate::scenario::Action;
use crate::tally::Tally;

/// All counts, and how fast it went.
pub(crate) fn shown(tally: &Tally, took: Duration) -> String {
    let mut text = String::new();
    let faults = Kind::ALL.iter().map(|kind| (kind.name(), tally.faults.get(kind.name()).copied().unwrap_or(0)));
    table(&mut text, "fault", faults);
    table(&mut text, "done", tally.actions.iter().map(|(name, count)| (*name, *count)));
    table(&mut text, "outcome", tally.outcomes.iter().map(|(name, count)| (name.as_str(), *count)));
    table(&mut text, "counted by drivers", tally.counters.iter().map(|(name, count)| (*name, *count)));
    let hours = took.as_secs_f64().max(1e-9) / 3600.0;
    let _ = writeln!(
        text,
        "{} seeds, {} I/Os and {} faults in {:.1} s ({} virtual hours): {:.1} million I/Os and {:.0} faults an hour",
        tally.seeds,
        tally.io,
        tally.faults(),
        took.as_secs_f64(),
        tally.virtual_seconds / 3600,
        tally.io as f64 / 1e6 / hours,
        tally.faults() as f64 / hours
    );
    text
}

fn table<'a>(text: &mut String, heading: &str, rows: impl Iterator<Item = (&'a str, u64)>) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([heading, "times"]);
    for (name, count) in rows {
        table.add_row([name.to_owned(), count.to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "{table}\n");
}

/// What happened too seldom.
pub(crate) fn lacking(tally: &Tally, least: u64) -> Vec<String> {
    let faults = Kind::ALL.iter().map(|kind| (kind.name(), tally.faults.get(kind.name())));
    let actions = Action::NAMES.iter().map(|name| (*name, tally.actions.get(name)));
    let outcomes = OUTCOMES.iter().map(|name| (*name, tally.outcomes.get(*name)));
    let all = faults.chain(actions).chain(outcomes);
    let seldom = all.filter(|(_, count)| count.copied().unwrap_or(0) < least);
    seldom.map(|(name, count)| format!("\"{name}\" came {} times, not {least}", count.unwrap_or(&0))).collect()
}

/// What must have come of operations, among much else.
const OUTCOMES: &[&str] = &[
    "read: done",
    "read: dropped",
    "read: Unrecovered Read Error (2h/81h)",
    "write: done",
    "write: dropped",
    "compare: done",
    "compare: Compare Failure (2h/85h)",
    "compare and write: done",
    "compare and write: Compare Failure (2h/85h)",
    "copy: done",
    "verify: done",
    "flush: done",
    "reset: done",
    "unregister: done",
    "shutdown: done",
    "open: done",
    "open: failed",
    "open: dropped",
    "attach: failed",
    "save: handed over",
    "save: gone on with",
    "save: between two polls",
    "save: an I/O queue is being made",
    "save: the controller is being reset",
    "claimed: done",
    "read: Reservation Conflict (0h/83h)",
    "write: Reservation Conflict (0h/83h)",
    "reservation: acquire: done",
    "reservation: acquire: Reservation Conflict (0h/83h)",
    "reservation: preempt: done",
    "reservation: release: done",
];
