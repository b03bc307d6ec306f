//! What the other processes do. Run by itself, a part does nothing.

#![expect(clippy::print_stdout, reason = "whoever looks on reads it")]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use doorbell::DriverOptions;
use doorbell_device::Device;
use doorbell_handover::{Handover, Resting, ResumeError, resume};
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::block_on;

use crate::load::{Ended, Load};
use crate::part::{self, given_socket, report};

/// The server's controller; none in an ordinary run of the tests.
fn open() -> Option<impl Fn() -> Arc<dyn Device>> {
    let server = std::env::var("DOORBELL_TEST_SERVER").ok()?;
    Some(move || VfioUserDevice::open(VfioUserOptions::new(server.clone())).unwrap() as Arc<dyn Device>)
}

#[test]
fn old() {
    if let Some(open) = open() {
        part::old(given_socket(), &open);
    }
}

#[test]
fn new() {
    if open().is_some() {
        part::new(given_socket());
    }
}

/// One of a chain of processes: takes the device from the one before, if there is one, and gives it to the next, if there is
/// to be one.
#[test]
#[expect(clippy::zombie_processes, reason = "the next process outlives this one")]
fn chain() {
    let Some(open) = open() else { return };
    let left: u32 = std::env::var("DOORBELL_TEST_LEFT").unwrap().parse().unwrap();
    let (driver, running) = if std::env::var_os("DOORBELL_TEST_FIRST").is_some() {
        let driver = block_on(DriverOptions::new(open()).cpus(2).open()).unwrap();
        let load = Load::begin(&driver);
        (driver, load.run(Vec::new()))
    } else {
        let taken = given_socket().take(|device| DriverOptions::new(device).cpus(2)).unwrap();
        let load = Load::go_on(&taken.restored, taken.luggage);
        (taken.restored.driver, load.run(taken.restored.commands))
    };
    running.wait_for(100);
    if left == 0 {
        running.stop();
        assert_eq!(running.end(), Ended::Stopped);
        block_on(driver.shutdown());
        return report("works");
    }
    let (ours, theirs) = doorbell_handover::pair().unwrap();
    let mut next = Command::new(std::env::current_exe().unwrap());
    next.args(std::env::args_os().skip(1)).env_remove("DOORBELL_TEST_FIRST");
    next.env("DOORBELL_TEST_LEFT", (left - 1).to_string()).stdin(theirs).spawn().unwrap();
    drop(next);
    let handover = Handover::over(ours).limit(Duration::from_secs(20));
    handover.give(&driver, |_| running.load().luggage()).unwrap();
    assert_eq!(running.end(), Ended::HandedOver);
}

/// One of a chain of programs in one process, each in the place of the one before.
#[test]
fn reborn() {
    if let Some(open) = open() {
        part::reborn(&open);
    }
}

/// A service: goes on with what the manager keeps, and leaves it there.
#[test]
fn service() {
    let Some(open) = open() else { return };
    let mut tried = false;
    let options = |device| {
        tried = true;
        // Once, one that cannot go on with it is started.
        let cpus = if std::env::var_os("DOORBELL_TEST_UNFIT").is_some() { 0 } else { 2 };
        DriverOptions::new(device).cpus(cpus)
    };
    let (driver, running) = match resume("drive", options) {
        Ok(None) => {
            let driver = block_on(DriverOptions::new(open()).cpus(2).open()).unwrap();
            let load = Load::begin(&driver);
            (driver, load.run(Vec::new()))
        }
        Ok(Some(taken)) => {
            let load = Load::go_on(&taken.restored, taken.luggage);
            (taken.restored.driver, load.run(taken.restored.commands))
        }
        Err(ResumeError { error, kept, .. }) => {
            println!("{error}");
            assert!(kept.is_some() && tried, "it can be tried again");
            return report("unfit");
        }
    };
    running.wait_for(500);
    if std::env::var_os("DOORBELL_TEST_LAST").is_some() {
        running.stop();
        assert_eq!(running.end(), Ended::Stopped);
        block_on(driver.shutdown());
        return report("works");
    }
    let resting = Resting::new(&driver, |_| running.load().luggage()).unwrap();
    match resting.store("drive") {
        Ok(()) => {
            assert_eq!(running.end(), Ended::HandedOver);
            report("stored");
        }
        Err(error) => {
            println!("{error}");
            running.wait_for(500);
            running.stop();
            assert_eq!(running.end(), Ended::Stopped);
            block_on(driver.shutdown());
            report("not stored");
        }
    }
}
