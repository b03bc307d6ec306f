//! What processes do that have a driver one after the other. They say how it went on standard output.

#![allow(clippy::print_stdout, reason = "whoever looks on reads it")]

use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use doorbell::DriverOptions;
use doorbell_device::Device;
use doorbell_handover::{Handover, Resting, Step, resume};
use futures_lite::future::block_on;

use crate::load::{Ended, Load};

/// How many I/Os are enough to say that it works.
const ENOUGH: u64 = 2000;

/// The handover over the socket that is this process's standard input. The process ends at the step that the environment
/// says, as if it had been killed.
pub(crate) fn given_socket() -> Handover {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let dies_at = std::env::var("DOORBELL_TEST_DIES_AT").ok();
    let die = move |step: Step| {
        if dies_at.as_ref().is_some_and(|at| *at == format!("{step:?}")) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    };
    Handover::over(socket).limit(Duration::from_secs(10)).on_step(die)
}

pub(crate) fn report(said: &str) {
    println!("REPORT {said}");
}

/// Which of the two dies at a step, if it is the new one; and what the old and the new one then report.
pub(crate) fn when_one_dies_at(step: Step) -> (bool, [Option<&'static str>; 2]) {
    let of_the_new =
        matches!(step, Step::Received | Step::Adopted | Step::Prepared | Step::Taken | Step::Told | Step::TakenOver);
    let is_taken = matches!(step, Step::Taken | Step::Told | Step::TakenOver | Step::Informed | Step::HandedOver);
    let reports = match (of_the_new, is_taken) {
        // What was all sent is there, whoever sent it.
        (false, true) => [None, Some("works")],
        (false, false) if step == Step::Sent => [None, Some("works")],
        (false, false) => [None, Some("has nothing")],
        (true, false) => [Some("works"), None],
        // Nobody was told, and nothing was touched.
        (true, true) if step == Step::Taken => [Some("works"), None],
        (true, true) => [Some("given"), None],
    };
    (of_the_new, reports)
}

/// Has the driver first.
pub(crate) fn old(handover: Handover, open: &dyn Fn() -> Arc<dyn Device>) {
    let driver = block_on(DriverOptions::new(open()).cpus(2).open()).unwrap();
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

/// Has it next.
pub(crate) fn new(handover: Handover) {
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

/// One of a chain of programs in one process, each in the place of the one before; as many as the environment says.
pub(crate) fn reborn(open: &dyn Fn() -> Arc<dyn Device>) {
    let left: u32 = std::env::var("DOORBELL_TEST_LEFT").unwrap().parse().unwrap();
    let (driver, running) = match resume("drive", |device| DriverOptions::new(device).cpus(2)).unwrap() {
        None => {
            assert!(std::env::var_os("DOORBELL_TEST_FIRST").is_some(), "nothing was left");
            let driver = block_on(DriverOptions::new(open()).cpus(2).open()).unwrap();
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
