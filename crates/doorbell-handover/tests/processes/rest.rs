//! Controllers at rest: left to the program that takes a process's place, and to a service manager.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::{Process, Server, goes_through_many};
use doorbell_handover::{Channel, HandoverError};

#[test]
fn the_controller_goes_through_a_hundred_programs_in_one_process() {
    goes_through_many("child::reborn", 32);
}

/// A service manager, as far as its descriptor store goes (`sd_notify`(3)).
struct Manager {
    path: PathBuf,
    kept: Arc<Mutex<BTreeMap<String, OwnedFd>>>,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let kept: Arc<Mutex<BTreeMap<String, OwnedFd>>> = Arc::default();
        let store = kept.clone();
        std::thread::spawn(move || {
            loop {
                let (text, fds) = match Channel::new(&socket, Duration::from_secs(3600)).receive() {
                    Ok(message) => message,
                    Err(HandoverError::TimedOut) => return,
                    Err(error) => panic!("{error}"),
                };
                let text = String::from_utf8(text).unwrap();
                let fields: BTreeMap<&str, &str> = text.lines().map(|line| line.split_once('=').unwrap()).collect();
                let mut store = store.lock().unwrap();
                if fields.contains_key("FDSTORE") {
                    assert_eq!(fields["FDPOLL"], "0", "it would be dropped at once: nobody has the other end");
                    store.insert(fields["FDNAME"].into(), fds.into_iter().next().unwrap());
                } else if fields.contains_key("FDSTOREREMOVE") {
                    store.remove(fields["FDNAME"]);
                }
                // A barrier is closed with the message.
            }
        });
        Self { path, kept, _directory: directory }
    }

    fn keeps(&self) -> Vec<String> {
        self.kept.lock().unwrap().keys().cloned().collect()
    }

    /// The service, started with what is kept: as number 3.
    fn service(&self, server: &Server, variables: &[&str]) -> Process {
        let inner = server.command("child::service");
        let kept = self.kept.lock().unwrap().iter().next().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap()));
        let passed = if kept.is_some() { "export LISTEN_FDS=1; exec 3<&0 0</dev/null" } else { ":" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{passed}; export LISTEN_PID=$$; exec \"$@\""), "sh"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("NOTIFY_SOCKET", &self.path).envs(variables.iter().map(|name| (name, "1")));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        if let Some((name, fd)) = kept {
            command.env("LISTEN_FDNAMES", name).stdin(fd);
        }
        Process::start(command)
    }
}

#[test]
fn a_service_manager_keeps_it_between_two_processes() {
    let (server, manager) = (Server::start(), Manager::start());
    assert_eq!(manager.service(&server, &[]).end().as_deref(), Some("stored"));
    assert_eq!(manager.keeps(), ["drive"]);
    for _ in 0..3 {
        assert_eq!(manager.service(&server, &[]).end().as_deref(), Some("stored"));
        // One that cannot go on with it leaves it there.
        assert_eq!(manager.service(&server, &["DOORBELL_TEST_UNFIT"]).end().as_deref(), Some("unfit"));
        assert_eq!(manager.keeps(), ["drive"]);
    }
    assert_eq!(manager.service(&server, &["DOORBELL_TEST_LAST"]).end().as_deref(), Some("works"));
    assert!(manager.keeps().is_empty(), "{:?}", manager.keeps());
    let statistics = server.endpoint.statistics();
    assert_eq!((statistics.clients, statistics.dma_faults), (1, 0), "the connection was the same throughout");
}

#[test]
fn without_a_service_manager_the_process_keeps_it() {
    let server = Server::start();
    for socket in [None, Some("/nonexistent/notify")] {
        let mut command = server.command("child::service");
        command.env_remove("NOTIFY_SOCKET").envs(socket.map(|socket| ("NOTIFY_SOCKET", socket))).stdin(Stdio::null());
        assert_eq!(Process::start(command).end().as_deref(), Some("not stored"), "{socket:?}");
    }
}
