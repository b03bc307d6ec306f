//! Drives on the PCI bus: `list`, `bind`, `unbind`, `doctor`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use comfy_table::Table;
use doorbell_device::pci::{self, Bound, Finding, Function, Limits, PciAddress, Sysfs};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::output::{self, Format};

/// The machine that is looked at.
#[derive(Args)]
pub(crate) struct Machine {
    /// Another root than / for the system's files, for tests
    #[arg(long, value_name = "ROOT", hide = true, default_value = "/")]
    sysfs: PathBuf,
}

impl Machine {
    fn files(&self) -> Sysfs {
        Sysfs::at(&self.sysfs)
    }
}

/// A PCI function: `pci:0000:01:00.0`, `0000:01:00.0` or `01:00.0`.
fn function(text: &str) -> Result<PciAddress, String> {
    let address = text.strip_prefix("pci:").unwrap_or(text);
    match text.split_once(':') {
        Some((scheme @ ("emulated" | "vfio-user"), _)) => {
            Err(format!("a device of {scheme}: is on no PCI bus of this machine"))
        }
        _ => address.parse().map_err(|error: pci::BadPciAddress| error.to_string()),
    }
}

/// List the NVMe drives of this machine
#[derive(Args)]
#[command(after_help = "\
Which drives there are, who has them, and whether they can be driven from here as they are.

Examples:
  doorbell list
  doorbell list -o json")]
pub(crate) struct List {
    #[command(flatten)]
    machine: Machine,
}

impl List {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let functions = pci::functions(&self.machine.files());
        match global.output_format {
            Format::Json => output::print_json(&functions.iter().map(as_json).collect::<Result<Value>>()?),
            Format::Normal if functions.is_empty() => output::print("this machine has no NVMe drives\n"),
            Format::Normal => output::print(table(&functions)),
        }
    }
}

fn as_json(function: &Function) -> Result<Value> {
    let mut value = serde_json::to_value(function)?;
    value["usable"] = function.obstacle().is_none().into();
    value["obstacle"] = function.obstacle().into();
    Ok(value)
}

fn table(functions: &[Function]) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["ADDRESS", "MODEL", "DRIVER", "GROUP", "WITH", "BLOCK DEVICES", "USABLE"]);
    let none_as_dash = |text: String| if text.is_empty() { "-".into() } else { text };
    for function in functions {
        let members: Vec<&str> = function.group_members.iter().map(|member| &*member.address).collect();
        let devices: Vec<&str> = function.block_devices.iter().map(|device| &*device.name).collect();
        table.add_row([
            function.address.to_string(),
            title(function),
            none_as_dash(function.driver.clone().unwrap_or_default()),
            function.iommu_group.map_or("-".into(), |group| group.to_string()),
            none_as_dash(members.join(" ")),
            none_as_dash(devices.join(" ")),
            function.obstacle().map_or("yes".into(), |why| format!("no: {why}")),
        ]);
    }
    table.trim_fmt().lines().map(|line| format!("{}\n", line.trim())).collect()
}

fn title(function: &Function) -> String {
    match function.physical_function {
        Some(physical) => format!("{}, virtual, of {physical}", function.title()),
        None => function.title(),
    }
}

/// Give a drive to VFIO, so that it can be driven from user space
#[derive(Args)]
#[command(after_help = "\
The kernel's driver lets go of the drive, and its block devices disappear. A drive that is mounted or otherwise in use
is left alone unless --force is given. Needs to be run as root.

Examples:
  doorbell bind 0000:01:00.0
  doorbell bind 01:00.0 --force")]
pub(crate) struct Bind {
    /// The drive, such as 0000:01:00.0; doorbell list shows those there are
    #[arg(value_name = "ADDRESS", value_parser = function)]
    address: PciAddress,
    /// Also if it is in use: whatever uses it loses it, and what is not yet written to it is lost
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Bind {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let files = self.machine.files();
        let bound = pci::bind(&files, self.address, self.force)?;
        say(global, &files, self.address, &bound)
    }
}

/// Give a drive back to the kernel
#[derive(Args)]
#[command(after_help = "\
The kernel's own driver takes the drive, and its block devices appear. Needs to be run as root.

Examples:
  doorbell unbind 0000:01:00.0")]
pub(crate) struct Unbind {
    /// The drive, such as 0000:01:00.0; doorbell list shows those there are
    #[arg(value_name = "ADDRESS", value_parser = function)]
    address: PciAddress,
    /// Also if a process has it open: this waits until that lets go of it
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    machine: Machine,
}

impl Unbind {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let files = self.machine.files();
        let bound = pci::unbind(&files, self.address, self.force)?;
        say(global, &files, self.address, &bound)
    }
}

fn say(global: &Global, files: &Sysfs, address: PciAddress, bound: &Bound) -> Result<()> {
    let (driver, before) = match bound {
        Bound::Now(driver, before) => (driver, before.as_deref()),
        Bound::Already(driver) => (driver, Some(&**driver)),
    };
    let changed = matches!(bound, Bound::Now(..));
    // Another function of its group may still keep a drive from being used that VFIO has.
    let others = || pci::find(files, address).ok().filter(|function| function.vfio_driver().is_some());
    let obstacle = others().and_then(|function| function.obstacle());
    output::print_either(
        global.output_format,
        || {
            let now = match (changed, before) {
                (false, _) => format!("{address}: {driver} has it already"),
                (true, Some(before)) => format!("{address}: {driver} has it now, {before} had it before"),
                (true, None) => format!("{address}: {driver} has it now"),
            };
            match &obstacle {
                Some(obstacle) => format!("{now}\n{address}: it is of no use yet: {obstacle}"),
                None => now,
            }
        },
        || {
            json!({
                "address": address.to_string(), "driver": driver, "before": before, "changed": changed,
                "obstacle": obstacle,
            })
        },
    )
}

/// Say what stands between this user and a drive, and how to remove it
#[derive(Args)]
#[command(after_help = "\
Without an address, what every drive needs is looked at. The exit status is 1 if something is in the way.

Examples:
  doorbell doctor
  doorbell doctor 0000:01:00.0
  doorbell doctor 0000:01:00.0 -o json")]
pub(crate) struct Doctor {
    /// The drive, such as 0000:01:00.0; doorbell list shows those there are
    #[arg(value_name = "ADDRESS", value_parser = function)]
    address: Option<PciAddress>,
    #[command(flatten)]
    machine: Machine,
}

impl Doctor {
    pub(crate) fn run(&self, global: &Global) -> Result<()> {
        let checks = pci::diagnose(&self.machine.files(), Limits::of_this_process(), self.address);
        match global.output_format {
            Format::Json => output::print_json(&serde_json::to_value(&checks)?)?,
            Format::Normal => {
                let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
                let mut text = String::new();
                for check in &checks {
                    let finding = match check.finding {
                        Finding::Ok => "ok",
                        Finding::Warning => "note",
                        Finding::Problem => "PROBLEM",
                    };
                    text += &format!("{:<width$}  {finding:<7}  {}\n", check.name, check.what);
                    if let Some(remedy) = &check.remedy {
                        text += &format!("{:<width$}           -> {remedy}\n", "");
                    }
                }
                output::print(text)?;
            }
        }
        match checks.iter().filter(|check| check.finding == Finding::Problem).count() {
            0 => Ok(()),
            1 => bail!("one thing is in the way"),
            problems => bail!("{problems} things are in the way"),
        }
    }
}
