//! Bad input: what is wrong is named, and what would be right; nothing is written.

use std::process::Stdio;

use snapbox::{assert_data_eq, str};

use crate::harness::{Ran, data, doorbell, place};

#[test]
fn addresses_that_are_none() {
    let scheme = doorbell("list-ns usb:1-2").complaint();
    assert_data_eq!(scheme, str![[r#"device address "usb:1-2": there is no kind of device "usb"; [..]"#]]);
    let word = doorbell("id-ctrl disk").complaint();
    assert_data_eq!(
        word,
        str![[r#"device address "disk": it names no kind of device; an address looks like pci:[..]"#]]
    );
    let size = doorbell("id-ctrl emulated:size=1X").complaint();
    assert_data_eq!(size, str![[r#"device address "emulated:size=1X": size=1X is not possible: [..]"#]]);
    let too_large = doorbell("read emulated:size=99999999999999999999").complaint();
    assert_data_eq!(
        too_large,
        str![[r#"device address "emulated:size=99999999999999999999": size=[..] is not possible: [..]"#]]
    );
}

#[test]
fn sockets_that_nobody_serves() {
    let none = doorbell("id-ctrl vfio-user:/none.sock").complaint();
    let missing = "connecting: No such file or directory (os error 2)";
    assert_eq!(none, format!(r#"device address "vfio-user:/none.sock": {missing}"#));
    let option = doorbell("id-ctrl vfio-user:/none.sock,again").complaint();
    assert_data_eq!(option, str![[r#"device address "vfio-user:/none.sock,again": there is no option "again"; [..]"#]]);
}

#[test]
fn files_that_are_none() {
    let place = place().with_disk("odd.img", 1000).with_disk("disk.img", 1 << 20);
    let missing = place.doorbell("read emulated:file=none.img").complaint();
    assert_eq!(missing, r#"device address "emulated:file=none.img": none.img: No such file or directory (os error 2)"#);
    assert!(!place.has("none.img"));
    let odd = place.doorbell("write emulated:file=odd.img").complaint();
    assert_eq!(
        odd,
        r#"device address "emulated:file=odd.img": odd.img: its 1000 bytes are not one or more whole blocks of 512"#
    );
    let input = place.doorbell("write emulated:file=disk.img --data none.bin").complaint();
    assert_eq!(input, "none.bin: No such file or directory (os error 2)");
}

#[test]
fn sizes_that_do_not_fit() {
    let place = place().with_disk("disk.img", 1 << 20);
    let disk = || place.read("disk.img").iter().all(|byte| *byte == 0);
    place.write("odd.bin", &data(1000));
    let odd = place.doorbell("write emulated:file=disk.img -d odd.bin").complaint();
    assert_eq!(odd, "odd.bin has 1000 bytes, which is not a multiple of the block size, 512");
    let short = place.doorbell("write emulated:file=disk.img -d odd.bin -c 3").complaint();
    assert_eq!(short, "odd.bin has 1000 bytes, but 4 blocks of 512 bytes need 2048");
    let empty = place.doorbell("write emulated:file=disk.img").complaint();
    assert_eq!(empty, "standard input is empty; at least one block of 512 bytes is needed");
    place.write("two.bin", &data(1024));
    let last = place.doorbell("write emulated:file=disk.img -d two.bin -s 2047").complaint();
    assert_eq!(last, "2 blocks from 2047 on are not in namespace 1, which has blocks 0 to 2047");
    assert!(disk(), "nothing was written");
    let beyond = place.doorbell("read emulated:file=disk.img -s 2048 -d out.bin").complaint();
    assert_eq!(beyond, "block 2048 is not in namespace 1, which has blocks 0 to 2047");
    let overflow = place.doorbell("read emulated:file=disk.img -s 0xffffffffffffffff -c 1 -d out.bin").complaint();
    assert!(overflow.starts_with("2 blocks from 18446744073709551615 on are not in"), "{overflow}");
    let most = place.doorbell("read emulated:file=disk.img -c 0xffffffffffffffff -d out.bin").complaint();
    assert_eq!(most, "--block-count 0xffffffffffffffff is more blocks than there can be");
    let much = place.doorbell("read emulated:file=disk.img -z 1P -d out.bin").complaint();
    assert!(much.contains("at most 1 GiB are possible"), "{much}");
    let part = place.doorbell("read emulated:file=disk.img -z 1000 -d out.bin").complaint();
    assert_eq!(part, "1000 bytes of data are not a multiple of the block size, 512");
    let two_truths = place.doorbell("read emulated:file=disk.img -c 1 -z 512").complaint();
    assert_eq!(two_truths, "--block-count 1 (0's based) is 2 blocks, --data-size 512 is 1 of 512 bytes");
    assert!(!place.has("out.bin"), "no file is made for data that was not read");
}

#[test]
fn a_file_that_is_there_survives_a_read_that_fails() {
    let place = place().with_disk("disk.img", 1 << 20);
    place.write("out.bin", b"precious");
    place.doorbell("read emulated:file=disk.img -s 9999 -d out.bin").complaint();
    assert_eq!(place.read("out.bin"), b"precious");
    let folder = place.doorbell("read emulated:file=disk.img -d none/out.bin").complaint();
    assert!(folder.starts_with("none/out.bin: cannot be written"), "{folder}");
}

#[test]
fn ranges_that_are_none() {
    let lists = doorbell("dsm emulated:size=1M --ad --slbs 0,8 --blocks 8").complaint();
    assert!(lists.contains("--slbs has 2 first blocks, --blocks has 1 numbers of blocks"), "{lists}");
    let beyond = doorbell("copy emulated:size=1M --sdlba 2047 --slbs 0 --blocks 7").complaint();
    assert!(beyond.starts_with("8 blocks from 2047 on are not in namespace 1"), "{beyond}");
    let overlap = doorbell("copy emulated:size=1M --sdlba 4 --slbs 0 --blocks 7").complaint();
    assert!(overlap.contains("does not overlap the target"), "{overlap}");
    let broadcast = doorbell("flush emulated:size=1M -n 0xffffffff").complaint();
    assert!(broadcast.contains("is no single namespace"), "{broadcast}");
    let other = doorbell("read emulated:size=1M -n 7").complaint();
    assert_eq!(other, "there is no namespace 7");
}

#[test]
fn usage() {
    let verb = doorbell("frobnicate emulated:size=1M").usage();
    assert_eq!(verb, "error: unrecognized subcommand 'frobnicate'");
    let none = doorbell("bench emulated:size=1M --iodepth 0").usage();
    assert_eq!(none, "error: invalid value '0' for '--iodepth <IOS>': 0 is not in 1..=4096");
    let deep = doorbell("bench emulated:size=1M --iodepth 70000").usage();
    assert_eq!(deep, "error: invalid value '70000' for '--iodepth <IOS>': 70000 is not in 1..=4096");
    let depth = doorbell("inspect emulated:size=1M --depth 70000").usage();
    assert_eq!(depth, "error: invalid value '70000' for '--depth <COMMANDS>': 70000 is not in 1..=4096");
    let number = doorbell("read emulated:size=1M -s 1x").usage();
    assert!(number.starts_with("error: invalid value '1x' for '--start-block <LBA>': not a number"), "{number}");
    let overflow = doorbell("bench --size 99999999999T").usage();
    assert!(overflow.ends_with("more than 2^64 bytes"), "{overflow}");
    let address = doorbell("id-ctrl").usage();
    assert!(address.starts_with("error: the following required arguments were not provided"), "{address}");
}

#[test]
fn nobody_reads_the_output() {
    for arguments in ["id-ctrl emulated:size=1M", "read emulated:size=4M -z 4M", "man", "completions bash"] {
        let place = place();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = place.command(arguments).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(1), ""), "{arguments}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_mistake() {
    let place = place();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = place.command("id-ctrl emulated:size=1M").stdout(full).spawn().unwrap();
    let complaint = Ran::of(child.wait_with_output().unwrap()).complaint();
    assert_eq!(complaint, "standard output: No space left on device (os error 28)");
}
