//! Child processes, each in a group of its own, so that a hang ends with everything it started.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// A step that takes longer hangs.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Runs a command to its end, on this terminal. A failure or a hang is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let finished = start(command, STEP_LIMIT, Output::Pass, Output::Pass)?;
    require_success(command, &finished)
}

/// As [`run`], and returns what went to standard output, which is shown too.
pub(crate) fn run_and_tell(command: &mut Command) -> Result<Finished> {
    start(command, STEP_LIMIT, Output::Tee, Output::Pass)
}

/// As [`run`], and returns what went to standard output instead of showing it.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let finished = start(command, STEP_LIMIT, Output::Keep, Output::Pass)?;
    require_success(command, &finished)?;
    Ok(finished.stdout)
}

/// Runs a command in silence. Neither failure nor hang is an error: the caller wants to know.
pub(crate) fn observe(command: &mut Command, limit: Duration) -> Result<Finished> {
    start(command, limit, Output::Keep, Output::Keep)
}

/// How a command ended.
pub(crate) struct Finished {
    /// `None`: it hung, and was killed.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn succeeded(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// As text, to follow the command's name.
    pub(crate) fn verdict(&self) -> String {
        match self.status {
            Some(status) if status.success() => "succeeded".to_owned(),
            Some(status) => format!("failed ({status})"),
            None => "hung, and was killed".to_owned(),
        }
    }
}

/// Ends what runs when the user asks this process to end: groups of their own get no Ctrl-C from the terminal.
pub(crate) fn end_on_interrupt() -> Result<()> {
    ctrlc::set_handler(|| {
        let running = running();
        for group in running.iter() {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        // Still locked: nothing starts any more.
        std::process::exit(130);
    })
    .context("cannot watch for Ctrl-C")
}

/// A process that runs beside this one. It ends, with all it started, when this is dropped.
pub(crate) struct Background {
    child: Child,
    group: Pid,
    status: Option<ExitStatus>,
}

impl Background {
    /// Starts a command in a group of its own. Its standard streams are those that the command was given.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let mut running = running();
        let child = command.process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", shown(command)))?;
        let group = Pid::from_child(&child);
        running.push(group);
        Ok(Self { child, group, status: None })
    }

    /// Its standard streams are here, where they are pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it ended by itself within this time.
    pub(crate) fn ends_within(&self, limit: Duration) -> Result<bool> {
        Ok(self.status.is_some() || wait(self.group, Instant::now() + limit)?)
    }

    /// Ends it, and whatever it left behind.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let mut running = running();
        // The child is not reaped yet, so its group is still its own.
        let _ = kill_process_group(self.group, Signal::KILL);
        running.retain(|group| *group != self.group);
        let status = self.child.wait().context("cannot wait for a child")?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// The command as a user would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A failure is an error that names the command.
pub(crate) fn require_success(command: &Command, finished: &Finished) -> Result<()> {
    ensure!(finished.succeeded(), "`{}` {}", shown(command), finished.verdict());
    Ok(())
}

/// The process groups that run now.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, PartialEq)]
enum Output {
    Pass,
    Keep,
    Tee,
}

fn start(command: &mut Command, limit: Duration, stdout: Output, stderr: Output) -> Result<Finished> {
    let pipe = |output| if output == Output::Pass { Stdio::inherit() } else { Stdio::piped() };
    command.stdin(Stdio::null()).stdout(pipe(stdout)).stderr(pipe(stderr));
    let mut process = Background::start(command)?;
    let stdout = process.child().stdout.take().map(|pipe| keep(pipe, stdout == Output::Tee));
    let stderr = process.child().stderr.take().map(|pipe| keep(pipe, false));

    let ended = process.ends_within(limit)?;
    // What it left behind would keep the pipes open.
    let status = process.end()?;
    Ok(Finished { status: ended.then_some(status), stdout: kept(stdout), stderr: kept(stderr) })
}

/// Whether the process ended by itself in time. It is not reaped.
fn wait(process: Pid, deadline: Instant) -> Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(process), options).context("cannot wait for a child")?.is_none() {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(true)
}

fn keep(pipe: impl Read + Send + 'static, show: bool) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut text = Vec::new();
        let mut pipe = BufReader::new(pipe);
        let mut from = 0;
        while pipe.read_until(b'\n', &mut text).is_ok_and(|read| read > 0) {
            if show {
                let _ = io::stdout().write_all(text.get(from..).unwrap_or_default());
            }
            from = text.len();
        }
        String::from_utf8_lossy(&text).into_owned()
    })
}

fn kept(reader: Option<JoinHandle<String>>) -> String {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

#[cfg(test)]
mod unit {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_kept_apart() -> Result<()> {
        let finished = observe(&mut shell("echo out; echo err >&2; exit 3"), STEP_LIMIT)?;
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.and_then(|status| status.code()), Some(3));
        assert_eq!(finished.verdict(), "failed (exit status: 3)");
        Ok(())
    }

    #[test]
    fn a_hang_ends_with_all_it_started() -> Result<()> {
        let begun = Instant::now();
        // Both sleeps hold the pipe: reading it to the end shows that both are gone.
        let finished = observe(&mut shell("echo begun; sleep 60 & sleep 60"), Duration::from_millis(200))?;
        assert!(finished.status.is_none());
        assert_eq!(finished.stdout, "begun\n");
        assert!(begun.elapsed() < Duration::from_secs(30));
        Ok(())
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = output(&mut Command::new("false")).expect_err("false fails");
        assert_eq!(error.to_string(), "`false` failed (exit status: 1)");
        let error = output(&mut Command::new("/nowhere/at-all")).expect_err("it is not there");
        assert_eq!(error.to_string(), "cannot start `/nowhere/at-all`");
    }
}
