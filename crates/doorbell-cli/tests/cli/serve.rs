//! A server, and orders to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, ChildStdout, Command};

use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::Value;

use crate::harness::{Place, Ran, data, place};

/// A server that runs. It is ended in any case.
pub(crate) struct Server<'a> {
    place: &'a Place,
    child: Option<Child>,
    stdout: BufReader<ChildStdout>,
}

impl<'a> Server<'a> {
    /// Waits until `sockets` are served.
    pub(crate) fn start(place: &'a Place, arguments: &str, sockets: usize) -> Self {
        Self::of(place, place.command(&format!("serve {arguments}")), sockets)
    }

    /// The same, with a command made by the caller.
    pub(crate) fn of(place: &'a Place, mut command: Command, sockets: usize) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..sockets {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            assert!(line.starts_with("serving "), "{line:?}");
        }
        Self { place, child: Some(child), stdout }
    }

    /// A server in the place of the one that takes orders at `control`, and for how many milliseconds nobody served.
    pub(crate) fn take_over(place: &'a Place, sockets: usize) -> (Self, f64) {
        let mut child = place.command("serve --takeover control").spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = || {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            line
        };
        let first = line();
        let pause = first.strip_prefix("taken over after ").and_then(|rest| rest.strip_suffix(" ms\n"));
        let Some(pause) = pause.and_then(|pause| pause.parse().ok()) else {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("{first:?} {said}")
        };
        for _ in 0..sockets {
            assert!(line().starts_with("serving "));
        }
        (Self { place, child: Some(child), stdout }, pause)
    }

    /// What it said when it ended because another had taken over.
    pub(crate) fn handed_over(mut self) {
        let mut printed = String::new();
        self.stdout.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "handed over: another server goes on\n");
        assert_eq!(self.wait(), (Some(0), String::new()));
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn ctl(&self, arguments: &str) -> Ran {
        self.place.doorbell(&format!("ctl control {arguments}"))
    }

    /// The exit status and what was said on standard error.
    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (child.wait().unwrap().code(), said)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_server_ends_in_order_by_order_and_by_signal() {
    let place = place().with_disk("disk.img", 1 << 20);
    let arguments = "--socket a --socket b --control control --namespace file:disk.img --namespace null:1T,block=4096";
    for signal in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let server = Server::start(&place, arguments, 2);
        assert!(place.has("a") && place.has("b") && place.has("control"));
        match signal {
            None => assert_eq!(server.ctl("shutdown").text(), ""),
            Some(signal) => server.signal(signal),
        }
        assert_eq!(server.wait(), (Some(0), String::new()), "{signal:?}");
        assert!(!place.has("a") && !place.has("b") && !place.has("control"), "{signal:?}: the sockets are gone");
    }
}

/// Runs what it is given without io_uring, as many containers do.
fn without_io_uring<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // It holds for this thread for ever, and for the processes that it starts.
    let confined = || {
        seccompiler::apply_filter(&filter).unwrap();
        run()
    };
    std::thread::scope(|scope| scope.spawn(confined).join().unwrap())
}

#[test]
fn files_are_served_where_there_is_no_io_uring() {
    let place = place().with_disk("disk.img", 1 << 20);
    without_io_uring(|| {
        let server = Server::start(&place, "--socket a --control control --namespace file:disk.img", 1);
        let data = vec![7; 512];
        assert_eq!(place.doorbell_reading("write vfio-user:a -s 8", &data).status, Some(0));
        assert_eq!(place.read("disk.img")[8 * 512..9 * 512], data);
        server.ctl("shutdown").text();
        let (status, said) = server.wait();
        assert_eq!(status, Some(0));
        let warnings: Vec<&str> = said.lines().collect();
        assert!(matches!(warnings[..], [line] if line.contains("io_uring")), "{said}");
    });
}

#[test]
fn namespaces_come_change_and_go() {
    let place = place().with_disk("disk.img", 1 << 20);
    let server = Server::start(&place, "--socket a --control control --namespace ram:1M", 1);
    let namespaces = || server.ctl("statistics").json()["namespaces"].clone();
    assert_eq!(server.ctl("add file:disk.img,block=4096").text(), "2\n");
    assert_eq!(server.ctl("add null:1G -n 7").text(), "7\n");
    server.ctl("resize 1 2M").text();
    server.ctl("remove 7").text();
    let expected: Value = serde_json::json!([{ "nsid": 1, "blocks": 4096 }, { "nsid": 2, "blocks": 256 }]);
    assert_eq!(namespaces(), expected);
    server.ctl("resize 2 2M").text();
    assert_eq!(place.read("disk.img").len(), 2 << 20, "the file grows with its namespace");
    for (order, complaint) in [
        ("remove 7", "there is no namespace 7"),
        ("resize 1 1000", "1000 bytes are not a possible size"),
        ("resize 1 huge", "size \"huge\": unknown unit"),
        ("add ram", "a namespace is KIND:WHAT"),
        ("add ram:1M -n 1", "namespace ram:1M: namespace 1 exists already"),
        ("add file:none.img", "none.img: No such file"),
        ("add file:disk.img", "another namespace uses this file already"),
    ] {
        let said = server.ctl(order).complaint();
        assert!(said.contains(complaint), "{order}: {said}");
    }
    // Once it is gone, the file may be used again.
    server.ctl("remove 2").text();
    assert_eq!(server.ctl("add file:disk.img").text(), "2\n");
}

