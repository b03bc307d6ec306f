//! Data that one run writes and another reads.

use crate::harness::{data, place};

const MEBIBYTE: u64 = 1 << 20;
const DISK: &str = "emulated:file=disk.img";

#[test]
fn what_one_run_writes_another_reads() {
    let place = place().with_disk("disk.img", MEBIBYTE);
    place.write("in.bin", &data(4096));
    let written = place.doorbell(&format!("write {DISK} --start-block 8 --data in.bin")).text();
    assert_eq!(written, "write: 8 blocks from block 8 on, 4096 bytes\n");
    assert_eq!(place.doorbell(&format!("read {DISK} -s 8 -c 7")).bytes(), data(4096));
    let read = place.doorbell(&format!("read {DISK} -s 9 --data-size 512 --data out.bin")).text();
    assert_eq!(read, "read: 1 block from block 9 on, 512 bytes\n");
    assert_eq!(place.read("out.bin"), data(4096)[512..1024]);
    assert_eq!(place.read("disk.img")[4096..8192], data(4096));
}

#[test]
fn data_goes_through_standard_input_and_output() {
    let place = place().with_disk("disk.img", MEBIBYTE);
    place.doorbell_reading(&format!("write {DISK}"), &data(1024)).text();
    // What is asked for is taken, and no more.
    place.doorbell_reading(&format!("write {DISK} -s 4 -c 0"), &data(2048)).text();
    let disk = place.read("disk.img");
    assert_eq!((&disk[..1024], &disk[2048..2560]), (&data(1024)[..], &data(512)[..]));
    assert!(disk[2560..4096].iter().all(|byte| *byte == 0));
}

#[test]
fn more_than_one_command_carries_goes_in_parts() {
    let place = place().with_disk("disk.img", 8 * MEBIBYTE);
    let bytes = data(8 << 20);
    place.write("in.bin", &bytes);
    let device = format!("{DISK},block=4096,mdts=2");
    place.doorbell(&format!("write {device} -d in.bin")).text();
    assert!(place.read("disk.img") == bytes);
    assert!(place.doorbell(&format!("read {device} -z 8M")).bytes() == bytes);
    place.doorbell(&format!("compare {device} -d in.bin")).text();
}

#[test]
fn compare_says_what_differs() {
    let place = place().with_disk("disk.img", MEBIBYTE);
    place.write("zeroes.bin", &[0; 2048]);
    place.write("other.bin", &data(2048));
    let same = place.doorbell(&format!("compare {DISK} -d zeroes.bin")).text();
    assert_eq!(same, "compare: the same: 4 blocks from block 0 on, 2048 bytes\n");
    let differ = place.doorbell(&format!("compare {DISK} -s 4 -d other.bin")).complaint();
    assert_eq!(differ, "blocks 4 to 7 differ from the data");
}

#[test]
fn blocks_are_copied_zeroed_deallocated_and_verified() {
    let place = place().with_disk("disk.img", MEBIBYTE);
    place.doorbell_reading(&format!("write {DISK}"), &data(4096)).text();
    let copied = place.doorbell(&format!("copy {DISK} --sdlba 100 --slbs 0,4 --blocks 1,0")).text();
    assert_eq!(copied, "copy: 3 blocks of 2 ranges to block 100\n");
    let disk = place.read("disk.img");
    assert_eq!(disk[51200..52224], data(4096)[..1024]);
    assert_eq!(disk[52224..52736], data(4096)[2048..2560]);
    let zeroed = place.doorbell(&format!("write-zeroes {DISK} -s 100 -c 0")).text();
    assert_eq!(zeroed, "write-zeroes: 1 block from block 100 on\n");
    assert!(place.read("disk.img")[51200..51712].iter().all(|byte| *byte == 0));
    let deallocated = place.doorbell(&format!("dsm {DISK} --ad --slbs 0,101 --blocks 8,2")).text();
    assert_eq!(deallocated, "dsm: deallocated 10 blocks in 2 ranges\n");
    assert!(place.read("disk.img").iter().all(|byte| *byte == 0));
    let verified = place.doorbell(&format!("verify {DISK} -c 2047")).text();
    assert_eq!(verified, "verify: 2048 blocks from block 0 on\n");
    place.doorbell(&format!("write-uncor {DISK} -s 5")).text();
    assert_eq!(place.doorbell(&format!("flush {DISK}")).text(), "flush: namespace 1\n");
}

#[test]
fn json_says_what_was_done() {
    let place = place().with_disk("disk.img", MEBIBYTE);
    let written = place.doorbell_reading(&format!("write {DISK} -s 2 -o json"), &data(1024)).json();
    assert_eq!(written, serde_json::json!({ "start_block": 2, "blocks": 2, "bytes": 1024 }));
    let read = place.doorbell(&format!("read {DISK} -d out.bin -o json")).json();
    assert_eq!(read, serde_json::json!({ "start_block": 0, "blocks": 1, "bytes": 512 }));
    let verified = place.doorbell(&format!("verify {DISK} --output-format json")).json();
    assert_eq!(verified, serde_json::json!({ "start_block": 0, "blocks": 1 }));
    let no_place = place.doorbell(&format!("read {DISK} -o json")).complaint();
    assert!(no_place.contains("--data FILE"), "{no_place}");
}

#[test]
fn a_namespace_is_formatted() {
    let place = place();
    let device = "emulated:size=1M,namespaces=2";
    let formatted = place.doorbell(&format!("format {device} -n 2 --block-size 4096")).text();
    assert_eq!(formatted, "format: namespace 2: LBA format 1, blocks of 4096 bytes, 0 bytes of metadata\n");
    let both = place.doorbell(&format!("format {device}")).complaint();
    assert_eq!(both, "the device has 2 namespaces: choose with --namespace-id (1, 2)");
    let unknown = place.doorbell(&format!("format {device} -n 1 --lbaf 9")).complaint();
    assert_eq!(unknown, "--lbaf 9 is no LBA format of the namespace, which has 0 to 3");
    let odd = place.doorbell(&format!("format {device} -n 1 -b 1k")).complaint();
    assert!(odd.ends_with("there are 512, 4096"), "{odd}");
}
