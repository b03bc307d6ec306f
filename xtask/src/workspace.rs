//! Where things are, and how cargo is called.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

/// The command that README gives for the tests. CI runs just that.
pub(crate) const TEST: [&str; 2] = ["test", "--workspace"];

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    // This crate is built where it is run.
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// Where build products go.
pub(crate) fn target() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    root().join(target)
}

/// `cargo` with these arguments, at the workspace's root.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command
}

/// What `cargo metadata` tells, as far as it is of use here.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
}

#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
}

/// The packages of the workspace, or with their dependencies on every platform.
pub(crate) fn metadata(dependencies: bool) -> Result<Metadata> {
    let mut command = cargo(["metadata", "--offline", "--locked", "--format-version", "1"]);
    if !dependencies {
        command.arg("--no-deps");
    }
    let text = crate::process::output(&mut command).context("dependencies are not known (try `cargo fetch`)")?;
    serde_json::from_str(&text).context("cannot read what `cargo metadata` printed")
}

/// An error in one line, unless the workspace has this package.
pub(crate) fn require(package: &str, what_for: &str) -> Result<()> {
    let known = metadata(false)?.packages.iter().any(|known| known.name == package);
    anyhow::ensure!(known, "package `{package}`, which {what_for}, is not in the workspace");
    Ok(())
}
