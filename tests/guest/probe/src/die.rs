//! Two processes of which one dies while a drive goes from one to the other.

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use doorbell_handover::{STEPS, pair};

use crate::part;

/// At each step: one of the two has the drive then, and works, or nobody has, and it can be had anew.
pub(crate) fn run(address: &str) -> Result<()> {
    for step in STEPS {
        let (of_the_new, expected) = part::when_one_dies_at(step);
        let (ours, theirs) = pair()?;
        let dies = |it_does: bool| it_does.then(|| format!("{step:?}"));
        let old = start("old", address, ours, dies(!of_the_new))?;
        let new = start("new", address, theirs, dies(of_the_new))?;
        let said = [end(old)?, end(new)?];
        ensure!(said.each_ref().map(Option::as_deref) == expected, "{step:?}: {said:?}, not {expected:?}");
    }
    println!(r#"{{"steps":{}}}"#, STEPS.len());
    Ok(())
}

fn start(part: &str, address: &str, socket: OwnedFd, dies_at: Option<String>) -> Result<std::process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["part", part, address]).stdin(socket).stdout(Stdio::piped());
    command.envs(dies_at.map(|step| ("DOORBELL_TEST_DIES_AT", step)));
    command.spawn().context(part.to_owned())
}

/// What it said of how it went; none if it died before.
fn end(mut child: std::process::Child) -> Result<Option<String>> {
    let mut said = None;
    for line in BufReader::new(child.stdout.take().context("no output")?).lines() {
        said = line?.split_once("REPORT ").map(|(_, said)| said.to_owned()).or(said);
    }
    let status = child.wait()?;
    ensure!(status.success() || said.is_none(), "{said:?}, {status}");
    Ok(said)
}
