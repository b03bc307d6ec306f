//! One guest from its start to its end: it runs its tests by itself and says what came of each; it is given what only the
//! host can do.
//!
//! A line of the guest begins with a word: `begin NAME`, `ok`, `fail REASON`, `log TEXT`, `note TEXT`, `end`, and what it asks
//! of the host (`host.rs`). A line that a reset cut short ends with CAN.

use std::fs;
use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::catalog::{Machine, Test};
use super::host::{Host, answered};
use super::initrd::{self, Programs};
use super::lab::Lab;
use super::machine::Guest;

/// How long a guest may take until its first test begins.
pub(super) const BOOT: Duration = Duration::from_secs(120);
/// What a test may take beyond its limit, which the guest itself keeps.
const LATE: Duration = Duration::from_secs(30);
/// How many lines of a guest's last words are shown.
const LAST_LINES: usize = 60;

/// What came of a test.
pub(super) struct Outcome {
    pub(super) test: Test,
    pub(super) took: Duration,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
    /// What led there.
    pub(super) log: Vec<String>,
    /// What it found out.
    pub(super) notes: Vec<String>,
}

/// Runs tests on their machine, and tells what came of each as soon as that is known. No test is left out.
pub(super) fn run(
    lab: &Lab,
    machine: &Machine,
    tests: &[Test],
    programs: &Programs,
    folder: &Path,
    tell: &mut dyn FnMut(Outcome),
) {
    let mut session = Session { tests, next: 0, tell };
    let result = start(lab, machine, tests, programs, folder).and_then(|(mut guest, peer)| {
        let result = session.converse(&mut guest, Host::new(lab, machine, folder, peer));
        guest.end()?;
        result.map_err(|error| (error, guest.last_words())).or_else(|(error, words)| {
            session.give_up(&error, &words);
            Ok(())
        })
    });
    if let Err(error) = result {
        session.give_up(&error, "");
    }
}

/// Starts a guest, and its peer where it has one.
fn start(
    lab: &Lab,
    machine: &Machine,
    tests: &[Test],
    programs: &Programs,
    folder: &Path,
) -> Result<(Guest, Option<Guest>)> {
    let initrd = folder.join("initrd");
    initrd::write(&initrd, lab, machine, tests, programs)?;
    let guest = Guest::start(lab, machine, programs, folder, &initrd)?;
    let Some(peer) = machine.peer(folder) else { return Ok((guest, None)) };
    let its = folder.join("peer");
    fs::create_dir(&its).with_context(|| format!("{} cannot be made", its.display()))?;
    Ok((guest, Some(Guest::start(lab, &peer, programs, &its, &initrd)?)))
}

struct Session<'a> {
    tests: &'a [Test],
    /// Which test is running or comes next.
    next: usize,
    tell: &'a mut dyn FnMut(Outcome),
}

impl Session<'_> {
    fn converse(&mut self, guest: &mut Guest, mut host: Host<'_>) -> Result<()> {
        let mut begun = Instant::now();
        let mut deadline = begun + BOOT;
        let (mut log, mut notes) = (Vec::new(), Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match guest.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("the guest hangs"),
                Err(RecvTimeoutError::Disconnected) => bail!("the guest died"),
            };
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match word {
                "begin" => {
                    let test = self.tests.get(self.next).context("the guest runs more tests than it was given")?;
                    anyhow::ensure!(test.name == rest, "the guest runs {rest} instead of {}", test.name);
                    begun = Instant::now();
                    deadline = begun + test.limit + LATE;
                }
                "log" => log.push(rest.to_owned()),
                "note" => notes.push(rest.to_owned()),
                "ok" | "fail" => {
                    let test = self.tests.get(self.next).context("the guest ran more tests than it was given")?.clone();
                    let failure = (word == "fail").then(|| rest.to_owned());
                    self.next += 1;
                    let (log, notes) = (std::mem::take(&mut log), std::mem::take(&mut notes));
                    (self.tell)(Outcome { test, took: begun.elapsed(), failure, log, notes });
                    deadline = Instant::now() + LATE;
                }
                _ if line.ends_with('\x18') => {}
                "again" => {
                    deadline = Instant::now() + BOOT;
                    let answer = host.allow_reset(guest);
                    guest.say(&answered(answer))?;
                }
                "resume" => {
                    let answer = host.resume(guest, self.next);
                    guest.say(&answered(answer))?;
                }
                "reset" => host.reset(guest)?,
                "power-cycle" => host.power_cycle(guest)?,
                "keep" => host.keep(rest),
                "end" => {
                    anyhow::ensure!(self.next == self.tests.len(), "the guest ended before it ran all of its tests");
                    return Ok(());
                }
                // Firmware and kernel may use the line before the harness does: it may be no word of ours.
                _ => {
                    if let Some(answer) = host.answer(guest, word, rest) {
                        guest.say(&answered(answer))?;
                    }
                }
            }
        }
    }

    /// The test that runs has failed, and those behind it cannot run.
    fn give_up(&mut self, error: &anyhow::Error, words: &str) {
        let lines: Vec<String> = words.lines().map(str::to_owned).collect();
        let from = lines.len().saturating_sub(LAST_LINES);
        let mut log = lines.get(from..).unwrap_or_default().to_vec();
        let mut reason = format!("{error:#}");
        for test in self.tests.get(self.next..).unwrap_or_default() {
            let failure = Some(std::mem::replace(&mut reason, "not run: its guest ended before".to_owned()));
            let log = std::mem::take(&mut log);
            (self.tell)(Outcome { test: test.clone(), took: Duration::ZERO, failure, log, notes: Vec::new() });
        }
        self.next = self.tests.len();
    }
}
