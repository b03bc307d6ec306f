//! Registers that vanish under a process that uses them.

use std::fs;

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::io::{pread, pwrite};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Where a function's configuration space begins in its VFIO descriptor.
const CONFIGURATION: u64 = 7 << 40;
/// Where its command register is.
const COMMAND: u64 = CONFIGURATION + 4;
const MEMORY_SPACE_ENABLE: u8 = 2;

/// Clears Memory Space Enable of the function that a process uses, through that process's own descriptor: only then the
/// kernel takes the mapped registers away, too.
pub(crate) fn run(process: i32) -> Result<()> {
    let device = descriptor(process)?;
    let mut command = [0];
    pread(&device, &mut command, COMMAND)?;
    command[0] &= !MEMORY_SPACE_ENABLE;
    pwrite(&device, &command, COMMAND).context("the command register")?;
    Ok(())
}

/// Another process's VFIO device.
fn descriptor(process: i32) -> Result<OwnedFd> {
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        let is_device = fs::read_link(entry.path())?.to_string_lossy().contains("[vfio-device]");
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|_| is_device) {
            let process = pidfd_open(Pid::from_raw(process).context("no process")?, PidfdFlags::empty())?;
            return Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?);
        }
    }
    anyhow::bail!("process {process} has no VFIO device open")
}
