//! `bench`: measures a device, and checks what it stores.

mod args;
mod executor;
mod job;
mod latency;
mod leg;
mod outcome;
mod pattern;
mod pause;
mod plan;
mod progress;
mod relay;
mod report;
mod rng;
mod stop;
mod stopwatch;
mod turns;
mod units;

pub(crate) use args::Bench;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use doorbell::{CompletionMode, DriverOptions, Namespace, NvmeDriver};
use doorbell_device::Device;
use rustix::time::{ClockId, clock_gettime};

use self::args::Rw;
use self::job::{Counter, Job, Mix, Phase};
use self::outcome::Outcome;
use self::pause::Pause;
use self::plan::Plan;
use self::progress::Progress;
use self::relay::Inherited;
use self::report::Report;
use self::rng::{Rng, mix};
use self::stop::Stop;
use self::turns::Turn;
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

/// How completions are found. Where nothing interrupts, the jobs poll, each its own queue: otherwise the driver would do so,
/// beside them.
fn completion(global: &Global, device: &dyn Device) -> Completion {
    match device.interrupt_count() {
        0 => Completion::Polling,
        _ => global.completion.unwrap_or(Completion::Adaptive),
    }
}

impl Bench {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let stop = Stop::on_interrupt()?;
        if self.go_on {
            return self.go_on(&stop, global);
        }
        let device = address::open(self.address.as_deref().unwrap_or(OWN_DEVICE))?;
        let completion = completion(global, &*device);
        if self.handover_every.is_some() {
            device.check_leave().context("--handover-every")?;
        }
        let report = session::with_device(
            device,
            global,
            |options| self.options(options, completion),
            async |driver| {
                let namespace = session::namespace(driver, self.namespace_id).await?;
                self.measure(driver, &namespace, &stop, completion)
            },
        )?;
        match global.output_format {
            Format::Normal => output::print(report.text())?,
            Format::Json => output::print_json(&report.json())?,
        }
        report.verdict()
    }

    fn options(&self, options: DriverOptions, completion: Completion) -> DriverOptions {
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
    }

    fn measure(
        &self,
        driver: &NvmeDriver,
        namespace: &Namespace,
        stop: &Arc<Stop>,
        completion: Completion,
    ) -> Result<Report> {
        let plan = Plan::new(self, namespace)?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let run = mix(now ^ u64::from(std::process::id()) << 48);
        let seed = self.seed.unwrap_or(run >> 32);
        let pause = Arc::new(Pause::default());
        let shared = Shared { driver, namespace, stop, pause: &pause, completion, run, seed };
        let payload = |_| Payload::new(driver, plan.payload_bytes(self), !self.bounce);
        let mut jobs = self.jobs(&shared, &plan, payload)?;
        self.phases(&mut jobs, &shared, &plan)
    }

    fn jobs<'a>(
        &self,
        shared: &Shared<'a>,
        plan: &Plan,
        mut payload: impl FnMut(u32) -> Result<Payload>,
    ) -> Result<Jobs<'a>> {
        let mut jobs = Jobs {
            jobs: Vec::new(),
            stop: shared.stop,
            pause: shared.pause,
            io_bytes: plan.io_bytes as u64,
            seed: shared.seed,
        };
        for cpu in 0..self.numjobs {
            let first_block = u64::from(cpu) * plan.units_per_job * u64::from(plan.blocks_per_unit);
            let job = Job {
                driver: shared.driver,
                namespace: shared.namespace,
                stop: shared.stop,
                pause: shared.pause,
                cpu,
                depth: self.iodepth as usize,
                region: Region { first_block, units: plan.units_per_job, blocks_per_unit: plan.blocks_per_unit },
                io_bytes: plan.io_bytes,
                stride: plan.stride(),
                payload: payload(cpu)?,
                completion: shared.completion,
                run: shared.run,
                done: Counter::default(),
            };
            jobs.jobs.push(job);
        }
        Ok(jobs)
    }

    fn phases(&self, jobs: &mut Jobs<'_>, shared: &Shared<'_>, plan: &Plan) -> Result<Report> {
        let mut findings = Outcome::new();
        let check_own = self.address.is_none() && !self.verify;
        if check_own {
            let units = (OWN_CHECK / plan.io_bytes as u64 / u64::from(self.numjobs)).clamp(1, plan.units_per_job);
            let whole = jobs.set_units(units);
            let mut ledgers = jobs.ledgers()?;
            findings.add_findings(jobs.run::<true>("checking", &mut ledgers, Work::Write).0);
            findings.add_findings(jobs.run::<true>("checking", &mut ledgers, Work::ReadBack).0);
            jobs.set_units(whole);
        }
        let mut ledgers = if self.verify { jobs.ledgers()? } else { jobs.no_ledgers()? };
        if self.verify && !self.rw.writes() {
            findings.add_findings(jobs.run::<true>("laying out", &mut ledgers, Work::Write).0);
        }
        let work = Work::Measure { rw: self.rw, rwmixread: self.rwmixread, time: self.runtime };
        let mut report = match self.handover_every {
            None => self.whole(jobs, shared, &mut ledgers, work),
            Some(every) => self.in_turns(jobs, shared, &mut ledgers, work, every)?,
        };
        report.verified |= check_own;
        report.outcome.add_findings(findings);
        Ok(report)
    }

    /// All by this process.
    fn whole(&self, jobs: &Jobs<'_>, shared: &Shared<'_>, ledgers: &mut [Ledger], work: Work) -> Report {
        let (mut outcome, elapsed, cpu) = self.run_jobs(jobs, ledgers, work, Vec::new(), None);
        let interrupted = jobs.stop.is_set();
        if self.verify && outcome.writes != 0 {
            outcome.add_findings(jobs.run::<true>("checking", ledgers, Work::ReadBack).0);
        }
        Report { elapsed, cpu, interrupted, outcome, ..self.report(shared) }
    }

    /// What is asked for, with or without looking at what is read.
    fn run_jobs(
        &self,
        jobs: &Jobs<'_>,
        ledgers: &mut [Ledger],
        work: Work,
        inherited: Vec<Inherited>,
        turn: Option<&mut Turn<'_>>,
    ) -> (Outcome, Duration, Duration) {
        match self.verify {
            true => jobs.run_in_turns::<true>("measuring", ledgers, work, inherited, turn),
            false => jobs.run_in_turns::<false>("measuring", ledgers, work, inherited, turn),
        }
    }

    fn report(&self, shared: &Shared<'_>) -> Report {
        Report {
            rw: self.rw.name(),
            address: shared.driver.device().address(),
            nsid: shared.namespace.nsid(),
            bs: self.bs,
            iodepth: self.iodepth,
            numjobs: self.numjobs,
            seed: shared.seed,
            completion: match shared.completion {
                Completion::Interrupt => "interrupt",
                Completion::Polling => "polling",
                Completion::Adaptive => "interrupt and polling",
            },
            bounce: self.bounce,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            interrupted: false,
            verified: self.verify,
            outcome: Outcome::new(),
            handovers: None,
        }
    }
}

