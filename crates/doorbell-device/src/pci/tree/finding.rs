//! What there is, and what uses it.

use super::*;

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
fn every_kind_of_use_is_seen() {
    let uses = |machine: &Machine, busy: &'static str| {
        let sysfs = machine.plain().with_busy(move |path| path.ends_with(busy));
        let closely = find(&sysfs, drive()).unwrap().uses();
        let from_afar = functions(&sysfs)[0].uses();
        (closely.iter().map(ToString::to_string).collect::<Vec<_>>(), from_afar.len())
    };
    let machine = || {
        let machine = Machine::with_drive();
        machine.with_namespace();
        machine
    };
    let btrfs = machine();
    btrfs.file("proc/self/mountinfo", "36 1 0:31 /root / rw shared:1 - btrfs /dev/nvme0n1p1 rw\n");
    assert_eq!(uses(&btrfs, "none"), (vec!["nvme0n1p1 is mounted at /".into()], 1));

    // Only by opening it; that is not done to list it.
    let (seen, from_afar) = uses(&machine(), "dev/nvme0n1p1");
    assert!(seen.len() == 1 && seen[0].starts_with("nvme0n1p1 is claimed"), "{seen:?}");
    assert_eq!(from_afar, 0);

    // A partition that is mounted says nothing of the other one; but the disk is claimed by it.
    let two = machine();
    two.file("proc/self/mountinfo", "36 1 259:1 / /mnt rw - ext4 /dev/nvme0n1p1 rw\n");
    two.file("sys/class/block/nvme0n1/nvme0n1p2/dev", "259:2\n");
    let (seen, _) = uses(&two, "dev/nvme0n1p2");
    assert!(seen.len() == 2 && seen[1].starts_with("nvme0n1p2 is claimed"), "{seen:?}");
    assert_eq!(uses(&two, "dev/nvme0n1").0.len(), 1);

    for node in ["nvme0n1", "ng0n1", "nvme0n1p1"] {
        let open = machine();
        open.folder("proc/12/fd").file("proc/12/comm", "dd\n");
        symlink(format!("/dev/{node}"), open.root().join("proc/12/fd/1")).unwrap();
        let (seen, from_afar) = uses(&open, "none");
        assert!(seen.len() == 1 && seen[0].ends_with("is open in process 12 (dd)"), "{node}: {seen:?}");
        assert_eq!(from_afar, 0);
        assert!(matches!(bind(&open.plain(), drive(), false), Err(PciError::Busy { .. })));
    }

    let physical = machine();
    physical.file(&format!("sys/bus/pci/devices/{DRIVE}/sriov_numvfs"), "2\n");
    assert_eq!(uses(&physical, "none"), (vec!["its 2 virtual functions are switched on".into()], 1));
}

#[test]
fn only_drivers_that_do_dma_stand_in_the_way_of_a_group() {
    for (class, driver, harmless) in [
        ("0x060400", Some("pcieport"), true),
        ("0x060100", Some("lpc_ich"), false),
        ("0x020000", Some("mlx5_vfio_pci"), true),
        ("0x020000", Some("pci-stub"), true),
        ("0x020000", Some("uio_pci_generic"), false),
        ("0x020000", None, true),
    ] {
        let machine = Machine::with_drive();
        driver.iter().for_each(|driver| _ = machine.driver(driver));
        machine.device(OTHER, class, driver, Some(7));
        let function = find(&machine.plain(), drive()).unwrap();
        assert_eq!(function.blockers().next().is_none(), harmless, "{class} {driver:?}");
    }
}
