//! Drives on the bus, of a machine that is made up of files.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Place, place};

/// A machine with a drive of the kernel's driver, alone in group 7, with a mounted partition.
fn machine() -> Place {
    let place = place();
    let root = place.path().join("root");
    let device = root.join("sys/bus/pci/devices/0000:01:00.0");
    let folders = [
        device.join("nvme/nvme0/nvme0n1"),
        root.join("sys/class/block/nvme0n1/nvme0n1p1"),
        root.join("sys/bus/pci/drivers/nvme"),
        root.join("sys/bus/pci/drivers/vfio-pci"),
        root.join("sys/kernel/iommu_groups/7/devices/0000:01:00.0"),
        root.join("dev/vfio"),
        root.join("proc/self"),
    ];
    folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
    let files = [
        (device.join("class"), "0x010802\n"),
        (device.join("vendor"), "0x1b36\n"),
        (device.join("device"), "0x0010\n"),
        (device.join("nvme/nvme0/model"), "A Fast Drive\n"),
        (root.join("sys/class/block/nvme0n1/nvme0n1p1/dev"), "259:1\n"),
        (root.join("proc/self/mountinfo"), "36 1 259:1 / /home rw - ext4 /dev/nvme0n1p1 rw\n"),
        (root.join("dev/vfio/vfio"), ""),
    ];
    files.iter().for_each(|(path, text)| fs::write(path, text).unwrap());
    symlink(root.join("sys/bus/pci/drivers/nvme"), device.join("driver")).unwrap();
    symlink(root.join("sys/kernel/iommu_groups/7"), device.join("iommu_group")).unwrap();
    place
}

#[test]
fn list_says_what_there_is_and_whether_it_is_usable() {
    let machine = machine();
    let ran = machine.doorbell("list --sysfs root");
    let text = ran.text();
    let mut lines = text.lines();
    assert_eq!(lines.next().unwrap().split_whitespace().next(), Some("ADDRESS"));
    let line = lines.next().unwrap();
    for part in
        ["0000:01:00.0", "A Fast Drive", "nvme", "7", "nvme0n1", "no: nvme has it, and nvme0n1p1 is mounted at /home"]
    {
        assert!(line.contains(part), "{line} lacks {part}");
    }
    let json = machine.doorbell("list --sysfs root -o json").json();
    assert_eq!(json[0]["address"], "0000:01:00.0");
    assert_eq!(json[0]["usable"], false);
    assert_eq!(json[0]["block_devices"][0]["uses"][0]["at"], "/home");
    assert_eq!(place().doorbell("list --sysfs .").text(), "this machine has no NVMe drives\n");
    assert_eq!(place().doorbell("list --sysfs . -o json").json(), serde_json::json!([]));
}

#[test]
fn bind_leaves_a_drive_alone_that_is_in_use() {
    let machine = machine();
    let error = machine.doorbell("bind 01:00.0 --sysfs root").complaint();
    assert_eq!(error, "0000:01:00.0 is in use: nvme0n1p1 is mounted at /home");
    assert_eq!(machine.doorbell("unbind pci:0000:01:00.0 --sysfs root").text(), "0000:01:00.0: nvme has it already\n");
    let error = machine.doorbell("bind 02:00.0 --sysfs root").complaint();
    assert_eq!(error, "there is no PCI function 0000:02:00.0");
}

#[test]
fn addresses_that_are_none_are_refused() {
    for (address, part) in
        [("emulated:size=1G", "on no PCI bus"), ("nvme0", "0000:01:00.0"), ("01:00.9", "function to 7")]
    {
        let ran = place().doorbell(&format!("doctor {address}"));
        assert_eq!(ran.status, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(part), "{ran:?}");
    }
}

#[test]
fn doctor_names_the_obstacle_and_what_removes_it() {
    let machine = machine();
    let ran = machine.doorbell("doctor 01:00.0 --sysfs root");
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    for part in ["IOMMU", "on, with 1 groups", "PROBLEM", "nvme0n1p1 is mounted at /home", "doorbell bind 0000:01:00.0"]
    {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert!(ran.stderr.contains("in the way"), "{ran:?}");
    let ran = machine.doorbell("doctor 01:00.0 --sysfs root -o json");
    let checks: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let driver = checks.as_array().unwrap().iter().find(|check| check["name"] == "driver").unwrap();
    assert_eq!(driver["finding"], "problem");
}

#[test]
fn doctor_says_that_a_drive_is_not_there() {
    let ran = machine().doorbell("doctor 02:00.0 --sysfs root -o json");
    assert_eq!(ran.status, Some(1), "{ran:?}");
    let checks: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let function = checks.as_array().unwrap().iter().find(|check| check["name"] == "function").unwrap();
    assert_eq!(function["what"], "there is no PCI function 0000:02:00.0");
    assert_eq!(function["finding"], "problem");
}

#[test]
fn bind_says_that_another_function_of_the_group_is_in_the_way() {
    let machine = machine();
    let root = machine.path().join("root");
    let other = root.join("sys/bus/pci/devices/0000:01:00.1");
    fs::create_dir_all(root.join("sys/kernel/iommu_groups/7/devices/0000:01:00.1")).unwrap();
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("class"), "0x020000\n").unwrap();
    symlink(root.join("sys/bus/pci/drivers/nic"), other.join("driver")).unwrap();
    let drive = root.join("sys/bus/pci/devices/0000:01:00.0/driver");
    fs::remove_file(&drive).unwrap();
    symlink(root.join("sys/bus/pci/drivers/vfio-pci"), drive).unwrap();
    let text = machine.doorbell("bind 01:00.0 --sysfs root").text();
    assert!(text.starts_with("0000:01:00.0: vfio-pci has it already\n"), "{text}");
    assert!(text.contains("0000:01:00.1 of its group is nic's"), "{text}");
    let json = machine.doorbell("bind 01:00.0 --sysfs root -o json").json();
    assert_eq!((&json["changed"], &json["driver"]), (&false.into(), &"vfio-pci".into()));
    assert_eq!(json["obstacle"], "0000:01:00.1 of its group is nic's");
}

#[test]
fn list_says_of_whom_a_function_is_a_virtual_one() {
    let machine = machine();
    let device = machine.path().join("root/sys/bus/pci/devices/0000:01:00.0");
    symlink("../0000:00:09.0", device.join("physfn")).unwrap();
    let text = machine.doorbell("list --sysfs root").text();
    assert!(text.contains("A Fast Drive, virtual, of 0000:00:09.0"), "{text}");
    assert_eq!(machine.doorbell("list --sysfs root -o json").json()[0]["physical_function"], "0000:00:09.0");
}
