//! `probe`: what the guest tests do with a drive that `doorbell` has no verb for. Prints a line of JSON for all that happens.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod die;
mod disable;
#[path = "../../../../crates/doorbell-handover/tests/processes/load.rs"]
mod load;
mod misdirect;
#[path = "../../../../crates/doorbell-handover/tests/processes/part.rs"]
mod part;
mod undo;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use doorbell_device::Device;
use doorbell_device::vfio::{VfioDevice, VfioOptions};

/// What the guest tests do with a drive that `doorbell` has no verb for
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Have the controller fetch a command from an address that is mapped to nothing
    Misdirect {
        /// pci:...
        address: String,
    },
    /// Take the registers from a process that uses a drive
    Disable {
        /// The process
        process: i32,
    },
    /// Hand a drive over between two processes of which one dies, at each step in turn
    Die {
        /// pci:...
        address: String,
    },
    /// Have a drive as one of several processes or programs
    Part {
        /// old, new, or reborn: with DOORBELL_TEST_LEFT more after it
        part: String,
        /// pci:...
        address: String,
    },
    /// Nearly hand a drive over, again and again, and go on with it
    Undo {
        /// pci:...
        address: String,
    },
    /// Write and read every namespace until told to stop, and tell what happens to them
    Watch {
        /// pci:...
        address: String,
    },
}

fn main() -> ExitCode {
    let result = doorbell_device::sigbus::install().context("SIGBUS").and_then(|()| match Arguments::parse().verb {
        Verb::Misdirect { address } => misdirect::run(&*open(&address)?),
        Verb::Disable { process } => disable::run(process),
        Verb::Die { address } => die::run(&address),
        Verb::Part { part, address } => {
            let open = || open(&address).expect("a drive");
            match &*part {
                "old" => part::old(part::given_socket(), &open),
                "new" => part::new(part::given_socket()),
                _ => part::reborn(&open),
            }
            Ok(())
        }
        Verb::Undo { address } => undo::run(open(&address)?),
        Verb::Watch { address } => watch::run(open(&address)?),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn open(address: &str) -> Result<Arc<dyn Device>> {
    let options: VfioOptions = address.parse()?;
    Ok(VfioDevice::open_with(options)?)
}
