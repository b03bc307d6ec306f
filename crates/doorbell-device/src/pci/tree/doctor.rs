//! What is in the way, and what removes it.

use super::*;

#[test]
fn a_machine_where_all_is_well_has_no_problems() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    assert_eq!(problems(&machine.plain(), ROOT), []);
    let checks = diagnose(&machine.plain(), ROOT, None);
    let warnings: Vec<_> = checks.iter().filter(|check| check.finding == Finding::Warning).map(|c| c.name).collect();
    assert_eq!(warnings, ["huge pages"], "which are optional");
    machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3\n");
    let checks = diagnose(&machine.plain(), ROOT, None);
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
    let low = Limits { memlock: Some(64 << 10), privileged: false };
    one(&bound(), low, "locked memory", &["64 KiB", "ulimit -l", "limits.conf"]);
    one(&Machine::with_drive(), ROOT, "driver", &["nvme has it", "doorbell bind 0000:01:00.0"]);

    // What systems come with is enough for a driver, not for a guest.
    let usual = Limits { memlock: Some(8 << 20), privileged: false };
    assert_eq!(problems(&bound().plain(), usual), []);
    let checks = diagnose(&bound().plain(), usual, Some(drive()));
    assert!(checks.iter().any(|check| check.name == "locked memory" && check.finding == Finding::Warning));

    let machine = bound();
    machine.driver("snd_hda_intel").device(OTHER, "0x040300", Some("snd_hda_intel"), Some(7));
    machine.device("0000:00:01.0", "0x060400", Some("pcieport"), Some(7)).driver("pcieport");
    one(&machine, ROOT, "IOMMU group", &["7 is not viable", "0000:01:00.1 (snd_hda_intel)", "driver/unbind"]);
    assert!(find(&machine.plain(), drive()).unwrap().obstacle().unwrap().contains("0000:01:00.1"));

    let machine = bound();
    fs::remove_file(machine.root().join("dev/vfio/vfio")).unwrap();
    one(&machine, ROOT, "interface", &["/dev/iommu", "modprobe"]);

    let machine = bound();
    fs::remove_dir(machine.root().join("sys/module/vfio_iommu_type1")).unwrap();
    one(&machine, ROOT, "interface", &["modprobe vfio_iommu_type1"]);
    machine.file("dev/iommu", "");
    assert_eq!(problems(&machine.plain(), ROOT), [], "iommufd does without it");

    // Another drive of the group; it may be in use, so that it is not simply unbound.
    let machine = bound();
    machine.device(OTHER, "0x010802", Some("nvme"), Some(7));
    one(&machine, ROOT, "IOMMU group", &["0000:01:00.1 (nvme)", "doorbell bind 0000:01:00.1"]);

    let machine = bound();
    fs::remove_file(machine.root().join("dev/vfio/7")).unwrap();
    one(&machine, ROOT, "permission", &["/dev/vfio/7 is not there"]);
    // Its own node is of no use without iommufd's.
    machine.folder(&format!("sys/bus/pci/devices/{DRIVE}/vfio-dev/vfio3")).file("dev/vfio/devices/vfio3", "");
    one(&machine, ROOT, "permission", &["/dev/vfio/7 is not there"]);
    machine.file("dev/iommu", "");
    assert_eq!(problems(&machine.plain(), ROOT), []);

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

#[test]
fn a_function_that_is_none_is_a_problem() {
    let machine = Machine::new();
    machine.driver("vfio-pci").file("dev/vfio/vfio", "").folder("sys/module/vfio_iommu_type1");
    machine.device("0000:00:02.0", "0x030000", None, Some(1));
    let [(name, text)] = &problems(&machine.plain(), ROOT)[..] else { panic!() };
    assert!(*name == "function" && text.contains("there is no PCI function 0000:01:00.0; doorbell list"), "{text}");
    let checks = diagnose(&machine.plain(), ROOT, "00:02.0".parse().ok());
    assert!(checks.iter().any(|check| check.what.contains("030000") && check.finding == Finding::Problem));
}

#[test]
fn interrupts_that_are_not_remapped_are_a_problem_unless_allowed() {
    let machine = Machine::with_drive();
    bind(&machine.plain(), drive(), false).unwrap();
    let ecap = format!("sys/bus/pci/devices/{DRIVE}/iommu/intel-iommu/ecap");
    machine.file(&ecap, "f00f4a\n");
    assert_eq!(problems(&machine.plain(), ROOT), []);
    machine.file("proc/cmdline", "quiet intremap=off\n");
    assert_eq!(problems(&machine.plain(), ROOT)[0].0, "interrupts");
    machine.file("proc/cmdline", "quiet\n").file(&ecap, "f00f42\n");
    let parameter = "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
    machine.file(parameter, "N\n");
    let [(name, text)] = &problems(&machine.plain(), ROOT)[..] else { panic!() };
    assert!(*name == "interrupts" && text.ends_with(&format!("echo 1 > /{parameter}")), "{text}");
    machine.file(parameter, "Y\n");
    assert_eq!(problems(&machine.plain(), ROOT), []);
}
