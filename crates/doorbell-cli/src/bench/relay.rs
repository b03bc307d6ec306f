//! A bench that hands itself to a fresh process, again and again, under load.
//!
//! The first process opens the device and, in the end, prints what all have found. Each process starts the next one, which
//! is the same program with the same arguments and `--go-on`, gives it the device, and says on a pipe what it has found.

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use doorbell::{InheritedCommand, NvmeDriver};
use doorbell_device::HostMemory;
use doorbell_handover::{Handover, Luggage, Step};
use quanta::Instant;
use serde::{Deserialize, Serialize};

use super::leg::{Handovers, Leg};
use super::pause::{Pause, Snapshot, monotonic};
use super::stop::Stop;

/// What one process tells the next, in the luggage. With it go, for each job, the memory of its data and its ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Passed {
    pub(super) run: u64,
    pub(super) seed: u64,
    pub(super) nsid: u32,
    /// When to end; see [`monotonic`].
    pub(super) deadline: u64,
    pub(super) jobs: Vec<Snapshot>,
}

/// What a job goes on with.
pub(super) struct Inherited {
    pub(super) snapshot: Snapshot,
    pub(super) commands: Vec<InheritedCommand>,
    pub(super) found: Arc<Mutex<Handovers>>,
    /// Where the job says when its first I/O ended, and how long after the last one before.
    pub(super) pauses: Arc<Mutex<Vec<u64>>>,
}

/// The way to the next process.
pub(super) struct Relay {
    every: Duration,
    /// When the next one is due.
    due: Instant,
    pub(super) deadline: Instant,
    /// Where the others say what they have found; `None` of the first process once it has only others' to read.
    results: Option<PipeWriter>,
    pub(super) handovers: Handovers,
    child: Option<Child>,
}

/// What a [`Passed`] is made of, but for what the jobs have under way.
pub(super) struct Cargo {
    pub(super) run: u64,
    pub(super) seed: u64,
    pub(super) nsid: u32,
    /// For each job, the memory of its data and its ledger.
    pub(super) memory: Vec<HostMemory>,
}

impl Relay {
    pub(super) fn new(every: Duration, deadline: Instant, results: PipeWriter) -> Self {
        let due = Instant::now() + every;
        Self { every, due, deadline, results: Some(results), handovers: Handovers::default(), child: None }
    }

    pub(super) fn until_due(&self) -> Duration {
        self.due.saturating_duration_since(Instant::now())
    }

    /// Whether it is time, and worth it.
    pub(super) fn is_due(&self) -> bool {
        let now = Instant::now();
        now >= self.due && now + self.every.min(Duration::from_millis(100)) < self.deadline
    }

