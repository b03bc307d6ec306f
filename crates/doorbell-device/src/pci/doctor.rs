//! What stands between this process and a drive, and the command that removes it.

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use super::bind::holders;
use super::function::find;
use super::{Function, PciAddress, PciError, Sysfs};

/// Memory that one controller with few queues needs to lock; guest memory comes on top.
const MEMORY_NEEDED: u64 = 64 << 20;
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// As it has to be.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work like this.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it was found.
    pub finding: Finding,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What the system allows this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory that may be locked (RLIMIT_MEMLOCK); `None` for any number.
    pub memlock: Option<u64>,
    /// Whether that limit holds for this process: not for root.
    pub privileged: bool,
}

impl Limits {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let privileged = rustix::process::geteuid().is_root();
        Self { memlock: getrlimit(Resource::Memlock).current, privileged }
    }
}

fn ok(name: &'static str, what: impl Into<String>) -> Check {
    Check { name, finding: Finding::Ok, what: what.into(), remedy: None }
}

fn warning(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, finding: Finding::Warning, what: what.into(), remedy: Some(remedy.into()) }
}

fn problem(name: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name, finding: Finding::Problem, what: what.into(), remedy: Some(remedy.into()) }
}

/// Looks at everything that driving a function takes; without an address, at what all of them need.
///
/// # Errors
/// [`PciError`]: there is no such function, or it is no NVMe controller.
pub fn diagnose(sysfs: &Sysfs, limits: Limits, address: Option<PciAddress>) -> Result<Vec<Check>, PciError> {
    let function = address.map(|address| find(sysfs, address)).transpose()?;
    let mut checks = vec![iommu(sysfs), module(sysfs), interface(sysfs), memlock(limits), huge_pages(sysfs)];
    if let Some(function) = &function {
        checks.extend(of_function(sysfs, function));
    }
    Ok(checks)
}

fn iommu(sysfs: &Sysfs) -> Check {
    let groups = sysfs.names("/sys/kernel/iommu_groups").len();
    match groups {
        0 => problem(
            "IOMMU",
            "there are no IOMMU groups: the machine's IOMMU is off, or the kernel does not use it",
            "switch VT-d or AMD-Vi on in the firmware, and boot the kernel with intel_iommu=on (Intel) or without amd_iommu=off (AMD)",
        ),
        groups => ok("IOMMU", format!("on, with {groups} groups")),
    }
}

fn module(sysfs: &Sysfs) -> Check {
    match sysfs.exists("/sys/bus/pci/drivers/vfio-pci") {
        true => ok("vfio-pci", "loaded"),
        false => problem("vfio-pci", "the module is not loaded", "modprobe vfio-pci"),
    }
}

fn interface(sysfs: &Sysfs) -> Check {
    let name = "interface";
    match (sysfs.exists("/dev/iommu"), sysfs.exists("/dev/vfio/vfio")) {
        (true, true) => ok(name, "iommufd (/dev/iommu) and container (/dev/vfio/vfio)"),
        (true, false) => ok(name, "iommufd (/dev/iommu)"),
        (false, true) => ok(name, "container (/dev/vfio/vfio)"),
        (false, false) => problem(name, "neither /dev/iommu nor /dev/vfio/vfio is there", "modprobe vfio_iommu_type1"),
    }
}

fn memlock(limits: Limits) -> Check {
    let name = "locked memory";
    match limits.memlock {
        None => ok(name, "no limit"),
        Some(_) if limits.privileged => ok(name, "no limit for this user"),
        Some(limit) if limit >= MEMORY_NEEDED => ok(name, format!("up to {} MiB", limit >> 20)),
        Some(limit) => problem(
            name,
            format!(
                "at most {} KiB; a driver needs about {} MiB, and as much as a guest has",
                limit >> 10,
                MEMORY_NEEDED >> 20
            ),
            "ulimit -l unlimited, after a line like `@disk - memlock unlimited` in /etc/security/limits.conf \
             (LimitMEMLOCK=infinity in a systemd unit)",
        ),
    }
}

