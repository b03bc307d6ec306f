//! The contract's rules, and the tests that are named for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::mutant::Mutant;

/// The page that lists the rules.
pub(crate) const CONTRACT: &str = "docs/contract.md";
/// Where the tests of the rules stand.
pub(crate) const TESTS: [&str; 3] =
    ["tests/contract/src", "crates/doorbell-emulator/tests/emulator", "crates/doorbell-serve/tests/serve"];
/// The package of most of them.
pub(crate) const PACKAGE: &str = "doorbell-contract";

/// The letters of the contract's sections, in its order.
const SECTIONS: &str = "NDCRQFLHS";

/// The rules that the contract's tables list: `| D7 | ...`.
pub(crate) fn listed(contract: &str) -> Vec<String> {
    let first_cell = |line: &str| Some(line.strip_prefix("| ")?.split_once(" |")?.0.to_owned());
    contract.lines().filter_map(first_cell).filter(|cell| number(cell).is_some()).collect()
}

/// Where a rule stands among the others.
pub(crate) fn order(rule: &str) -> (usize, u32) {
    number(rule).unwrap_or((usize::MAX, 0))
}

/// The names of the tests in a folder of sources that are named for a rule.
pub(crate) fn tests(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
        if path.is_dir() {
            names.extend(tests(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            names.extend(named(&source));
        }
    }
    Ok(names)
}

/// A line for each rule without a mutant or a test.
pub(crate) fn uncovered(rules: &[String], mutants: &[Mutant], tests: &[String]) -> Vec<String> {
    let mut missing = Vec::new();
    for rule in rules {
        let prefix = format!("{}_", rule.to_lowercase());
        if !tests.iter().any(|test| test.starts_with(&prefix)) {
            let folders = TESTS.join(", ");
            missing.push(format!("rule {rule} has no test: none in {folders} has a name that begins with {prefix}"));
        }
        if !mutants.iter().any(|mutant| mutant.file.rule == *rule) {
            missing.push(format!("rule {rule} has no mutant in tests/mutants"));
        }
    }
    missing
}

fn number(rule: &str) -> Option<(usize, u32)> {
    let mut letters = rule.chars();
    let section = SECTIONS.find(letters.next()?)?;
    Some((section, letters.as_str().parse().ok()?))
}

/// Functions whose names begin with a rule's number.
fn named(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in source.lines().map(str::trim_start) {
        let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) else { continue };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.split_once('_').is_some_and(|(rule, _)| number(&rule.to_uppercase()).is_some()) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod unit {
    use super::super::mutant::unit::mutant;
    use super::*;

    #[test]
    fn rules_are_read_off_the_contract() {
        let page = "| # | rule |\n|---|---|\n| N1 | A namespace |\n| D12 | A page |\n| X1 | no |\nD3 | no |\n";
        assert_eq!(listed(page), ["N1", "D12"]);
    }

    #[test]
    fn the_contract_lists_all_its_rules() -> Result<()> {
        let rules = listed(&fs::read_to_string(crate::workspace::root().join(CONTRACT))?);
        let sections = [("N", 8), ("D", 12), ("C", 6), ("R", 4), ("Q", 9), ("F", 10), ("L", 3), ("H", 9), ("S", 5)];
        let expected: Vec<String> =
            sections.iter().flat_map(|(letter, last)| (1..=*last).map(move |n| format!("{letter}{n}"))).collect();
        assert_eq!(rules, expected);
        Ok(())
    }

    #[test]
    fn rules_are_ordered_as_in_the_contract() {
        let mut rules = ["Q1", "D10", "D9", "N8", "?"];
        rules.sort_by_key(|rule| order(rule));
        assert_eq!(rules, ["N8", "D9", "D10", "Q1", "?"]);
    }

    #[test]
    fn tests_are_known_by_their_names() {
        let source = "#[test]\nfn d7_dropping_is_safe() {}\n    fn d10_flush() {}\nfn helper_d7() {}\nfn x1_no() {}\n\
                      async fn n1_asks() {}\n// fn n2_comment() {}\nfn d5_lists(length in 1..9usize) {}\n";
        assert_eq!(named(source), ["d7_dropping_is_safe", "d10_flush", "n1_asks", "d5_lists"]);
    }

    #[test]
    fn a_rule_without_test_or_mutant_is_reported() {
        let rules = ["D1".to_owned(), "D10".to_owned()];
        let missing = uncovered(&rules, &[mutant("D1", "d1-a")], &["d10_a".to_owned()]);
        assert_eq!(missing.len(), 2);
        assert!(missing.iter().any(|line| line.starts_with("rule D1 has no test")));
        assert!(missing.iter().any(|line| line.starts_with("rule D10 has no mutant")));
    }
}
