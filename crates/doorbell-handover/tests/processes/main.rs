//! Handovers between real processes: this one has the server and looks on; two others, of the same program, have the
//! driver one after the other, with I/O that checks what it reads.

mod child;
mod load;
mod part;
mod rest;

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_handover::{STEPS, Step, pair};
use doorbell_serve::Endpoint;

struct Server {
    endpoint: Endpoint,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let subsystem = Subsystem::default();
        subsystem.add_namespace(NamespaceConfig::ram(16 << 20)).unwrap();
        let config = ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() };
        let endpoint = Endpoint::start(&path, &subsystem, config).unwrap();
        Self { endpoint, path, _directory: directory }
    }

    /// A process that will do its part: `part` is a test of [`child`].
    fn command(&self, part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", part, "--nocapture", "--test-threads=1"]);
        command.env("DOORBELL_TEST_SERVER", &self.path).stdout(Stdio::piped());
        command
    }

    fn process(&self, part: &str, socket: OwnedFd, dies_at: Option<Step>) -> Process {
        let mut command = self.command(part);
        command.stdin(socket);
        if let Some(step) = dies_at {
            command.env("DOORBELL_TEST_DIES_AT", format!("{step:?}"));
        }
        Process::start(command)
    }
}

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// What it said of how it went; `None` if it died before.
    fn end(mut self) -> Option<String> {
        let mut said = None;
        for line in (&mut self.lines).lines() {
            said = line.unwrap().split_once("REPORT ").map(|(_, said)| said.to_owned()).or(said);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success() || said.is_none(), "{said:?}, {status}");
        said
    }
}

/// One handover, of which either side may die; what both said.
fn hand_over(server: &Server, old_dies: Option<Step>, new_dies: Option<Step>) -> (Option<String>, Option<String>) {
    let (ours, theirs) = pair().unwrap();
    let old = server.process("child::old", ours, old_dies);
    let new = server.process("child::new", theirs, new_dies);
    (old.end(), new.end())
}

#[test]
fn the_new_process_goes_on_and_the_old_one_ends_with_handed_over() {
    let server = Server::start();
    let (old, new) = hand_over(&server, None, None);
    assert_eq!((old.as_deref(), new.as_deref()), (Some("given"), Some("works")));
    let statistics = server.endpoint.statistics();
    assert_eq!((statistics.clients, statistics.dma_faults), (1, 0), "the connection was the same throughout");
}

#[test]
fn h9_whichever_dies_at_whatever_step_the_controller_is_in_one_hand() {
    for step in STEPS {
        let server = Server::start();
        let (of_the_new, expected) = part::when_one_dies_at(step);
        let (old_dies, new_dies) = if of_the_new { (None, Some(step)) } else { (Some(step), None) };
        let (old, new) = hand_over(&server, old_dies, new_dies);
        assert_eq!([old.as_deref(), new.as_deref()], expected, "{step:?}");
        assert_eq!(server.endpoint.statistics().dma_faults, 0, "{step:?}");
    }
}

/// How many handovers in a row.
fn many() -> u32 {
    if std::env::var_os("DOORBELL_LONG").is_some_and(|long| long == "1") { 1000 } else { 100 }
}

fn goes_through_many(part: &str, depth: u32) {
    let server = Server::start();
    let mut first = server.command(part);
    first.env("DOORBELL_TEST_LEFT", many().to_string()).env("DOORBELL_TEST_FIRST", "1").stdin(Stdio::null());
    first.env("DOORBELL_TEST_DEPTH", depth.to_string());
    // All of them say what they have to say on the same pipe.
    assert_eq!(Process::start(first).end().as_deref(), Some("works"));
    let statistics = server.endpoint.statistics();
    assert_eq!((statistics.clients, statistics.dma_faults), (1, 0), "the connection was the same throughout");
}

#[test]
fn the_controller_goes_through_a_hundred_processes_at_depth_1() {
    goes_through_many("child::chain", 1);
}

#[test]
fn the_controller_goes_through_a_hundred_processes_at_depth_32() {
    goes_through_many("child::chain", 32);
}

#[test]
fn the_controller_goes_through_a_hundred_processes_at_depth_256() {
    goes_through_many("child::chain", 256);
}
