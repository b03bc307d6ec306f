//! The block devices that the kernel's driver makes of a controller's namespaces, and what uses them.

use std::fmt;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{PciAddress, Sysfs};

/// A block device of a controller.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BlockDevice {
    /// Its name in `/dev`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// What uses it or a partition of it.
    pub uses: Vec<Use>,
}

/// What uses a block device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Use {
    /// A file system of it is mounted.
    Mounted {
        /// The block device or partition.
        device: String,
        /// Where.
        at: String,
    },
    /// It is swapped to.
    Swap {
        /// The block device or partition.
        device: String,
    },
    /// Another block device is made of it: device mapper, RAID, a cache.
    Held {
        /// The block device or partition.
        device: String,
        /// By which.
        by: String,
    },
    /// Somebody has it open for himself: a file system mounted elsewhere, a volume, a program.
    Open {
        /// The block device or partition.
        device: String,
    },
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { device, at } => write!(f, "{device} is mounted at {at}"),
            Use::Swap { device } => write!(f, "{device} is swapped to"),
            Use::Held { device, by } => write!(f, "{device} is part of {by}"),
            Use::Open { device } => write!(f, "{device} is open for somebody's exclusive use"),
        }
    }
}

/// The block devices of a controller, with what uses them.
pub(crate) fn block_devices(sysfs: &Sysfs, address: PciAddress) -> Vec<BlockDevice> {
    let mut found = Vec::new();
    let controllers = format!("/sys/bus/pci/devices/{address}/nvme");
    for controller in sysfs.names(&controllers) {
        for name in sysfs.names(format!("{controllers}/{controller}")) {
            // Of several paths to a namespace each has a hidden device, nvme0c0n1; the visible one is the subsystem's.
            let visible = visible_name(&name);
            if visible.starts_with("nvme")
                && visible.contains('n')
                && sysfs.exists(format!("/sys/class/block/{visible}"))
            {
                found.push(block_device(sysfs, visible));
            }
        }
    }
    found
}

/// `nvme0n1` of `nvme0c3n1`; any other name as it is.
fn visible_name(name: &str) -> String {
    let Some(rest) = name.strip_prefix("nvme") else { return name.into() };
    let Some((subsystem, path)) = rest.split_once('c') else { return name.into() };
    match path.split_once('n') {
        Some((_, namespace)) => format!("nvme{subsystem}n{namespace}"),
        None => name.into(),
    }
}

fn block_device(sysfs: &Sysfs, name: String) -> BlockDevice {
    let class = format!("/sys/class/block/{name}");
    // The whole disk last: it is busy whenever a partition is.
    let mut parts: Vec<String> = sysfs.names(&class).into_iter().filter(|part| part.starts_with(&name)).collect();
    parts.push(name.clone());
    let mut uses = Vec::new();
    for part in &parts {
        uses_of(sysfs, &class, &name, part, &mut uses);
    }
    BlockDevice { size: sysfs.number(format!("{class}/size")).unwrap_or(0).saturating_mul(512), name, uses }
}

fn uses_of(sysfs: &Sysfs, class: &str, whole: &str, part: &str, uses: &mut Vec<Use>) {
    let device = || part.to_owned();
    let folder = if part == whole { class.to_owned() } else { format!("{class}/{part}") };
    if let Some(number) = sysfs.text(format!("{folder}/dev")) {
        uses.extend(mounts(sysfs, &number).into_iter().map(|at| Use::Mounted { device: device(), at }));
    }
    let swaps = sysfs.text("/proc/swaps").unwrap_or_default();
    if swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{part}"))) {
        uses.push(Use::Swap { device: device() });
    }
    let holders = sysfs.names(format!("{folder}/holders"));
    uses.extend(holders.into_iter().map(|by| Use::Held { device: device(), by }));
    // An exclusive open fails while a file system, a volume or anybody else has it, also in other mount namespaces. Of
    // a disk that is known to be in use, that says nothing more.
    if uses.is_empty() {
        let open = rustix::fs::open(
            sysfs.path(format!("/dev/{part}")),
            OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
        );
        if matches!(open, Err(Errno::BUSY)) {
            uses.push(Use::Open { device: device() });
        }
    }
}

/// Where the block device of a number, `259:1`, is mounted, as this process sees it.
fn mounts(sysfs: &Sysfs, number: &str) -> Vec<String> {
    let info = sysfs.text("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        // ID, parent's ID, device number, root, mount point, ...
        let mut fields = line.split(' ').skip(2);
        (fields.next() == Some(number)).then(|| fields.nth(1).map(unescape)).flatten()
    };
    info.lines().filter_map(mount).collect()
}

/// A path as procfs writes it: blanks and the like in octal.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (octal, plain)| path.replace(octal, plain))
}
