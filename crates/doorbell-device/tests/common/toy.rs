//! A controller with one register and two doorbells, for tests of what carries a controller.
#![allow(dead_code, unreachable_pub, reason = "each test file uses another part")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::inprocess::{Activity, Host, SoftController};

/// Where the register is.
pub const TARGET: usize = 0x28;

/// Writes what a doorbell was rung with to the address in its register, eight bytes a doorbell, and raises the
/// doorbell's vector.
#[derive(Default)]
pub struct Toy {
    pub target: u64,
    pub seen: [u32; 2],
    pub runs: u64,
    pub resets: u64,
    /// Asked to be run again at.
    pub wake_at: Option<Duration>,
    pub last_now: Duration,
    pub faults: u64,
    /// Claims to have something to do each time, and takes a while for it.
    pub busy: bool,
}

impl SoftController for Toy {
    fn register_space(&self) -> usize {
        0x2000
    }

    fn doorbell_stride(&self) -> usize {
        4
    }

    fn read_register(&mut self, offset: usize, _len: usize) -> u64 {
        if offset == TARGET { self.target } else { 0 }
    }

    fn write_register(&mut self, _host: &Host<'_>, offset: usize, _len: usize, value: u64) {
        if offset == TARGET {
            self.target = value;
        }
    }

    fn run(&mut self, host: &Host<'_>, now: Duration) -> Activity {
        self.runs += 1;
        self.last_now = now;
        let mut worked = false;
        for (index, (doorbell, seen)) in host.doorbells.dwords().iter().zip(&mut self.seen).enumerate() {
            let value = doorbell.load(Ordering::Acquire);
            if value != *seen {
                *seen = value;
                worked = true;
                let at = self.target + index as u64 * 8;
                if host.dma.write(at, &u64::from(value).to_le_bytes()).is_err() {
                    self.faults += 1;
                }
                (host.interrupt)(index as u16);
            }
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            worked = true;
        }
        if self.busy {
            worked = true;
            let start = std::time::Instant::now();
            while start.elapsed() < Duration::from_micros(10) {}
        }
        Activity { worked, wake_at: self.wake_at }
    }

    fn function_reset(&mut self) {
        *self = Self { resets: self.resets + 1, runs: self.runs, ..Self::default() };
    }
}
