//! Giving a function to VFIO, and back to the kernel's own driver.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::function::find;
use super::processes::OpenFiles;
use super::{Function, PciAddress, PciError, Process, Sysfs, Use};

const VFIO: &str = "vfio-pci";
/// Whoever names new devices (udev) has them open for a moment after they appeared; that is waited for, and looked at
/// so often.
const MOMENT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// A driver has it that had it not before: its name, and that of the one before.
    Now(String, Option<String>),
    /// It had it already.
    Already(String),
}

/// Gives a function to vfio-pci. A half-done change is undone.
///
/// # Errors
/// [`PciError`]: it is in use and `force` is not set, there is no IOMMU or no such driver, or the kernel refused.
pub fn bind(sysfs: &Sysfs, address: PciAddress, force: bool) -> Result<Bound, PciError> {
    let function = find(sysfs, address)?;
    if function.driver.as_deref() == Some(VFIO) {
        return Ok(Bound::Already(VFIO.into()));
    }
    if !sysfs.exists("/sys/bus/pci/drivers/vfio-pci") {
        return Err(PciError::NoDriver(VFIO));
    }
    if function.iommu_group.is_none() {
        return Err(PciError::NoIommu(address));
    }
    if !force {
        refuse_if_used(sysfs, &function)?;
    }
    match hand_over(sysfs, address, Some(VFIO)) {
        Ok(()) => Ok(Bound::Now(VFIO.into(), function.driver)),
        Err(cause) => Err(undo(sysfs, &function, cause)),
    }
}

fn refuse_if_used(sysfs: &Sysfs, function: &Function) -> Result<(), PciError> {
    let address = function.address;
    let mut uses = function.uses();
    let begun = Instant::now();
    while !uses.is_empty() && uses.iter().all(Use::may_be_over_soon) && begun.elapsed() < MOMENT {
        sleep(PAUSE);
        uses = find(sysfs, address)?.uses();
    }
    if uses.is_empty() { Ok(()) } else { Err(PciError::Busy { address, uses }) }
}

/// Gives a function back to the kernel's own driver.
///
/// # Errors
/// [`PciError`]: a process has it open and `force` is not set, or no driver takes it.
pub fn unbind(sysfs: &Sysfs, address: PciAddress, force: bool) -> Result<Bound, PciError> {
    let function = find(sysfs, address)?;
    match function.driver.as_deref() {
        Some(driver) if !driver.contains("vfio") => return Ok(Bound::Already(driver.into())),
        Some(_) if !force => {
            if let Some(processes) = holders(sysfs, &function) {
                return Err(PciError::Open { address, processes });
            }
        }
        _ => {}
    }
    if let Err(cause) = hand_over(sysfs, address, None) {
        return Err(undo(sysfs, &function, cause));
    }
    match driver_of(sysfs, address) {
        Some(driver) => Ok(Bound::Now(driver, function.driver)),
        // VFIO does not get it back: that is not what was asked for.
        None => {
            Err(PciError::NotTaken { address, wanted: "the kernel's driver (is the module nvme loaded?)", found: None })
        }
    }
}

/// Takes a function from its driver and has the kernel look for one: `wanted`, or whichever fits.
fn hand_over(sysfs: &Sysfs, address: PciAddress, wanted: Option<&'static str>) -> Result<(), PciError> {
    choose(sysfs, address, wanted)?;
    if driver_of(sysfs, address).is_some() {
        match release(sysfs, address) {
            // It has let go by itself meanwhile.
            Err(_) if driver_of(sysfs, address).is_none() => {}
            result => result?,
        }
    }
    probe(sysfs, address)?;
    // The kernel says nothing of a driver that did not want it.
    let found = driver_of(sysfs, address);
    match wanted {
        Some(wanted) if found.as_deref() != Some(wanted) => Err(PciError::NotTaken { address, wanted, found }),
        _ => Ok(()),
    }
}

/// Has a function as it was before a change that failed, as far as the kernel allows.
fn undo(sysfs: &Sysfs, before: &Function, cause: PciError) -> PciError {
    let address = before.address;
    // What fails here shows in what is there at the end.
    let _ = choose(sysfs, address, before.driver_override.as_deref());
    if driver_of(sysfs, address) != before.driver {
        if driver_of(sysfs, address).is_some() {
            let _ = release(sysfs, address);
        }
        if before.driver.is_some() {
            let _ = probe(sysfs, address);
        }
    }
    match driver_of(sysfs, address) {
        driver if driver == before.driver => cause,
        None if !sysfs.exists(format!("/sys/bus/pci/devices/{address}")) => PciError::Vanished(address),
        found => PciError::NotUndone { address, cause: Box::new(cause), found },
    }
}

fn driver_of(sysfs: &Sysfs, address: PciAddress) -> Option<String> {
    sysfs.link(format!("/sys/bus/pci/devices/{address}/driver"))
}

/// Says which driver alone may have it. A line feed clears that.
fn choose(sysfs: &Sysfs, address: PciAddress, driver: Option<&str>) -> Result<(), PciError> {
    sysfs.tell(format!("/sys/bus/pci/devices/{address}/driver_override"), driver.unwrap_or("\n"))
}

fn release(sysfs: &Sysfs, address: PciAddress) -> Result<(), PciError> {
    sysfs.tell(format!("/sys/bus/pci/devices/{address}/driver/unbind"), &address.to_string())
}

fn probe(sysfs: &Sysfs, address: PciAddress) -> Result<(), PciError> {
    sysfs.tell("/sys/bus/pci/drivers_probe", &address.to_string())
}

/// The processes that have a function, or its group, open through VFIO; none of them where somebody has that cannot be
/// seen. `None` if nobody has.
pub(crate) fn holders(sysfs: &Sysfs, function: &Function) -> Option<Vec<Process>> {
    let group = function.iommu_group.map(|group| format!("/dev/vfio/{group}"));
    let device = function.vfio_device.as_ref().map(|device| format!("/dev/vfio/devices/{device}"));
    let nodes: Vec<String> = group.iter().cloned().chain(device).collect();
    let seen = OpenFiles::of_all_processes(sysfs).users(sysfs, &nodes);
    // A group is open once at most.
    let is_held = !seen.is_empty() || group.is_some_and(|group| sysfs.is_open(group));
    is_held.then_some(seen)
}
