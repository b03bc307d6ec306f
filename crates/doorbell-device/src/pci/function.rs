//! One NVMe function, and everything about it that decides whether it can be driven.

use super::block::{BlockDevice, Looking, block_devices};
use super::processes::OpenFiles;
use super::{PciAddress, PciError, PciIds, Sysfs, Use};

/// The class code of an NVMe I/O controller (NVMe over PCIe Transport, Class Code register).
const NVME_CLASS: u32 = 0x01_08_02;
/// Drivers that do no DMA of their own, so that they may have members of a group that VFIO has: the kernel knows them as
/// `driver_managed_dma`. Beside these, vfio-pci and its variants for some devices.
const HARMLESS: [&str; 2] = ["pci-stub", "pcieport"];

/// An NVMe function.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Function {
    /// Where it is.
    #[serde(serialize_with = "as_text")]
    pub address: PciAddress,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Subsystem vendor identifier: of who sells it.
    pub subsystem_vendor: u16,
    /// Subsystem identifier.
    pub subsystem_device: u16,
    /// The vendor's and the device's name, as far as `pci.ids` has them.
    pub name: Option<String>,
    /// The model number, where the kernel's driver has read it.
    pub model: Option<String>,
    /// The serial number, where the kernel's driver has read it.
    pub serial: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, if one was set.
    pub driver_override: Option<String>,
    /// Its IOMMU group; none without an IOMMU.
    pub iommu_group: Option<u32>,
    /// Who else is in the group.
    pub group_members: Vec<Member>,
    /// Its NUMA node, where there are several.
    pub numa_node: Option<u32>,
    /// The physical function that it is a virtual one of.
    #[serde(serialize_with = "maybe_as_text")]
    pub physical_function: Option<PciAddress>,
    /// Virtual functions that it has at the moment.
    pub virtual_functions: u32,
    /// `D0`, or in what power state it is.
    pub power_state: Option<String>,
    /// The link, as in `8.0 GT/s PCIe x4`.
    pub link: Option<String>,
    /// The block devices that the kernel's driver made of its namespaces.
    pub block_devices: Vec<BlockDevice>,
    /// Its character device for iommufd, in `/dev/vfio/devices`.
    pub vfio_device: Option<String>,
}

/// Another function of an IOMMU group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// Where it is, as sysfs says.
    pub address: String,
    /// Its class code.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
}

fn as_text<S: serde::Serializer>(address: &PciAddress, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

fn maybe_as_text<S: serde::Serializer>(address: &Option<PciAddress>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_none(),
    }
}

impl Member {
    /// Whether the group can be used while its driver has it.
    pub fn is_harmless(&self) -> bool {
        let driver = self.driver.as_deref();
        driver.is_none_or(|driver| HARMLESS.contains(&driver) || driver.contains("vfio"))
    }

    /// Whether it is an NVMe controller itself.
    pub fn is_nvme(&self) -> bool {
        self.class == NVME_CLASS
    }
}

impl Function {
    /// What uses it while the kernel's driver has it.
    pub fn uses(&self) -> Vec<Use> {
        let functions = self.virtual_functions;
        let own = (functions > 0).then_some(Use::VirtualFunctions { functions });
        own.into_iter().chain(self.block_devices.iter().flat_map(|device| device.uses.clone())).collect()
    }

    /// Its driver, if that is vfio-pci or one of its variants.
    pub fn vfio_driver(&self) -> Option<&str> {
        self.driver.as_deref().filter(|driver| driver.contains("vfio"))
    }

    /// The members of its group whose drivers keep the group from being used.
    pub fn blockers(&self) -> impl Iterator<Item = &Member> {
        self.group_members.iter().filter(|member| !member.is_harmless())
    }

    /// Why it cannot be driven from user space as it is; `None` if it can.
    pub fn obstacle(&self) -> Option<String> {
        if self.iommu_group.is_none() {
            return Some("no IOMMU".into());
        }
        if let Some(blocker) = self.blockers().next() {
            let driver = blocker.driver.as_deref().unwrap_or("no driver");
            return Some(format!("{} of its group is {driver}'s", blocker.address));
        }
        match self.driver.as_deref() {
            // There are variants for some devices.
            Some(driver) if driver.contains("vfio") => None,
            Some(driver) => match self.uses().first() {
                Some(used) => Some(format!("{driver} has it, and {used}")),
                None => Some(format!("{driver} has it")),
            },
            None => Some("no driver has it".into()),
        }
    }

