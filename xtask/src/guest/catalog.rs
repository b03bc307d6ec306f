//! What there is in `tests/guest`: machines, and the tests that run on them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::pairwise::{Factor, Row, Without, covering};
use crate::workspace;

/// How long a test may take if it does not say.
const LIMIT: Duration = Duration::from_secs(60);

/// The folder of all this.
pub(super) fn folder() -> PathBuf {
    workspace::root().join("tests/guest")
}

/// A guest: `machines/NAME.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    #[serde(skip)]
    pub(super) name: String,
    /// MiB.
    #[serde(default = "memory")]
    pub(super) memory: u32,
    /// What the guest's kernel is told besides what every guest's is.
    #[serde(default)]
    pub(super) append: String,
    /// Modules that are loaded before the first test.
    #[serde(default)]
    pub(super) load: Vec<String>,
    /// Modules that are there to be loaded.
    #[serde(default)]
    pub(super) modules: Vec<String>,
    /// Programs of the lab.
    #[serde(default)]
    pub(super) tools: Vec<String>,
    /// Empty disk images by their names as drives, and their sizes in MiB.
    #[serde(default)]
    pub(super) disks: BTreeMap<String, u64>,
    /// QEMU's `-device`, in order.
    #[serde(default)]
    pub(super) devices: Vec<String>,
    /// Further arguments of QEMU.
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    /// Arguments of a `doorbell serve` beside QEMU, which runs in the guest's folder.
    #[serde(default)]
    pub(super) serve: Vec<String>,
    /// Arguments of a `doorbell serve` behind that one, which is there before it.
    #[serde(default)]
    pub(super) behind: Vec<String>,
    /// The `-device`s of a second guest, which shares the server with the first, and does what that has it do.
    #[serde(default)]
    peer: Vec<String>,
    /// Whether there is an IOMMU.
    #[serde(default = "iommu")]
    pub(super) iommu: bool,
    /// The releases that have what the machine needs; all, if none is named.
    #[serde(default)]
    pub(super) labs: Vec<String>,
}

impl Machine {
    /// The second guest. Sockets of the server are in the folder of the first.
    pub(super) fn peer(&self, folder: &Path) -> Option<Self> {
        let folder = folder.display().to_string();
        let devices = self.peer.iter().map(|device| device.replace("FOLDER", &folder)).collect();
        (!self.peer.is_empty()).then(|| Self {
            append: format!("{} role=peer", self.append),
            disks: BTreeMap::new(),
            devices,
            serve: Vec::new(),
            behind: Vec::new(),
            iommu: false,
            peer: Vec::new(),
            ..self.clone()
        })
    }
}

fn iommu() -> bool {
    true
}

fn memory() -> u32 {
    1024
}

/// One test: a script and the values it runs with.
#[derive(Debug, Clone)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) machine: String,
    pub(super) script: String,
    pub(super) limit: Duration,
    /// Variables of the script.
    pub(super) values: Row,
    /// Whether the device is meant to reach for memory that is not mapped.
    pub(super) faults: bool,
    /// Whether it belongs to the tests of every change.
    pub(super) every_change: bool,
    /// Whether it measures, and is no test.
    pub(super) measures: bool,
    /// The releases that can run it; all, if none is named.
    pub(super) labs: Vec<String>,
}

pub(super) struct Catalog {
    pub(super) machines: Vec<Machine>,
    pub(super) tests: Vec<Test>,
}

impl Catalog {
    pub(super) fn read() -> Result<Self> {
        let mut machines = Vec::new();
        for path in files(&folder().join("machines"), "toml")? {
            machines.push(machine(&path).with_context(|| path.display().to_string())?);
        }
        let mut tests = Vec::new();
        for path in files(&folder().join("tests"), "sh")? {
            let text = fs::read_to_string(&path)?;
            tests.extend(tests_in(&stem(&path), &text).with_context(|| path.display().to_string())?);
        }
        let unknown = tests.iter().find(|test| machines.iter().all(|machine| machine.name != test.machine));
        if let Some(test) = unknown {
            bail!("test {} runs on machine {:?}, which is not in tests/guest/machines", test.name, test.machine);
        }
        Ok(Self { machines, tests })
    }
}

fn machine(path: &Path) -> Result<Machine> {
    let machine: Machine = toml::from_str(&fs::read_to_string(path)?)?;
    Ok(Machine { name: stem(path), ..machine })
}

/// A script's head says what it is, in lines that begin with `#: `. With factors it is one test for each combination
/// that covering all pairs takes.
fn tests_in(script: &str, text: &str) -> Result<Vec<Test>> {
    let mut test = Test {
        name: script.to_owned(),
        machine: String::new(),
        script: script.to_owned(),
        limit: LIMIT,
        values: Row::new(),
        faults: false,
        every_change: true,
        measures: false,
        labs: Vec::new(),
    };
    let (mut factors, mut without, mut every_change) = (Vec::new(), Vec::new(), usize::MAX);
    for line in text.lines().filter_map(|line| line.strip_prefix("#: ")) {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        match key {
            "machine" => test.machine = value.to_owned(),
            "limit" => test.limit = Duration::from_secs(value.parse().context("limit")?),
            "factor" => factors.push(Factor::parse(value)?),
            "without" => without.push(Without::parse(value)?),
            "labs" => test.labs = value.split_whitespace().map(str::to_owned).collect(),
            "every-change" => every_change = value.parse().context("every-change")?,
            "faults" => test.faults = true,
            "measures" => test.measures = true,
            _ => bail!("`#: {key}` has no meaning"),
        }
    }
    ensure!(!test.machine.is_empty(), "no line says `#: machine NAME`");
    if factors.is_empty() {
        test.every_change = every_change > 0;
        return Ok(vec![test]);
    }
    let rows = covering(&factors, &without)?;
    let one = |(index, values): (usize, Row)| {
        let shown: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
        let name = format!("{script}[{}]", shown.join(","));
        Test { name, values, every_change: index < every_change, ..test.clone() }
    };
    Ok(rows.into_iter().enumerate().map(one).collect())
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("{} cannot be listed", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn what_is_in_the_folder_is_understood() -> Result<()> {
        let catalog = Catalog::read()?;
        let mut names: Vec<&str> = catalog.tests.iter().map(|test| test.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), catalog.tests.len(), "names are their own");
        for machine in &catalog.machines {
            assert!(catalog.tests.iter().any(|test| test.machine == machine.name), "{} has tests", machine.name);
        }
        Ok(())
    }

    #[test]
    fn a_script_with_factors_is_several_tests() -> Result<()> {
        let text = "#: machine m\n#: limit 5\n#: every-change 1\n#: factor a 1 2\n#: factor b x y\n# else\n";
        let tests = tests_in("s", text)?;
        assert_eq!(tests.len(), 4);
        assert_eq!(tests.iter().filter(|test| test.every_change).count(), 1);
        assert_eq!(tests[0].name, "s[1,x]");
        assert_eq!(tests[0].limit, Duration::from_secs(5));
        assert!(tests_in("s", "#: nonsense\n").is_err());
        assert!(tests_in("s", "echo\n").is_err());
        Ok(())
    }
}