fn huge_pages(sysfs: &Sysfs) -> Check {
    let name = "huge pages";
    match sysfs.number(format!("{HUGE_PAGES}/free_hugepages")) {
        Some(0) | None => warning(
            name,
            "none of 2 MiB are free: ordinary pages are used, which cost the IOMMU more",
            format!("echo 64 > {HUGE_PAGES}/nr_hugepages"),
        ),
        Some(free) => ok(name, format!("{free} of 2 MiB are free")),
    }
}

fn of_function(sysfs: &Sysfs, function: &Function) -> Vec<Check> {
    let address = function.address;
    let mut checks = vec![ok("function", format!("{address}, {}", function.title()))];
    checks.push(match function.power_state.as_deref() {
        Some("D3cold") => problem(
            "power",
            "it is switched off (D3cold)",
            format!("echo on > /sys/bus/pci/devices/{address}/power/control"),
        ),
        Some(state) => ok("power", state),
        None => ok("power", "not known"),
    });
    checks.push(driver(function));
    checks.push(group(function));
    if let (Some(group), Some("vfio-pci")) = (function.iommu_group, function.driver.as_deref()) {
        checks.push(node(sysfs, function, group));
        checks.push(open(sysfs, function));
    }
    checks
}

fn driver(function: &Function) -> Check {
    let (name, address) = ("driver", function.address);
    match function.driver.as_deref() {
        Some("vfio-pci") => ok(name, "vfio-pci"),
        Some(driver) => {
            let uses: Vec<String> = function.uses().iter().map(ToString::to_string).collect();
            match uses.is_empty() {
                true => problem(name, format!("{driver} has it"), format!("doorbell bind {address}")),
                false => problem(
                    name,
                    format!("{driver} has it, and {}", uses.join(", ")),
                    format!("end that use first; then doorbell bind {address}"),
                ),
            }
        }
        None => problem(name, "no driver has it", format!("doorbell bind {address}")),
    }
}

fn group(function: &Function) -> Check {
    let name = "IOMMU group";
    let Some(group) = function.iommu_group else {
        return problem(name, "it is in none", "see IOMMU above");
    };
    let mut blockers = function.blockers();
    match blockers.next() {
        None if function.group_members.is_empty() => ok(name, format!("{group}, alone")),
        None => {
            let members: Vec<&str> = function.group_members.iter().map(|member| &*member.address).collect();
            ok(name, format!("{group}, with {}, which nobody uses", members.join(" and ")))
        }
        Some(first) => {
            let all: Vec<String> = std::iter::once(first)
                .chain(blockers)
                .map(|member| format!("{} ({})", member.address, member.driver.as_deref().unwrap_or("no driver")))
                .collect();
            problem(
                name,
                format!("{group} is not viable because of {}", all.join(" and ")),
                format!(
                    "give those to VFIO too or take them from their drivers: \
                     echo {0} > /sys/bus/pci/devices/{0}/driver/unbind",
                    first.address
                ),
            )
        }
    }
}

fn node(sysfs: &Sysfs, function: &Function, group: u32) -> Check {
    let name = "permission";
    // Either way in is enough.
    let nodes =
        [Some(format!("/dev/vfio/{group}")), function.vfio_device.as_ref().map(|d| format!("/dev/vfio/devices/{d}"))];
    let present: Vec<String> = nodes.into_iter().flatten().filter(|node| sysfs.exists(node)).collect();
    let allowed = present.iter().find(|node| access(sysfs.path(node), Access::READ_OK | Access::WRITE_OK).is_ok());
    match (allowed, present.first()) {
        (Some(node), _) => ok(name, format!("{node} can be opened")),
        (None, Some(node)) => {
            problem(name, format!("{node} may not be opened by this user"), format!("sudo chown $USER {node}"))
        }
        (None, None) => problem(name, format!("/dev/vfio/{group} is not there"), "wait for udev, or see dmesg"),
    }
}

fn open(sysfs: &Sysfs, function: &Function) -> Check {
    let name = "in use";
    match &holders(sysfs, function)[..] {
        [] => ok(name, "by no process that can be seen"),
        [pid, ..] => problem(name, format!("process {pid} has it open"), format!("end that process: kill {pid}")),
    }
}
