use super::*;

fn some() -> Vec<u8> {
    write(&Driver { page_size: 4096, nsids: vec![1, 7], ..Driver::default() })
}

#[test]
fn what_is_written_is_read() {
    let driver = read(&some()).expect("a state");
    assert_eq!((driver.page_size, driver.nsids), (4096, vec![1, 7]));
}

#[test]
fn any_change_is_noticed() {
    let bytes = some();
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        // Who wrote it does not matter.
        assert_eq!(read(&bytes).is_ok(), (8..12).contains(&at), "byte {at}");
    }
    for len in 0..bytes.len() {
        read(&bytes[..len]).expect_err("it is cut short");
    }
}

#[test]
fn a_later_version_decides_who_understands_it() {
    let mut bytes = some();
    bytes[8] = 9;
    read(&bytes).expect("it says that version 1 understands it");
    bytes[12] = 3;
    assert_eq!(read(&bytes), Err(StateError::TooNew { version: 9, oldest: 3 }));
}

#[test]
fn version_1_is_not_given_queues_that_have_an_owner() {
    let with =
        |exclusive| write(&Driver { queues: vec![Queue { exclusive, ..Queue::default() }], ..Driver::default() });
    assert_eq!((with(false)[12], with(true)[12]), (1, 2));
}

#[test]
fn fields_of_later_versions_are_skipped() {
    let mut bytes = some();
    // Field 1000, a varint.
    bytes.extend_from_slice(&[0xc0, 0x3e, 0x05]);
    let crc = crc32fast::hash(&bytes[HEADER..]);
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(read(&bytes).expect("a state").page_size, 4096);
}
