//! Debian's packages, unpacked into a folder and not installed, from where this machine's apt finds its own.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::process;

/// Where Debian says that its packages' signatures can be checked.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where apt is told of sources.
const SOURCES: &str = "/etc/apt";

/// An apt of our own: its lists and its cache lie in one folder, and it believes that nothing is installed.
pub(super) struct Apt {
    folder: PathBuf,
    suite: String,
}

impl Apt {
    /// Knows of these suites' packages, the last suite's first.
    pub(super) fn new(folder: &Path, suites: &[&str]) -> Result<Self> {
        let source = source()?;
        for part in ["etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/apt.conf.d", "etc/apt/trusted.gpg.d"] {
            create(&folder.join(part))?;
        }
        for part in ["var/lib/apt/lists/partial", "var/lib/dpkg", "var/cache/apt/archives/partial"] {
            create(&folder.join(part))?;
        }
        let lines: String =
            suites.iter().map(|suite| format!("deb [signed-by={KEYRING}] {source} {suite} main\n")).collect();
        write(&folder.join("etc/apt/sources.list"), &lines)?;
        write(&folder.join("var/lib/dpkg/status"), "")?;
        let here = folder.display();
        let configuration = format!(
            "Dir \"{here}\";\nDir::State \"{here}/var/lib/apt\";\nDir::State::status \"{here}/var/lib/dpkg/status\";\n\
             Dir::Cache \"{here}/var/cache/apt\";\nDir::Etc \"{here}/etc/apt\";\nAPT::Architecture \"amd64\";\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Acquire::Retries \"5\";\n"
        );
        write(&folder.join("apt.conf"), &configuration)?;
        let apt = Self { folder: folder.to_owned(), suite: suites.last().copied().unwrap_or_default().to_owned() };
        apt.get(["update"])?;
        Ok(apt)
    }

    /// The newest package whose name has this beginning and this end, and nothing but a version in between.
    pub(super) fn newest(&self, beginning: &str, end: &str) -> Result<String> {
        let names = self.run("apt-cache", ["pkgnames", beginning])?;
        let versions = names.lines().filter_map(|name| {
            let version = name.strip_prefix(beginning)?.strip_suffix(end)?;
            let plain = version.chars().all(|c| c.is_ascii_digit() || ".-+~".contains(c)) && !version.is_empty();
            plain.then(|| (numbers(version), name.to_owned()))
        });
        let newest = versions.max().map(|(_, name)| name);
        newest.with_context(|| format!("the package source has no package {beginning}…{end}"))
    }

    /// Unpacks packages, with everything that they depend on.
    pub(super) fn unpack_with_dependencies(&self, packages: &[&str], into: &Path) -> Result<()> {
        let mut arguments = vec!["-y", "-t", &self.suite, "--download-only", "install"];
        arguments.extend(packages);
        self.get(arguments)?;
        self.unpack_all(into)
    }

    /// Unpacks packages alone.
    pub(super) fn unpack(&self, packages: &[&str], into: &Path) -> Result<()> {
        let mut arguments = vec!["download"];
        arguments.extend(packages);
        self.get(arguments)?;
        self.unpack_all(into)
    }

    fn archives(&self) -> PathBuf {
        self.folder.join("var/cache/apt/archives")
    }

    fn unpack_all(&self, into: &Path) -> Result<()> {
        // As on an installed system, so that all packages agree where things are.
        for part in ["bin", "sbin", "lib", "lib64"] {
            create(&into.join("usr").join(part))?;
            let link = into.join(part);
            if fs::symlink_metadata(&link).is_err() {
                std::os::unix::fs::symlink(Path::new("usr").join(part), &link)
                    .with_context(|| format!("{} cannot be made", link.display()))?;
            }
        }
        let mut any = false;
        for entry in fs::read_dir(self.archives()).context("the downloaded packages cannot be listed")? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                any = true;
                let script = "set -e; dpkg-deb --fsys-tarfile \"$1\" | tar -x -C \"$2\" --keep-directory-symlink";
                process::output(Command::new("sh").args(["-c", script, "sh"]).arg(&path).arg(into))?;
                fs::remove_file(&path)?;
            }
        }
        ensure!(any, "apt downloaded no packages");
        Ok(())
    }

    fn get<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.run("apt-get", ["-q"].into_iter().chain(arguments)).map(drop)
    }

    fn run<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        let mut command = Command::new(program);
        command.args(arguments).env("APT_CONFIG", self.folder.join("apt.conf")).current_dir(self.archives());
        let finished = process::observe(&mut command, process::STEP_LIMIT)?;
        let log = self.folder.join("log");
        let mut log = fs::OpenOptions::new().append(true).create(true).open(log)?;
        log.write_all(format!("{}\n{}{}", process::shown(&command), finished.stdout, finished.stderr).as_bytes())?;
        if !finished.succeeded() {
            let said = finished.stderr.lines().filter(|line| line.starts_with("E:")).collect::<Vec<_>>().join("; ");
            bail!("`{}` {}: {said}", process::shown(&command), finished.verdict());
        }
        Ok(finished.stdout)
    }
}

/// Where this machine's apt gets Debian's packages.
fn source() -> Result<String> {
    let mut files: Vec<PathBuf> = vec![Path::new(SOURCES).join("sources.list")];
    let more = fs::read_dir(Path::new(SOURCES).join("sources.list.d")).into_iter().flatten().flatten();
    files.extend(more.map(|entry| entry.path()));
    files.sort();
    let texts = files.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.into_iter().find_map(|text| source_in(&text)).context("this machine's apt knows no source of Debian packages")
}

/// The first address of Debian's main archive that a file of sources, in either form, tells.
fn source_in(text: &str) -> Option<String> {
    let words = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).flat_map(|line| {
        let uris = line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb "));
        uris.into_iter().flat_map(str::split_whitespace)
    });
    let mut archives = words.map(|word| word.trim_end_matches('/')).filter(|word| word.ends_with("/debian"));
    archives.next().map(str::to_owned)
}

/// What versions are compared by.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn sources_are_found_in_both_forms() {
        let new = "Types: deb\n# URIs: http://old.example/debian\nURIs: http://one.example/debian-security/\nSuites: a\n\n\
                   Types: deb\nURIs: http://two.example/debian/\n";
        assert_eq!(source_in(new).as_deref(), Some("http://two.example/debian"));
        let old = "# comment\ndeb [arch=amd64] http://three.example/debian bookworm main\n";
        assert_eq!(source_in(old).as_deref(), Some("http://three.example/debian"));
        assert_eq!(source_in("deb https://other.example/node nodistro main\n"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("6.1.0-9") < numbers("6.1.0-37"));
        assert!(numbers("7.3.4+deb13") > numbers("6.19.10+deb13"));
    }
}
