//! iommufd, and VFIO that knows of it: Debian's kernels have none, so the modules are built from their source, with Debian's own
//! compiler and headers, in a root of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::apt::Apt;
use crate::{process, workspace};

/// Another recipe under the same name would leave what an older one made.
const RECIPE: &str = "1";
const SCRIPT: &str = include_str!("iommufd.sh");
const TOOLS: &[&str] = &[
    "bash",
    "dash",
    "coreutils",
    "sed",
    "grep",
    "findutils",
    "gawk",
    "tar",
    "xz-utils",
    "make",
    "gcc-14",
    "binutils",
    "bc",
    "perl-base",
    "diffutils",
    "libc6-dev",
];

/// The folder of these modules for a kernel, built if they are not yet there. Takes about a minute, and root.
pub(super) fn modules(kernel: &str, suites: &[&str]) -> Result<PathBuf> {
    let folder = workspace::target().join("guest-lab").join(format!("iommufd-{kernel}-{RECIPE}"));
    if !folder.exists() {
        println!("building iommufd for Linux {kernel}");
        let new = folder.with_extension("new");
        if new.exists() {
            fs::remove_dir_all(&new).with_context(|| format!("{} cannot be removed", new.display()))?;
        }
        build(kernel, suites, &new).context("iommufd cannot be built")?;
        fs::rename(new.join("root/modules"), &folder)
            .with_context(|| format!("{} cannot be made", folder.display()))?;
        fs::remove_dir_all(&new).with_context(|| format!("{} cannot be removed", new.display()))?;
    }
    Ok(folder)
}

fn build(kernel: &str, suites: &[&str], folder: &Path) -> Result<()> {
    let root = folder.join("root");
    let apt = Apt::new(&folder.join("apt"), suites)?;
    let (headers, source) = (format!("linux-headers-{kernel}"), source_package(kernel)?);
    let packages: Vec<&str> = TOOLS.iter().copied().chain([&*headers, &*source]).collect();
    apt.unpack_with_dependencies(&packages, &root)?;
    // What the packages would make of themselves when installed.
    for (link, to) in [("awk", "gawk"), ("sh", "dash")] {
        let link = root.join("usr/bin").join(link);
        if fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(to, &link).with_context(|| format!("{} cannot be made", link.display()))?;
        }
    }
    fs::create_dir_all(root.join("proc"))?;
    fs::write(root.join("build.sh"), SCRIPT)?;
    let mut command = Command::new("unshare");
    let inside = "mount --rbind /proc proc && exec chroot . /bin/bash /build.sh \"$@\"";
    command.args(["--mount", "sh", "-c", inside, "sh", kernel, &source]).current_dir(&root);
    let finished = process::observe(&mut command, process::STEP_LIMIT)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let last: Vec<&str> = said.lines().rev().take(20).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    ensure!(finished.succeeded(), "`{}` {}:\n{}", process::shown(&command), finished.verdict(), last.join("\n"));
    Ok(())
}

/// "linux-source-7.3" for "7.3.4+deb13-amd64".
fn source_package(kernel: &str) -> Result<String> {
    let mut numbers = kernel.split('.');
    let (major, minor) = numbers.next().zip(numbers.next()).with_context(|| format!("{kernel} is no version"))?;
    Ok(format!("linux-source-{major}.{minor}"))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_kernel() -> Result<()> {
        assert_eq!(source_package("7.3.4+deb13-amd64")?, "linux-source-7.3");
        assert!(source_package("7").is_err());
        Ok(())
    }
}
