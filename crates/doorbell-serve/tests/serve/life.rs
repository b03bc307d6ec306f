//! Clients that come and go, and the server's own beginning and end.

use std::os::unix::net::UnixListener;

use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_serve::{Endpoint, ServeError};
use rustix::io::Errno;
use vfio_user::{Call, CallError, Caller, Capabilities};

use crate::harness::{DATA, Host, PATIENCE, Server, wait_for};

#[test]
fn a_client_that_dies_and_returns_finds_a_working_controller() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    host.fill(DATA, 0x42);
    assert_eq!(host.io(0x01, DATA, 9), 0);
    let old = host.doorbells.clone();
    drop(host);
    let mut caller = server.caller();
    let mut bytes = [0; 4];
    caller.region_read(0, 0x14, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 4], "CC is as after power-on");
    let mut host = Host::new(caller);
    host.enable();
    host.create_queues();
    // What the last client kept is of no effect.
    for doorbell in old.dwords() {
        doorbell.store(3, std::sync::atomic::Ordering::Release);
    }
    assert_eq!(host.io(0x02, DATA + 512, 9), 0);
    assert_eq!(host.block(DATA + 512), vec![0x42; 512], "what was written is there");
    assert_eq!(server.endpoint.statistics().clients, 2);
}

#[test]
fn a_second_client_is_told_that_there_is_one() {
    let server = Server::start();
    let mut first = Host::new(server.caller());
    first.enable();
    for _ in 0..3 {
        let second = Caller::new(server.connect(), Capabilities::default(), Some(PATIENCE));
        match second.unwrap_err() {
            CallError::Refused { errno, .. } => assert_eq!(Errno::from_raw_os_error(errno as i32), Errno::BUSY),
            // It may be told before it has asked, and the connection be gone by the time it does.
            CallError::Connection(_) => {}
            other => panic!("{other}"),
        }
    }
    assert_eq!(first.admin(0x06, 0, DATA, 1, 0), 0, "the first is not disturbed");
    assert_eq!(server.endpoint.statistics().turned_away, 3);
}

#[test]
fn a_reset_leaves_memory_and_interrupts_in_place() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    host.caller.reset().unwrap();
    assert_eq!(host.register(0x14), 0);
    assert!(host.doorbells.dwords().iter().all(|d| d.load(std::sync::atomic::Ordering::Acquire) == 0));
    host.enable();
    host.create_queues();
    assert_eq!(host.io(0x02, DATA, 0), 0);
    // The same by the way of PCI Express: Device Control, Initiate Function Level Reset.
    host.caller.region_write(7, 0x58, &0x8000u16.to_le_bytes()).unwrap();
    assert_eq!(host.register(0x14), 0);
}

#[test]
fn controllers_of_one_subsystem_share_namespaces() {
    let directory = tempfile::tempdir().unwrap();
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(1 << 20)).unwrap();
    let start = |name: &str| {
        let path = directory.path().join(name);
        Endpoint::start(&path, &subsystem, ControllerConfig::default()).unwrap()
    };
    let connect = |endpoint: &Endpoint| {
        let stream = std::os::unix::net::UnixStream::connect(endpoint.path()).unwrap();
        let connection = vfio_user::Connection::new(stream, vfio_user::Limits::default());
        let mut host = Host::new(Caller::new(connection, Capabilities::default(), Some(PATIENCE)).unwrap());
        host.enable();
        host.create_queues();
        host
    };
    let endpoints = [start("a"), start("b")];
    let mut hosts = endpoints.each_ref().map(connect);
    hosts[0].fill(DATA, 0x11);
    assert_eq!(hosts[0].io(0x01, DATA, 3), 0);
    assert_eq!(hosts[1].io(0x02, DATA, 3), 0);
    assert_eq!(hosts[1].block(DATA), vec![0x11; 512]);
    // A namespace goes: both notice as soon as they are told.
    subsystem.remove_namespace(1).unwrap();
    endpoints.iter().for_each(Endpoint::wake);
    for host in &mut hosts {
        // Invalid Field in Command: the namespace is inactive.
        wait_for("the namespace's end", || host.io(0x02, DATA, 3) == 0x02);
    }
}

#[test]
fn an_idle_server_sleeps() {
    let server = Server::start();
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    assert_eq!(host.io(0x02, DATA, 0), 0);
    // From a while after the last I/O on, it looks 200 times a second.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = server.endpoint.statistics().sleeps;
    std::thread::sleep(std::time::Duration::from_millis(500));
    let looks = server.endpoint.statistics().sleeps - before;
    assert!((10..=150).contains(&looks), "{looks} looks in half a second");
    // A controller that is not enabled has no doorbells to look for.
    host.set_register(0x14, 0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    let before = server.endpoint.statistics().sleeps;
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(server.endpoint.statistics().sleeps - before <= 1);
}

#[test]
fn delayed_commands_are_completed_before_the_end() {
    let latency = Some(std::time::Duration::from_millis(100));
    let server = Server::with(ControllerConfig { latency, ..ControllerConfig::default() });
    let mut host = Host::new(server.caller());
    host.enable();
    host.create_queues();
    let memory = host.memory.clone();
    let waiting = std::thread::spawn(move || host.io(0x02, DATA, 0));
    // The command is taken as soon as its doorbell rings.
    wait_for("the doorbell", || {
        let mut sqe = [0; 1];
        memory.read_at(0x2000, &mut sqe).unwrap();
        sqe[0] == 2
    });
    std::thread::sleep(std::time::Duration::from_millis(30));
    server.endpoint.stop();
    assert_eq!(waiting.join().unwrap(), 0);
}

#[test]
fn sockets_are_replaced_if_dead_and_removed_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead socket is left");
    let start = || Endpoint::start(&path, &Subsystem::default(), ControllerConfig::default());
    let endpoint = start().unwrap();
    let error = start().unwrap_err();
    assert!(matches!(error, ServeError::InUse(_)), "{error}");
    endpoint.stop();
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = start().unwrap_err();
    assert!(matches!(error, ServeError::NoSocket(_)), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let nowhere = directory.path().join("no/socket");
    let error = Endpoint::start(&nowhere, &Subsystem::default(), ControllerConfig::default()).unwrap_err();
    assert!(error.to_string().contains("no/socket") && error.to_string().contains("No such file"), "{error}");
}

#[test]
fn the_thread_does_what_it_is_asked() {
    let server = Server::start();
    let name = server.endpoint.with_controller(|controller| controller.cntlid());
    assert_eq!(name, Some(0));
    server.endpoint.stop();
    assert_eq!(server.endpoint.with_controller(|controller| controller.cntlid()), None);
}
