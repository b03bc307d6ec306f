//! Help, manual pages, completions.

use crate::harness::{doorbell, place};

const VERBS: [&str; 27] = [
    "list-ns",
    "id-ctrl",
    "id-ns",
    "read",
    "write",
    "compare",
    "verify",
    "copy",
    "write-uncor",
    "flush",
    "dsm",
    "write-zeroes",
    "format",
    "resv-register",
    "resv-acquire",
    "resv-release",
    "resv-report",
    "smart-log",
    "error-log",
    "get-feature",
    "set-feature",
    "show-regs",
    "reset",
    "inspect",
    "bench",
    "completions",
    "man",
];

#[test]
fn every_verb_explains_itself() {
    let help = doorbell("--help").text();
    for verb in VERBS {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
    }
}

#[test]
fn zeroes_based_counts_are_said_to_be() {
    for verb in ["read", "write", "compare", "verify", "write-zeroes", "write-uncor", "copy"] {
        assert!(doorbell(&format!("{verb} --help")).text().contains("0's based"), "{verb}");
    }
}

#[test]
fn manual_pages() {
    assert!(doorbell("man").text().contains(".TH doorbell 1"));
    let page = doorbell("man bench").text();
    assert!(page.contains(".TH doorbell-bench 1") && page.contains("iodepth"), "{page}");
    assert!(doorbell("man nonsense").complaint().contains("there is no verb \"nonsense\""));
    let place = place();
    place.doorbell("man --dir .").text();
    assert!(place.has("doorbell.1") && place.has("doorbell-resv-acquire.1"));
}

#[test]
fn completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(doorbell(&format!("completions {shell}")).text().contains("resv-acquire"), "{shell}");
    }
}

#[test]
fn version() {
    assert!(doorbell("--version").text().starts_with("doorbell 0."));
}
