//! SECURITY.md names tests; each of them is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::workspace::root;

/// The page, and where its tests are.
const PAGE: &str = "SECURITY.md";
const FOLDERS: [&str; 2] = ["crates", "tests"];

pub(crate) fn check() -> Result<()> {
    let text = fs::read_to_string(root().join(PAGE)).with_context(|| format!("{PAGE} cannot be read"))?;
    let named = named(&text);
    let mut known = BTreeSet::new();
    for folder in FOLDERS {
        functions(&root().join(folder), &mut known)?;
    }
    let missing: Vec<&str> = named.iter().copied().filter(|name| !known.contains(*name)).collect();
    ensure!(missing.is_empty(), "{PAGE} names tests that are not there: {}", missing.join(", "));
    println!("the {} tests that {PAGE} names are there", named.len());
    Ok(())
}

/// What stands in backquotes in a table's last column.
fn named(text: &str) -> BTreeSet<&str> {
    let last_cell = |line: &'_ str| line.starts_with("| ").then(|| line.trim_end_matches(" |").len());
    let cells = text.lines().filter_map(|line| line.get(..last_cell(line)?)?.rsplit_once(" | "));
    cells.flat_map(|(_, cell)| cell.split('`').skip(1).step_by(2)).collect()
}

/// The names of all functions below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) -> Result<()> {
    let unreadable = || format!("{} cannot be read", folder.display());
    for entry in fs::read_dir(folder).with_context(unreadable)? {
        let path = entry.with_context(unreadable)?.path();
        if path.is_dir() {
            functions(&path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let headers = source.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
            names.extend(headers.filter_map(|header| Some(header.split_once('(')?.0.to_owned())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use super::named;

    #[test]
    fn tests_are_named_in_the_last_column() {
        let text = "`no_test`\n| what `it` tries | shown by |\n|---|---|\n| this | `first`, `second` |\n";
        assert_eq!(named(text).into_iter().collect::<Vec<_>>(), ["first", "second"]);
    }
}
