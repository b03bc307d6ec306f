//! Machines that are made up, and a kernel that moves their functions between drivers.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::*;

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
        machine.file("dev/vfio/vfio", "").file("dev/vfio/7", "");
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

#[test]
fn a_machine_without_drives_has_none() {
    assert!(functions(&Machine::new().plain()).is_empty());
    let machine = Machine::new();
    machine.device("0000:00:02.0", "0x030000", Some("i915"), Some(1));
    assert!(functions(&machine.plain()).is_empty());
    let address = "0000:00:02.0".parse().unwrap();
    assert!(matches!(find(&machine.plain(), address), Err(PciError::NotNvme { class: 0x030000, .. })));
    assert!(matches!(find(&machine.plain(), drive()), Err(PciError::NotFound(_))));
}

#[test]
fn a_drive_says_what_it_is() {
    let machine = Machine::with_drive();
    machine
        .with_namespace()
        .file("usr/share/misc/pci.ids", "1b36  Red Hat, Inc.\n\t0010  QEMU NVM Express Controller\n");
    let found = functions(&machine.plain());
    let [function] = &found[..] else { panic!("{found:?}") };
    assert_eq!(function.name.as_deref(), Some("Red Hat, Inc. QEMU NVM Express Controller"));
    assert_eq!((function.model.as_deref(), function.serial.as_deref()), (Some("QEMU NVMe Ctrl"), Some("LAB1")));
    assert_eq!((function.driver.as_deref(), function.iommu_group, function.numa_node), (Some("nvme"), Some(7), None));
    assert_eq!(function.title(), "QEMU NVMe Ctrl");
    let [device] = &function.block_devices[..] else { panic!("{function:?}") };
    assert_eq!((&*device.name, device.size, device.uses.len()), ("nvme0n1", 1 << 20, 0));
    assert_eq!(function.obstacle().as_deref(), Some("nvme has it"));
}

#[test]
fn a_drive_goes_to_vfio_and_back() {
    let machine = Machine::with_drive();
    let sysfs = machine.plain();
    assert_eq!(bind(&sysfs, drive(), false).unwrap(), Bound::Now("vfio-pci".into(), Some("nvme".into())));
    assert_eq!(machine.driver_of(DRIVE).as_deref(), Some("vfio-pci"));
    assert_eq!(find(&sysfs, drive()).unwrap().obstacle(), None);
    assert_eq!(bind(&sysfs, drive(), false).unwrap(), Bound::Already("vfio-pci".into()));
    assert_eq!(unbind(&sysfs, drive(), false).unwrap(), Bound::Now("nvme".into(), Some("vfio-pci".into())));
    assert_eq!(unbind(&sysfs, drive(), false).unwrap(), Bound::Already("nvme".into()));
    assert_eq!(find(&sysfs, drive()).unwrap().driver_override, None);
}

#[test]
fn a_drive_in_use_is_not_taken_unless_forced() {
    let mount = "36 1 259:1 / /mnt/my\\040disk rw - ext4 /dev/nvme0n1p1 rw\n";
    let machine = Machine::with_drive();
    machine.with_namespace().file("proc/self/mountinfo", mount);
    let error = bind(&machine.plain(), drive(), false).unwrap_err();
    assert_eq!(error.to_string(), "0000:01:00.0 is in use: nvme0n1p1 is mounted at /mnt/my disk");
    assert!(machine.told.lock().unwrap().is_empty(), "nothing was touched");
    assert!(bind(&machine.plain(), drive(), true).is_ok());

    let machine = Machine::with_drive();
    machine.with_namespace().file("proc/swaps", "Filename Type\n/dev/nvme0n1 partition 1 0 -2\n");
    machine.folder("sys/class/block/nvme0n1/nvme0n1p1/holders/dm-3");
    let uses = find(&machine.plain(), drive()).unwrap().uses();
    let held = Use::Held { device: "nvme0n1p1".into(), by: "dm-3".into() };
    assert_eq!(uses, [held, Use::Swap { device: "nvme0n1".into() }]);
    assert!(matches!(bind(&machine.plain(), drive(), false), Err(PciError::Busy { .. })));
}

#[test]
fn a_change_that_fails_half_way_is_undone() {
    // vfio-pci does not take it.
    let machine = Machine::with_drive();
    let error = bind(&machine.sysfs(|driver| driver != "vfio-pci"), drive(), false).unwrap_err();
    assert!(matches!(error, PciError::NotTaken { .. }), "{error}");
    assert_eq!(machine.driver_of(DRIVE).as_deref(), Some("nvme"), "as it was");
    assert_eq!(find(&machine.plain(), drive()).unwrap().driver_override, None);

    // A write is refused.
    for file in ["driver_override", "driver/unbind", "drivers_probe"] {
        let machine = Machine::with_drive();
        let (root, refused) = (machine.root().to_owned(), Mutex::new(false));
        let sysfs = Sysfs::at(machine.root()).with_kernel(move |path, text| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if name.ends_with(file) && !std::mem::replace(&mut *refused.lock().unwrap(), true) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            kernel(&root, &name, path, text, &|_| true)
        });
        let error = bind(&sysfs, drive(), false).unwrap_err();
        assert!(matches!(&error, PciError::Io { path, .. } if path.ends_with(file)), "{error}");
        assert_eq!(machine.driver_of(DRIVE).as_deref(), Some("nvme"), "after {file}");
    }
}

