//! The processes that have files open, as far as this one may see them.

use std::fmt;

use super::Sysfs;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Process {
    /// Its identifier.
    pub pid: u32,
    /// What it is called; empty where it ended meanwhile.
    pub name: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "process {}", self.pid),
            name => write!(f, "process {} ({name})", self.pid),
        }
    }
}

/// Processes in a row, for people.
pub(crate) fn in_words(processes: &[Process]) -> String {
    match processes {
        [] => "a process that cannot be seen from here".into(),
        processes => processes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What all processes have open at one moment: paths in `/dev` alone.
pub(crate) struct OpenFiles(Vec<(String, u32)>);

impl OpenFiles {
    pub(crate) fn of_all_processes(sysfs: &Sysfs) -> Self {
        let mut open = Vec::new();
        for pid in sysfs.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok()) {
            let folder = format!("/proc/{pid}/fd");
            for descriptor in sysfs.names(&folder) {
                let target = sysfs.target(format!("{folder}/{descriptor}"));
                open.extend(target.filter(|path| path.starts_with("/dev/")).map(|path| (path, pid)));
            }
        }
        Self(open)
    }

    /// The processes that have one of these open, in order, each once.
    pub(crate) fn users(&self, sysfs: &Sysfs, paths: &[String]) -> Vec<Process> {
        let users = self.0.iter().filter(|(path, _)| paths.contains(path)).map(|(_, pid)| *pid);
        let mut pids: Vec<u32> = users.collect();
        pids.sort_unstable();
        pids.dedup();
        let process = |pid| Process { pid, name: sysfs.text(format!("/proc/{pid}/comm")).unwrap_or_default() };
        pids.into_iter().map(process).collect()
    }
}