    /// Hands the device over. Whether it is another process's now; what goes wrong is noted.
    pub(super) fn hand_over(
        &mut self,
        driver: &NvmeDriver,
        pause: &Arc<Pause>,
        stop: &Arc<Stop>,
        cargo: &Cargo,
    ) -> bool {
        self.due = Instant::now() + self.every;
        match self.try_hand_over(driver, pause, stop, cargo) {
            Ok(true) => return true,
            Ok(false) => tracing::debug!("a job had ended: there is nothing left to hand over"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the handover failed, and this process goes on");
                self.handovers.failed += 1;
                self.handovers.first_failure.get_or_insert(format!("{error:#}"));
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        false
    }

    /// Whether it is another process's now: not if the run ended meanwhile.
    fn try_hand_over(
        &mut self,
        driver: &NvmeDriver,
        pause: &Arc<Pause>,
        stop: &Arc<Stop>,
        cargo: &Cargo,
    ) -> Result<bool> {
        let (ours, theirs) = doorbell_handover::pair()?;
        let results = self.results.as_ref().ok_or_else(|| anyhow!("there is nowhere to say what was found"))?;
        let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--go-on");
        let mut next = Command::new(std::env::current_exe().context("finding this program")?);
        next.args(arguments).arg("--go-on").stdin(theirs).stdout(results.try_clone()?);
        self.child = Some(next.spawn().context("starting the next process")?);
        // It has the other end of the socket alone: when it dies, that shows.
        drop(next);

        let snapshots = Arc::new(Mutex::new(Vec::new()));
        let (watched, watching, at_step) = (pause.clone(), stop.clone(), snapshots.clone());
        let on_step = move |step| {
            if step == Step::Greeted {
                *at_step.lock().unwrap_or_else(PoisonError::into_inner) = watched.stop_all(&watching);
            }
        };
        let deadline = monotonic(self.deadline);
        let mut ended = false;
        let luggage = |_: &_| {
            let jobs = std::mem::take(&mut *snapshots.lock().unwrap_or_else(PoisonError::into_inner));
            if jobs.is_empty() {
                ended = true;
                bail!("a job has ended already");
            }
            let passed = Passed { run: cargo.run, seed: cargo.seed, nsid: cargo.nsid, deadline, jobs };
            let mut luggage = Luggage::from(serde_json::to_vec(&passed)?);
            for memory in &cargo.memory {
                let (file, _) = memory.file().ok_or_else(|| anyhow!("memory that no other process can have"))?;
                luggage.descriptors.push(file.try_clone()?.into());
            }
            Ok(luggage)
        };
        let given = Handover::over(ours).on_step(on_step).give(driver, luggage);
        pause.go_on(given.is_ok());
        if given.is_err() && ended {
            return Ok(false);
        }
        let given = given?;
        self.handovers.saves.push(u64::try_from(given.save.as_nanos()).unwrap_or(u64::MAX));
        Ok(true)
    }

    /// Says what this process has found, for the first one to read.
    pub(super) fn say(&mut self, leg: &Leg) -> Result<()> {
        let Some(mut results) = self.results.take() else { return Ok(()) };
        let line = serde_json::to_string(leg)?;
        writeln!(results, "{line}").context("saying what was found")
    }

    /// Nothing is said here any more.
    pub(super) fn hang_up(&mut self) {
        self.results = None;
    }
}

/// What comes with the device.
pub(super) struct Arrival {
    pub(super) passed: Passed,
    pub(super) memory: Vec<HostMemory>,
}

impl Arrival {
    pub(super) fn of(luggage: Luggage, sizes: impl Fn(usize) -> usize) -> Result<Self> {
        let passed: Passed = serde_json::from_slice(&luggage.bytes).context("what the process before has said")?;
        let mut memory = Vec::new();
        for (index, fd) in luggage.descriptors.into_iter().enumerate() {
            let len = sizes(index).next_multiple_of(4096);
            memory.push(HostMemory::from_file(Arc::new(File::from(fd)), 0, len)?);
        }
        Ok(Self { passed, memory })
    }
}

/// The namespace that the process before worked on.
pub(super) fn nsid(luggage: &Luggage) -> Result<u32> {
    let passed: Passed = serde_json::from_slice(&luggage.bytes).context("what the process before has said")?;
    Ok(passed.nsid)
}

/// This process's end of the socket.
pub(super) fn socket() -> Result<OwnedFd> {
    let stdin = std::io::stdin();
    stdin.as_fd().try_clone_to_owned().context("the socket at standard input")
}

/// The pipe on which it is said what was found, where standard output is it.
pub(super) fn results() -> Result<PipeWriter> {
    let stdout = std::io::stdout();
    Ok(PipeWriter::from(stdout.as_fd().try_clone_to_owned().context("the pipe at standard output")?))
}

/// What all the other processes say, until the last of them has ended.
pub(super) fn read_legs(results: PipeReader, mut each: impl FnMut(Leg)) -> Result<()> {
    let mut last = false;
    for line in BufReader::new(results).lines() {
        let line = line.context("reading what another process has found")?;
        let leg: Leg = serde_json::from_str(&line).with_context(|| format!("another process has said {line:?}"))?;
        last = leg.last;
        each(leg);
    }
    if !last {
        bail!("a process that had taken the device over has died");
    }
    Ok(())
}
