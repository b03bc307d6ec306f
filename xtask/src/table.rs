//! Tables for the terminal: no lines but one under the heading, so that they read well in a log too.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table with these headings.
pub(crate) fn new<'a>(headings: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.into_iter().collect::<Vec<_>>());
    table
}

/// Aligns a column's numbers.
pub(crate) fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// As text, without the blanks that pad the lines' ends.
pub(crate) fn shown(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
