//! A bench that hands itself to fresh processes.

use crate::harness::{doorbell, place};
use crate::serve::Server;

#[test]
fn a_bench_goes_through_many_processes_and_loses_nothing() {
    let place = place();
    let _server = Server::start(&place, "--socket a --namespace ram:64M --queues 8", 1);
    for more in [
        "--iodepth 1",
        "--iodepth 32 --completion interrupt",
        "--iodepth 256 --completion polling",
        "--iodepth 16 --bounce",
    ] {
        let bench = format!(
            "bench vfio-user:a --rw randrw --verify --size 8M --numjobs 2 --runtime 2s --handover-every 100ms -o json {more}"
        );
        let result = place.doorbell(&bench).json();
        let handovers = &result["handovers"];
        let counts = ["failed", "lost", "repeated"].map(|name| handovers[name].as_u64().unwrap());
        assert_eq!(counts, [0, 0, 0], "{more}: {result}");
        assert!(handovers["count"].as_u64().unwrap() > 0, "{more}: {result}");
        assert!(handovers["inherited"].as_u64().unwrap() > 0, "{more}: {result}");
        assert!(handovers["pause_ns"]["p50"].as_u64().unwrap() > 0, "{more}: {result}");
        assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{more}: {result}");
        assert!(result["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{more}: {result}");
    }
}

#[test]
fn a_device_of_this_process_cannot_be_handed_over() {
    let ran = doorbell("bench emulated:size=4M --runtime 1s --handover-every 100ms");
    assert_ne!(ran.status, Some(0));
    assert!(ran.stderr.contains("being handed over to another process"), "{}", ran.stderr);
}
