//! Servers that take one another's place while their clients work.

use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Place, Ran, data, place, wait_for};
use crate::serve::Server;

const SERVER: &str =
    "--socket a --socket b --control control --namespace ram:64M,block=4096 --namespace file:disk.img --queues 8";

/// Another process that writes and checks, until it is told to end.
fn bench(place: &Place, socket: &str, nsid: u32, depth: u32, jobs: u32) -> Child {
    let bench = format!(
        "bench vfio-user:{socket} -n {nsid} --rw randrw --bs 4k --iodepth {depth} --numjobs {jobs} --size 16M \
         --runtime 1h --verify -o json"
    );
    place.command(&bench).stdout(Stdio::piped()).spawn().unwrap()
}

/// Ends a client, which says that nothing failed, nothing was lost.
fn check(bench: Child) -> Value {
    // It is to work on for a moment with whoever serves now.
    std::thread::sleep(Duration::from_millis(200));
    kill_process(Pid::from_child(&bench), Signal::INT).unwrap();
    let result = Ran::of(bench.wait_with_output().unwrap()).json();
    assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{result}");
    assert!(result["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{result}");
    result
}

#[expect(clippy::print_stderr, reason = "the pause is worth seeing, and no ground to fail")]
fn replace_under_load(place: &Place, served: &str, (depth, jobs): (u32, u32), times: usize) {
    let mut server = Server::start(place, served, 2);
    let clients = [("a", 1), ("b", 2)].map(|(socket, nsid)| bench(place, socket, nsid, depth, jobs));
    let clients_of = |server: &Server<'_>| {
        let statistics = server.ctl("statistics").json();
        let controllers = statistics["controllers"].as_array().unwrap();
        controllers.iter().map(|one| (one["clients"].clone(), one["connected"].clone())).collect::<Vec<_>>()
    };
    let connected = vec![(json!(1), json!(true)); 2];
    wait_for("both clients", || clients_of(&server) == connected);
    let mut pauses = Vec::new();
    for _ in 0..times {
        let (next, pause) = Server::take_over(place, 2);
        std::mem::replace(&mut server, next).handed_over();
        assert_eq!(clients_of(&server), connected, "the same clients, and no other session");
        pauses.push(pause);
    }
    for client in clients {
        check(client);
    }
    pauses.sort_by(f64::total_cmp);
    eprintln!(
        "depth {depth}: nobody served for {:.2} ms (median), {:.2} ms at most",
        pauses[times / 2],
        pauses[times - 1]
    );
}

/// How often, unless the environment says so.
fn times() -> usize {
    std::env::var("DOORBELL_TAKEOVERS").ok().and_then(|times| times.parse().ok()).unwrap_or(20)
}

#[test]
fn clients_at_depth_1_notice_nothing() {
    replace_under_load(&place().with_disk("disk.img", 64 << 20), SERVER, (1, 1), times());
}

#[test]
fn clients_with_four_queues_at_depth_32_notice_nothing() {
    replace_under_load(&place().with_disk("disk.img", 64 << 20), SERVER, (32, 4), times());
}

/// A server behind the server, in the place of a drive.
fn drive(place: &Place) -> Server<'_> {
    Server::start(place, "--socket drive --control orders --namespace ram:64M,block=4096 --namespace ram:32M", 1)
}

const SHARED_OUT: &str =
    "--socket a --socket b --control control --namespace device:vfio-user:drive:1 --namespace device:vfio-user:drive:2";

#[test]
fn a_drive_behind_the_server_crosses_under_load() {
    let place = place();
    let drive = drive(&place);
    replace_under_load(&place, SHARED_OUT, (16, 2), times());
    let statistics = place.doorbell("ctl orders statistics").json();
    let controller = &statistics["controllers"][0];
    assert_eq!((&controller["clients"], &controller["dma_faults"]), (&json!(1), &json!(0)), "{controller}");
    assert!(controller["mappings"].as_u64().unwrap() < 40, "no memory was given again and again: {controller}");
    drop(drive);
}

/// What the drive takes longer for than a server would be waited for.
#[test]
fn what_a_drive_has_in_flight_crosses() {
    let place = place();
    let slow =
        r#"{"rules":[{"when":{"command":{"queue":"io","every":10}},"then":{"delay":{"microseconds":4000000}}}]}"#;
    place.write("slow.json", slow.as_bytes());
    place.write("none.json", br#"{"rules":[]}"#);
    let drive = drive(&place);
    let mut server = Server::start(&place, SHARED_OUT, 2);
    let clients = [("a", 1), ("b", 2)].map(|(socket, nsid)| bench(&place, socket, nsid, 16, 2));
    let orders = |what: &str| place.doorbell(&format!("ctl orders {what}")).text();
    let queues = || place.doorbell("ctl orders statistics").json()["controllers"][0]["submission_queues"].clone();
    wait_for("a queue for each client", || queues() == json!(2));
    orders("faults slow.json");
    // By then all of them wait for nothing else.
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..4 {
        let (next, _) = Server::take_over(&place, 2);
        std::mem::replace(&mut server, next).handed_over();
    }
    orders("faults none.json");
    for client in clients {
        check(client);
    }
    let statistics = place.doorbell("ctl orders statistics").json();
    let controller = &statistics["controllers"][0];
    assert_eq!((&controller["clients"], &controller["dma_faults"]), (&json!(1), &json!(0)), "{controller}");
    drop(drive);
}

#[test]
fn what_becomes_of_a_drive_that_crossed_becomes_of_its_namespaces() {
    let place = place();
    let drive = drive(&place);
    let ordered = |what: &str| place.doorbell(&format!("ctl orders {what}")).text();
    let old = Server::start(&place, SHARED_OUT, 2);
    let (new, _) = Server::take_over(&place, 2);
    old.handed_over();
    let namespaces = |expected: Value| {
        wait_for("the namespaces", || new.ctl("statistics").json()["namespaces"] == expected);
    };
    namespaces(json!([{"nsid": 1, "blocks": 16384}, {"nsid": 2, "blocks": 65536}]));
    ordered("resize 1 128M");
    namespaces(json!([{"nsid": 1, "blocks": 32768}, {"nsid": 2, "blocks": 65536}]));
    ordered("remove 2");
    namespaces(json!([{"nsid": 1, "blocks": 32768}]));
    // More of the drive is had over the connection that crossed.
    ordered("add ram:1M -n 7");
    assert_eq!(new.ctl("add device:vfio-user:drive:7").text(), "2\n");
    assert_eq!(place.doorbell("ctl orders statistics").json()["controllers"][0]["clients"], json!(1));
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), (Some(0), String::new()));
    drop(drive);
}

