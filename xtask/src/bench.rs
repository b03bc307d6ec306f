//! Measures what an I/O costs, and writes it between two marks of docs/benchmarks.md.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::process;
use crate::workspace::{cargo, require, root};

const PACKAGE: &str = "doorbell-bench";
const MEASURE: [&str; 9] = ["run", "--release", "--package", PACKAGE, "--bin", "per_io", "--", "--format", "json"];

const PAGE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- per_io: written by `cargo xtask bench` -->";
const END: &str = "<!-- per_io: end -->";

/// Columns that come first, in this order; others follow by name.
const FIRST: [&str; 2] = ["case", "in_flight"];

pub(crate) fn run() -> Result<()> {
    require(PACKAGE, "measures what an I/O costs")?;
    let text = process::output(&mut cargo(MEASURE))?;
    let rows: Vec<Map<String, Value>> =
        serde_json::from_str(&text).context("what `per_io` printed is not understood")?;
    ensure!(!rows.is_empty(), "`per_io` measured nothing");

    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Benchmarks\n\n{BEGIN}\n{END}\n"));
    let page = replaced(&page, &markdown(&rows)).with_context(|| format!("{PAGE} lacks the line {BEGIN} or {END}"))?;
    fs::write(&path, page).with_context(|| format!("{PAGE} cannot be written"))?;
    println!("{}\n\nwritten to {PAGE}", markdown(&rows));
    Ok(())
}

/// The page with other text between its marks.
fn replaced(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

fn markdown(rows: &[Map<String, Value>]) -> String {
    let mut columns: Vec<&str> = rows.iter().flat_map(|row| row.keys().map(String::as_str)).collect();
    columns.sort_by_key(|name| (FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()), *name));
    columns.dedup();
    let mut lines = vec![line(columns.iter().map(|name| name.replace('_', " ")))];
    lines.push(line(columns.iter().map(|name| if *name == "case" { "---".to_owned() } else { "---:".to_owned() })));
    lines.extend(rows.iter().map(|row| line(columns.iter().map(|name| row.get(*name).map_or_else(String::new, cell)))));
    lines.join("\n")
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => format!("{:.1}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn figures_become_a_table() -> Result<()> {
        let rows: Vec<Map<String, Value>> = serde_json::from_str(
            r#"[{"ns": 41.26, "in_flight": 1, "case": "async"}, {"case": "exclusive", "in_flight": 32, "ns": null}]"#,
        )?;
        let expected = "| case | in flight | ns |\n| --- | ---: | ---: |\n| async | 1 | 41.3 |\n| exclusive | 32 |  |";
        assert_eq!(markdown(&rows), expected);
        Ok(())
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let page = format!("# A\nb\n{BEGIN}\nold\n{END}\nc\n");
        assert_eq!(replaced(&page, "new"), Some(format!("# A\nb\n{BEGIN}\nnew\n{END}\nc\n")));
        assert_eq!(replaced("# A\n", "new"), None);
    }
}
