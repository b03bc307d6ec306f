//! Machines that are made up, and a kernel that moves their functions between drivers.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;

mod binding;
mod doctor;
mod finding;

/// A machine.
struct Machine {
    folder: TempDir,
    /// What was written, by file name.
    told: Arc<Mutex<Vec<(String, String)>>>,
}

const DRIVE: &str = "0000:01:00.0";
const OTHER: &str = "0000:01:00.1";

impl Machine {
    /// Without a device.
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), told: Arc::default() }
    }

    /// With a drive of the kernel's driver, alone in group 7, and vfio-pci loaded.
    fn with_drive() -> Self {
        let machine = Self::new();
        machine.driver("nvme").driver("vfio-pci").device(DRIVE, "0x010802", Some("nvme"), Some(7));
        machine.file("dev/vfio/vfio", "").file("dev/vfio/7", "").folder("sys/module/vfio_iommu_type1");
        machine
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn folder(&self, path: &str) -> &Self {
        fs::create_dir_all(self.root().join(path)).unwrap();
        self
    }

    fn link(&self, path: &str, to: &str) -> &Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(self.root().join(to), path).unwrap();
        self
    }

    fn driver(&self, name: &str) -> &Self {
        self.folder(&format!("sys/bus/pci/drivers/{name}")).file("sys/bus/pci/drivers_probe", "")
    }

    fn device(&self, address: &str, class: &str, driver: Option<&str>, group: Option<u32>) -> &Self {
        let folder = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{folder}/class"), class);
        self.file(&format!("{folder}/vendor"), "0x1b36\n").file(&format!("{folder}/device"), "0x0010\n");
        self.file(&format!("{folder}/driver_override"), "(null)\n").file(&format!("{folder}/numa_node"), "-1\n");
        if let Some(driver) = driver {
            self.link(&format!("{folder}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
        }
        if let Some(group) = group {
            self.folder(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"));
            self.link(&format!("{folder}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
        }
        self
    }

    /// Namespace 1 of the drive, with a partition, as a path of subsystem 0.
    fn with_namespace(&self) -> &Self {
        self.file(&format!("sys/bus/pci/devices/{DRIVE}/nvme/nvme0/model"), "QEMU NVMe Ctrl   \n");
        self.file(&format!("sys/bus/pci/devices/{DRIVE}/nvme/nvme0/serial"), "LAB1    \n");
        self.folder(&format!("sys/bus/pci/devices/{DRIVE}/nvme/nvme0/nvme0c0n1"));
        self.file("sys/class/block/nvme0n1/size", "2048\n").file("sys/class/block/nvme0n1/dev", "259:0\n");
        self.file("sys/class/block/nvme0n1/nvme0n1p1/dev", "259:1\n");
        self.file("dev/nvme0n1", "").file("dev/nvme0n1p1", "")
    }

    /// The system's files, behind a kernel in which `takes` says whether a driver takes a function.
    fn sysfs(&self, takes: impl Fn(&str) -> bool + Send + Sync + 'static) -> Sysfs {
        let (root, told) = (self.root().to_owned(), self.told.clone());
        Sysfs::at(self.root()).with_kernel(move |path, text| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            told.lock().unwrap().push((name.clone(), text.into()));
            kernel(&root, &name, path, text, &takes)
        })
    }

    fn plain(&self) -> Sysfs {
        self.sysfs(|_| true)
    }

    fn driver_of(&self, address: &str) -> Option<String> {
        self.plain().link(format!("/sys/bus/pci/devices/{address}/driver"))
    }
}

/// What the kernel does when it is told something.
fn kernel(root: &Path, name: &str, path: &Path, text: &str, takes: &impl Fn(&str) -> bool) -> io::Result<()> {
    if name.ends_with("/driver/unbind") {
        let link = path.parent().unwrap();
        // The path goes through the link: the link itself is in the device's folder.
        fs::remove_file(link)
    } else if name.ends_with("drivers_probe") {
        let device: PathBuf = root.join("sys/bus/pci/devices").join(text);
        let wanted = fs::read_to_string(device.join("driver_override"))?;
        let driver = match wanted.trim() {
            "" | "(null)" => "nvme",
            wanted => wanted,
        };
        if takes(driver) && !device.join("driver").exists() {
            symlink(root.join("sys/bus/pci/drivers").join(driver), device.join("driver"))?;
        }
        Ok(())
    } else {
        fs::write(path, text)
    }
}

fn drive() -> PciAddress {
    DRIVE.parse().unwrap()
}

/// What the doctor says of problems: of which check, and what to do.
fn problems(sysfs: &Sysfs, limits: Limits) -> Vec<(&'static str, String)> {
    let checks = diagnose(sysfs, limits, Some(drive()));
    let bad = checks.into_iter().filter(|check| check.finding == Finding::Problem);
    bad.map(|check| (check.name, format!("{}; {}", check.what, check.remedy.unwrap()))).collect()
}

const ROOT: Limits = Limits { memlock: Some(0), privileged: true };
