//! Functions on their way between drivers.

use super::*;

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
    assert!(matches!(&error, PciError::Open { processes, .. } if processes[0].pid == 4711), "{error}");
    assert!(error.to_string().contains("process 4711"));
    machine.file("proc/4711/comm", "a-vmm\n");
    let error = unbind(&machine.plain(), drive(), false).unwrap_err();
    assert!(error.to_string().contains("process 4711 (a-vmm)"), "{error}");
    assert_eq!(machine.driver_of(DRIVE).as_deref(), Some("vfio-pci"), "nothing was touched");
    assert!(unbind(&machine.plain(), drive(), true).is_ok());

    // Of another user, so that it cannot be seen.
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    let taken = || machine.plain().with_busy(|path| path.ends_with("dev/vfio/7"));
    let error = unbind(&taken(), drive(), false).unwrap_err();
    assert!(error.to_string().contains("cannot be seen"), "{error}");
    let [(name, text)] = &problems(&taken(), ROOT)[..] else { panic!() };
    assert!(*name == "in use" && text.contains("as root"), "{text}");
    assert!(unbind(&taken(), drive(), true).is_ok());
}

#[test]
fn a_drive_that_nobody_takes_back_is_said_to_be_without_a_driver() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    let error = unbind(&machine.sysfs(|driver| driver != "nvme"), drive(), false).unwrap_err();
    assert!(matches!(error, PciError::NotTaken { found: None, .. }), "{error}");
}

#[test]
fn whoever_looks_at_a_new_drive_for_a_moment_is_waited_for() {
    let machine = Machine::with_drive();
    machine.with_namespace();
    let times = Mutex::new(3);
    let sysfs = machine.plain().with_busy(move |path| {
        let mut times = times.lock().unwrap();
        *times -= u32::from(path.ends_with("dev/nvme0n1"));
        path.ends_with("dev/nvme0n1") && *times > 0
    });
    assert!(bind(&sysfs, drive(), false).is_ok());
}

#[test]
fn what_was_there_before_comes_back() {
    // VFIO does not let go: the drive stays its own.
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    let root = machine.root().to_owned();
    let sysfs = Sysfs::at(machine.root()).with_kernel(move |path, text| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        match name.ends_with("driver/unbind") {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => kernel(&root, &name, path, text, &|_| true),
        }
    });
    assert!(matches!(unbind(&sysfs, drive(), false), Err(PciError::Io { .. })));
    let function = find(&sysfs, drive()).unwrap();
    assert_eq!((function.driver.as_deref(), function.driver_override.as_deref()), (Some("vfio-pci"), Some("vfio-pci")));

    // Nobody takes it any more.
    let machine = Machine::with_drive();
    let error = bind(&machine.sysfs(|_| false), drive(), false).unwrap_err();
    assert!(matches!(&error, PciError::NotUndone { found: None, .. }), "{error}");
    assert!(error.to_string().contains("vfio-pci did not take it") && error.to_string().contains("no driver has"));

    // It had no driver before, and has none after.
    let machine = Machine::new();
    machine.driver("nvme").driver("vfio-pci").device(DRIVE, "0x010802", None, Some(7));
    let error = bind(&machine.sysfs(|driver| driver != "vfio-pci"), drive(), false).unwrap_err();
    assert!(matches!(error, PciError::NotTaken { .. }), "{error}");
    assert_eq!(machine.driver_of(DRIVE), None);
}

#[test]
fn a_drive_may_go_or_let_go_at_any_moment() {
    for file in ["driver_override", "driver/unbind", "drivers_probe"] {
        let machine = Machine::with_drive();
        let root = machine.root().to_owned();
        let sysfs = Sysfs::at(machine.root()).with_kernel(move |path, text| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            if name.ends_with(file) {
                let _ = fs::remove_dir_all(root.join("sys/bus/pci/devices").join(DRIVE));
                return Err(io::ErrorKind::NotFound.into());
            }
            kernel(&root, &name, path, text, &|_| true)
        });
        let error = bind(&sysfs, drive(), false).unwrap_err();
        assert!(matches!(error, PciError::Vanished(_)), "{file}: {error}");
        assert!(matches!(find(&sysfs, drive()), Err(PciError::NotFound(_))));
    }

    // The driver has let go when it is asked to.
    let machine = Machine::with_drive();
    let root = machine.root().to_owned();
    let sysfs = Sysfs::at(machine.root()).with_kernel(move |path, text| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        kernel(&root, &name, path, text, &|_| true)?;
        if name.ends_with("driver/unbind") { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
    });
    assert!(bind(&sysfs, drive(), false).is_ok());
}
