//! What a command costs the emulated controller: 4 KiB reads, writes and flushes, in batches, on one queue.
//!
//! Prints the least of several runs in nanoseconds; the host's part, a loop over raw rings, is in it.

#![expect(clippy::print_stdout, reason = "it is what a bench is for")]

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_device::Device;
use doorbell_device::inprocess::Run;
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem, emulated};
use nvme_spec::admin::{create_io_cq, create_io_sq};
use nvme_spec::registers::{Aqa, Cc, offset};
use nvme_spec::{AdminOpcode, Command, DataPointer, NvmOpcode};

const ENTRIES: usize = 256;
const RUNS: usize = 20;
const COMMANDS: usize = 100_000;

fn main() {
    for name in ["null", "ram"] {
        let namespace = || match name {
            "null" => NamespaceConfig::null(1 << 40),
            _ => NamespaceConfig::ram(1 << 30),
        };
        for (what, opcode) in [("read", NvmOpcode::READ), ("write", NvmOpcode::WRITE), ("flush", NvmOpcode::FLUSH)] {
            for depth in [1, 32] {
                println!("{name} {what} x{depth}: {:.1} ns", measure(namespace().block_size(4096), opcode, depth));
            }
        }
    }
}

fn measure(namespace: NamespaceConfig, opcode: NvmOpcode, depth: usize) -> f64 {
    let subsystem = Subsystem::default();
    subsystem.add_namespace(namespace).unwrap();
    let device = emulated(&subsystem, ControllerConfig::default(), Run::Stepped).unwrap();
    let ring = |entries: usize, size: usize| device.allocate(entries * size, 4096).unwrap();
    let (asq, acq) = (ring(32, 64), ring(32, 16));
    device.write32(offset::AQA, Aqa::new().with_asqs(31).with_acqs(31).into_bits()).unwrap();
    device.write64(offset::ASQ, asq.iova()).unwrap();
    device.write64(offset::ACQ, acq.iova()).unwrap();
    device.write32(offset::CC, Cc::new().with_en(true).with_iosqes(6).with_iocqes(4).into_bits()).unwrap();
    let (sq, cq) = (ring(ENTRIES, 64), ring(ENTRIES, 16));
    let store = |memory: &doorbell_device::DmaMemory, index: usize, command: Command| {
        for (to, from) in memory.host().words()[index * 8..].iter().zip(command.to_words()) {
            to.store(from, Ordering::Relaxed);
        }
    };
    store(&asq, 0, create_io_cq(1, ENTRIES as u32, cq.iova(), None));
    store(&asq, 1, create_io_sq(1, ENTRIES as u32, sq.iova(), 1));
    device.write32(0x1000, 2).unwrap();
    device.step(Duration::ZERO);
    let data = device.allocate(4096 * 64, 4096).unwrap();
    let (tail_bell, head_bell) = (device.doorbell(0x1008).unwrap(), device.doorbell(0x100c).unwrap());
    let command = Command { nsid: 1, dptr: DataPointer::prp(data.iova(), 0), ..AdminOpcode(opcode.0).command() };
    let (mut tail, mut head, mut phase) = (0, 0, 1);
    let mut best = f64::MAX;
    for _ in 0..RUNS {
        let start = Instant::now();
        for round in 0..COMMANDS / depth {
            for index in 0..depth {
                store(&sq, tail, Command { cdw10: ((round * depth + index) % 65_536) as u32, ..command });
                tail = (tail + 1) % ENTRIES;
            }
            tail_bell.ring(tail as u32);
            device.step(Duration::ZERO);
            for _ in 0..depth {
                let status = cq.host().words()[head * 2 + 1].load(Ordering::Acquire) >> 48;
                assert_eq!(status, phase, "a command failed");
                head = (head + 1) % ENTRIES;
                phase ^= u64::from(head == 0);
            }
            head_bell.ring(head as u32);
        }
        best = best.min(start.elapsed().as_nanos() as f64 / COMMANDS as f64);
    }
    best
}
