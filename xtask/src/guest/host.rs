//! What only the host can do for a guest's tests: requests by their first word, most of them answered with a line.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::catalog::Machine;
use super::lab::Lab;
use super::machine::Guest;
use super::session::BOOT;
use crate::process;

/// How long the guest waits for an event of QEMU's.
const EVENT: Duration = Duration::from_secs(30);
/// How long the peer may take for what it is told.
const PEER: Duration = Duration::from_secs(60);

/// The host, as one guest sees it.
pub(super) struct Host<'a> {
    lab: &'a Lab,
    machine: &'a Machine,
    folder: &'a Path,
    /// A second guest, which does what the first has it do.
    peer: Option<Guest>,
    peer_is_ready: bool,
    /// How often the guest was started.
    boots: u32,
    /// What the guest wants to know after a reset.
    kept: String,
}

impl<'a> Host<'a> {
    pub(super) fn new(lab: &'a Lab, machine: &'a Machine, folder: &'a Path, peer: Option<Guest>) -> Self {
        Self { lab, machine, folder, peer, peer_is_ready: false, boots: 1, kept: String::new() }
    }

    /// `qmp COMMAND`, `event NAME DEVICE`, `serve REQUEST`, `sum IMAGE FILE`, `blocks FILE`, `traced EVENT`,
    /// `kept` and `peer COMMAND`.
    pub(super) fn answer(&mut self, guest: &mut Guest, word: &str, rest: &str) -> Option<Result<Value>> {
        let (one, other) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(match word {
            "qmp" => serde_json::from_str(rest).context("no JSON").and_then(|c: Value| guest.qmp.command(&c)),
            "event" => guest.qmp.event(one, other, EVENT),
            "serve" => {
                guest.served.as_mut().context("nothing is served to this guest").and_then(|served| served.answer(rest))
            }
            "sum" => self.sum(one, other),
            "blocks" => self.blocks(one),
            "traced" => self.traced(rest),
            "kept" => Ok(json!(self.kept)),
            "peer" => self.peer(rest),
            _ => return None,
        })
    }

    /// The guest is about to be reset, or to reset itself, and to go on after.
    pub(super) fn allow_reset(&mut self, guest: &mut Guest) -> Result<Value> {
        self.boots = self.boots.saturating_add(1);
        on_reboot(guest, "reset")
    }

    /// A guest that has started is told how many tests are done, and how often it was started for the next.
    pub(super) fn resume(&mut self, guest: &mut Guest, done: usize) -> Result<Value> {
        on_reboot(guest, "shutdown")?;
        Ok(json!([done, std::mem::replace(&mut self.boots, 1)]))
    }

    /// As the button does. There is nobody to answer.
    pub(super) fn reset(&self, guest: &mut Guest) -> Result<()> {
        guest.qmp.command(&json!({ "execute": "system_reset" })).map(drop)
    }

    /// Another QEMU takes the place of the one there is.
    pub(super) fn power_cycle(&mut self, guest: &mut Guest) -> Result<()> {
        guest.power_cycle(self.lab, self.machine, &self.folder.join("initrd"))
    }

    pub(super) fn keep(&mut self, what: &str) {
        what.clone_into(&mut self.kept);
    }

    /// The SHA-256 of a file in the file system in an image, as a reader finds it that is no kernel: GRUB's.
    fn sum(&self, image: &str, file: &str) -> Result<Value> {
        let copy = self.folder.join("read");
        let mut reader = self.lab.tool("grub-fstest");
        reader.arg(self.here(image)?).args(["cp", file]).arg(&copy);
        let finished = process::observe(&mut reader, PEER)?;
        ensure!(finished.succeeded(), "{file} cannot be read from {image}: {}", finished.stderr.trim());
        let sum = process::output(Command::new("sha256sum").arg(&copy))?;
        Ok(json!(sum.split_whitespace().next()))
    }

    /// How many KiB a file takes up.
    fn blocks(&self, file: &str) -> Result<Value> {
        Ok(json!(fs::metadata(self.here(file)?)?.blocks() / 2))
    }

    /// How often QEMU came by an event that its machine has it trace.
    fn traced(&self, event: &str) -> Result<Value> {
        let traced = self.machine.arguments.iter().any(|argument| argument.ends_with(event));
        ensure!(traced, "{event} is not traced");
        let said = fs::read_to_string(self.folder.join("qemu"))?;
        Ok(json!(said.lines().filter(|line| line.split_whitespace().next() == Some(event)).count()))
    }

    /// A file of the guest's folder.
    fn here(&self, name: &str) -> Result<PathBuf> {
        let mut parts = Path::new(name).components();
        ensure!(
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)),
            "{name} is not in the folder"
        );
        Ok(self.folder.join(name))
    }

    /// Has the peer do something. Tells its status, and the last line it said.
    fn peer(&mut self, command: &str) -> Result<Value> {
        let peer = self.peer.as_mut().context("this guest has no peer")?;
        if !self.peer_is_ready {
            heard(peer, "ready", BOOT)?;
            self.peer_is_ready = true;
        }
        peer.say(command)?;
        let said = heard(peer, "done", PEER)?;
        let (status, text) = said.split_once(' ').unwrap_or((&said, ""));
        Ok(json!({ "status": status.parse::<u8>()?, "said": text }))
    }
}

/// What the peer says behind a word.
fn heard(peer: &mut Guest, word: &str, limit: Duration) -> Result<String> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(line) = peer.lines.recv_timeout(left) else {
            bail!("the peer does not say `{word}`: {}", peer.last_words());
        };
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        if first == word {
            return Ok(rest.to_owned());
        }
    }
}

/// What QEMU does when the guest is reset.
fn on_reboot(guest: &mut Guest, action: &str) -> Result<Value> {
    guest.qmp.command(&json!({ "execute": "set-action", "arguments": { "reboot": action } }))
}

/// The line that answers a request.
pub(super) fn answered(answer: Result<Value>) -> String {
    match answer {
        Ok(value) => json!({ "return": value }).to_string(),
        Err(error) => json!({ "error": format!("{error:#}") }).to_string(),
    }
}
