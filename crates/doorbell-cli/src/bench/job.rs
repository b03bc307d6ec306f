//! A job: one thread that keeps a number of I/Os in flight on its own queue pair.
//!
//! Its loop does, for each I/O, what has to be done and no more: one time stamp, which ends one I/O and begins the
//! next, read from the CPU's own counter where it has a steady one; no allocation; no division; no atomic operation. What `--verify` needs is left out at compile time where it is not asked for.

mod go_on;

use std::pin::Pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use doorbell::{ErrorClass, InheritedCommand, Namespace, NvmeDriver, PagedRange, RequestError, Transfer};

use self::go_on::Resumed;
use super::executor::Ready;
use super::latency::Latencies;
use super::outcome::Outcome;
use super::pattern;
use super::pause::Pause;
use super::relay::Inherited;
use super::rng::Rng;
use super::stop::Stop;
use super::stopwatch::{Stopwatch, Ticks};
use super::units::{Ledger, Next, Order, Region};
use crate::cli::Completion;
use crate::payload::Payload;

/// How long I/Os in flight are waited for when the job ends.
const GRACE_NS: u64 = 10_000_000_000;
/// How long a sleep lasts at most, so that the time and Ctrl-C are looked at.
const NAP: Duration = Duration::from_millis(100);
/// How long a queue is looked at in vain before sleeping, where completions are found both ways.
const PATIENCE_NS: u64 = 500_000;
/// How often it is looked at between two looks at the time.
const LOOKS: u32 = 32;
/// How often a queue is looked at in vain before the CPU is offered to others.
const VAIN_LOOKS: u32 = 1 << 10;

/// What a job works with, all its life.
pub(super) struct Job<'a> {
    pub(super) driver: &'a NvmeDriver,
    pub(super) namespace: &'a Namespace,
    pub(super) stop: &'a Stop,
    pub(super) pause: &'a Pause,
    pub(super) cpu: u32,
    pub(super) depth: usize,
    pub(super) region: Region,
    pub(super) io_bytes: usize,
    /// Bytes from one slot's memory to the next one's.
    pub(super) stride: usize,
    pub(super) payload: Payload,
    pub(super) completion: Completion,
    /// What this invocation's patterns carry.
    pub(super) run: u64,
    pub(super) done: Counter,
}

/// How many I/Os are done, for others to look at. Alone on its cache lines.
#[repr(align(128))]
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a job does next.
pub(super) struct Phase {
    pub(super) order: Order,
    pub(super) mix: Mix,
    /// How long; `None` until all is done.
    pub(super) time: Option<Duration>,
    /// Only units whose contents are known.
    pub(super) known_only: bool,
    /// What another process had under way.
    pub(super) inherited: Option<Inherited>,
}

/// Chooses between reads and writes.
pub(super) struct Mix {
    rng: Rng,
    /// How many of 2^32 I/Os are reads.
    reads: u64,
}

impl Mix {
    pub(super) fn new(rng: Rng, reads: u64) -> Self {
        Self { rng, reads }
    }

    /// Whether the next I/O is a write.
    #[inline]
    fn is_write(&mut self) -> bool {
        // Nothing is drawn where there is no choice.
        self.reads < 1 << 32 && u64::from(self.rng.next() as u32) >= self.reads
    }
}

impl Job<'_> {
    /// Runs a phase, from the moment all jobs are ready.
    pub(super) fn run<const VERIFY: bool>(&self, ledger: &mut Ledger, phase: Phase, ready: &Barrier) -> Outcome {
        self.stop.wake_me();
        let mut run = Run::<VERIFY>::new(self, ledger, phase);
        let inherited = run.phase.inherited.take();
        if inherited.is_none() {
            run.warm_up();
        }
        ready.wait();
        match inherited {
            Some(inherited) => run.go_on(inherited),
            None => run.start(),
        }
        run.run_out();
        self.pause.end();
        run.outcome.last = run.last();
        // It has the same bounds.
        let _ = run.outcome.latency.add(run.latencies.histogram(&run.watch));
        run.outcome
    }
}

