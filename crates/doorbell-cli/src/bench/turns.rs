//! A bench of several processes, one after the other: what each does in its turn.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use doorbell::{GuestMemory, InheritedCommand, NvmeDriver};
use doorbell_device::{Access, HostMemory};
use doorbell_handover::Handover;
use futures_lite::future::block_on;
use quanta::Instant;

use super::job::Job;
use super::leg::{Handovers, Leg};
use super::outcome::Outcome;
use super::pause::{Pause, instant};
use super::plan::Plan;
use super::relay::{self, Arrival, Cargo, Inherited, Relay};
use super::report::Report;
use super::stop::Stop;
use super::units::Ledger;
use super::{Bench, Jobs, Shared, Work, completion};
use crate::cli::Global;
use crate::payload::Payload;

/// A process's turn.
pub(super) struct Turn<'a> {
    pub(super) relay: &'a mut Relay,
    driver: &'a NvmeDriver,
    pause: &'a Arc<Pause>,
    stop: &'a Arc<Stop>,
    cargo: Cargo,
    /// Whether it is over, and another process has the device.
    pub(super) over: bool,
}

impl Turn<'_> {
    /// Hands over, if it is time.
    pub(super) fn look(&mut self) {
        if !self.over && !self.stop.is_set() && self.relay.is_due() {
            self.over = self.relay.hand_over(self.driver, self.pause, self.stop, &self.cargo);
        }
    }
}

impl Bench {
    /// The first turn, and what all others found.
    pub(super) fn in_turns(
        &self,
        jobs: &Jobs<'_>,
        shared: &Shared<'_>,
        ledgers: &mut [Ledger],
        work: Work,
        every: Duration,
    ) -> Result<Report> {
        let (reading, writing) = std::io::pipe().context("making a pipe")?;
        let mut relay = Relay::new(every, Instant::now() + self.runtime, writing);
        let start = Instant::now();
        let mut leg = self.turn(jobs, shared, ledgers, (work, Vec::new()), &mut relay);
        relay.hang_up();
        let (mut outcome, mut cpu, mut handovers) = (Outcome::new(), leg.cpu_ns, std::mem::take(&mut leg.handovers));
        let (mut interrupted, mut elapsed) = (leg.interrupted, Duration::from_nanos(leg.elapsed_ns));
        let only = leg.last;
        leg.add_to(&mut outcome);
        if !only {
            relay::read_legs(reading, |mut leg| {
                handovers.add(std::mem::take(&mut leg.handovers));
                cpu += leg.cpu_ns;
                interrupted |= leg.interrupted;
                elapsed += Duration::from_nanos(leg.elapsed_ns);
                leg.add_to(&mut outcome);
            })?;
        }
        tracing::debug!(in_all = ?start.elapsed(), measured = ?elapsed, "all turns are over");
        let cpu = Duration::from_nanos(cpu);
        Ok(Report { elapsed, cpu, interrupted, outcome, handovers: Some(handovers), ..self.report(shared) })
    }