/// What all jobs share.
struct Shared<'a> {
    driver: &'a NvmeDriver,
    namespace: &'a Namespace,
    stop: &'a Arc<Stop>,
    pause: &'a Arc<Pause>,
    completion: Completion,
    run: u64,
    seed: u64,
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
    stop: &'a Arc<Stop>,
    pause: &'a Arc<Pause>,
    io_bytes: u64,
    seed: u64,
}

impl Jobs<'_> {
    /// Has every job use only its first so many units; how many they were before.
    fn set_units(&mut self, units: u64) -> u64 {
        self.jobs.iter_mut().map(|job| std::mem::replace(&mut job.region.units, units)).next().unwrap_or(units)
    }

    fn ledgers(&self) -> Result<Vec<Ledger>> {
        self.jobs.iter().map(|job| Ok(Ledger::new(job.region.units)?)).collect()
    }

    fn no_ledgers(&self) -> Result<Vec<Ledger>> {
        self.jobs.iter().map(|_| Ok(Ledger::new(0)?)).collect()
    }

    /// Has all jobs do something; what came of it, how long it took, and how much CPU time.
    fn run<const VERIFY: bool>(
        &self,
        title: &'static str,
        ledgers: &mut [Ledger],
        work: Work,
    ) -> (Outcome, Duration, Duration) {
        self.run_in_turns::<VERIFY>(title, ledgers, work, Vec::new(), None)
    }

    /// As [`run`](Self::run), from where another process was, and until it is another's turn.
    fn run_in_turns<const VERIFY: bool>(
        &self,
        title: &'static str,
        ledgers: &mut [Ledger],
        work: Work,
        inherited: Vec<Inherited>,
        mut turn: Option<&mut Turn<'_>>,
    ) -> (Outcome, Duration, Duration) {
        let count = self.jobs.len();
        let mut inherited: Vec<Option<Inherited>> = inherited.into_iter().map(Some).collect();
        inherited.resize_with(count, || None);
        self.pause.begin(count);
        let (ready, finished, main) = (Barrier::new(count + 1), AtomicUsize::new(0), thread::current());
        tracing::info!(jobs = count, "{title}");
        thread::scope(|scope| {
            let threads: Vec<_> = self
                .jobs
                .iter()
                .zip(ledgers)
                .zip(inherited)
                .map(|((job, ledger), inherited)| {
                    let phase = Phase { inherited, ..self.phase(job, work) };
                    let (ready, finished, main) = (&ready, &finished, &main);
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
                let due = turn.as_ref().map_or(progress::INTERVAL, |turn| turn.relay.until_due());
                thread::park_timeout(progress::INTERVAL.min(due));
                if let Some(turn) = &mut turn {
                    turn.look();
                }
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
                mix: Mix::new(mix, rw.read_share(rwmixread)),
                time: Some(time),
                known_only: false,
                inherited: None,
            },
            Work::Write => Phase { order: once, mix: Mix::new(mix, 0), time: None, known_only: false, inherited: None },
            Work::ReadBack => {
                Phase { order: once, mix: Mix::new(mix, 1 << 32), time: None, known_only: true, inherited: None }
            }
        }
    }
}

/// CPU time of this process so far, all threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
