//! A toy controller in each way of running it.

#[path = "common/toy.rs"]
mod toy;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_device::inprocess::{InProcess, Run};
use doorbell_device::{Access, Device, DeviceError, DmaMemory, Doorbell, HostMemory, MapRequest};
use toy::{TARGET, Toy};

struct Bench {
    device: Arc<InProcess<Toy>>,
    target: DmaMemory,
    doorbells: [Doorbell; 2],
}

impl Bench {
    fn new(run: Run) -> Self {
        let device = InProcess::new("toy:", Toy::default(), 2, run).unwrap();
        let target = device.allocate(4096, 4096).unwrap();
        device.write64(TARGET, target.iova()).unwrap();
        let doorbells = [0x1000, 0x1004].map(|offset| device.doorbell(offset).unwrap());
        Self { device, target, doorbells }
    }

    fn answer(&self, index: usize) -> u64 {
        self.target.host().words()[index].load(Ordering::Acquire)
    }

    fn wait(&self, index: usize, answer: u64) -> Duration {
        let start = Instant::now();
        while self.answer(index) != answer {
            assert!(start.elapsed() < Duration::from_secs(10), "the wake-up for {answer} was lost");
            std::thread::yield_now();
        }
        start.elapsed()
    }
}

#[test]
fn inline_acts_in_the_callers_own_call() {
    let bench = Bench::new(Run::Inline);
    for value in 1..1000 {
        bench.doorbells[0].ring(value);
        assert_eq!(bench.answer(0), u64::from(value));
    }
    bench.device.write32(0x1004, 5).unwrap();
    assert_eq!(bench.answer(1), 5);
    assert_eq!(bench.device.read64(TARGET).unwrap(), bench.target.iova());
    assert_eq!(bench.device.read32(0x1000).unwrap(), 0);
}

#[test]
fn stepped_acts_when_told_and_at_the_time_told() {
    let bench = Bench::new(Run::Stepped);
    bench.device.with_controller(|toy| toy.wake_at = Some(Duration::from_secs(5)));
    bench.doorbells[0].ring(1);
    assert_eq!((bench.answer(0), bench.device.interrupt(0).unwrap().take()), (0, 0));
    let activity = bench.device.step(Duration::from_secs(1));
    assert_eq!((activity.worked, activity.wake_at), (true, Some(Duration::from_secs(5))));
    assert_eq!((bench.answer(0), bench.device.interrupt(0).unwrap().take()), (1, 1));
    assert!(!bench.device.step(Duration::from_secs(4)).worked);
    // Time does not go back.
    bench.device.step(Duration::from_secs(2));
    assert_eq!(bench.device.with_controller(|toy| toy.last_now), Duration::from_secs(4));
    assert!(bench.device.step(Duration::from_secs(5)).worked);
}

#[test]
fn a_thread_that_dozes_off_loses_no_doorbell() {
    let bench = Bench::new(Run::Threaded);
    std::thread::scope(|scope| {
        for index in 0..2 {
            let bench = &bench;
            scope.spawn(move || {
                for value in 1..=3000u32 {
                    // From no pause at all to longer than the thread looks before it sleeps; with the most around
                    // where it decides to.
                    let pause = match value % 8 {
                        0 => 200,
                        1..4 => 45 + u64::from(value * 7 % 20),
                        _ => 0,
                    };
                    let until = Instant::now() + Duration::from_micros(pause);
                    while Instant::now() < until {
                        std::hint::spin_loop();
                    }
                    bench.doorbells[index].ring(value);
                    // A lost one would be noticed after the second for which the thread sleeps at most.
                    assert!(bench.wait(index, value.into()) < Duration::from_millis(900), "found late: {value}");
                }
            });
        }
    });
}

