//! Measuring, checking, and ending before the time.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Ran, doorbell, place};

#[test]
fn without_an_address_an_own_device_is_checked_and_measured() {
    let text = doorbell("bench --runtime 200ms").text();
    assert!(text.starts_with("randread of 4 KiB, 32 in flight, 1 job"), "{text}");
    assert!(text.contains("\n  errors     0\n"), "{text}");
    assert!(text.contains("\n  verified   16,384 blocks, 0 miscompares\n"), "{text}");
    assert!(text.contains("p99.9"), "{text}");
}

/// Also the first command and the last ones, with which no others come.
#[test]
fn a_device_without_work_completes_every_command() {
    let json = doorbell("bench zero-work:32 --iodepth 32 --runtime 100ms -o json").json();
    check_result(&json);
}

/// What every result has.
fn check_result(json: &Value) {
    let ios = json["ios"].as_u64().unwrap();
    assert!(ios > 0, "{json}");
    assert_eq!(json["errors"], 0, "{json}");
    assert_eq!(json["reads"].as_u64().unwrap() + json["writes"].as_u64().unwrap(), ios);
    let (iops, bytes) = (json["iops"].as_f64().unwrap(), json["bytes_per_s"].as_f64().unwrap());
    assert!(iops > 0.0 && (bytes / iops - json["bs"].as_f64().unwrap()).abs() < 1e-3, "{json}");
    assert!(json["cpu_ns_per_io"].as_f64().unwrap() > 0.0);
    let latency = |name: &str| json["latency_ns"][name].as_f64().unwrap();
    let steps: Vec<f64> = ["min", "p50", "p99", "p999", "max"].into_iter().map(latency).collect();
    assert!(steps.is_sorted() && latency("mean") >= latency("min") && latency("mean") <= latency("max"), "{json}");
}

#[test]
fn every_kind_is_measured_and_verified() {
    for rw in ["read", "write", "randread", "randwrite", "randrw"] {
        for more in ["", "--verify"] {
            let json = doorbell(&format!(
                "bench emulated:size=4M,block=4096 --rw {rw} --iodepth 8 --numjobs 2 --runtime 100ms -o json {more}"
            ))
            .json();
            check_result(&json);
            assert_eq!(json["rw"], rw);
            assert_eq!(json["reads"].as_u64().unwrap() == 0, ["write", "randwrite"].contains(&rw), "{json}");
            assert_eq!(json["writes"].as_u64().unwrap() == 0, ["read", "randread"].contains(&rw), "{json}");
            match more {
                "" => assert!(json["verify"].is_null(), "{json}"),
                _ => {
                    assert!(json["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{json}");
                    assert_eq!(json["verify"]["miscompares"], 0, "{json}");
                }
            }
        }
    }
}

#[test]
fn every_way_to_find_completions_works() {
    for completion in ["interrupt", "polling", "adaptive"] {
        for more in ["", "--bounce"] {
            let json = doorbell(&format!(
                "bench emulated:size=4M --rw randrw --verify --runtime 100ms --completion {completion} -o json {more}"
            ))
            .json();
            check_result(&json);
        }
    }
}

#[test]
fn the_share_of_reads_is_as_asked() {
    let run = |percent: u32| {
        let device = "emulated:size=4M,block=4096";
        doorbell(&format!("bench {device} --rw randrw --rwmixread {percent} --runtime 300ms -o json")).json()
    };
    assert_eq!(run(0)["reads"], 0);
    assert_eq!(run(100)["writes"], 0);
    let mixed = run(70);
    let share = mixed["reads"].as_f64().unwrap() / mixed["ios"].as_f64().unwrap();
    assert!((0.6..0.8).contains(&share), "{mixed}");
}

#[test]
fn a_namespace_that_cannot_be_written_is_only_read() {
    let device = "emulated:size=1M,readonly=on";
    check_result(&doorbell(&format!("bench {device} --runtime 50ms -o json")).json());
    for arguments in ["--rw randrw", "--rw read --verify"] {
        let refused = doorbell(&format!("bench {device} {arguments}")).complaint();
        assert!(refused.starts_with("namespace 1 is write protected"), "{refused}");
    }
}

#[test]
fn blocks_smaller_than_an_io_name_themselves_each() {
    let json =
        doorbell("bench emulated:size=2M,block=512 --rw write --bs 64k --iodepth 4 --verify --runtime 100ms -o json");
    let json = json.json();
    check_result(&json);
    assert_eq!(json["verify"]["checked_blocks"], 4096);
}

#[test]
fn more_in_flight_than_there_are_units_and_queue_entries() {
    let json = doorbell(
        "bench emulated:size=64k,block=4096,mqes=3 --rw randrw --iodepth 128 --verify --runtime 100ms -o json",
    );
    check_result(&json.json());
}

#[test]
fn a_device_that_changes_data_is_caught() {
    let place = place();
    // Bit 0 of byte 100 of what a read returns, once in a while.
    let plan = r#"{"rules": [{"when": {"command": {"queue": "io", "opcode": 2, "skip": 50, "count": 1}},
                              "then": {"corrupt_data": {"offset": 100, "xor": [1]}}}]}"#;
    place.write("faults.json", plan.as_bytes());
    let ran = place.doorbell(
        "bench emulated:size=1M,block=4096,fault=faults.json --rw randread --verify --runtime 100ms --seed 1 -o json",
    );
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.starts_with("doorbell: 1 blocks do not hold what was written; block "), "{}", ran.stderr);
    assert!(ran.stderr.contains("damaged: its checksum is wrong"), "{}", ran.stderr);
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["verify"]["miscompares"], 1, "{json}");
    let example = &json["verify"]["examples"][0];
    assert_eq!(
        (&example["lba"], &example["expected"]["lba"]),
        (&example["expected"]["lba"], &example["found"]["damaged"]["lba"])
    );
}

