//! From an address to a descriptor of the device and the address space that it is attached to.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use iommufd_bindings as iommufd;
use rustix::io::Errno;
use vfio_bindings::bindings::vfio;

use super::iommu::Iommu;
use super::options::Interface;
use super::sys::{self, BindIommufd, Request};
use crate::DeviceError;
use crate::pci::PciAddress;

const CONTAINER: &str = "/dev/vfio/vfio";
const IOMMUFD: &str = "/dev/iommu";
/// Class 01h (mass storage), subclass 08h (non-volatile memory).
const NVME_CLASS: &str = "0x0108";

/// A device of this process.
pub(super) struct Opened {
    pub(super) device: OwnedFd,
    pub(super) iommu: Iommu,
    pub(super) interface: Interface,
}

/// Opens a device in the way asked for, or else in the best way that the machine offers and this user may take.
pub(super) fn open(address: PciAddress, asked: Option<Interface>) -> Result<Opened, DeviceError> {
    let place = Place::find(address)?;
    match asked {
        Some(Interface::Group) => place.open_group(),
        Some(Interface::Iommufd) => match place.node() {
            Some(node) => place.open_iommufd(&node),
            None => Err(place.unusable("it has no node in /dev/vfio/devices; interface=group may do")),
        },
        None => match place.node() {
            Some(node) if Path::new(IOMMUFD).exists() => match place.open_iommufd(&node) {
                Err(error) if place.group_is_open_to_us() => {
                    tracing::debug!(%address, %error, "taking the group instead of iommufd");
                    place.open_group()
                }
                result => result,
            },
            _ => place.open_group(),
        },
    }
}

/// A function, as sysfs shows it.
struct Place {
    address: PciAddress,
    sysfs: PathBuf,
    /// The number of its IOMMU group.
    group: String,
}

impl Place {
    fn find(address: PciAddress) -> Result<Self, DeviceError> {
        let sysfs = address.sysfs();
        let unusable = |reason: String| DeviceError::Unusable { device: address.to_string(), reason };
        if !sysfs.exists() {
            return Err(unusable("there is no PCI function of this address".into()));
        }
        let class = std::fs::read_to_string(sysfs.join("class")).map_err(DeviceError::io("reading sysfs"))?;
        if !class.starts_with(NVME_CLASS) {
            return Err(unusable(format!("it is no NVMe controller, its class is {}", class.trim())));
        }
        match link_name(&sysfs.join("driver")) {
            // There are variants of vfio-pci for some devices.
            Some(driver) if driver.contains("vfio") => {}
            Some(driver) => {
                return Err(unusable(format!("it is in use by the driver {driver}; it has to be bound to vfio-pci")));
            }
            None => return Err(unusable("it has no driver; it has to be bound to vfio-pci".into())),
        }
        let group = link_name(&sysfs.join("iommu_group")).ok_or_else(|| {
            unusable("there is no IOMMU for it: it is off in the firmware, or the kernel was booted without".into())
        })?;
        Ok(Self { address, sysfs, group })
    }

    fn unusable(&self, reason: impl Into<String>) -> DeviceError {
        DeviceError::Unusable { device: self.address.to_string(), reason: reason.into() }
    }

    /// Why a node could not be opened.
    fn refused(&self, node: &Path, error: &io::Error) -> DeviceError {
        let node = node.display();
        let reason = match Errno::from_io_error(error) {
            Some(Errno::ACCESS | Errno::PERM) => format!("this user may not open {node}"),
            Some(Errno::BUSY) => format!("{node} is in use by another process, or by another device of this one"),
            Some(Errno::NOENT) => format!("there is no {node}: the module of VFIO is not loaded"),
            _ => format!("{node} cannot be opened: {error}"),
        };
        self.unusable(reason)
    }

    fn open_node(&self, node: &Path) -> Result<OwnedFd, DeviceError> {
        let opened = File::options().read(true).write(true).open(node);
        opened.map(OwnedFd::from).map_err(|error| self.refused(node, &error))
    }

    fn group_node(&self) -> PathBuf {
        Path::new("/dev/vfio").join(&self.group)
    }

    fn group_is_open_to_us(&self) -> bool {
        use rustix::fs::{Access, access};
        access(self.group_node(), Access::READ_OK | Access::WRITE_OK).is_ok()
    }

    /// Its own node, where the system has one.
    fn node(&self) -> Option<PathBuf> {
        let mut names = std::fs::read_dir(self.sysfs.join("vfio-dev")).ok()?;
        let name = names.find_map(|entry| Some(entry.ok()?.file_name()))?;
        let node = Path::new("/dev/vfio/devices").join(name);
        node.exists().then_some(node)
    }

