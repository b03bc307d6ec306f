//! A server whose namespaces are another server's.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{place, wait_for};
use crate::serve::Server;

const INNER: &str = "--socket a --control inner --namespace file:disk.img --namespace ram:32M,block=4096 --queues 8";
const OUTER: &str =
    "--socket b --socket c --control outer --namespace device:vfio-user:a:1 --namespace device:vfio-user:a:2";

#[test]
fn one_drive_is_shared_out() {
    let place = place().with_disk("disk.img", 32 << 20);
    let inner = Server::start(&place, INNER, 1);
    let outer = Server::start(&place, OUTER, 2);
    for (socket, nsid) in [("b", 1), ("c", 2)] {
        let bench = format!(
            "bench vfio-user:{socket} -n {nsid} --rw randrw --bs 16k --iodepth 8 --numjobs 2 --size 8M --runtime 1s --verify -o json"
        );
        let result = place.doorbell(&bench).json();
        assert_eq!((&result["errors"], &result["verify"]["miscompares"]), (&0.into(), &0.into()), "{result}");
        assert!(result["verify"]["checked_blocks"].as_u64().unwrap() > 0, "{result}");
    }
    assert!(place.read("disk.img").iter().any(|byte| *byte != 0), "it went down to the file");
    // What becomes of one below becomes of the one above.
    place.doorbell("ctl inner resize 2 64M").text();
    place.doorbell("ctl inner remove 1").text();
    let namespaces = || place.doorbell("ctl outer statistics").json()["namespaces"].clone();
    wait_for("the namespaces", || namespaces() == json!([{ "nsid": 2, "blocks": 16384 }]));
    let said = place.doorbell("ctl outer resize 2 32M").complaint();
    assert!(said.contains("it is as large as the namespace behind it"), "{said}");
    // It is free for others once it is let go.
    place.doorbell("ctl outer remove 2").text();
    let added = || place.doorbell("ctl outer add device:vfio-user:a:2,readonly -n 9").status == Some(0);
    wait_for("it to be let go", added);
    outer.signal(Signal::TERM);
    assert_eq!(outer.wait(), (Some(0), String::new()));
    drop(inner);
}

#[test]
fn what_is_no_device_is_said_in_a_line() {
    let place = place();
    let _inner = Server::start(&place, "--socket a --namespace ram:1M --namespace ram:1M", 1);
    for (spec, complaint) in [
        ("device:disk:/x", "there is no kind of device \"disk\""),
        ("device:vfio-user:nowhere", "nowhere"),
        ("device:vfio-user:a", "the device has 2 namespaces"),
        ("device:vfio-user:a:7", "there is no namespace 7"),
        ("device:vfio-user:a:1 --namespace device:vfio-user:a:1", "namespace 1 is in use through another handle"),
    ] {
        let said = place.doorbell(&format!("serve --socket b --namespace {spec}")).complaint();
        assert!(said.starts_with("namespace device:") && said.contains(complaint), "{spec}: {said}");
    }
}
