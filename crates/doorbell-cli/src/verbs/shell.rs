//! For shells and manuals: `completions`, `man`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::output;

/// Print a completion script for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell completions bash > ~/.local/share/bash-completion/completions/doorbell
  doorbell completions zsh > ~/.zfunc/_doorbell")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "doorbell", &mut script);
        output::print(script)
    }
}

/// Print a manual page, or write all of them to a folder
#[derive(Args)]
#[command(after_help = "\
Examples:
  doorbell man | man -l -
  doorbell man bench | man -l -
  doorbell man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// The page of this verb [default: that of doorbell itself]
    verb: Option<String>,
    /// Write all pages to this folder, which has to exist
    #[arg(long, value_name = "FOLDER", conflicts_with = "verb")]
    dir: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self) -> Result<()> {
        let mut command = Cli::command();
        command.build();
        if let Some(folder) = &self.dir {
            if !folder.is_dir() {
                bail!("{}: there is no such folder", folder.display());
            }
            return clap_mangen::generate_to(command, folder).with_context(|| folder.display().to_string());
        }
        let command = match &self.verb {
            None => command,
            Some(verb) => match command.find_subcommand(verb) {
                Some(found) => found.clone(),
                None => bail!("there is no verb {verb:?}; doorbell --help lists those there are"),
            },
        };
        let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
        let mut page = Vec::new();
        clap_mangen::Man::new(command).title(name).render(&mut page)?;
        output::print(page)
    }
}