    fn open_group(&self) -> Result<Opened, DeviceError> {
        let node = self.group_node();
        if !node.exists() && Path::new("/dev/vfio").join(format!("noiommu-{}", self.group)).exists() {
            return Err(self.unusable("VFIO has it without an IOMMU, where nothing would keep it to its memory"));
        }
        let group = self.open_node(&node)?;
        let failed = |what| DeviceError::io(what);
        let mut status = vfio::vfio_group_status { argsz: 0, flags: 0 };
        sys::call(&group, Request::GROUP_GET_STATUS, &mut status).map_err(failed("asking for the group's state"))?;
        if status.flags & vfio::VFIO_GROUP_FLAGS_VIABLE == 0 {
            let others = self.others_in_group();
            return Err(self.unusable(format!(
                "group {} has devices that other drivers use: {others}; bind them to vfio-pci or to nothing",
                self.group
            )));
        }
        let container = self.open_node(Path::new(CONTAINER))?;
        let version = sys::call_number(&container, Request::GET_API_VERSION, 0);
        let version = version.map_err(failed("asking for VFIO's version"))?;
        let type1 = sys::call_number(&container, Request::CHECK_EXTENSION, vfio::VFIO_TYPE1v2_IOMMU);
        if version != vfio::VFIO_API_VERSION as i32 || !matches!(type1, Ok(supported) if supported > 0) {
            return Err(self.unusable("VFIO has no IOMMU of type 1: the module vfio_iommu_type1 is not loaded"));
        }
        sys::set_container(group.as_fd(), container.as_fd()).map_err(failed("putting the group into a container"))?;
        sys::call_number(&container, Request::SET_IOMMU, vfio::VFIO_TYPE1v2_IOMMU)
            .map_err(|error| self.not_attached("choosing an IOMMU of type 1", error))?;
        let name = CString::new(self.address.to_string()).unwrap_or_default();
        let device = sys::device_of_group(group.as_fd(), &name).map_err(failed("opening the device in its group"))?;
        Ok(Opened { device, iommu: Iommu::Type1 { group, container }, interface: Interface::Group })
    }

    fn open_iommufd(&self, node: &Path) -> Result<Opened, DeviceError> {
        let device = self.open_node(node)?;
        let iommufd = self.open_node(Path::new(IOMMUFD))?;
        let mut bind = BindIommufd { argsz: 0, flags: 0, iommufd: iommufd.as_raw_fd(), out_devid: 0 };
        sys::call(&device, Request::DEVICE_BIND_IOMMUFD, &mut bind).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::BUSY) => self.refused(node, &error),
                _ => DeviceError::io("binding the device to iommufd")(error),
            }
        })?;
        let mut space = iommufd::iommu_ioas_alloc::default();
        sys::call(&iommufd, Request::IOAS_ALLOC, &mut space).map_err(DeviceError::io("making an address space"))?;
        let ioas = space.out_ioas_id;
        let mut attach = vfio::vfio_device_attach_iommufd_pt { argsz: 0, flags: 0, pt_id: ioas, pasid: 0 };
        sys::call(&device, Request::DEVICE_ATTACH_IOMMUFD_PT, &mut attach)
            .map_err(|error| self.not_attached("attaching the device to its address space", error))?;
        Ok(Opened { device, iommu: Iommu::Iommufd { iommufd, ioas }, interface: Interface::Iommufd })
    }

    /// Why it did not get an address space. For what the user could be refused he was refused before: what is left is that
    /// the kernel keeps a device back that could raise any interrupt.
    fn not_attached(&self, what: &'static str, error: io::Error) -> DeviceError {
        match Errno::from_io_error(&error) {
            Some(Errno::PERM) => self.unusable(
                "the kernel keeps it back, since the IOMMU does not remap its interrupts; `doorbell doctor` tells more, \
                 and the module's parameter allow_unsafe_interrupts lets it go all the same",
            ),
            _ => DeviceError::io(what)(error),
        }
    }

    /// The other members of its group that have a driver, for people.
    fn others_in_group(&self) -> String {
        let entries = std::fs::read_dir(self.sysfs.join("iommu_group/devices")).into_iter().flatten().flatten();
        let in_use = entries.filter_map(|entry| {
            let driver = link_name(&entry.path().join("driver"))?;
            let harmless = driver.contains("vfio") || driver == "pcieport" || driver == "pci-stub";
            (!harmless).then(|| format!("{} ({driver})", entry.file_name().to_string_lossy()))
        });
        in_use.collect::<Vec<_>>().join(", ")
    }
}

/// The last part of where a symbolic link leads.
fn link_name(link: &Path) -> Option<String> {
    Some(std::fs::read_link(link).ok()?.file_name()?.to_string_lossy().into_owned())
}
