//! Registers and resets.

use crate::harness::doorbell;

#[test]
fn registers_are_shown_as_found_or_enabled() {
    let text = doorbell("show-regs emulated:size=1M").text();
    assert!(text.contains("\nversion : 0x20000\n  NVMe 2.0.0\n"), "{text}");
    assert!(text.contains("  [0:0] : 0\tNot Ready\n"), "{text}");
    let enabled = doorbell("show-regs emulated:size=1M --enable").text();
    assert!(enabled.contains("  [0:0] : 0x1\tReady\n"), "{enabled}");
    let json = doorbell("show-regs emulated:size=1M,mqes=63 -o json").json();
    assert_eq!(json["cap"].as_u64().unwrap() & 0xffff, 63);
}

#[test]
fn a_reset_ends_with_a_ready_controller() {
    for arguments in ["reset emulated:size=1M", "reset emulated:size=1M --function"] {
        let text = doorbell(arguments).text();
        assert!(text.starts_with("reset: the controller was not ready; disabled, enabled"), "{text}");
    }
    assert_eq!(doorbell("reset emulated:size=1M -o json").json()["was_ready"], false);
}
