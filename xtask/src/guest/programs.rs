//! Programs of this workspace for guests: linked statically, since guests have other libraries.

use anyhow::Result;

use super::initrd::Programs;
use crate::process;
use crate::workspace::{cargo, target};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: [(&str, &str); 2] = [("doorbell-cli", "doorbell"), ("doorbell-guest-probe", "probe")];

/// Builds them, in a folder of their own, so that the flags do not have everything else built again.
pub(super) fn build(release: bool) -> Result<Programs> {
    let folder = target().join("guest-build");
    let mut command = cargo(["build", "--quiet", "--target", TARGET]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", "-C target-feature=+crt-static");
    if release {
        command.arg("--release");
    }
    for (package, _) in PACKAGES {
        command.args(["--package", package]);
    }
    process::run(&mut command)?;
    let folder = folder.join(TARGET).join(if release { "release" } else { "debug" });
    Ok(PACKAGES.iter().map(|(_, program)| ((*program).to_owned(), folder.join(program))).collect())
}