struct Slot<'a> {
    transfer: Option<Transfer<'a>>,
    started: Ticks,
    unit: u64,
    write: bool,
    waker: Waker,
    /// Where its data is.
    range: PagedRange<'a>,
    /// An I/O that another process began.
    inherited: Option<InheritedCommand>,
}

/// A phase under way.
struct Run<'a, const VERIFY: bool> {
    job: &'a Job<'a>,
    ledger: &'a mut Ledger,
    phase: Phase,
    watch: Stopwatch,
    ready: &'static Ready,
    slots: Vec<Slot<'a>>,
    /// Slots that wait for others to end.
    idle: Vec<usize>,
    in_flight: usize,
    /// From when on no I/O is begun any more; and since when it is so.
    deadline: Ticks,
    ending: Option<Ticks>,
    /// When the last I/O ended.
    last: Ticks,
    /// Where to say how long no I/O ended, and when the last one did, in the process before.
    resumed: Option<Resumed>,
    /// Data, on its way to and from the pattern.
    scratch: Vec<u8>,
    outcome: Outcome,
    latencies: Latencies,
}

impl<'a, const VERIFY: bool> Run<'a, VERIFY> {
    fn new(job: &'a Job<'a>, ledger: &'a mut Ledger, phase: Phase) -> Self {
        let (ready, wakers) = Ready::new(job.depth);
        let outcome = Outcome::new();
        let slot = |(slot, waker)| Slot {
            transfer: None,
            started: Ticks::FIRST,
            unit: 0,
            write: false,
            waker,
            range: job.payload.range(slot * job.stride, job.io_bytes),
            inherited: None,
        };
        Self {
            job,
            ledger,
            phase,
            watch: Stopwatch::new(),
            ready,
            slots: (0..job.depth).zip(wakers).map(slot).collect(),
            idle: Vec::with_capacity(job.depth),
            in_flight: 0,
            deadline: Ticks::LAST,
            ending: None,
            last: Ticks::FIRST,
            resumed: None,
            scratch: if VERIFY { vec![0; job.io_bytes] } else { Vec::new() },
            latencies: Latencies::new(outcome.latency.clone()),
            outcome,
        }
    }

    /// Does an I/O that does not count, for which the driver makes the queue pair.
    fn warm_up(&mut self) {
        let job = self.job;
        let blocks = job.region.blocks_per_unit;
        let Slot { range, waker, .. } = &self.slots[0];
        let mut transfer = job.namespace.read(job.cpu, job.region.first_block, blocks, &job.payload.memory, *range);
        let waker = waker.clone();
        while poll(&mut transfer, &waker).is_pending() && !job.stop.is_set() {
            if !self.ready.drain(|_| {}) {
                self.wait();
            }
        }
    }

    fn start(&mut self) {
        let now = self.begin();
        self.job.done.0.store(0, Ordering::Relaxed);
        self.ready.drain(|_| {});
        for slot in 0..self.job.depth {
            self.issue_anew(slot, now);
        }
    }

    /// From now on, for as long as the phase takes.
    fn begin(&mut self) -> Ticks {
        let now = self.watch.now();
        self.deadline = self.phase.time.map_or(Ticks::LAST, |time| self.watch.after(now, time));
        now
    }

    /// Begins no more I/O.
    #[cold]
    fn stop(&mut self, now: Ticks) {
        self.ending.get_or_insert(now);
        self.deadline = Ticks::FIRST;
    }

    /// When the last I/O ended, if one did.
    fn last(&self) -> Option<quanta::Instant> {
        (self.last != Ticks::FIRST).then(|| self.watch.instant(self.last))
    }

