//! What the two cores cost by themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use doorbell_device::HostMemory;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Which cores are used.
pub(crate) struct Cores {
    pub(crate) client: usize,
    pub(crate) server: usize,
}

const ROUND_TRIPS: u64 = 400_000;
/// Pages that are written before they are copied: more than a first-level cache holds, less than a second.
const PAGES: usize = 64;
const COPIES: u64 = 400;
/// Pages that are copied to, in turn: as many as are read into with the most reads in flight.
const TARGETS: usize = 128;

/// Memory that is there, not only promised.
fn written(len: usize) -> anyhow::Result<HostMemory> {
    let memory = HostMemory::allocate(len)?;
    memory.words().iter().for_each(|word| word.store(1, Ordering::Relaxed));
    Ok(memory)
}

fn target(round: usize, page: usize) -> usize {
    (round * PAGES + page) % TARGETS * 4096
}

/// Xorshift.
pub(crate) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }
}

impl Random {
    #[inline]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// On a cache line, and the next, of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// Parts that a measurement is made of.
pub(crate) const SLICES: usize = 64;

/// What an operation takes: of the slices of a measurement the lower quartile, so that what else the machine does between
/// them counts little. On a machine that does nothing else it is the median too.
pub(crate) fn quartile(mut slices: Vec<f64>) -> f64 {
    slices.sort_unstable_by(f64::total_cmp);
    slices.get(slices.len() / 4).copied().unwrap_or(f64::NAN)
}

impl Cores {
    /// From now on, this thread and those that it starts run on one core.
    pub(crate) fn pin(core: usize) -> anyhow::Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Nanoseconds from writing a line to reading what the other core wrote in answer.
    pub(crate) fn round_trip(&self) -> anyhow::Result<f64> {
        let line = Arc::new(Line(AtomicU64::new(0)));
        let other = line.clone();
        let server = self.server;
        // Odd numbers are questions, the even ones that follow are answers.
        let answering = std::thread::spawn(move || -> anyhow::Result<()> {
            Self::pin(server)?;
            for question in (1..2 * ROUND_TRIPS).step_by(2) {
                while other.0.load(Ordering::Acquire) != question {
                    std::hint::spin_loop();
                }
                other.0.store(question + 1, Ordering::Release);
            }
            Ok(())
        });
        Self::pin(self.client)?;
        let slice = ROUND_TRIPS / SLICES as u64;
        let mut slices = Vec::with_capacity(SLICES);
        let mut started = Instant::now();
        for round in 1..=ROUND_TRIPS {
            line.0.store(2 * round - 1, Ordering::Release);
            while line.0.load(Ordering::Acquire) != 2 * round {
                std::hint::spin_loop();
            }
            if round.is_multiple_of(slice) {
                slices.push(started.elapsed().as_nanos() as f64 / slice as f64);
                started = Instant::now();
            }
        }
        answering.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
        Ok(quartile(slices))
    }

    /// Nanoseconds to copy 4 KiB from anywhere in so much memory, which nobody else uses.
    pub(crate) fn copy_at_random(&self, size: u64) -> anyhow::Result<f64> {
        let (from, to) = (written(size as usize)?, written(TARGETS * 4096)?);
        Self::pin(self.client)?;
        let mut random = Random::default();
        let mut slices = Vec::new();
        for round in 0..COPIES as usize {
            let started = Instant::now();
            for page in 0..PAGES {
                let at = random.next() % (size / 4096);
                from.copy_to(at as usize * 4096, &to, target(round, page), 4096)?;
            }
            slices.push(started.elapsed().as_nanos() as f64 / PAGES as f64);
        }
        Ok(quartile(slices))
    }

    /// Nanoseconds to copy 4 KiB that the other core has written just before.
    pub(crate) fn copy(&self) -> anyhow::Result<f64> {
        let turn = Arc::new(Line(AtomicU64::new(0)));
        let (from, to) = (written(PAGES * 4096)?, written(TARGETS * 4096)?);
        let (other, written, server) = (turn.clone(), from.clone(), self.server);
        let writing = std::thread::spawn(move || -> anyhow::Result<()> {
            Self::pin(server)?;
            for round in 0..COPIES {
                while other.0.load(Ordering::Acquire) != 2 * round {
                    std::hint::spin_loop();
                }
                for word in written.words() {
                    word.store(round, Ordering::Relaxed);
                }
                other.0.store(2 * round + 1, Ordering::Release);
            }
            Ok(())
        });
        Self::pin(self.client)?;
        let mut slices = Vec::new();
        for round in 0..COPIES {
            while turn.0.load(Ordering::Acquire) != 2 * round + 1 {
                std::hint::spin_loop();
            }
            let started = Instant::now();
            for page in 0..PAGES {
                from.copy_to(page * 4096, &to, target(round as usize, page), 4096)?;
            }
            slices.push(started.elapsed().as_nanos() as f64 / PAGES as f64);
            turn.0.store(2 * round + 2, Ordering::Release);
        }
        writing.join().map_err(|_| anyhow::anyhow!("the other thread panicked"))??;
        Ok(quartile(slices))
    }
}
