//! A guest's first file system: what it needs to run some tests, and the list of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::catalog::{self, Machine, Test};
use super::cpio::Archive;
use super::lab::Lab;

/// Programs of this workspace, for all guests: their names there, and where they are here.
pub(super) type Programs = Vec<(String, PathBuf)>;

/// Writes it.
pub(super) fn write(path: &Path, lab: &Lab, machine: &Machine, tests: &[Test], programs: &Programs) -> Result<()> {
    let mut archive = Archive::create(path)?;
    for folder in ["proc", "sys", "dev", "tmp", "run", "mnt", "etc", "sbin", "usr/sbin"] {
        archive.folder(folder)?;
    }
    // Where the loader and its libraries are looked for.
    archive.link("lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu")?;
    let mut files = Vec::new();
    for (place, file) in lab.program("busybox")? {
        files.push((place.replace("usr/bin", "bin"), file));
    }
    for tool in &machine.tools {
        files.extend(lab.program(tool)?);
    }
    files.extend(programs.iter().map(|(name, file)| (format!("usr/bin/{name}"), file.clone())));
    for entry in fs::read_dir(catalog::folder().join("lib"))?.flatten() {
        files.push((format!("lib/guest/{}", entry.file_name().to_string_lossy()), entry.path()));
    }
    files.push(("init".to_owned(), catalog::folder().join("lib/init.sh")));
    for test in tests {
        let script = format!("{}.sh", test.script);
        files.push((format!("tests/{script}"), catalog::folder().join("tests").join(&script)));
    }
    files.sort();
    files.dedup_by(|one, other| one.0 == other.0);
    for (place, file) in files {
        let bytes = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        archive.file(&place, &bytes)?;
    }
    let all: Vec<String> = machine.load.iter().chain(&machine.modules).cloned().collect();
    let modules = lab.modules()?.with_dependencies(&all)?;
    for (name, module) in &modules {
        archive.file(&format!("modules/{name}.ko"), module)?;
    }
    let order: String = modules.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("modules/order", order.as_bytes())?;
    archive.file("load", machine.load.join("\n").as_bytes())?;
    archive.file("plan", plan(tests).as_bytes())?;
    archive.finish().map(drop)
}

/// A line for each test: name, script, seconds, whether faults are expected, and variables.
fn plan(tests: &[Test]) -> String {
    let line = |test: &Test| {
        let values: Vec<String> = test.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let faults = if test.faults { "faults" } else { "none" };
        format!("{} {} {} {faults} {}\n", test.name, test.script, test.limit.as_secs(), values.join(" "))
    };
    tests.iter().map(line).collect()
}
