//! What a doorbell costs, and what the zero-work device does: nanoseconds, the best of several rounds.
//!
//! `cargo bench -p doorbell-device`
#![expect(clippy::print_stdout, reason = "it is what a bench is for")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/toy.rs"]
mod toy;

use std::hint::black_box;
use std::time::{Duration, Instant};

use common::Driver;
use doorbell_device::inprocess::{InProcess, Run};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_device::{Device, Doorbell, HostMemory};
use nvme_spec::{Cdw0, Command};
use toy::{TARGET, Toy};

const ROUNDS: u32 = 20;
const CALLS: u32 = 100_000;

fn main() {
    let memory = HostMemory::allocate(4096).expect("memory");
    let doorbell = Doorbell::in_memory(memory, 0).expect("a doorbell");
    report("ring, in memory", || (0..CALLS).for_each(|value| doorbell.ring(black_box(value))));
    let doorbell = Doorbell::from_fn(|value| {
        black_box(value);
    });
    report("ring, an empty call", || (0..CALLS).for_each(|value| doorbell.ring(black_box(value))));

    for (name, run) in [("inline", Run::Inline), ("threaded", Run::Threaded), ("stepped", Run::Stepped)] {
        let device = InProcess::new("toy:", Toy::default(), 0, run).expect("a device");
        let target = device.allocate(4096, 4096).expect("memory");
        device.write64(TARGET, target.iova()).expect("a register");
        let doorbell = device.doorbell(0x1000).expect("a doorbell");
        report(&format!("ring, {name}, unchanged"), || (0..CALLS).for_each(|_| doorbell.ring(black_box(0))));
        report(&format!("ring, {name}, 8 bytes of DMA"), || (1..=CALLS).for_each(|value| doorbell.ring(value)));
    }

    let device = ZeroWork::new(Options::default()).expect("a device");
    let mut pair = Driver::new(device.clone()).create_pair(1, 256);
    let queue = device.queue(1).expect("the queue");
    for batch in [1, 32] {
        report(&format!("zero work, {batch} a call, and the ring's other side"), || {
            for _ in 0..CALLS / batch {
                for cid in 0..batch as u16 {
                    pair.push(&Command { cdw0: Cdw0::new().with_opcode(2).with_cid(cid), ..Command::default() });
                }
                pair.ring();
                assert_eq!(queue.complete(usize::MAX), batch as usize);
                while pair.pop().is_some() {}
            }
        });
    }
}

/// Prints what one of the `CALLS` that `calls` makes takes.
fn report(name: &str, mut calls: impl FnMut()) {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        calls();
        best = best.min(start.elapsed());
    }
    println!("{name:50} {:7.1} ns", best.as_nanos() as f64 / f64::from(CALLS));
}
