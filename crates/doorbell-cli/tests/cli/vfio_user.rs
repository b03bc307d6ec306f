//! The command drives a server in another process.

use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Ran, place};
use crate::serve::Server;

#[test]
fn four_queues_read_what_they_wrote() {
    let place = place();
    let _server = Server::start(&place, "--socket a --namespace ram:64M --queues 8", 1);
    let bench =
        "bench vfio-user:a --rw randrw --bs 4k --iodepth 16 --numjobs 4 --size 8M --runtime 1s --verify -o json";
    let result = place.doorbell(bench).json();
    assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{result}");
    assert!(result["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{result}");
}

#[test]
fn a_file_has_what_was_written_by_io_uring() {
    a_file_has_what_was_written("on");
}

#[test]
fn a_file_has_what_was_written_a_command_at_a_time() {
    a_file_has_what_was_written("off");
}

fn a_file_has_what_was_written(uring: &str) {
    let place = place().with_disk("disk.img", 64 << 20);
    let _server = Server::start(&place, &format!("--socket a --namespace file:disk.img,uring={uring} --queues 8"), 1);
    let bench =
        "bench vfio-user:a --rw randrw --bs 16k --iodepth 16 --numjobs 4 --size 8M --runtime 1s --verify -o json";
    let result = place.doorbell(bench).json();
    assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{result}");
    assert!(result["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{result}");
    assert!(place.read("disk.img").iter().any(|byte| *byte != 0));
}

#[test]
fn a_server_that_is_killed_is_missed_at_once() {
    let place = place();
    let server = Server::start(&place, "--socket a --namespace ram:64M", 1);
    let bench = place.command("bench vfio-user:a --rw randread --iodepth 16 --runtime 60s").spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    server.signal(Signal::KILL);
    let killed = std::time::Instant::now();
    let ran = Ran::of(bench.wait_with_output().unwrap());
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert_ne!(ran.status, Some(0));
    assert!(ran.stderr.contains("its server is gone"), "{}", ran.stderr);
}

#[test]
fn a_server_that_comes_back_is_gone_on_with() {
    let place = place().with_disk("disk.img", 32 << 20);
    let arguments = "--socket a --namespace file:disk.img --queues 8";
    let server = Server::start(&place, arguments, 1);
    // Reads, which are all sent again; what they read was written, and verified, before.
    let bench = "bench vfio-user:a,reconnect=20 --rw randread --bs 4k --iodepth 8 --numjobs 4 --size 8M --runtime 4s --verify -o json";
    let bench = place.command(bench).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    server.signal(Signal::KILL);
    drop(server);
    let _server = Server::start(&place, arguments, 1);
    let result = Ran::of(bench.wait_with_output().unwrap()).json();
    assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{result}");
}
