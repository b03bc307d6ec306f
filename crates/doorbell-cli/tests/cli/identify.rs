//! What the device is.

use nvme_spec::identify::{IdentifyController, IdentifyNamespace};
use snapbox::{assert_data_eq, str};

use zerocopy::FromBytes;

use crate::harness::doorbell;

#[test]
fn namespaces_are_listed() {
    let table = doorbell("list-ns emulated:size=1M,block=4096,namespaces=2").text();
    assert_data_eq!(
        table,
        str![[r#"
 NSID   Size  Blocks  Block size  Metadata  NGUID
    1  1 MiB     256        4096         0  [..]
    2  1 MiB     256        4096         0  [..]

"#]]
    );
    let json = doorbell("list-ns emulated:size=1M,namespaces=3 -n 2 -o json").json();
    let nsids: Vec<_> = json["nsid_list"].as_array().unwrap().iter().map(|ns| ns["nsid"].as_u64().unwrap()).collect();
    assert_eq!(nsids, [2, 3]);
    assert_eq!(json["nsid_list"][0]["bytes"], 1 << 20);
    let all = doorbell("list-ns emulated:size=1M,namespaces=3 --all -o json").json();
    assert_eq!(all["nsid_list"].as_array().unwrap().len(), 3);
}

#[test]
fn the_controller_is_identified() {
    let device = "emulated:size=1M,serial=S1,model=M1,mdts=5";
    let text = doorbell(&format!("id-ctrl {device}")).text();
    assert!(text.starts_with("NVME Identify Controller:\nvid       : 0x1af4\n"), "{text}");
    assert!(text.contains("\nsn        : S1\nmn        : M1\n"), "{text}");
    assert!(!text.contains("[0:0]"), "bits are decoded only on demand");
    let decoded = doorbell(&format!("id-ctrl {device} -H")).text();
    assert!(decoded.contains("mdts      : 5\n  largest transfer: 128 KiB\n"), "{decoded}");
    assert!(decoded.contains("  [0:0] : 0x1\tCompare Supported\n"), "{decoded}");
    let json = doorbell(&format!("id-ctrl {device} -o json")).json();
    assert_eq!((&json["sn"], &json["mdts"]), (&"S1".into(), &5.into()));
    assert!(json["psds"].is_array());
    let raw = doorbell(&format!("id-ctrl {device} --raw-binary")).bytes();
    assert_eq!(IdentifyController::read_from_bytes(&raw).unwrap().sn.as_str(), "S1");
}

#[test]
fn a_namespace_is_identified() {
    let device = "emulated:size=1M,block=4096,namespaces=2";
    let text = doorbell(&format!("id-ns {device} -n 2")).text();
    assert!(text.starts_with("NVME Identify Namespace 2:\nnsze    : 0x100\n"), "{text}");
    assert!(text.contains("\nlbaf  1 : ms:0   lbads:12 rp:0 (in use)\n"), "{text}");
    let json = doorbell(&format!("id-ns {device} -n 2 -o json")).json();
    assert_eq!((&json["nsze"], &json["lbafs"][1]["ds"]), (&256.into(), &12.into()));
    let raw = doorbell(&format!("id-ns {device} -n 1 -b")).bytes();
    assert_eq!(IdentifyNamespace::read_from_bytes(&raw).unwrap().nsze, 256);
    let none = doorbell(&format!("id-ns {device} -n 9")).complaint();
    assert_eq!(none, "there is no namespace 0x9; list-ns lists those there are");
}

#[test]
fn the_inside_is_shown() {
    let text = doorbell("inspect emulated:size=1M,queues=2 --cpus 3").text();
    assert!(text.contains("I/O queue 2:"), "{text}");
    assert!(text.contains("CPU   2 uses queue"), "{text}");
    let json = doorbell("inspect emulated:size=1M -o json").json();
    assert_eq!(json["queues"][0]["counters"]["completed"], 1);
    assert_eq!(json["namespaces"][0]["block_count"], 2048);
}