#[test]
fn what_vfio_cannot_have_is_not_touched() {
    let machine = Machine::new();
    machine.driver("nvme").device(DRIVE, "0x010802", Some("nvme"), Some(7));
    assert!(matches!(bind(&machine.plain(), drive(), true), Err(PciError::NoDriver("vfio-pci"))));
    let machine = Machine::new();
    machine.driver("nvme").driver("vfio-pci").device(DRIVE, "0x010802", Some("nvme"), None);
    assert!(matches!(bind(&machine.plain(), drive(), true), Err(PciError::NoIommu(_))));
    assert_eq!(find(&machine.plain(), drive()).unwrap().obstacle().as_deref(), Some("no IOMMU"));
    assert!(machine.told.lock().unwrap().is_empty());
}

#[test]
fn a_drive_that_a_process_has_open_is_not_taken_from_it() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    machine.folder("proc/4711/fd");
    symlink("/dev/vfio/7", machine.root().join("proc/4711/fd/5")).unwrap();
    let error = unbind(&machine.plain(), drive(), false).unwrap_err();
    assert!(matches!(&error, PciError::Open { pids, .. } if *pids == [4711]), "{error}");
    assert!(error.to_string().contains("process 4711"));
    assert!(unbind(&machine.plain(), drive(), true).is_ok());
}

#[test]
fn a_drive_that_nobody_takes_back_is_said_to_be_without_a_driver() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    let error = unbind(&machine.sysfs(|driver| driver != "nvme"), drive(), false).unwrap_err();
    assert!(matches!(error, PciError::NotTaken { found: None, .. }), "{error}");
}

fn problems(sysfs: &Sysfs, limits: Limits) -> Vec<(&'static str, String)> {
    let checks = diagnose(sysfs, limits, Some(drive())).unwrap();
    let bad = checks.into_iter().filter(|check| check.finding == Finding::Problem);
    bad.map(|check| (check.name, format!("{}; {}", check.what, check.remedy.unwrap()))).collect()
}

const ROOT: Limits = Limits { memlock: Some(0), privileged: true };

#[test]
fn a_machine_where_all_is_well_has_no_problems() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    assert_eq!(problems(&machine.plain(), ROOT), []);
    let checks = diagnose(&machine.plain(), ROOT, None).unwrap();
    let warnings: Vec<_> = checks.iter().filter(|check| check.finding == Finding::Warning).map(|c| c.name).collect();
    assert_eq!(warnings, ["huge pages"], "which are optional");
    machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n");
    let checks = diagnose(&machine.plain(), ROOT, None).unwrap();
    assert!(checks.iter().all(|check| check.finding == Finding::Ok), "{checks:?}");
}

#[test]
fn each_obstacle_is_named_with_its_remedy() {
    let one = |machine: &Machine, limits, name: &str, parts: &[&str]| {
        let problems = problems(&machine.plain(), limits);
        let [(found, text)] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!(*found, name);
        parts.iter().for_each(|part| assert!(text.contains(part), "{text} lacks {part}"));
    };
    let bound = || {
        let machine = Machine::with_drive();
        bind(&machine.plain(), drive(), false).unwrap();
        machine
    };
    let low = Limits { memlock: Some(8 << 20), privileged: false };
    one(&bound(), low, "locked memory", &["8192 KiB", "ulimit -l", "limits.conf"]);
    one(&Machine::with_drive(), ROOT, "driver", &["nvme has it", "doorbell bind 0000:01:00.0"]);

    let machine = bound();
    machine.driver("snd_hda_intel").device(OTHER, "0x040300", Some("snd_hda_intel"), Some(7));
    machine.device("0000:00:01.0", "0x060400", Some("pcieport"), Some(7)).driver("pcieport");
    one(&machine, ROOT, "IOMMU group", &["7 is not viable", "0000:01:00.1 (snd_hda_intel)", "driver/unbind"]);
    assert!(find(&machine.plain(), drive()).unwrap().obstacle().unwrap().contains("0000:01:00.1"));

    let machine = bound();
    fs::remove_file(machine.root().join("dev/vfio/vfio")).unwrap();
    one(&machine, ROOT, "interface", &["/dev/iommu", "modprobe"]);

    let machine = bound();
    fs::remove_file(machine.root().join("dev/vfio/7")).unwrap();
    one(&machine, ROOT, "permission", &["/dev/vfio/7 is not there"]);

    let machine = bound();
    machine.folder("proc/99/fd");
    symlink("/dev/vfio/7", machine.root().join("proc/99/fd/0")).unwrap();
    one(&machine, ROOT, "in use", &["process 99", "kill 99"]);

    let machine = bound();
    machine.file(&format!("sys/bus/pci/devices/{DRIVE}/power_state"), "D3cold\n");
    one(&machine, ROOT, "power", &["D3cold", "power/control"]);

    let machine = Machine::new();
    machine.driver("nvme").device(DRIVE, "0x010802", Some("nvme"), None);
    let names: Vec<_> = problems(&machine.plain(), ROOT).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["IOMMU", "vfio-pci", "interface", "driver", "IOMMU group"]);
}
