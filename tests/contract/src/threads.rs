//! The same on threads and in real time: the built-in runtime, a controller with a thread of its own, callers on others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use doorbell::{CompletionMode, DriverOptions, NvmeDriver, ShadowDoorbells};
use doorbell_device::inprocess::Run;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem, emulated};
use futures_lite::future::{block_on, poll_once};

use crate::bench::pattern;

fn exercise(config: ControllerConfig, mode: CompletionMode, shadows: ShadowDoorbells) {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(16 << 20)).expect("a namespace");
    let device = emulated(&subsystem, config, Run::Threaded).expect("a device");
    let options = DriverOptions::new(device).cpus(2).depth(8).completion(mode).shadow_doorbells(shadows);
    let driver: NvmeDriver = block_on(options.open()).expect("it comes up");
    let namespace = Arc::new(block_on(driver.namespace(1)).expect("namespace 1"));
    let callers = (0..4_u32).map(|caller| {
        let namespace = namespace.clone();
        std::thread::spawn(move || {
            for round in 0..50_u64 {
                let data = pattern(round * 4 + u64::from(caller), 8 * 512);
                let lba = u64::from(caller) * 100;
                block_on(namespace.write_slice(caller % 2, lba, false, &data)).expect("written");
                let mut back = vec![0; data.len()];
                block_on(namespace.read_slice(1 - caller % 2, lba, &mut back)).expect("read");
                assert_eq!(back, data);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.join().expect("a caller");
    }
    subsystem.resize_namespace(1, 1 << 20).expect("resized");
    assert_eq!(block_on(namespace.wait_resize(32768)).expect("told"), 2048);
    block_on(driver.shutdown());
    assert!(block_on(namespace.flush(0)).is_err());
}

#[test]
fn threads_find_completions_by_interrupt_and_by_polling() {
    for mode in [CompletionMode::Interrupt, CompletionMode::Adaptive, CompletionMode::Polling] {
        exercise(ControllerConfig::default(), mode, ShadowDoorbells::Never);
    }
    let config = || ControllerConfig::default();
    exercise(ControllerConfig { vectors: 0, ..config() }, CompletionMode::Interrupt, ShadowDoorbells::Never);
    exercise(ControllerConfig { mqes: 1, aerl: 0, ..config() }, CompletionMode::Interrupt, ShadowDoorbells::Never);
}

/// The controller's thread waits whenever it has nothing to do, and is told when it has.
#[test]
fn q7_nobody_waits_for_a_doorbell_that_does_not_ring() {
    for mqes in [1, 4095] {
        let config = ControllerConfig { mqes, ..ControllerConfig::default() };
        exercise(config, CompletionMode::Interrupt, ShadowDoorbells::WhereOffered);
    }
}

#[test]
fn q4_callers_that_poll_are_left_alone_and_not_forgotten() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(16 << 20)).expect("a namespace");
    let config = ControllerConfig { latency: Some(Duration::from_millis(1)), ..ControllerConfig::default() };
    let device = emulated(&subsystem, config, Run::Threaded).expect("a device");
    let options = DriverOptions::new(device).cpus(1).completion(CompletionMode::Adaptive);
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let driver = block_on(options.open()).expect("it comes up");
        let namespace = block_on(driver.namespace(1)).expect("namespace 1");
        let (mut data, mut impatient) = ([0; 512], 0);
        for _ in 0..50 {
            let mut read = namespace.read_slice(0, 0, &mut data);
            let pending = block_on(poll_once(&mut read)).is_none();
            // This caller polls, then loses patience: from then on it is the driver's to find the completion. On a busy
            // machine that may be there already.
            let found: usize = (0..100).map(|_| driver.poll_cpu(0)).sum();
            impatient += usize::from(pending && found == 0);
            if pending {
                block_on(read).expect("read");
            }
        }
        done.send(impatient).expect("it is waited for");
    });
    let impatient = is_done.recv_timeout(Duration::from_secs(30)).expect("every read ends");
    assert!(impatient > 0, "no caller lost patience");
}

/// A queue that is made while another gives the poller no rest.
#[test]
fn q4_a_new_queue_is_looked_after_while_another_is_busy() {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(NamespaceConfig::ram(16 << 20)).expect("a namespace");
    let device = emulated(&subsystem, ControllerConfig::default(), Run::Threaded).expect("a device");
    let options = DriverOptions::new(device).cpus(2).completion(CompletionMode::Adaptive);
    let driver = block_on(options.open()).expect("it comes up");
    let namespace = Arc::new(block_on(driver.namespace(1)).expect("namespace 1"));
    let (stop, busy) = (Arc::new(AtomicBool::new(false)), namespace.clone());
    let stopped = stop.clone();
    let busy = std::thread::spawn(move || {
        let mut data = [0; 512];
        let mut reads = 0;
        while !stopped.load(Ordering::Relaxed) {
            block_on(busy.read_slice(0, 0, &mut data)).expect("read");
            reads += 1;
        }
        reads
    });
    // The poller has come to find it worth its while.
    std::thread::sleep(Duration::from_millis(100));
    let (done, is_done) = mpsc::channel();
    let other = std::thread::spawn(move || {
        let mut data = [0; 512];
        for _ in 0..3 {
            block_on(namespace.read_slice(1, 0, &mut data)).expect("read");
        }
        done.send(()).expect("it is waited for");
    });
    let ended = is_done.recv_timeout(Duration::from_secs(20));
    stop.store(true, Ordering::Relaxed);
    let reads = busy.join().expect("a caller");
    other.join().expect("the other");
    ended.expect("the other queue's reads end while the first is busy");
    assert!(reads > 3);
}