    /// A turn, not the first: takes over, goes on, and says what was found.
    pub(super) fn go_on(&self, stop: &Arc<Stop>, global: &Global) -> Result<()> {
        let (socket, results): (OwnedFd, _) = (relay::socket()?, relay::results()?);
        // Finds out how fast the CPU's counter is, which takes a while: before anybody waits.
        let _ = quanta::Clock::new();
        let taken = Handover::over(socket).take(|device| {
            let completion = completion(global, &*device);
            self.options(doorbell::DriverOptions::new(device), completion)
        })?;
        let driver = taken.restored.driver;
        let passed_nsid = relay::nsid(&taken.luggage)?;
        let namespace = block_on(driver.namespace(passed_nsid))?;
        let plan = Plan::new(self, &namespace)?;
        let units = if self.verify { plan.units_per_job } else { 0 };
        let sizes = |index: usize| match index % 2 {
            0 => plan.payload_bytes(self),
            _ => Ledger::bytes(units).max(1),
        };
        let Arrival { passed, memory } = Arrival::of(taken.luggage, sizes)?;
        let numjobs = self.numjobs as usize;
        if memory.len() != 2 * numjobs || passed.jobs.len() != numjobs {
            bail!("{} memories of {} jobs came, not of {numjobs}", memory.len(), passed.jobs.len());
        }
        let pause = Arc::new(Pause::default());
        let shared = Shared {
            driver: &driver,
            namespace: &namespace,
            stop,
            pause: &pause,
            completion: completion(global, &**driver.device()),
            run: passed.run,
            seed: passed.seed,
        };
        let (mut hosts, mut generations) = (Vec::new(), Vec::new());
        for pair in memory.chunks_exact(2) {
            hosts.push(pair[0].clone());
            generations.push(pair[1].clone());
        }
        let guests = taken.restored.guest_memory;
        let payload = |cpu: u32| self.arrived_payload(hosts[cpu as usize].clone(), guests.get(cpu as usize));
        let jobs = self.jobs(&shared, &plan, payload)?;
        let mut ledgers: Vec<Ledger> = generations.into_iter().map(|memory| Ledger::in_memory(memory, units)).collect();

        let found = Arc::new(Mutex::new(Handovers::default()));
        let pauses = Arc::new(Mutex::new(Vec::new()));
        let mut commands: Vec<Vec<InheritedCommand>> = (0..numjobs).map(|_| Vec::new()).collect();
        for command in taken.restored.commands {
            match commands.get_mut(Job::of_tag(command.tag()).0) {
                Some(of_job) if command.queue() != 0 => of_job.push(command),
                _ => {}
            }
        }
        let inherited = passed.jobs.into_iter().zip(commands).map(|(snapshot, commands)| Inherited {
            snapshot,
            commands,
            found: found.clone(),
            pauses: pauses.clone(),
        });
        let inherited: Vec<Inherited> = inherited.collect();
        let deadline = instant(passed.deadline);
        let time = deadline.saturating_duration_since(Instant::now());
        let every = self.handover_every.unwrap_or(self.runtime);
        let mut relay = Relay::new(every, deadline, results);
        let work = Work::Measure { rw: self.rw, rwmixread: self.rwmixread, time };
        let mut leg = self.turn(&jobs, &shared, &mut ledgers, (work, inherited), &mut relay);
        leg.handovers.add(std::mem::take(&mut found.lock().unwrap_or_else(PoisonError::into_inner)));
        // The handover's pause is that of the job that waited longest.
        let pauses = pauses.lock().unwrap_or_else(PoisonError::into_inner);
        leg.handovers.pauses.extend(pauses.iter().max());
        drop(jobs);
        block_on(driver.shutdown());
        relay.say(&leg)
    }

    /// What one process does: its part of the measuring, and, in the last turn, the check of all that was written.
    fn turn(
        &self,
        jobs: &Jobs<'_>,
        shared: &Shared<'_>,
        ledgers: &mut [Ledger],
        (work, inherited): (Work, Vec<Inherited>),
        relay: &mut Relay,
    ) -> Leg {
        let memory = jobs.jobs.iter().zip(&*ledgers);
        let memory = memory.flat_map(|(job, ledger)| [job.payload.host.clone(), ledger.memory().clone()]).collect();
        let cargo = Cargo { run: shared.run, seed: shared.seed, nsid: shared.namespace.nsid(), memory };
        let mut turn =
            Turn { relay, driver: shared.driver, pause: shared.pause, stop: shared.stop, cargo, over: false };
        let (mut outcome, elapsed, cpu) = self.run_jobs(jobs, ledgers, work, inherited, Some(&mut turn));
        let over = turn.over;
        let interrupted = shared.stop.is_set();
        if !over && self.verify {
            outcome.add_findings(jobs.run::<true>("checking", ledgers, Work::ReadBack).0);
        }
        let handovers = std::mem::take(&mut relay.handovers);
        Leg { last: !over, interrupted, handovers, ..Leg::of(&outcome, elapsed, cpu) }
    }

    /// The memory of a job's data, as it has come.
    fn arrived_payload(&self, host: HostMemory, registered: Option<&GuestMemory>) -> Result<Payload> {
        let memory = match registered {
            Some(memory) if !self.bounce => memory.clone(),
            None if !self.bounce => bail!("the memory of a job's data has not come"),
            _ => GuestMemory::builder().region(0, host.clone(), Access::ReadWrite).build()?,
        };
        Ok(Payload::arrived(memory, host))
    }
}