#[test]
fn a_thread_wakes_when_the_controller_asked_to() {
    let bench = Bench::new(Run::Threaded);
    std::thread::sleep(Duration::from_millis(5));
    let soon = bench.device.with_controller(|toy| {
        let soon = toy.last_now + Duration::from_millis(30);
        toy.wake_at = Some(soon);
        soon
    });
    let start = Instant::now();
    while bench.device.with_controller(|toy| toy.wake_at.is_some()) {
        assert!(start.elapsed() < Duration::from_millis(800));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(bench.device.with_controller(|toy| toy.last_now) >= soon);
}

#[test]
fn a_busy_thread_makes_way_for_registers_and_unmapping() {
    let bench = Bench::new(Run::Threaded);
    bench.device.with_controller(|toy| toy.busy = true);
    let runs = || bench.device.with_controller(|toy| toy.runs);
    let begun = runs();
    while runs() < begun + 2 {
        std::thread::yield_now();
    }
    let start = Instant::now();
    for _ in 0..200 {
        // Who comes by now and then, rather than at once again, has to wait for the thread to let go.
        std::thread::sleep(Duration::from_micros(100));
        bench.device.read64(TARGET).unwrap();
        drop(bench.device.allocate(4096, 4096).unwrap());
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} for 200 reads and unmappings");
}

#[test]
fn a_device_that_was_dropped_does_nothing() {
    for run in [Run::Inline, Run::Threaded] {
        let Bench { device, target, doorbells } = Bench::new(run);
        drop(device);
        doorbells[0].ring(9);
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!(target.host().words()[0].load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_reset_clears_the_doorbells_too() {
    let bench = Bench::new(Run::Inline);
    bench.doorbells[0].ring(3);
    bench.device.reset().unwrap();
    bench.device.with_controller(|toy| assert_eq!((toy.resets, toy.seen), (1, [0, 0])));
}

#[test]
fn memory_is_reached_until_the_last_clone_goes() {
    let bench = Bench::new(Run::Inline);
    let clone = bench.target.clone();
    let host = bench.target.host().clone();
    drop(bench.target);
    bench.doorbells[0].ring(1);
    assert_eq!(host.words()[0].load(Ordering::Relaxed), 1);
    drop(clone);
    bench.doorbells[0].ring(2);
    assert_eq!(host.words()[0].load(Ordering::Relaxed), 1);
    bench.device.with_controller(|toy| assert_eq!(toy.faults, 1));
    assert_eq!(bench.device.dma_space().fault_count(), 1);
}

#[test]
fn addresses_are_as_asked_for_and_never_used_twice() {
    let device = InProcess::new("toy:", Toy::default(), 0, Run::Stepped).unwrap();
    let host = HostMemory::allocate(0x3000).unwrap();
    let mut before = 0;
    for (align, offset) in [(0, 0), (4096, 0), (1 << 30, 0x5000), (1 << 16, 0x3_f000), (1 << 21, 0)] {
        let request = MapRequest { host: host.clone(), access: Access::ReadWrite, align, offset };
        let memory = device.map(request).unwrap();
        let align = align.max(4096);
        assert_eq!(memory.iova() % align, offset % align);
        assert!(memory.iova() > before);
        before = memory.iova() + memory.len() as u64;
    }
    for (align, offset) in [(12288, 0), (1 << 20, 5)] {
        let request = MapRequest { host: host.clone(), access: Access::ReadWrite, align, offset };
        assert!(matches!(device.map(request), Err(DeviceError::Unmappable { .. })));
    }
    assert!(matches!(device.allocate(usize::MAX, 4096), Err(DeviceError::Unmappable { .. })));
    assert!(matches!(device.allocate(1, 5000), Err(DeviceError::Unmappable { .. })));
    assert_eq!(device.allocate(0, 1).unwrap().len(), 4096);
}

#[test]
fn what_is_no_register_is_refused() {
    let device = InProcess::new("toy:", Toy::default(), 0, Run::Inline).unwrap();
    for offset in [0x1002, 0x2000, usize::MAX, usize::MAX - 3] {
        let bad = |result: Result<(), DeviceError>| assert!(matches!(result, Err(DeviceError::BadRegister { .. })));
        bad(device.read32(offset).map(drop));
        bad(device.read64(offset).map(drop));
        bad(device.write32(offset, 0));
        bad(device.write64(offset, 0));
        bad(device.doorbell(offset).map(drop));
    }
    assert!(device.doorbell(0x14).is_err());
    assert!(matches!(device.interrupt(0), Err(DeviceError::BadVector { vector: 0, count: 0 })));
}
