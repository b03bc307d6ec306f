//! Addresses of emulated devices, right and wrong.

use std::io::Write;

use doorbell_device::Device;
use doorbell_device::inprocess::Run;
use doorbell_emulator::{EmulatedSpec, SpecError, StorageSpec};
use nvme_spec::identify::PiType;
use nvme_spec::registers::{Cap, Version, offset};

fn parse(keys: &str) -> Result<EmulatedSpec, SpecError> {
    format!("emulated:{keys}").parse()
}

fn build_error(spec: &EmulatedSpec) -> String {
    match spec.build(Run::Stepped) {
        Ok(_) => panic!("{spec} was built"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn sizes_and_storage() {
    for (keys, size) in [
        ("size=1G", 1 << 30),
        ("size=1GiB", 1 << 30),
        ("size=3m", 3 << 20),
        ("size=512", 512),
        ("size=64kB,block=4096", 64 << 10),
        ("size=2T", 2 << 40),
    ] {
        assert_eq!(parse(keys).unwrap().storage, StorageSpec::Ram { size });
    }
    assert_eq!(parse("null,size=1P").unwrap().storage, StorageSpec::Null { size: 1 << 50 });
    assert_eq!(parse("zero,size=1P").unwrap().storage, StorageSpec::Zero { size: 1 << 50 });
    assert_eq!(parse("file=a b.img").unwrap().storage, StorageSpec::File("a b.img".into()));
}

#[test]
fn every_key_arrives() {
    let spec = parse(
        "size=1M,block=4096,pi=on,namespaces=3,serial=S1,model=M 1,queues=2,mqes=7,vectors=0,mdts=1,sgl=off,dstrd=4,\
         mpsmin=1,mpsmax=2,version=1.3,aerl=0,vwc=off,readonly=on,latency=10us",
    )
    .unwrap();
    let c = &spec.controller;
    assert_eq!((spec.block, spec.protection, spec.namespaces, spec.read_only), (4096, PiType::TYPE1, 3, true));
    assert_eq!((c.queue_pairs, c.mqes, c.vectors, c.mdts, c.dstrd, c.aerl), (2, 7, 0, 1, 4, 0));
    assert_eq!((c.mpsmin, c.mpsmax, c.version, c.volatile_write_cache), (1, 2, Version::V1_3, false));
    assert_eq!(c.latency, Some(std::time::Duration::from_micros(10)));
    let device = spec.build(Run::Stepped).unwrap();
    let cap = Cap::from(device.read64(offset::CAP).unwrap());
    assert_eq!((cap.mqes(), cap.dstrd(), cap.mpsmin(), cap.mpsmax()), (7, 4, 1, 2));
    assert_eq!(device.interrupt_count(), 0);
    device.with_controller(|controller| assert_eq!(controller.subsystem().namespaces(), [1, 2, 3]));
}

#[test]
fn mistakes_are_named() {
    for (address, wanted) in [
        ("pci:0000", "\"pci:0000\" does not begin with \"emulated:\""),
        ("emulated:", "a size (size=1G) or a file (file=disk.img) is needed"),
        ("emulated:null", "a size (size=1G) or a file"),
        ("emulated:size", "size needs a value"),
        ("emulated:size=", "size needs a value"),
        ("emulated:size=0", "size=0 is not possible: it has to be a number of bytes from 1"),
        ("emulated:size=1X", "size=1X is not possible"),
        ("emulated:size=-1", "size=-1 is not possible"),
        ("emulated:size=16E", "size=16E is not possible"),
        ("emulated:size=99999999T", "size=99999999T is not possible"),
        ("emulated:size=18446744073709551616", "size=18446744073709551616 is not possible"),
        ("emulated:size=8192P", "size=8192P is not possible"),
        ("emulated:size=1000", "size=1000 is not possible: it has to be a multiple of the block size, 512"),
        ("emulated:size=1G,size=2G", "size is given twice"),
        ("emulated:size=1G,colour=red", "there is no key \"colour\"; there are size, file, null"),
        ("emulated:size=1G,file=x", "file and size exclude each other"),
        ("emulated:null,file=x", "file and null exclude each other"),
        ("emulated:zero,file=x", "file and zero exclude each other"),
        ("emulated:null,zero,size=1G", "null and zero exclude each other"),
        ("emulated:file=x,namespaces=2", "file and namespaces exclude each other"),
        ("emulated:size=1G,block=500", "block=500 is not possible: it has to be a power of two from 512 to 65536"),
        ("emulated:size=1G,block=256", "block=256 is not possible"),
        ("emulated:size=1G,queues=0", "queues=0 is not possible: it has to be a number from 1 to 64"),
        ("emulated:size=1G,mqes=70000", "mqes=70000 is not possible: it has to be a number from 1 to 4096"),
        ("emulated:size=1G,sgl=maybe", "sgl=maybe is not possible: it has to be on, off or dword"),
        ("emulated:size=1G,pi=4", "pi=4 is not possible"),
        ("emulated:size=1G,latency=5", "latency=5 is not possible: it has to be a time"),
        ("emulated:size=1G,version=3.0", "version=3.0 is not possible"),
        ("emulated:size=1G,serial=123456789012345678901", "printable ASCII, up to 20 characters"),
        ("emulated:size=1G,mpsmin=4,mpsmax=2", "mpsmax=2 is not possible: it has to be at least mpsmin, 4"),
    ] {
        let error = address.parse::<EmulatedSpec>().expect_err(address).to_string();
        assert!(error.contains(wanted), "{address}: {error}");
    }
}

#[test]
fn files_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.img");
    let error = build_error(&parse(&format!("file={}", missing.display())).unwrap());
    assert!(error.contains("missing.img: No such file"), "{error}");
    let odd = folder.path().join("odd.img");
    std::fs::write(&odd, [0; 1000]).unwrap();
    let error = build_error(&parse(&format!("file={}", odd.display())).unwrap());
    assert!(error.contains("odd.img: its 1000 bytes are not one or more whole blocks of 512"), "{error}");
    let error = build_error(&parse("size=1M,fault=/nowhere.json").unwrap());
    assert!(error.contains("fault plan /nowhere.json: No such file"), "{error}");
    let mut plan = tempfile::NamedTempFile::new().unwrap();
    plan.write_all(br#"{ "rules": [ { "when": 1 } ] }"#).unwrap();
    let error = build_error(&parse(&format!("size=1M,fault={}", plan.path().display())).unwrap());
    assert!(error.contains("line 1"), "{error}");
}
