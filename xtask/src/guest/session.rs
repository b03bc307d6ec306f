//! One guest from its start to its end: it runs its tests by itself and says what came of each; it is given what only the
//! host can do.
//!
//! A line of the guest begins with a word: `begin NAME`, `ok`, `fail REASON`, `log TEXT`, `note TEXT`, `end`; and
//! `qmp COMMAND`, `event NAME DEVICE` and `serve REQUEST`, which are answered with one line.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::catalog::{Machine, Test};
use super::initrd::{self, Programs};
use super::lab::Lab;
use super::machine::Guest;

/// How long a guest may take until its first test begins.
const BOOT: Duration = Duration::from_secs(120);
/// What a test may take beyond its limit, which the guest itself keeps.
const LATE: Duration = Duration::from_secs(30);
/// How long the guest waits for an event of QEMU's.
const EVENT: Duration = Duration::from_secs(30);
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
    let result = start(lab, machine, tests, programs, folder).and_then(|mut guest| {
        let result = session.converse(&mut guest);
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

fn start(lab: &Lab, machine: &Machine, tests: &[Test], programs: &Programs, folder: &Path) -> Result<Guest> {
    let initrd = folder.join("initrd");
    initrd::write(&initrd, lab, machine, tests, programs)?;
    Guest::start(lab, machine, programs, folder, &initrd)
}

struct Session<'a> {
    tests: &'a [Test],
    /// Which test is running or comes next.
    next: usize,
    tell: &'a mut dyn FnMut(Outcome),
}

impl Session<'_> {
    fn converse(&mut self, guest: &mut Guest) -> Result<()> {
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
                "qmp" => {
                    let answer =
                        serde_json::from_str(rest).context("no JSON").and_then(|c: Value| guest.qmp.command(&c));
                    guest.say(&answered(answer))?;
                }
                "event" => {
                    let (name, device) = rest.split_once(' ').unwrap_or((rest, ""));
                    let answer = guest.qmp.event(name, device, EVENT);
                    guest.say(&answered(answer))?;
                }
                "serve" => {
                    let served = guest.served.as_mut().context("nothing is served to this guest");
                    let answer = served.and_then(|served| served.answer(rest));
                    guest.say(&answered(answer))?;
                }
                "end" => {
                    anyhow::ensure!(self.next == self.tests.len(), "the guest ended before it ran all of its tests");
                    return Ok(());
                }
                // Firmware and kernel may use the line before the harness does.
                _ => {}
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

fn answered(answer: Result<Value>) -> String {
    match answer {
        Ok(value) => json!({ "return": value }).to_string(),
        Err(error) => json!({ "error": format!("{error:#}") }).to_string(),
    }
}
