//! `bench`: measures a device, and checks what it stores.

mod args;
mod executor;
mod job;
mod outcome;
mod pattern;
mod plan;
mod progress;
mod report;
mod rng;
mod stop;
mod units;

pub(crate) use args::Bench;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use doorbell::{CompletionMode, DriverOptions, Namespace, NvmeDriver, PAGE_SIZE};
use rustix::time::{ClockId, clock_gettime};

use self::args::Rw;
use self::job::{Counter, Job, Phase};
use self::outcome::Outcome;
use self::plan::Plan;
use self::progress::Progress;
use self::report::Report;
use self::rng::{Rng, mix};
use self::stop::Stop;
use self::units::{Ledger, Order, Region};
use crate::cli::{Completion, Global};
use crate::output::{self, Format};
use crate::payload::Payload;
use crate::{address, session};

/// The device when none is given.
const OWN_DEVICE: &str = "emulated:size=1G,block=4096";
/// How much of our own device is checked before it is measured.
const OWN_CHECK: u64 = 64 << 20;
/// Bounce buffers for a queue, at most.
const MOST_BOUNCE: u64 = 64 << 20;

impl Bench {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let device = address::open(self.address.as_deref().unwrap_or(OWN_DEVICE))?;
        let stop = Stop::on_interrupt()?;
        let completion = global.completion.unwrap_or(Completion::Adaptive);
        let options = |options: DriverOptions| {
            let bounce = self.bs.saturating_mul(self.iodepth.into()).clamp(512 << 10, MOST_BOUNCE);
            options
                .cpus(self.numjobs)
                .depth(self.iodepth)
                .completion(match completion {
                    Completion::Polling => CompletionMode::CallerPolls,
                    other => other.into(),
                })
                .max_transfer(self.bs.clamp(2 << 20, 1 << 30) as usize)
                .always_bounce(self.bounce)
                .bounce_pool(bounce as usize)
        };
        let report = session::with_device(device, global, options, async |driver| {
            let namespace = session::namespace(driver, self.namespace_id).await?;
            self.measure(driver, &namespace, &stop, completion)
        })?;
        match global.output_format {
            Format::Normal => output::print(report.text())?,
            Format::Json => output::print_json(&report.json())?,
        }
        let Outcome { errors, first_error, lost, miscompares, examples, .. } = &report.outcome;
        if let (1.., Some(first)) = (miscompares, examples.first()) {
            bail!("{miscompares} blocks do not hold what was written; {first}");
        }
        if *errors != 0 {
            bail!("{errors} I/Os failed; the first: {}", first_error.as_deref().unwrap_or("unknown"));
        }
        if *lost != 0 {
            bail!("{lost} I/Os did not end in the time that they were given");
        }
        Ok(())
    }

    fn measure(
        &self,
        driver: &NvmeDriver,
        namespace: &Namespace,
        stop: &Stop,
        completion: Completion,
    ) -> Result<Report> {
        let plan = Plan::new(self, namespace)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let run = mix(now ^ u64::from(std::process::id()) << 48);
        let seed = self.seed.unwrap_or(run >> 32);
        let mut jobs = Jobs { jobs: Vec::new(), stop, io_bytes: plan.io_bytes as u64, seed };
        for cpu in 0..self.numjobs {
            let depth = self.iodepth as usize;
            let stride = plan.io_bytes.next_multiple_of(PAGE_SIZE);
            let first_block = u64::from(cpu) * plan.units_per_job * u64::from(plan.blocks_per_unit);
            let job = Job {
                driver,
                namespace,
                stop,
                cpu,
                depth,
                region: Region { first_block, units: plan.units_per_job, blocks_per_unit: plan.blocks_per_unit },
                io_bytes: plan.io_bytes,
                stride,
                payload: Payload::new(driver, depth * stride, !self.bounce)?,
                completion,
                run,
                done: Counter::default(),
            };
            jobs.jobs.push(job);
        }
        Ok(self.phases(&mut jobs, driver, namespace, completion, &plan))
    }

    fn phases(
        &self,
        jobs: &mut Jobs<'_>,
        driver: &NvmeDriver,
        namespace: &Namespace,
        completion: Completion,
        plan: &Plan,
    ) -> Report {
        let mut findings = Outcome::new();
        let check_own = self.address.is_none() && !self.verify;
        if check_own {
            let units = (OWN_CHECK / plan.io_bytes as u64 / u64::from(self.numjobs)).clamp(1, plan.units_per_job);
            let whole = jobs.set_units(units);
            let mut ledgers = jobs.ledgers();
            findings.add_findings(jobs.run::<true>("checking", &mut ledgers, Work::Write).0);
            findings.add_findings(jobs.run::<true>("checking", &mut ledgers, Work::ReadBack).0);
            jobs.set_units(whole);
        }
        let mut ledgers = if self.verify { jobs.ledgers() } else { jobs.no_ledgers() };
        if self.verify && !self.rw.writes() {
            findings.add_findings(jobs.run::<true>("laying out", &mut ledgers, Work::Write).0);
        }
        let work = Work::Measure { rw: self.rw, rwmixread: self.rwmixread, time: self.runtime };
        let (mut outcome, elapsed, cpu) = match self.verify {
            true => jobs.run::<true>("measuring", &mut ledgers, work),
            false => jobs.run::<false>("measuring", &mut ledgers, work),
        };
        let interrupted = jobs.stop.is_set();
        if self.verify && outcome.writes != 0 {
            findings.add_findings(jobs.run::<true>("checking", &mut ledgers, Work::ReadBack).0);
        }
        outcome.add_findings(findings);
        Report {
            rw: self.rw.name(),
            address: driver.device().address(),
            nsid: namespace.nsid(),
            bs: self.bs,
            iodepth: self.iodepth,
            numjobs: self.numjobs,
            seed: jobs.seed,
            completion: match completion {
                Completion::Interrupt => "interrupt",
                Completion::Polling => "polling",
                Completion::Adaptive => "interrupt and polling",
            },
            bounce: self.bounce,
            elapsed,
            cpu,
            interrupted,
            verified: self.verify || check_own,
            outcome,
        }
    }
}

