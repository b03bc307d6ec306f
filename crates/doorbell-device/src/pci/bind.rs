//! Giving a function to VFIO, and back to the kernel's own driver.

use super::function::find;
use super::{Function, PciAddress, PciError, Sysfs};

const VFIO: &str = "vfio-pci";

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
/// [`PciError`]: its blocks are in use and `force` is not set, there is no IOMMU or no such driver, or the kernel
/// refused.
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
    let uses = function.uses();
    if !uses.is_empty() && !force {
        return Err(PciError::Busy { address, uses });
    }
    let moved = hand_over(sysfs, &function, Some(VFIO));
    if moved.is_err() {
        // As it was, as far as the kernel allows.
        let _ = hand_over(sysfs, &function, function.driver_override.as_deref());
    }
    moved?;
    Ok(Bound::Now(VFIO.into(), function.driver))
}

/// Gives a function back to the kernel's own driver.
///
/// # Errors
/// [`PciError`]: a process has it open and `force` is not set, or no driver takes it.
pub fn unbind(sysfs: &Sysfs, address: PciAddress, force: bool) -> Result<Bound, PciError> {
    let function = find(sysfs, address)?;
    match function.driver.as_deref() {
        Some(driver) if driver != VFIO => return Ok(Bound::Already(driver.into())),
        Some(_) if !force => {
            let pids = holders(sysfs, &function);
            if !pids.is_empty() {
                return Err(PciError::Open { address, pids });
            }
        }
        _ => {}
    }
    hand_over(sysfs, &function, None)?;
    match find(sysfs, address)?.driver {
        Some(driver) => Ok(Bound::Now(driver, function.driver)),
        None => Err(PciError::NotTaken { address, wanted: "the kernel's NVMe driver", found: None }),
    }
}

/// Takes a function from its driver and has the kernel look for one: `wanted`, or whichever fits.
fn hand_over(sysfs: &Sysfs, function: &Function, wanted: Option<&str>) -> Result<(), PciError> {
    let address = function.address;
    let folder = format!("/sys/bus/pci/devices/{address}");
    // A line feed clears it.
    sysfs.tell(format!("{folder}/driver_override"), wanted.unwrap_or("\n"))?;
    if sysfs.link(format!("{folder}/driver")).is_some() {
        sysfs.tell(format!("{folder}/driver/unbind"), &address.to_string())?;
    }
    sysfs.tell("/sys/bus/pci/drivers_probe", &address.to_string())?;
    // The kernel says nothing of a driver that did not want it.
    let found = sysfs.link(format!("{folder}/driver"));
    if wanted == Some(VFIO) && found.as_deref() != Some(VFIO) {
        return Err(PciError::NotTaken { address, wanted: VFIO, found });
    }
    Ok(())
}

/// The processes that have a function open through VFIO, as far as this one may see them.
pub(crate) fn holders(sysfs: &Sysfs, function: &Function) -> Vec<u32> {
    let group = function.iommu_group.map(|group| format!("/dev/vfio/{group}"));
    let device = function.vfio_device.as_ref().map(|device| format!("/dev/vfio/devices/{device}"));
    let wanted: Vec<String> = group.into_iter().chain(device).collect();
    let pids = sysfs.names("/proc").into_iter().filter_map(|name| name.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let fds = format!("/proc/{pid}/fd");
        sysfs.names(&fds).iter().any(|fd| {
            let target = std::fs::read_link(sysfs.path(format!("{fds}/{fd}")));
            target.is_ok_and(|target| wanted.iter().any(|wanted| target.to_string_lossy() == *wanted))
        })
    };
    pids.filter(holds).collect()
}
