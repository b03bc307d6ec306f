//! `doorbell`: drive NVMe devices from the command line, with verbs and options as users of nvme-cli and fio know
//! them.

#![forbid(unsafe_code)]

mod address;
mod bench;
mod cli;
mod fields;
mod log;
mod output;
mod parse;
mod payload;
mod serve;
mod session;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    cli.global.start_tracing(cli.verb.quietest_level());
    // A drive that vanishes, or a client's memory, is an error message and not the end of the process.
    if let Err(error) = doorbell_device::sigbus::install() {
        tracing::warn!(%error, "a device that vanishes will end this process");
    }
    match cli.verb.run(&cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
