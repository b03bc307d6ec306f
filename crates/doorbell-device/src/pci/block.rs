//! The block devices that the kernel's driver makes of a controller's namespaces, and what uses them.

use std::fmt;

use super::processes::{OpenFiles, in_words};
use super::{PciAddress, Process, Sysfs};

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

/// What uses a drive.
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
    /// Processes have it open: a virtual machine's monitor, a database, a copy.
    Open {
        /// The block device or partition.
        device: String,
        /// Those that can be seen.
        processes: Vec<Process>,
    },
    /// The kernel keeps it for somebody who cannot be seen: a file system that is mounted where this process does not
    /// see it, a pool of ZFS.
    Claimed {
        /// The block device or partition.
        device: String,
    },
    /// It is a physical function whose virtual ones are switched on.
    VirtualFunctions {
        /// How many.
        functions: u32,
    },
}

impl Use {
    /// Whether it is of a kind that often ends by itself: what is new is looked into by whoever names devices.
    pub(crate) fn may_be_over_soon(&self) -> bool {
        matches!(self, Use::Open { .. } | Use::Claimed { .. })
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Use::Mounted { device, at } => write!(f, "{device} is mounted at {at}"),
            Use::Swap { device } => write!(f, "{device} is swapped to"),
            Use::Held { device, by } => write!(f, "{device} is part of {by}"),
            Use::Open { device, processes } => write!(f, "{device} is open in {}", in_words(processes)),
            Use::Claimed { device } => {
                write!(f, "{device} is claimed by a file system mounted elsewhere, a pool, or the like")
            }
            Use::VirtualFunctions { functions: 1 } => write!(f, "its virtual function is switched on"),
            Use::VirtualFunctions { functions } => write!(f, "its {functions} virtual functions are switched on"),
        }
    }
}

/// How uses are looked for.
pub(crate) enum Looking {
    /// Only by what the kernel writes down: nobody notices.
    FromAfar,
    /// Also by who has what open, and by opening: for that moment, mounting it would fail.
    Closely(OpenFiles),
}

/// The block devices of a controller, with what uses them.
pub(crate) fn block_devices(sysfs: &Sysfs, address: PciAddress, looking: &Looking) -> Vec<BlockDevice> {
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
                found.push(block_device(sysfs, visible, looking));
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

fn block_device(sysfs: &Sysfs, name: String, looking: &Looking) -> BlockDevice {
    let class = format!("/sys/class/block/{name}");
    // The whole disk last: it is claimed whenever a partition is.
    let mut parts: Vec<String> = sysfs.names(&class).into_iter().filter(|part| part.starts_with(&name)).collect();
    parts.push(name.clone());
    let mut uses = Vec::new();
    for part in &parts {
        let folder = if *part == name { class.clone() } else { format!("{class}/{part}") };
        let mut of_part = uses_of(sysfs, &folder, part);
        if let Looking::Closely(open) = looking {
            let mut nodes = vec![format!("/dev/{part}")];
            if *part == name {
                // The same namespace as a character device, for commands of all kinds.
                nodes.push(format!("/dev/{}", name.replacen("nvme", "ng", 1)));
            }
            let processes = open.users(sysfs, &nodes);
            let known = !of_part.is_empty() || *part == name && !uses.is_empty();
            if !processes.is_empty() {
                of_part.push(Use::Open { device: part.clone(), processes });
            } else if !known && sysfs.is_claimed(format!("/dev/{part}")) {
                of_part.push(Use::Claimed { device: part.clone() });
            }
        }
        uses.append(&mut of_part);
    }
    BlockDevice { size: sysfs.number(format!("{class}/size")).unwrap_or(0).saturating_mul(512), name, uses }
}

/// The uses of a disk or partition that the kernel writes down.
fn uses_of(sysfs: &Sysfs, folder: &str, part: &str) -> Vec<Use> {
    let device = || part.to_owned();
    let number = sysfs.text(format!("{folder}/dev"));
    let mounts = mounts(sysfs, number.as_deref(), &format!("/dev/{part}"));
    let mut uses: Vec<Use> = mounts.into_iter().map(|at| Use::Mounted { device: device(), at }).collect();
    let swaps = sysfs.text("/proc/swaps").unwrap_or_default();
    if swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{part}"))) {
        uses.push(Use::Swap { device: device() });
    }
    let holders = sysfs.names(format!("{folder}/holders"));
    uses.extend(holders.into_iter().map(|by| Use::Held { device: device(), by }));
    uses
}

/// Where a block device is mounted, as this process sees it. File systems that may be of several devices (btrfs) have a
/// number of their own; they are known by the device's name.
fn mounts(sysfs: &Sysfs, number: Option<&str>, node: &str) -> Vec<String> {
    let info = sysfs.text("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        // ID, parent's ID, device number, root, mount point, options, fields as needed; kind, source, options.
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let of_number = fields.next() == number;
        let of_node = file_system.split(' ').nth(1) == Some(node);
        if of_number || of_node { fields.nth(1).map(unescape) } else { None }
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
