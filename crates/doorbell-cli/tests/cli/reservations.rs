//! Reservations. An emulated device forgets them when the command ends, so each run begins without any.

use snapbox::{assert_data_eq, str};

use crate::harness::doorbell;

const DEVICE: &str = "emulated:size=1M";

#[test]
fn a_key_is_registered() {
    let text = doorbell(&format!("resv-register {DEVICE} --nrkey 0xabc")).text();
    assert_eq!(text, "resv-register: namespace 1: registered\n");
    let json = doorbell(&format!("resv-register {DEVICE} -k 5 --iekey --cptpl 3 -o json")).json();
    assert_eq!((&json["nsid"], &json["nrkey"]), (&1.into(), &5.into()));
}

#[test]
fn who_is_not_registered_is_refused() {
    let conflict = "the device answered: Reservation Conflict (0h/83h), do not retry";
    for (arguments, what) in [
        ("resv-acquire emulated:size=1M --crkey 0xabc --rtype 1", "acquiring"),
        ("resv-release emulated:size=1M --crkey 0xabc --rtype 1", "releasing"),
        ("resv-register emulated:size=1M --rrega 1 --crkey 0xabc", "registering"),
    ] {
        let refused = doorbell(arguments).complaint();
        assert_eq!(refused, format!("{what} for namespace 1: {conflict}"));
    }
}

#[test]
fn the_report_is_shown() {
    let text = doorbell(&format!("resv-report {DEVICE}")).text();
    assert_data_eq!(
        text,
        str![[r#"
NVME Reservation status of namespace 1:

gen       : 0
rtype     : 0 (No reservation)
regctl    : 0
ptpls     : 0

"#]]
    );
    let json = doorbell(&format!("resv-report {DEVICE} -o json")).json();
    assert_eq!(json, serde_json::json!({ "gen": 0, "rtype": 0, "regctl": 0, "ptpls": 0, "regctlext": [] }));
}

#[test]
fn nonsense_is_refused() {
    let no_type = doorbell(&format!("resv-release {DEVICE} --crkey 1")).complaint();
    assert!(no_type.starts_with("--rtype is needed to release a reservation: 1 write exclusive"), "{no_type}");
    let bad_type = doorbell(&format!("resv-acquire {DEVICE} --rtype 7")).usage();
    assert_eq!(bad_type, "error: invalid value '7' for '--rtype <TYPE>': 7 is not in 1..=6");
    let bad_change = doorbell(&format!("resv-register {DEVICE} --cptpl 1")).usage();
    assert_eq!(bad_change, "error: invalid value '1' for '--cptpl <CHANGE>'");
}