#[test]
fn faults_are_injected_where_they_are_ordered() {
    let place = place();
    place.write("plan.json", br#"{"rules":[{"when":{"command":{"opcode":2}},"then":{"fail":{"sct":2,"sc":129}}}]}"#);
    place.write("odd.json", br#"{"rules":7}"#);
    let server = Server::start(&place, "--socket a --socket b --control control --namespace ram:1M", 2);
    assert_eq!(server.ctl("faults plan.json -o json").json()["controllers"], 2);
    assert_eq!(server.ctl("faults plan.json --socket b -o json").json()["controllers"], 1);
    assert_eq!(server.ctl("faults plan.json --socket c").complaint(), "c: no controller is served there");
    assert!(server.ctl("faults odd.json").complaint().starts_with("odd.json: invalid type"));
}

#[test]
fn orders_are_lines_of_json() {
    let place = place();
    let server = Server::start(&place, "--socket a --control control --namespace ram:1M", 1);
    let mut stream = UnixStream::connect(place.path().join("control")).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    let mut ask = |line: &str| {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    assert_eq!(ask("{\"do\":\"resize\",\"nsid\":1,\"size\":2097152}\n"), serde_json::json!({"ok": {"blocks": 4096}}));
    for wrong in
        ["no json\n", "{}\n", "{\"do\":\"dance\"}\n", "{\"do\":\"remove\"}\n", "{\"do\":\"shutdown\",\"now\":1}\n"]
    {
        let answer = ask(wrong);
        assert!(answer["error"].as_str().unwrap().starts_with("not an order"), "{wrong}: {answer}");
    }
    assert_eq!(ask("{\"do\":\"statistics\"}\n")["ok"]["controllers"][0]["connected"], false);
    // Without end, a line is no order; the server goes on.
    let endless = " ".repeat(1 << 20);
    assert!(ask(&endless)["error"].as_str().unwrap().contains("more than 1048576 bytes"));
    assert!(server.ctl("statistics").json()["namespaces"].is_array());
}

#[test]
fn a_file_that_may_only_be_read_can_be_served() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    place.write("disk.img", &data(64 << 10));
    let path = place.path().join("disk.img");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let _server = Server::start(&place, "--socket a --namespace file:disk.img,readonly", 1);
    assert_eq!(place.doorbell("read vfio-user:a -n 1 -s 0 -c 127 -z 64k").bytes(), data(64 << 10));
    place.write("data", &[7; 512]);
    let said = place.doorbell("write vfio-user:a -n 1 -s 0 -c 0 -z 512 -d data");
    assert_eq!(said.status, Some(1), "{}", said.stderr);
    assert_eq!(place.read("disk.img"), data(64 << 10));
}

#[test]
fn what_cannot_be_served_is_said_in_a_line() {
    let place = place().with_disk("odd.img", 1000).with_disk("disk.img", 1 << 20);
    place.write("file", b"precious");
    let listening = UnixListener::bind(place.path().join("taken")).unwrap();
    std::fs::create_dir(place.path().join("folder")).unwrap();
    let long = "0123456789".repeat(11);
    let (too_long, what) = (format!("--socket {long}"), format!("{long}: 110 bytes are too many"));
    for (arguments, complaint) in [
        ("--socket taken", "taken: another process serves this socket"),
        ("--socket file", "file: there is a file of this name, and it is no socket"),
        ("--socket no/socket", "no/socket: No such file or directory (os error 2)"),
        ("--socket a --socket a", "a: given twice"),
        ("--socket a --control a", "a: given twice"),
        (too_long.as_str(), what.as_str()),
        (
            "--socket a --namespace file:disk.img --namespace file:disk.img",
            "namespace file:disk.img: disk.img: another namespace uses this file already",
        ),
        ("--socket a --namespace file:folder", "namespace file:folder: Is a directory (os error 21)"),
        (
            "--socket a --namespace file:folder,readonly",
            "namespace file:folder,readonly: folder: neither a file nor a block device",
        ),
        ("--socket a --namespace file:taken,readonly", "namespace file:taken,readonly: No such device or address"),
        ("--socket a --namespace file:none.img", "namespace file:none.img: No such file or directory (os error 2)"),
        (
            "--socket a --namespace file:odd.img",
            "namespace file:odd.img: odd.img: its 1000 bytes are not one or more whole blocks of 512",
        ),
        (
            "--socket a --namespace ram:1000",
            "namespace ram:1000: 1000 bytes are not a possible size: it is not a multiple of the block size, 512",
        ),
    ] {
        let said = place.doorbell(&format!("serve {arguments}")).complaint();
        assert!(said.starts_with(complaint), "{arguments}: {said}");
        assert!(!place.has("a"), "{arguments}");
    }
    assert_eq!(place.read("file"), b"precious");
    drop(listening);
    let first = Server::start(&place, "--socket a --namespace file:disk.img", 1);
    let said = place.doorbell("serve --socket b --namespace file:disk.img").complaint();
    assert_eq!(said, "namespace file:disk.img: disk.img: another namespace uses this file already");
    drop(first);
    for arguments in
        ["", "--socket a --queues 65", "--socket a --mdts 17", "--socket a -n disk:1G", "--socket a -b 1000"]
    {
        place.doorbell(&format!("serve {arguments}")).usage();
    }
    let said = place.doorbell("ctl nowhere statistics").complaint();
    assert_eq!(said, "nowhere: No such file or directory (os error 2)");
}
