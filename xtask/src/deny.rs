//! `cargo deny`, where it is to be had.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::process;
use crate::workspace::cargo;

/// Runs what `cargo deny` can check offline, and says what is left out.
pub(crate) fn run() -> Result<()> {
    if !installed() {
        println!("left out: cargo-deny is not installed; licences were checked by `cargo xtask licences`");
        return Ok(());
    }
    let mut command = cargo(["deny", "--offline", "check", "bans", "licenses", "sources"]);
    if advisories() {
        command.arg("advisories");
    } else {
        println!("advisories are left out: there is no copy of their database, and this runs offline");
    }
    process::run(&mut command)
}

fn installed() -> bool {
    let mut command = Command::new("cargo-deny");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn advisories() -> bool {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.is_some_and(|home| home.join("advisory-dbs").is_dir())
}