/// What all jobs do together.
#[derive(Clone, Copy)]
enum Work {
    /// What was asked for.
    Measure { rw: Rw, rwmixread: u32, time: Duration },
    /// Every unit is written once.
    Write,
    /// Every unit whose contents are known is read once.
    ReadBack,
}

struct Jobs<'a> {
    jobs: Vec<Job<'a>>,
    stop: &'a Stop,
    io_bytes: u64,
    seed: u64,
}

impl Jobs<'_> {
    /// Has every job use only its first so many units; how many they were before.
    fn set_units(&mut self, units: u64) -> u64 {
        self.jobs.iter_mut().map(|job| std::mem::replace(&mut job.region.units, units)).next().unwrap_or(units)
    }

    fn ledgers(&self) -> Vec<Ledger> {
        self.jobs.iter().map(|job| Ledger::new(job.region.units)).collect()
    }

    fn no_ledgers(&self) -> Vec<Ledger> {
        self.jobs.iter().map(|_| Ledger::new(0)).collect()
    }

    /// Has all jobs do something; what came of it, how long it took, and how much CPU time.
    fn run<const VERIFY: bool>(
        &self,
        title: &'static str,
        ledgers: &mut [Ledger],
        work: Work,
    ) -> (Outcome, Duration, Duration) {
        let count = self.jobs.len();
        let (ready, finished, main) = (Barrier::new(count + 1), AtomicUsize::new(0), thread::current());
        tracing::info!(jobs = count, "{title}");
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .jobs
                .iter()
                .zip(ledgers)
                .map(|(job, ledger)| {
                    let (phase, ready, finished, main) = (self.phase(job, work), &ready, &finished, &main);
                    scope.spawn(move || {
                        let outcome = job.run::<VERIFY>(ledger, phase, ready);
                        finished.fetch_add(1, Ordering::Release);
                        main.unpark();
                        outcome
                    })
                })
                .collect();
            ready.wait();
            let (start, cpu_before) = (quanta::Instant::now(), cpu_time());
            let time = if let Work::Measure { time, .. } = work { Some(time) } else { None };
            let units = self.jobs.iter().map(|job| job.region.units).sum();
            let mut progress = Progress::new(title, time, units, self.io_bytes);
            // A thread that panics never finishes; joining it below tells.
            while finished.load(Ordering::Acquire) < count && !threads.iter().all(|thread| thread.is_finished()) {
                thread::park_timeout(progress::INTERVAL);
                progress.update(self.jobs.iter().map(|job| job.done.get()).sum());
            }
            let cpu = cpu_time().saturating_sub(cpu_before);
            drop(progress);
            let mut all = Outcome::new();
            for thread in threads {
                match thread.join() {
                    Ok(outcome) => all.add(outcome),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            let elapsed = all.last.map_or(Duration::ZERO, |last| last.duration_since(start));
            (all, elapsed, cpu)
        })
    }

    fn phase(&self, job: &Job<'_>, work: Work) -> Phase {
        let seed = mix(self.seed ^ u64::from(job.cpu) << 32);
        let once = Order::Sequential { next: 0, once: true };
        let mix = Rng::new(seed.rotate_left(17));
        match work {
            Work::Measure { rw, rwmixread, time } => Phase {
                order: match rw.is_random() {
                    true => Order::Random(Rng::new(seed)),
                    false => Order::Sequential { next: 0, once: false },
                },
                read_share: rw.read_share(rwmixread),
                mix,
                time: Some(time),
                known_only: false,
            },
            Work::Write => Phase { order: once, read_share: 0, mix, time: None, known_only: false },
            Work::ReadBack => Phase { order: once, read_share: 1 << 32, mix, time: None, known_only: true },
        }
    }
}

/// CPU time of this process so far, all threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
