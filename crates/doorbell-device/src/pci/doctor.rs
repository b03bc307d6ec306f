//! What stands between this process and a drive, and the command that removes it.

use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit};

use super::bind::holders;
use super::function::find;
use super::processes::in_words;
use super::{Function, Member, PciAddress, Sysfs};

/// What a driver locks with one I/O queue pair of 256 entries, rounded up; the figures are those of the error that a
/// lower limit leads to.
const LEAST_MEMORY: u64 = 1 << 20;
/// Enough for the queue pairs of 64 CPUs and some buffers. A guest's memory comes on top.
const AMPLE_MEMORY: u64 = 64 << 20;
/// Intel VT-d, Extended Capability Register, bit 3: interrupt remapping.
const REMAPS_INTERRUPTS: u64 = 1 << 3;
/// The capability that makes a process free of the limit on locked memory (CAP_IPC_LOCK).
const MAY_LOCK: u32 = 14;
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
    /// Whether this process is free of that limit (CAP_IPC_LOCK).
    pub privileged: bool,
}

impl Limits {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let status = Sysfs::default().text("/proc/self/status").unwrap_or_default();
        let privileged = status.lines().find_map(|line| line.strip_prefix("CapEff:")).is_some_and(|capabilities| {
            u64::from_str_radix(capabilities.trim(), 16).is_ok_and(|bits| bits >> MAY_LOCK & 1 != 0)
        });
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
pub fn diagnose(sysfs: &Sysfs, limits: Limits, address: Option<PciAddress>) -> Vec<Check> {
    let mut checks = vec![iommu(sysfs), module(sysfs), interface(sysfs), memlock(limits), huge_pages(sysfs)];
    match address.map(|address| find(sysfs, address)) {
        None => {}
        Some(Ok(function)) => checks.extend(of_function(sysfs, &function)),
        Some(Err(error)) => {
            checks.push(problem("function", error.to_string(), "doorbell list shows those there are"));
        }
    }
    checks
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
    // The node of containers comes with VFIO, what makes it useful with another module.
    let container = sysfs.exists("/dev/vfio/vfio");
    let is_useful = sysfs.exists("/sys/module/vfio_iommu_type1");
    match (sysfs.exists("/dev/iommu"), container) {
        (true, true) => ok(name, "iommufd (/dev/iommu) and container (/dev/vfio/vfio)"),
        (true, false) => ok(name, "iommufd (/dev/iommu)"),
        (false, true) if is_useful => ok(name, "container (/dev/vfio/vfio)"),
        (false, true) => problem(name, "the module of containers is not loaded", "modprobe vfio_iommu_type1"),
        (false, false) => problem(name, "neither /dev/iommu nor /dev/vfio/vfio is there", "modprobe vfio_iommu_type1"),
    }
}

fn memlock(limits: Limits) -> Check {
    let name = "locked memory";
    let remedy = "ulimit -l unlimited, after a line like `@disk - memlock unlimited` in /etc/security/limits.conf \
                  (LimitMEMLOCK=infinity in a systemd unit)";
    match limits.memlock {
        None => ok(name, "no limit"),
        Some(_) if limits.privileged => ok(name, "no limit for this process"),
        Some(limit) if limit >= AMPLE_MEMORY => ok(name, format!("up to {} MiB", limit >> 20)),
        Some(limit) if limit >= LEAST_MEMORY => warning(
            name,
            format!(
                "at most {} KiB: a driver takes 1 MiB for each CPU, and all memory that is registered",
                limit >> 10
            ),
            remedy,
        ),
        Some(limit) => problem(
            name,
            format!(
                "at most {} KiB: a driver takes {} KiB for its first queues alone",
                limit >> 10,
                LEAST_MEMORY >> 10
            ),
            remedy,
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
    checks.extend(interrupts(sysfs, function));
    if let (Some(group), Some(_)) = (function.iommu_group, function.vfio_driver()) {
        checks.push(node(sysfs, function, group));
        checks.push(open(sysfs, function));
    }
    checks
}

fn driver(function: &Function) -> Check {
    let (name, address) = ("driver", function.address);
    match function.driver.as_deref() {
        Some(driver) if driver.contains("vfio") => ok(name, driver),
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
            let all: Vec<&Member> = std::iter::once(first).chain(blockers).collect();
            let names = all
                .iter()
                .map(|member| format!("{} ({})", member.address, member.driver.as_deref().unwrap_or("no driver")));
            let remedies = all.iter().map(|member| match member.is_nvme() {
                true => format!("doorbell bind {}", member.address),
                false => format!("echo {0} > /sys/bus/pci/devices/{0}/driver/unbind", member.address),
            });
            problem(
                name,
                format!("{group} is not viable because of {}", names.collect::<Vec<_>>().join(" and ")),
                format!("take them all from their drivers: {}", remedies.collect::<Vec<_>>().join(" && ")),
            )
        }
    }
}

/// Without remapping of interrupts, a device could write to memory what looks like one; VFIO refuses such a machine.
fn interrupts(sysfs: &Sysfs, function: &Function) -> Option<Check> {
    let name = "interrupts";
    let iommu = format!("/sys/bus/pci/devices/{}/iommu/intel-iommu", function.address);
    let capabilities = u64::from_str_radix(&sysfs.text(format!("{iommu}/ecap"))?, 16).ok()?;
    let command_line = sysfs.text("/proc/cmdline").unwrap_or_default();
    let is_off = command_line.split_whitespace().any(|word| matches!(word, "intremap=off" | "nointremap"));
    if capabilities & REMAPS_INTERRUPTS != 0 && !is_off {
        return Some(ok(name, "are remapped by the IOMMU"));
    }
    let modules = ["vfio_iommu_type1", "iommufd"];
    let parameters: Vec<String> = modules
        .iter()
        .map(|module| format!("/sys/module/{module}/parameters/allow_unsafe_interrupts"))
        .filter(|parameter| sysfs.exists(parameter))
        .collect();
    let is_allowed = |parameter: &String| sysfs.text(parameter).is_some_and(|value| value == "Y" || value == "1");
    if parameters.iter().any(is_allowed) {
        return Some(ok(name, "are not remapped by the IOMMU, which is allowed (allow_unsafe_interrupts)"));
    }
    let parameter = parameters.first().map_or("the module's parameter allow_unsafe_interrupts", String::as_str);
    Some(problem(
        name,
        "are not remapped by the IOMMU: VFIO lets nobody have such a device",
        format!("switch interrupt remapping on (firmware, kernel), or, trusting the drive: echo 1 > {parameter}"),
    ))
}

/// One way in is enough: the group's node, or the drive's own together with that of iommufd.
fn node(sysfs: &Sysfs, function: &Function, group: u32) -> Check {
    let name = "permission";
    let own = function.vfio_device.as_ref().map(|device| format!("/dev/vfio/devices/{device}"));
    let ways: Vec<Vec<String>> = std::iter::once(vec![format!("/dev/vfio/{group}")])
        .chain(own.map(|own| vec![own, "/dev/iommu".into()]))
        .filter(|nodes| nodes.iter().all(|node| sysfs.exists(node)))
        .collect();
    let is_allowed = |node: &&String| access(sysfs.path(node), Access::READ_OK | Access::WRITE_OK).is_ok();
    let open = ways.iter().find(|nodes| nodes.iter().all(|node| is_allowed(&node)));
    match (open, ways.first()) {
        (Some(nodes), _) => ok(name, format!("{} can be opened", nodes.join(" and "))),
        (None, Some(nodes)) => {
            let closed: Vec<&str> = nodes.iter().filter(|node| !is_allowed(node)).map(String::as_str).collect();
            let closed = closed.join(" ");
            problem(name, format!("{closed} may not be opened by this user"), format!("sudo chown $USER {closed}"))
        }
        (None, None) => problem(name, format!("/dev/vfio/{group} is not there"), "wait for udev, or see dmesg"),
    }
}

fn open(sysfs: &Sysfs, function: &Function) -> Check {
    let name = "in use";
    match holders(sysfs, function) {
        None => ok(name, "by nobody"),
        Some(processes) => problem(
            name,
            format!("{} has it open", in_words(&processes)),
            match processes.first() {
                Some(process) => format!("end that process: kill {}", process.pid),
                None => "run doorbell doctor as root, to see which".into(),
            },
        ),
    }
}
