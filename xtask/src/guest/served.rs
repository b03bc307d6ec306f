//! A controller of Doorbell's own for a guest: `doorbell serve` beside QEMU, on the host.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::process::{self, Background};

/// How long the server may take to start, to carry out an order, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server, or what is needed to start it again.
pub(super) struct Served {
    process: Option<Background>,
    program: PathBuf,
    folder: PathBuf,
    /// What it is called in the folder: its control socket.
    control: &'static str,
    arguments: Vec<String>,
    /// The server whose namespaces this one offers.
    behind: Option<Box<Served>>,
}

impl Served {
    /// Starts the server in a guest's folder, where its sockets are, and before it one behind it, if there is to be one.
    pub(super) fn start(program: &Path, folder: &Path, arguments: &[String], behind: &[String]) -> Result<Self> {
        let one = |control, arguments: &[String], behind| {
            let arguments = arguments.to_vec();
            let (program, folder) = (program.into(), folder.into());
            let mut served = Self { process: None, program, folder, control, arguments, behind };
            served.again().map(|()| served)
        };
        let behind = if behind.is_empty() { None } else { Some(Box::new(one("behind", behind, None)?)) };
        one("control", arguments, behind)
    }

    /// What the guest asks of the host: `start`, `kill`, `end`, `replace` (by another that takes everything over), `folder`
    /// (where its sockets are), or a verb of `doorbell ctl`. `end` and `replace` wait until it has ended in order. After `behind`,
    /// the same of the server behind it.
    pub(super) fn answer(&mut self, request: &str) -> Result<Value> {
        if let Some(request) = request.strip_prefix("behind ") {
            return self.behind.as_mut().context("there is no server behind it")?.answer(request);
        }
        match request {
            "start" => self.again()?,
            "replace" => self.replace()?,
            "kill" => drop(self.process.take().context("there is no server")?.end()?),
            "end" => {
                self.order("shutdown")?;
                let process = self.process.take().context("there is no server")?;
                ensure!(process.ends_within(PATIENCE)?, "the server does not end");
            }
            "folder" => return Ok(json!(self.folder)),
            order => return self.order(order),
        }
        Ok(json!({}))
    }

    fn again(&mut self) -> Result<()> {
        let process = self.run(&["--control", self.control], &self.arguments)?;
        let deadline = Instant::now() + PATIENCE;
        // The control socket is made after the others; what a killed server left is refused until then.
        while UnixStream::connect(self.folder.join(self.control)).is_err() {
            let said = || fs::read_to_string(self.folder.join("serve")).unwrap_or_default();
            ensure!(!process.ends_within(Duration::ZERO)?, "the server did not start: {}", said().trim());
            ensure!(Instant::now() < deadline, "the server does not start");
            thread::sleep(Duration::from_millis(20));
        }
        self.process = Some(process);
        Ok(())
    }

    fn run(&self, first: &[&str], arguments: &[String]) -> Result<Background> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).arg("serve").args(first).args(arguments);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("serve"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Background::start(&mut command)
    }

    fn replace(&mut self) -> Result<()> {
        let old = self.process.take().context("there is no server")?;
        self.process = Some(self.run(&["--takeover", self.control], &[])?);
        let said = || fs::read_to_string(self.folder.join("serve")).unwrap_or_default();
        ensure!(old.ends_within(PATIENCE)?, "the server was not replaced: {}", said().trim());
        Ok(())
    }

    fn order(&self, order: &str) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .args(["ctl", self.control])
            .args(order.split_whitespace())
            .args(["-o", "json"]);
        let finished = process::observe(&mut command, PATIENCE)?;
        ensure!(finished.succeeded(), "{} {}", finished.verdict(), finished.stderr.trim());
        serde_json::from_str(&finished.stdout).context("no JSON")
    }
}