    /// What people call it.
    pub fn title(&self) -> String {
        let ids = || format!("[{:04x}:{:04x}]", self.vendor, self.device);
        self.model.clone().or_else(|| self.name.clone()).unwrap_or_else(ids)
    }
}

/// Every NVMe function of the machine, by address. What uses them is what can be seen without opening anything: of those,
/// see [`find`].
pub fn functions(sysfs: &Sysfs) -> Vec<Function> {
    let ids = PciIds::load(sysfs);
    let addresses = sysfs.names("/sys/bus/pci/devices").into_iter().filter_map(|name| name.parse().ok());
    let mut found: Vec<Function> =
        addresses.filter_map(|address| look(sysfs, &ids, address, &Looking::FromAfar).ok()).collect();
    found.sort_by_key(|function| function.address);
    found
}

/// The NVMe function at an address, with everything that uses it: also the processes that have it open, and claims that
/// show only when its block devices are opened, as is done here for a moment.
///
/// # Errors
/// [`PciError`]: there is none, or it is something else.
pub fn find(sysfs: &Sysfs, address: PciAddress) -> Result<Function, PciError> {
    look(sysfs, &PciIds::load(sysfs), address, &Looking::Closely(OpenFiles::of_all_processes(sysfs)))
}

fn look(sysfs: &Sysfs, ids: &PciIds, address: PciAddress, looking: &Looking) -> Result<Function, PciError> {
    let at = |file: &str| format!("/sys/bus/pci/devices/{address}/{file}");
    let number = |file: &str| sysfs.number(at(file));
    let class = number("class").ok_or(PciError::NotFound(address))? as u32;
    if class != NVME_CLASS {
        return Err(PciError::NotNvme { address, class });
    }
    let (vendor, device) = (number("vendor").unwrap_or(0) as u16, number("device").unwrap_or(0) as u16);
    let name = match ids.name(vendor, device) {
        (Some(vendor), Some(device)) => Some(format!("{vendor} {device}")),
        (Some(vendor), None) => Some(format!("{vendor} [{device:04x}]")),
        _ => None,
    };
    let controller = sysfs.names(at("nvme")).into_iter().next();
    let of_controller = |file: &str| sysfs.text(at(&format!("nvme/{}/{file}", controller.as_deref()?)));
    let group = sysfs.link(at("iommu_group"));
    let members = sysfs.names(at("iommu_group/devices")).into_iter().filter(|name| *name != address.to_string());
    let member = |name: String| {
        let folder = format!("/sys/bus/pci/devices/{name}");
        let class = sysfs.number(format!("{folder}/class")).unwrap_or(0) as u32;
        // Members of other buses than PCI are found through the group alone.
        let driver = sysfs.link(format!("{folder}/driver"));
        let driver = driver.or_else(|| sysfs.link(at(&format!("iommu_group/devices/{name}/driver"))));
        Member { driver, class, address: name }
    };
    let link = match (sysfs.text(at("current_link_speed")), sysfs.text(at("current_link_width"))) {
        (Some(speed), Some(width)) if !speed.starts_with("Unknown") => Some(format!("{speed} x{width}")),
        _ => None,
    };
    Ok(Function {
        address,
        vendor,
        device,
        subsystem_vendor: number("subsystem_vendor").unwrap_or(0) as u16,
        subsystem_device: number("subsystem_device").unwrap_or(0) as u16,
        name,
        model: of_controller("model").map(|text| text.trim().to_owned()),
        serial: of_controller("serial").map(|text| text.trim().to_owned()),
        driver: sysfs.link(at("driver")),
        driver_override: sysfs.text(at("driver_override")).filter(|text| text != "(null)" && !text.is_empty()),
        iommu_group: group.and_then(|group| group.parse().ok()),
        group_members: members.map(member).collect(),
        // Minus one where there is only one.
        numa_node: number("numa_node").and_then(|node| u32::try_from(node).ok()),
        physical_function: sysfs.link(at("physfn")).and_then(|name| name.parse().ok()),
        virtual_functions: number("sriov_numvfs").unwrap_or(0) as u32,
        power_state: sysfs.text(at("power_state")),
        link,
        block_devices: block_devices(sysfs, address, looking),
        vfio_device: sysfs.names(at("vfio-dev")).into_iter().next(),
    })
}