#[test]
fn a_device_that_forgets_or_moves_no_data_is_caught() {
    for storage in ["zero", "null"] {
        let arguments = format!("bench emulated:{storage},size=1M,block=4096 --rw randread --verify --runtime 50ms");
        let ran = doorbell(&arguments);
        assert_eq!(ran.status, Some(1));
        assert!(ran.stderr.contains("found nothing but bytes 0x00"), "{}", ran.stderr);
        assert!(String::from_utf8(ran.stdout).unwrap().contains("    ...\n"), "not all of them are listed");
    }
}

#[test]
fn failed_ios_are_counted_and_the_first_is_named() {
    let place = place();
    let plan = r#"{"rules": [{"when": {"command": {"queue": "io", "opcode": 2, "skip": 20, "count": 3}},
                              "then": {"fail": {"sct": 2, "sc": 129, "dnr": true}}}]}"#;
    place.write("faults.json", plan.as_bytes());
    let ran = place.doorbell("bench emulated:size=1M,fault=faults.json --runtime 100ms -o json");
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.starts_with("doorbell: 3 I/Os failed; the first: read of block "), "{}", ran.stderr);
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["errors"], 3);
}

/// Starts bench, and waits until it measures.
fn start(place: &crate::harness::Place, arguments: &str) -> (Child, impl Fn(&Child)) {
    let mut child = place.command(&format!("-v bench {arguments}")).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("measuring") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended before it measured");
    }
    // Whatever comes now is of no interest, but somebody has to read it.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let interrupt = |child: &Child| kill_process(Pid::from_child(child), Signal::INT).unwrap();
    (child, interrupt)
}

#[test]
fn ctrl_c_ends_it_in_order_and_the_result_is_printed() {
    let place = place();
    for arguments in
        ["emulated:size=16M -o json --runtime 10m", "emulated:size=16M -o json --runtime 10m --rw randrw --verify"]
    {
        let (child, interrupt) = start(&place, arguments);
        std::thread::sleep(Duration::from_millis(300));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        check_result(&json);
        assert_eq!(json["interrupted"], true);
    }
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let place = place();
    // After the first few, no read ever ends.
    let plan = r#"{"rules": [{"when": {"command": {"queue": "io", "opcode": 2, "skip": 20}}, "then": "drop"}]}"#;
    place.write("faults.json", plan.as_bytes());
    let (child, interrupt) = start(&place, "emulated:size=1M,fault=faults.json --runtime 10m");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((ran.status, ran.stdout.len()), (Some(130), 0));
    assert!(begun.elapsed() < Duration::from_secs(9), "it did not wait for what never ends");
}

#[test]
fn what_does_not_fit_is_refused() {
    for (arguments, complaint) in [
        ("--bs 1000", "--bs 1000 is not a multiple of the block size, 512"),
        ("--bs 4M", "--bs 4194304 is more than one command moves on this device; at most 2097152 are possible"),
        ("--size 2M", "--size 2097152 is more than the namespace has; at most 1048576 (1 MiB) are possible"),
        (
            "--numjobs 300",
            "1048576 bytes are too few for 300 jobs with I/Os of 4096 bytes; at least 1228800 are needed",
        ),
    ] {
        assert_eq!(doorbell(&format!("bench emulated:size=1M {arguments}")).complaint(), complaint);
    }
}
