//! Log pages and features.

use crate::harness::{doorbell, place};

#[test]
fn the_health_log_is_shown() {
    let text = doorbell("smart-log emulated:size=1M").text();
    assert!(text.starts_with("Smart Log for NVME device:emulated:size=1M namespace-id:ffffffff\n"), "{text}");
    assert!(text.contains("\navailable_spare                         : 100%\n"), "{text}");
    let json = doorbell("smart-log emulated:size=1M -o json").json();
    assert_eq!((&json["avail_spare"], &json["host_read_commands"]), (&100.into(), &0.into()));
    assert_eq!(doorbell("smart-log emulated:size=1M -b").bytes().len(), 512);
}

#[test]
fn the_error_log_is_shown() {
    let text = doorbell("error-log emulated:size=1M").text();
    assert_eq!(text, "Error Log Entries for device:emulated:size=1M entries:0\nno errors\n");
    let json = doorbell("error-log emulated:size=1M --log-entries 2 -o json").json();
    assert_eq!(json["errors"].as_array().unwrap().len(), 2);
    assert_eq!(doorbell("error-log emulated:size=1M -e 3 --raw-binary").bytes().len(), 192);
}

#[test]
fn features_are_shown_and_set() {
    let text = doorbell("get-feature emulated:size=1M -f 0x06 -H").text();
    let (value, decoded) = text.split_once('\n').unwrap();
    assert_eq!(value, "get-feature:0x06 (Volatile Write Cache), Current value:0x00000001");
    assert_eq!(decoded, "  [0:0] : 0x1\tVolatile Write Cache Enabled\n");
    let named = doorbell("get-feature emulated:size=1M -f volatile-write-cache -o json").json();
    assert_eq!((&named["feature"], &named["value"]), (&6.into(), &1.into()));
    let all = doorbell("get-feature emulated:size=1M -o json").json();
    assert!(all.as_array().unwrap().len() > 5);
    let set = doorbell("set-feature emulated:size=1M -f 0x06 -v 0").text();
    assert_eq!(set, "set-feature:0x06 (Volatile Write Cache), value:0x00000000, save:0\n");
    doorbell("set-feature emulated:size=1M -f 6 -V 0x1 --verbose").status.unwrap();
}

#[test]
fn features_with_data_take_it_whole() {
    let place = place();
    place.write("time.bin", &[1, 2, 3, 4, 5, 6, 0, 0]);
    place.doorbell("set-feature emulated:size=1M -f 0x0e --data time.bin").text();
    place.write("short.bin", &[1, 2, 3]);
    let short = place.doorbell("set-feature emulated:size=1M -f 0x0e --data short.bin").complaint();
    assert_eq!(short, "short.bin has 3 bytes, feature 0x0e (Timestamp) takes 8");
    let surplus = place.doorbell("set-feature emulated:size=1M -f 0x06 --data short.bin").complaint();
    assert_eq!(surplus, "short.bin has more than 0 bytes, feature 0x06 (Volatile Write Cache) takes 0");
}

#[test]
fn unknown_features_are_refused() {
    let unknown = doorbell("get-feature emulated:size=1M --feature-id 0x5a").usage();
    assert!(unknown.starts_with("error: invalid value '0x5a' for '--feature-id <FEATURE>'"), "{unknown}");
    assert!(unknown.contains("0x06 volatile-write-cache"), "{unknown}");
    let lacking = doorbell("get-feature emulated:size=1M -f 0x0d").complaint();
    assert!(lacking.starts_with("get-feature 0x0d (Host Memory Buffer): the device answered:"), "{lacking}");
}
