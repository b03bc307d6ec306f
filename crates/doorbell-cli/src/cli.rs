//! The command line: verbs, and the options that all of them have.

use anyhow::Result;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use doorbell::CompletionMode;
use tracing_subscriber::filter::LevelFilter;

use crate::bench::Bench;
use crate::output::Format;
use crate::serve::{Ctl, Serve};
use crate::verbs::{blocks, features, format, identify, inspect, io, logs, pci, registers, reservation, shell};

/// Drive NVMe devices from user space.
#[derive(Parser)]
#[command(
    name = "doorbell",
    version,
    propagate_version = false,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  doorbell bench
  doorbell id-ctrl emulated:size=1G
  truncate -s 64M disk.img
  echo hello | dd bs=512 conv=sync status=none | doorbell write emulated:file=disk.img
  doorbell read emulated:file=disk.img | head -c 6"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Args)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Global {
    /// How results are printed
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Normal)]
    pub(crate) output_format: Format,
    /// How completions are found [default: interrupt; bench: adaptive]
    #[arg(long, global = true, value_enum, value_name = "HOW")]
    pub(crate) completion: Option<Completion>,
    /// Say what the driver does, to standard error; twice and three times for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How completions are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Completion {
    /// By interrupt
    Interrupt,
    /// By polling; in bench, each job polls its own queue
    Polling,
    /// By interrupt, and by whoever waits
    Adaptive,
}

impl From<Completion> for CompletionMode {
    fn from(completion: Completion) -> Self {
        match completion {
            Completion::Interrupt => CompletionMode::Interrupt,
            Completion::Polling => CompletionMode::Polling,
            Completion::Adaptive => CompletionMode::Adaptive,
        }
    }
}

impl Global {
    /// Has the log written to standard error: what is asked for, and nothing less than `quietest`.
    pub(crate) fn start_tracing(&self, quietest: LevelFilter) {
        let level = match self.verbose {
            0 if quietest == LevelFilter::OFF => return,
            0 => quietest,
            1 => LevelFilter::INFO,
            2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        let log = tracing_subscriber::fmt().with_max_level(level).with_ansi(false);
        if quietest == LevelFilter::OFF {
            log.with_writer(std::io::stderr).init();
        } else {
            let limited = crate::log::Limited::default();
            log.with_writer(move || limited.writer()).init();
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    List(pci::List),
    Bind(pci::Bind),
    Unbind(pci::Unbind),
    Doctor(pci::Doctor),
    ListNs(identify::ListNs),
    IdCtrl(identify::IdCtrl),
    IdNs(identify::IdNs),
    Read(io::Read),
    Write(io::Write),
    Compare(io::Compare),
    Verify(blocks::Verify),
    Copy(blocks::Copy),
    WriteUncor(blocks::WriteUncor),
    Flush(blocks::Flush),
    Dsm(blocks::Dsm),
    WriteZeroes(blocks::WriteZeroes),
    Format(format::Format),
    ResvRegister(reservation::Register),
    ResvAcquire(reservation::Acquire),
    ResvRelease(reservation::Release),
    ResvReport(reservation::Report),
    SmartLog(logs::SmartLog),
    ErrorLog(logs::ErrorLog),
    GetFeature(features::GetFeature),
    SetFeature(features::SetFeature),
    ShowRegs(registers::ShowRegs),
    Reset(registers::Reset),
    Inspect(inspect::Inspect),
    Bench(Bench),
    Serve(Serve),
    Ctl(Ctl),
    Completions(shell::Completions),
    Man(shell::Man),
}

impl Verb {
    /// What of the log is written where nothing is asked for: what only runs once and tells its end by a status says
    /// nothing, what runs for long has nobody to tell but the log.
    pub(crate) fn quietest_level(&self) -> LevelFilter {
        if matches!(self, Verb::Serve(_)) { LevelFilter::WARN } else { LevelFilter::OFF }
    }

    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        match self {
            Verb::List(verb) => verb.run(global),
            Verb::Bind(verb) => verb.run(global),
            Verb::Unbind(verb) => verb.run(global),
            Verb::Doctor(verb) => verb.run(global),
            Verb::ListNs(verb) => verb.run(global),
            Verb::IdCtrl(verb) => verb.run(global),
            Verb::IdNs(verb) => verb.run(global),
            Verb::Read(verb) => verb.run(global),
            Verb::Write(verb) => verb.run(global),
            Verb::Compare(verb) => verb.run(global),
            Verb::Verify(verb) => verb.run(global),
            Verb::Copy(verb) => verb.run(global),
            Verb::WriteUncor(verb) => verb.run(global),
            Verb::Flush(verb) => verb.run(global),
            Verb::Dsm(verb) => verb.run(global),
            Verb::WriteZeroes(verb) => verb.run(global),
            Verb::Format(verb) => verb.run(global),
            Verb::ResvRegister(verb) => verb.run(global),
            Verb::ResvAcquire(verb) => verb.run(global),
            Verb::ResvRelease(verb) => verb.run(global),
            Verb::ResvReport(verb) => verb.run(global),
            Verb::SmartLog(verb) => verb.run(global),
            Verb::ErrorLog(verb) => verb.run(global),
            Verb::GetFeature(verb) => verb.run(global),
            Verb::SetFeature(verb) => verb.run(global),
            Verb::ShowRegs(verb) => verb.run(global),
            Verb::Reset(verb) => verb.run(global),
            Verb::Inspect(verb) => verb.run(global),
            Verb::Bench(verb) => verb.run(global),
            Verb::Serve(verb) => verb.run(),
            Verb::Ctl(verb) => verb.run(global),
            Verb::Completions(verb) => verb.run(),
            Verb::Man(verb) => verb.run(),
        }
    }
}

/// The device that a verb is for.
#[derive(Args)]
pub(crate) struct Address {
    #[arg(value_name = "ADDRESS", help = crate::address::SHORT_HELP, long_help = crate::address::HELP)]
    pub(crate) address: String,
}

/// The namespace that a verb is for.
#[derive(Args)]
pub(crate) struct Namespace {
    /// Namespace identifier [default: the only one there is]
    #[arg(short, long, value_name = "NSID", value_parser = crate::parse::number32)]
    pub(crate) namespace_id: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{} says what it does", verb.get_name());
            let examples = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(examples.contains(&format!("doorbell {}", verb.get_name())), "{} has an example", verb.get_name());
        }
    }
}
