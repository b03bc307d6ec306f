//! A guest as a process of the host: QEMU with a machine's devices, a line to the guest, and one to QEMU itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};

use super::catalog::Machine;
use super::initrd::Programs;
use super::lab::Lab;
use super::qmp::Qmp;
use super::served::Served;
use crate::process::Background;

/// What every guest's kernel is told. The log is long enough for what a test makes the kernel say. The timer is not tried
/// out: on a busy host it may not tick in the moment in which the kernel tries.
const APPEND: &str = "console=ttyS0 quiet no_timer_check intel_iommu=on iommu=nopt log_buf_len=4M panic=-1";

/// A guest that runs. It ends when this is dropped.
pub(super) struct Guest {
    process: Background,
    pub(super) qmp: Qmp,
    /// The server of its devices, where it has one.
    pub(super) served: Option<Served>,
    /// What the guest's harness says, a line each. Ends with the guest.
    pub(super) lines: Receiver<String>,
    to: UnixStream,
    folder: PathBuf,
}

impl Guest {
    /// Starts a machine, and the server of its devices. Its disks and logs are made in a folder.
    pub(super) fn start(
        lab: &Lab,
        machine: &Machine,
        programs: &Programs,
        folder: &Path,
        initrd: &Path,
    ) -> Result<Self> {
        for (name, size) in &machine.disks {
            File::create(disk(folder, name))?.set_len(size << 20)?;
        }
        let mut served = None;
        if !machine.serve.is_empty() {
            let program = programs.iter().find(|(name, _)| name == "doorbell").context("there is no doorbell")?;
            served = Some(Served::start(&program.1, folder, &machine.serve, &machine.behind)?);
        }
        Self::power_on(lab, machine, folder, initrd, served)
    }

    /// Pulls the plug, and starts the machine again, with the disks as they are.
    pub(super) fn power_cycle(&mut self, lab: &Lab, machine: &Machine, initrd: &Path) -> Result<()> {
        self.end()?;
        *self = Self::power_on(lab, machine, &self.folder.clone(), initrd, self.served.take())?;
        Ok(())
    }

    fn power_on(lab: &Lab, machine: &Machine, folder: &Path, initrd: &Path, served: Option<Served>) -> Result<Self> {
        let mut command = lab.qemu();
        command.args([
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-nodefaults",
            "-no-reboot",
        ]);
        command.args(["-display", "none", "-m", &machine.memory.to_string(), "-qmp", "stdio"]);
        command.arg("-kernel").arg(lab.kernel()).arg("-initrd").arg(initrd);
        command.args(["-append", &format!("{APPEND} {}", machine.append)]);
        command.arg("-serial").arg(format!("file:{}", folder.join("console").display()));
        let (ours, theirs) = UnixStream::pair().context("no line to the guest")?;
        fcntl_setfd(&theirs, FdFlags::empty()).context("no line to the guest")?;
        command.args(["-chardev", &format!("socket,id=guest,fd={}", theirs.as_raw_fd()), "-serial", "chardev:guest"]);
        if machine.iommu {
            command.args(["-device", "intel-iommu,intremap=on,caching-mode=on"]);
        }
        for name in machine.disks.keys() {
            // Unlike a -drive it stays when its device is unplugged.
            let file = format!("file.driver=file,file.filename={}", disk(folder, name).display());
            command.args(["-blockdev", &format!("driver=raw,node-name={name},cache.no-flush=on,{file}")]);
        }
        if machine.devices.iter().any(|device| device.contains("vfio-user")) {
            // Only memory that can be shared is of use to a device in another process.
            let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory);
            command.args(["-object", &memory, "-machine", "memory-backend=memory"]);
        }
        for device in &machine.devices {
            // Sockets of a server are in the folder.
            command.args(["-device", &device.replace("FOLDER", &folder.display().to_string())]);
        }
        command.args(&machine.arguments);
        let said = File::create(folder.join("qemu"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(said);
        let mut process = Background::start(&mut command)?;
        drop(theirs);
        let child = process.child();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let qmp = stdin.zip(stdout).context("QEMU has no standard streams").and_then(|(to, from)| Qmp::new(to, from));
        let qmp = qmp.with_context(|| format!("QEMU did not start: {}", log(folder, "qemu").trim()))?;
        let lines = read(ours.try_clone()?);
        Ok(Self { process, qmp, served, lines, to: ours, folder: folder.to_owned() })
    }

    /// Says a line to the guest's harness.
    pub(super) fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.to, "{line}").context("the guest does not listen any more")
    }

    /// What the guest's console showed, or QEMU said.
    pub(super) fn last_words(&self) -> String {
        ["console", "qemu", "serve"].map(|name| log(&self.folder, name)).concat()
    }

    pub(super) fn end(&mut self) -> Result<()> {
        self.process.end().map(drop)
    }
}

fn disk(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.disk"))
}

fn log(folder: &Path, name: &str) -> String {
    let bytes = fs::read(folder.join(name)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\r', "")
}

fn read(from: UnixStream) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                break;
            }
        }
    });
    receiver
}
