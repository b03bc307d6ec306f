//! What the other processes do. Run by itself, a part does nothing.

#![expect(clippy::print_stdout, reason = "whoever looks on reads it")]

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use doorbell::DriverOptions;
use doorbell_handover::{Handover, Resting, ResumeError, Step, resume};
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::block_on;

use crate::load::{Ended, Load};

/// How many I/Os are enough to say that it works.
const ENOUGH: u64 = 2000;

/// This process's end of the socket, unless this is an ordinary run of the tests.
fn handover() -> Option<Handover> {
    std::env::var_os("DOORBELL_TEST_SERVER")?;
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let dies_at = std::env::var("DOORBELL_TEST_DIES_AT").ok();
    let die = move |step: Step| {
        if dies_at.as_ref().is_some_and(|at| *at == format!("{step:?}")) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    };
    Some(Handover::over(socket).limit(Duration::from_secs(10)).on_step(die))
}

fn report(said: &str) {
    println!("REPORT {said}");
}

#[test]
fn old() {
    let Some(handover) = handover() else { return };
    let server = std::env::var("DOORBELL_TEST_SERVER").unwrap();
    let device = VfioUserDevice::open(VfioUserOptions::new(server)).unwrap();
    let driver = block_on(DriverOptions::new(device).cpus(2).open()).unwrap();
    let load = Load::begin(&driver);
    let running = load.run(Vec::new());
    running.wait_for(ENOUGH);
    match handover.give(&driver, |_| running.load().luggage()) {
        Ok(_) => {
            assert_eq!(running.end(), Ended::HandedOver);
            report("given");
        }
        Err(error) => {
            println!("{error}");
            running.wait_for(ENOUGH);
            running.stop();
            assert_eq!(running.end(), Ended::Stopped);
            block_on(driver.shutdown());
            report("works");
        }
    }
}

#[test]
fn new() {
    let Some(handover) = handover() else { return };
    match handover.take(|device| DriverOptions::new(device).cpus(3)) {
        Ok(taken) => {
            let load = Load::go_on(&taken.restored, taken.luggage);
            let running = load.run(taken.restored.commands);
            running.wait_for(ENOUGH);
            running.stop();
            assert_eq!(running.end(), Ended::Stopped);
            block_on(taken.restored.driver.shutdown());
            report("works");
        }
        Err(error) => {
            println!("{error}");
            report("has nothing");
        }
    }
}

/// One of a chain of processes: takes the device from the one before, if there is one, and gives it to the next, if there is
/// to be one.
#[test]
#[expect(clippy::zombie_processes, reason = "the next process outlives this one")]
fn chain() {
    let Ok(left) = std::env::var("DOORBELL_TEST_LEFT") else { return };
    let (left, first): (u32, bool) = (left.parse().unwrap(), std::env::var_os("DOORBELL_TEST_FIRST").is_some());
    let server = std::env::var("DOORBELL_TEST_SERVER").unwrap();
    let (driver, running) = if first {
        let device = VfioUserDevice::open(VfioUserOptions::new(server)).unwrap();
        let driver = block_on(DriverOptions::new(device).cpus(2).open()).unwrap();
        let load = Load::begin(&driver);
        (driver, load.run(Vec::new()))
    } else {
        let taken = handover().unwrap().take(|device| DriverOptions::new(device).cpus(2)).unwrap();
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
    let Ok(left) = std::env::var("DOORBELL_TEST_LEFT") else { return };
    let left: u32 = left.parse().unwrap();
    let server = std::env::var("DOORBELL_TEST_SERVER").unwrap();
    let (driver, running) = match resume("drive", |device| DriverOptions::new(device).cpus(2)).unwrap() {
        None => {
            assert!(std::env::var_os("DOORBELL_TEST_FIRST").is_some(), "nothing was left");
            let device = VfioUserDevice::open(VfioUserOptions::new(server)).unwrap();
            let driver = block_on(DriverOptions::new(device).cpus(2).open()).unwrap();
            let load = Load::begin(&driver);
            (driver, load.run(Vec::new()))
        }
        Some(taken) => {
            let load = Load::go_on(&taken.restored, taken.luggage);
            (taken.restored.driver, load.run(taken.restored.commands))
        }
    };
    running.wait_for(100);
    if left == 0 {
        running.stop();
        assert_eq!(running.end(), Ended::Stopped);
        block_on(driver.shutdown());
        return report("works");
    }
    // A program that is not there changes nothing.
    let resting = Resting::new(&driver, |_| running.load().luggage()).unwrap();
    let error = resting.exec("drive", Command::new("/nonexistent"));
    assert!(error.to_string().starts_with("starting the program that is to take over"), "{error}");
    running.wait_for(100);
    let mut next = Command::new(std::env::current_exe().unwrap());
    next.args(std::env::args_os().skip(1)).env_remove("DOORBELL_TEST_FIRST");
    next.env("DOORBELL_TEST_LEFT", (left - 1).to_string());
    let resting = Resting::new(&driver, |_| running.load().luggage()).unwrap();
    panic!("{}", resting.exec("drive", next));
}

/// A service: goes on with what the manager keeps, and leaves it there.
#[test]
fn service() {
    let Ok(server) = std::env::var("DOORBELL_TEST_SERVER") else { return };
    let mut tried = false;
    let options = |device| {
        tried = true;
        // Once, one that cannot go on with it is started.
        let cpus = if std::env::var_os("DOORBELL_TEST_UNFIT").is_some() { 0 } else { 2 };
        DriverOptions::new(device).cpus(cpus)
    };
    let (driver, running) = match resume("drive", options) {
        Ok(None) => {
            let device = VfioUserDevice::open(VfioUserOptions::new(server)).unwrap();
            let driver = block_on(DriverOptions::new(device).cpus(2).open()).unwrap();
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
