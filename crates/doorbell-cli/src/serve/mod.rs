//! `serve`, and `ctl`, which changes what is served.

mod control;
mod ctl;
mod devices;
mod namespace;
mod state;

pub(crate) use ctl::Ctl;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result, ensure};
use clap::Args;
use doorbell_emulator::{ControllerConfig, Subsystem, SubsystemConfig};
use doorbell_serve::Listener;

use crate::output;
use control::Order;
use devices::Devices;
use namespace::NamespaceSpec;
use state::{State, Stop};

/// Serve emulated controllers to virtual machines and other processes (vfio-user)
#[derive(Args)]
#[command(after_help = "\
A namespace is KIND:WHAT, and options after commas:
  ram:1G                in memory; gone when the server ends
  file:disk.img         in a file, which has to exist; whole blocks
  zero:1T               reads give zeroes, writes are forgotten
  null:1T               no data are moved: reads leave memory as it is, writes are forgotten
  device:ADDRESS[:NSID] of a device that Doorbell drives, without a copy; the NSID if it has several
  ...,block=4096        bytes of a block, in place of --block-size
  ...,readonly          cannot be written to
  file:...,uring=off    a command at a time, instead of many by io_uring

Several sockets are several controllers of one subsystem, which share all namespaces. Each serves one client at a time.
The memory of a QEMU guest has to be shared: -object memory-backend-memfd,id=mem,size=1G,share=on. See docs/serve.md.

Examples:
  doorbell serve --socket /tmp/nvme0.sock --namespace ram:1G
  doorbell serve --socket a.sock --namespace device:pci:0000:01:00.0:1
  doorbell serve --socket a.sock --socket b.sock --namespace file:disk.img --namespace null:1T,block=4096
  doorbell serve --takeover control.sock                 # in place of the server with --control control.sock")]
pub(crate) struct Serve {
    /// Where a controller listens; may be given several times
    #[arg(short, long = "socket", value_name = "PATH", required_unless_present = "takeover")]
    sockets: Vec<PathBuf>,
    /// A namespace, such as ram:1G; may be given several times
    #[arg(short, long = "namespace", value_name = "SPEC")]
    namespaces: Vec<NamespaceSpec>,
    /// Bytes of a block
    #[arg(short, long, value_name = "BYTES", default_value = "512", value_parser = namespace::block_size)]
    block_size: u32,
    /// Where orders are taken while it runs: see doorbell ctl
    #[arg(short, long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// What the subsystem calls itself, up to 20 characters
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| identity(text, 20))]
    serial: Option<String>,
    /// What the controllers are called, up to 40 characters
    #[arg(long, value_name = "TEXT", value_parser = |text: &str| identity(text, 40))]
    model: Option<String>,
    /// I/O queue pairs of each controller
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=64))]
    queues: u16,
    /// Take everything over from the server with this control socket, which ends; its clients notice nothing
    #[arg(long, value_name = "PATH", conflicts_with_all = ["sockets", "namespaces", "block_size", "control", "serial", "model", "queues", "mdts"])]
    takeover: Option<PathBuf>,
    /// A command moves at most 2 ^ MDTS pages of 4 KiB; 0 is no limit
    #[arg(long, value_name = "MDTS", default_value_t = 9, value_parser = clap::value_parser!(u8).range(0..=16))]
    mdts: u8,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        let (stop, stopped) = channel();
        let interrupted = stop.clone();
        ctrlc::set_handler(move || {
            let _ = interrupted.send(Stop::Ended);
        })
        .context("signals")?;
        raise_descriptor_limit();
        if let Some(control) = &self.takeover {
            return take_over(control, stop, &stopped);
        }
        let default = SubsystemConfig::default();
        let config = SubsystemConfig {
            serial: self.serial.clone().unwrap_or(default.serial.clone()),
            model: self.model.clone().unwrap_or(default.model.clone()),
            ..default
        };
        let mut state = State::new(Subsystem::new(config), self.block_size, stop);
        for spec in &self.namespaces {
            state.add(spec, None)?;
        }
        for socket in &self.sockets {
            state.serve(socket, self.controller())?;
        }
        let state = Arc::new(state);
        let listen = |path: &PathBuf| {
            ensure!(!self.sockets.contains(path), "{}: given twice", path.display());
            Ok(Listener::bind(path)?)
        };
        let control = self.control.as_ref().map(listen).transpose()?;
        serve(&state, control, &stopped)
    }

    fn controller(&self) -> ControllerConfig {
        ControllerConfig {
            queue_pairs: self.queues,
            vectors: self.queues.saturating_add(1),
            mdts: self.mdts,
            ..ControllerConfig::default()
        }
    }
}

/// Serves until somebody says that it is enough.
fn serve(state: &Arc<State>, control: Option<Listener>, stopped: &Receiver<Stop>) -> Result<()> {
    let control = control.map(|listener| state.listen(listener)).transpose()?;
    for endpoint in state.endpoints() {
        output::print(format!("serving {}\n", endpoint.path().display()))?;
    }
    // Nobody else has the other end: it fails only with all who could send gone, and the handler stays.
    let why = stopped.recv();
    if why == Ok(Stop::HandedOver) || state.is_handed_over() {
        return output::print("handed over: another server goes on\n");
    }
    drop(control);
    state.end()
}

/// Goes on with what another server serves.
fn take_over(control: &Path, stop: Sender<Stop>, stopped: &Receiver<Stop>) -> Result<()> {
    let (_, stream) = control::converse_with(control, &Order::TakeOver {})?;
    let taken = doorbell_serve::take_over(stream, Devices::arrive);
    let (mut taken, here) = taken.with_context(|| control.display().to_string())?;
    let (control, pause) = (taken.control.take(), taken.pause);
    let state = Arc::new(State::taken(taken, here, stop));
    output::print(format!("taken over after {:.3} ms\n", pause.as_secs_f64() * 1e3))?;
    serve(&state, control, stopped)
}

fn identity(text: &str, most: usize) -> Result<String, String> {
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if text.is_empty() || text.len() > most || !printable {
        return Err(format!("1 to {most} printable ASCII characters are needed"));
    }
    Ok(text.into())
}

/// A client's interrupts and memory are descriptors: as many as the system lets us have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // With the limit as it was, only so many clients are served at a time.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