    fn run_out(&mut self) {
        let ready = self.ready;
        while self.in_flight != 0 {
            if self.job.pause.is_requested() {
                let over = self.job.pause.stop_here(self.job.cpu, self.snapshot());
                if over {
                    self.stop(self.watch.now());
                }
            }
            if self.job.stop.is_set() {
                self.stop(self.watch.now());
            }
            if ready.drain(|slot| self.advance(slot)) {
                self.job.done.0.store(self.outcome.ios(), Ordering::Relaxed);
                if VERIFY && !self.idle.is_empty() {
                    self.wake_idle();
                }
                continue;
            }
            self.wait();
            let late = |since| self.watch.nanoseconds(since, self.watch.now()) > GRACE_NS;
            if self.ending.is_some_and(late) {
                self.outcome.lost = self.in_flight as u64;
                return;
            }
        }
    }

    /// Looks after a slot whose future was woken.
    #[inline]
    fn advance(&mut self, slot: usize) {
        let Slot { transfer: Some(transfer), waker, .. } = &mut self.slots[slot] else {
            return self.advance_inherited(slot);
        };
        if let Poll::Ready(result) = poll(transfer, waker) {
            let now = self.watch.now();
            self.in_flight -= 1;
            self.finish(slot, result, now);
            self.issue(slot, now);
        }
    }

    /// For a slot whose I/O has not just ended.
    #[inline(never)]
    fn issue_anew(&mut self, slot: usize, now: Ticks) {
        self.issue(slot, now);
    }

    /// Begins the slot's next I/O, if there is to be one.
    #[inline(always)]
    fn issue(&mut self, slot: usize, mut started: Ticks) {
        let job = self.job;
        while !self.is_over(started) {
            let write = self.phase.mix.is_write();
            let (ledger, known_only) = (&mut *self.ledger, self.phase.known_only);
            let ledger = std::cell::RefCell::new(ledger);
            let begin = |unit| !VERIFY || ledger.borrow_mut().try_begin(unit, write);
            let wanted = |unit| !VERIFY || !known_only || ledger.borrow().known(unit).is_some();
            let unit = match self.phase.order.next(job.region.units, begin, wanted) {
                Next::Unit(unit) => unit,
                Next::Later => return self.idle.push(slot),
                Next::End => return,
            };
            if VERIFY && write {
                self.fill(slot, unit);
            } else if VERIFY {
                self.blank(slot);
            }
            let (lba, blocks) = (job.region.lba(unit), job.region.blocks_per_unit);
            let (memory, tag) = (&job.payload.memory, job.tag(slot));
            let place = &mut self.slots[slot];
            let range = place.range;
            (place.started, place.unit, place.write) = (started, unit, write);
            // Each made in its place, and not moved there.
            let transfer = match write {
                true => place.transfer.insert(job.namespace.write(job.cpu, lba, blocks, false, memory, range).tag(tag)),
                false => place.transfer.insert(job.namespace.read(job.cpu, lba, blocks, memory, range).tag(tag)),
            };
            match poll(transfer, &place.waker) {
                Poll::Pending => {
                    self.in_flight += 1;
                    return;
                }
                // Nearly always because it was refused.
                Poll::Ready(result) => {
                    started = self.watch.now();
                    self.finish(slot, result, started);
                    if job.stop.is_set() {
                        self.stop(started);
                    }
                }
            }
        }
    }

    /// Whether no I/O is to be begun any more.
    #[inline]
    fn is_over(&mut self, now: Ticks) -> bool {
        let over = now >= self.deadline;
        if over {
            self.stop(now);
        }
        over
    }

    /// Takes in the result of an I/O.
    #[inline(always)]
    fn finish(&mut self, slot: usize, result: Result<(), RequestError>, now: Ticks) {
        let place = &mut self.slots[slot];
        place.transfer = None;
        let &mut Slot { started, unit, write, .. } = place;
        if matches!(result, Err(RequestError::HandedOver)) {
            // It is another process's, which has also taken over what is known of the unit.
            return self.stop(now);
        }
        let ok = result.is_ok();
        match result {
            Ok(()) => {
                if self.resumed.is_some() {
                    self.resume(now);
                }
                self.last = now;
                self.outcome.record(write);
                self.latencies.record(&self.watch, started, now);
            }
            Err(error) => self.failed(unit, write, error, now),
        }
        if VERIFY {
            if ok && !write {
                self.check(slot, unit);
            }
            self.ledger.end(unit, write, ok);
        }
    }