#[test]
fn what_is_kept_crosses() {
    let place = place().with_disk("disk.img", 1 << 20);
    place.write("plan.json", br#"{"rules":[{"when":{"command":{"opcode":2,"skip":1000}},"then":"drop"}]}"#);
    place.write("data", &data(64 << 10));
    let old = Server::start(&place, "--socket a --control control --namespace ram:1M --namespace file:disk.img", 1);
    place.doorbell("write vfio-user:a -n 1 -s 8 -c 127 -z 64k -d data").text();
    old.ctl("add null:1G,block=4096 -n 9").text();
    old.ctl("resize 1 2M").text();
    old.ctl("faults plan.json").text();
    let before = old.ctl("statistics").json();
    let (new, _) = Server::take_over(&place, 1);
    old.handed_over();
    let after = new.ctl("statistics").json();
    assert_eq!(before["namespaces"], after["namespaces"]);
    assert_eq!(before["controllers"][0]["clients"], after["controllers"][0]["clients"]);
    assert_eq!(place.doorbell("read vfio-user:a -n 1 -s 8 -c 127 -z 64k").bytes(), data(64 << 10));
    // The file is still locked, and is free again once it is let go.
    let said = place.doorbell("serve --socket c --namespace file:disk.img").complaint();
    assert!(said.contains("another namespace uses this file already"), "{said}");
    new.ctl("remove 2").text();
    assert_eq!(new.ctl("add file:disk.img").text(), "2\n");
    // It ends as any other does, and takes its sockets with it.
    new.signal(Signal::TERM);
    assert_eq!(new.wait(), (Some(0), String::new()));
    assert!(!place.has("a") && !place.has("control"));
}

#[test]
fn what_cannot_cross_stays() {
    let place = place();
    let old = Server::start(&place, "--socket a --control control --namespace device:emulated:size=1M", 1);
    let said = place.doorbell("serve --takeover control").complaint();
    assert_eq!(
        said,
        "emulated:size=1M: the device cannot be handed over: the device does not support being handed over to another process"
    );
    old.ctl("statistics").json();
    for arguments in ["--takeover control --socket b", "--takeover control --namespace ram:1M"] {
        place.doorbell(&format!("serve {arguments}")).usage();
    }
    assert_eq!(place.doorbell("serve --takeover none").complaint(), "none: No such file or directory (os error 2)");
}

/// What a server has not said before it is killed is lost with it, and the other does not pretend to serve.
#[test]
fn a_server_killed_before_it_has_said_all_leaves_nothing() {
    for step in ["frozen", "sending"] {
        let place = place();
        let mut command = place.command("serve --socket a --control control --namespace ram:1M");
        command.env("DOORBELL_TAKEOVER_KILLED_AT", step);
        let old = Server::of(&place, command, 1);
        let said = place.doorbell("serve --takeover control").complaint();
        assert!(said.contains("the peer closed the connection"), "{step}: {said}");
        assert_eq!(old.wait().0, None, "{step}: it was killed");
        // The sockets that it left are in nobody's way.
        let new = Server::start(&place, "--socket a --control control --namespace ram:1M", 1);
        place.doorbell("id-ctrl vfio-user:a").text();
        drop(new);
    }
}

/// Whoever is killed, and when: the other serves, and the client goes on.
#[test]
fn a_server_killed_while_it_is_replaced_leaves_the_other() {
    let killed = |served: &str, which: &str, step: &str| {
        let place = place().with_disk("disk.img", 64 << 20);
        let drive = drive(&place);
        let with = |mut command: std::process::Command, whose: &str| {
            if which == whose {
                command.env("DOORBELL_TAKEOVER_KILLED_AT", step);
            }
            command
        };
        let mut old = Server::of(&place, with(place.command(&format!("serve {served}")), "old"), 2);
        let client = bench(&place, "a", 1, 8, 2);
        let queues = || old.ctl("statistics").json()["controllers"][0]["submission_queues"].clone();
        wait_for("the client's queues", || queues() == json!(2));
        if which == "new" {
            let ran = Ran::of(with(place.command("serve --takeover control"), "new").output().unwrap());
            assert_eq!((ran.status, ran.stdout.len()), (None, 0), "{step}: {}", ran.stderr);
            old.ctl("statistics").json();
            assert!(old.is_running(), "{step}");
            check(client);
        } else {
            let (new, _) = Server::take_over(&place, 2);
            let (status, _) = old.wait();
            assert_eq!(status, None, "{step}: it was killed");
            new.ctl("statistics").json();
            check(client);
        }
        drop(drive);
    };
    for served in [SERVER, SHARED_OUT] {
        for step in ["received", "ready", "taken"] {
            killed(served, "new", step);
        }
        for step in ["sent", "answered"] {
            killed(served, "old", step);
        }
    }
}