    #[cold]
    fn failed(&mut self, unit: u64, write: bool, error: RequestError, now: Ticks) {
        if error.class() == ErrorClass::Gone {
            self.stop(now);
        }
        let what = if write { "write" } else { "read" };
        self.outcome.error(|| format!("{what} of block {}: {error}", self.job.region.lba(unit)));
    }

    fn fill(&mut self, slot: usize, unit: u64) {
        let generation = self.ledger.writing(unit);
        let first = self.job.region.lba(unit);
        let block_size = self.job.io_bytes / self.job.region.blocks_per_unit as usize;
        for (lba, block) in (first..).zip(self.scratch.chunks_exact_mut(block_size)) {
            pattern::fill(block, Ledger::stamp(self.job.run, lba, generation));
        }
        if let Err(error) = self.job.payload.host.write_at(slot * self.job.stride, &self.scratch) {
            self.outcome.error(|| error.to_string());
        }
    }

    /// What a device does not bring is not to be taken for what was there before.
    fn blank(&mut self, slot: usize) {
        if let Err(error) = self.job.payload.host.zero(slot * self.job.stride, self.job.io_bytes) {
            self.outcome.error(|| error.to_string());
        }
    }

    fn check(&mut self, slot: usize, unit: u64) {
        let Some(generation) = self.ledger.known(unit) else { return };
        if let Err(error) = self.job.payload.host.read_at(slot * self.job.stride, &mut self.scratch) {
            self.outcome.error(|| error.to_string());
        }
        let first = self.job.region.lba(unit);
        let block_size = self.job.io_bytes / self.job.region.blocks_per_unit as usize;
        for (lba, block) in (first..).zip(self.scratch.chunks_exact(block_size)) {
            self.outcome.checked_blocks += 1;
            if let Err(miscompare) = pattern::check(block, Ledger::stamp(self.job.run, lba, generation)) {
                self.outcome.miscompare(*miscompare);
            }
        }
    }

    /// Lets the slots try again that found everything busy.
    #[cold]
    fn wake_idle(&mut self) {
        let now = self.watch.now();
        for _ in 0..self.idle.len() {
            if let Some(slot) = self.idle.pop() {
                self.issue_anew(slot, now);
                // It is there again if all is still busy; so the others come first next time.
                if self.idle.last() == Some(&slot) {
                    break;
                }
            }
        }
    }

    /// Nobody was woken: waits a while, as completions are to be found.
    fn wait(&mut self) {
        let job = self.job;
        match job.completion {
            Completion::Polling => {
                for _ in 0..VAIN_LOOKS {
                    if job.driver.poll_cpu(job.cpu) != 0 || !self.ready.is_empty() {
                        return;
                    }
                    std::hint::spin_loop();
                }
                std::thread::yield_now();
            }
            Completion::Adaptive => {
                let since = self.watch.now();
                while self.watch.nanoseconds(since, self.watch.now()) < PATIENCE_NS {
                    for _ in 0..LOOKS {
                        if job.driver.poll_cpu(job.cpu) != 0 || !self.ready.is_empty() {
                            return;
                        }
                        std::hint::spin_loop();
                    }
                }
                self.ready.park(NAP);
            }
            Completion::Interrupt => self.ready.park(NAP),
        }
        if self.ready.is_empty() {
            self.is_over(self.watch.now());
        }
    }
}

#[inline(always)]
fn poll(transfer: &mut Transfer<'_>, waker: &Waker) -> Poll<Result<(), RequestError>> {
    Pin::new(transfer).poll(&mut Context::from_waker(waker))
}
