//! Messages as bytes, written down here by hand from the protocol's specification, and what is made of them.

use proptest::prelude::*;
use vfio_user::wire::{self, Command, Header, RegionInfo, SparseArea};
use vfio_user::{Capabilities, Request, Version, Write, reply};
use zerocopy::{FromBytes, IntoBytes};

/// Numbers after one another, as the host writes them.
macro_rules! bytes {
    ($($value:expr),* $(,)?) => {{
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend($value.to_ne_bytes());)*
        bytes
    }};
}

fn header(command: u16) -> Header {
    Header { id: 1, command, ..Header::default() }
}

#[test]
fn a_header_is_16_bytes() {
    let bytes = bytes![0x1234u16, 8u16, 36u32, 0x10u32, 0u32];
    let header = Header::read_from_bytes(&bytes).unwrap();
    assert_eq!(header, Header { id: 0x1234, command: 8, size: 36, flags: wire::flags::NO_REPLY, error: 0 });
    assert!(header.is_request() && !header.wants_reply() && !header.is_reply());
    let refusal = header.error_reply(22);
    assert_eq!(refusal.as_bytes(), bytes![0x1234u16, 8u16, 0u32, 0x21u32, 22u32]);
}

#[test]
fn every_command_has_its_number() {
    let numbered = (0..=200).filter_map(Command::from_code).map(|command| command as u16).collect::<Vec<_>>();
    assert_eq!(numbered, (1..=18).collect::<Vec<_>>());
    assert_eq!(Command::from_code(15), Some(Command::RegionWriteMulti));
}

#[test]
fn a_dma_map_is_32_bytes_and_not_one_more() {
    let payload = bytes![32u32, 3u32, 0x1000u64, 0x10_0000u64, 0x2000u64];
    let map = wire::DmaMap { argsz: 32, flags: 3, offset: 0x1000, address: 0x10_0000, size: 0x2000 };
    assert_eq!(Request::parse(&header(2), &payload), Ok(Request::DmaMap(map)));
    let long = [&payload[..], &[0]].concat();
    assert!(Request::parse(&header(2), &payload[1..]).is_err());
    assert!(Request::parse(&header(2), &long).is_err());
}

#[test]
fn a_write_has_as_many_bytes_as_it_says() {
    let payload = bytes![0x14u64, 0u32, 4u32, 0x46_0001u32];
    let write = Write { region: 0, offset: 0x14, data: &0x46_0001u32.to_ne_bytes() };
    assert_eq!(Request::parse(&header(10), &payload), Ok(Request::RegionWrite(write)));
    let short = bytes![0x14u64, 0u32, 8u32, 0x46_0001u32];
    assert!(Request::parse(&header(10), &short).is_err());
    let huge = bytes![0x14u64, 0u32, u32::MAX, 0x46_0001u32];
    assert!(Request::parse(&header(10), &huge).is_err());
}

#[test]
fn many_writes_are_counted() {
    let two = bytes![2u64, 0x1000u64, 0u32, 4u32, 7u64, 0x1004u64, 0u32, 8u32, 9u64];
    let (seven, nine) = (7u32.to_ne_bytes(), 9u64.to_ne_bytes());
    let writes =
        vec![Write { region: 0, offset: 0x1000, data: &seven }, Write { region: 0, offset: 0x1004, data: &nine }];
    assert_eq!(Request::parse(&header(15), &two), Ok(Request::RegionWriteMulti(writes)));
    let three = [&3u64.to_ne_bytes()[..], &two[8..]].concat();
    assert!(Request::parse(&header(15), &three).is_err(), "fewer than it says");
    let endless = [&u64::MAX.to_ne_bytes()[..], &two[8..]].concat();
    assert!(Request::parse(&header(15), &endless).is_err(), "as many as would overflow");
    let wide = bytes![1u64, 0x1000u64, 0u32, 9u32, 7u64];
    assert!(Request::parse(&header(15), &wide).is_err(), "a write of 9 bytes");
}

#[test]
fn interrupts_are_set_one_way_at_a_time() {
    let set = |flags: u32, data: &[u8]| {
        let payload = [&bytes![20u32, flags, 2u32, 3u32, 2u32][..], data].concat();
        Request::parse(&header(8), &payload).is_ok()
    };
    assert!(set(0x24, &[]), "an eventfd that triggers");
    assert!(set(0x21, &[]), "a trigger without data");
    assert!(set(0x22, &[1, 0]), "a trigger for those that are set");
    assert!(!set(0x22, &[1]), "fewer than there are");
    for flags in [0, 0x20, 0x04, 0x25, 0x34, 0x64] {
        assert!(!set(flags, &[1, 0]), "flags {flags:#x}");
    }
    let overflow = bytes![20u32, 0x24u32, 2u32, u32::MAX, 2u32];
    assert!(Request::parse(&header(8), &overflow).is_err());
}

#[test]
fn replies_and_unknown_commands_are_no_requests() {
    assert!(Request::parse(&Header { flags: 1, ..header(13) }, &[]).is_err());
    assert!(Request::parse(&header(0), &[]).is_err());
    assert!(Request::parse(&header(19), &[]).is_err());
    assert_eq!(Request::parse(&header(14), &[]), Ok(Request::Other(Command::DirtyPages)));
}

/// As QEMU 11 proposes it.
const PROPOSAL: &str = r#"{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 16,
    "write_multiple": true, "max_dma_maps": 65535, "pgsizes": 4096, "max_data_xfer_size": 1048576}}"#;

#[test]
fn a_version_is_read_with_or_without_capabilities() {
    let version = |text: &[u8]| Version::parse(&[&bytes![0u16, 1u16][..], text].concat());
    let all = version(&[PROPOSAL.as_bytes(), &[0]].concat()).unwrap();
    assert_eq!((all.number.major, all.number.minor), (0, 1));
    assert_eq!(all.capabilities, Capabilities { max_msg_fds: 16, write_multiple: true, ..Capabilities::default() });
    for nothing in ["", "\0", "{}", "{\"capabilities\":{}}\0"] {
        assert_eq!(version(nothing.as_bytes()).unwrap().capabilities, Capabilities::default(), "{nothing:?}");
    }
    assert_eq!(Version::parse(&all.to_bytes()), Ok(all));
}

#[test]
fn what_is_not_json_is_an_error() {
    let version = |text: &str| Version::parse(&[&bytes![0u16, 1u16][..], text.as_bytes()].concat());
    let deep = "[".repeat(4000);
    let long = format!("{{\"capabilities\":{{}}}}{}", " ".repeat(5000));
    let bad = [
        "capabilities",
        "{\"capabilities\":7}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_msg_fds\":\"many\"}}",
        "{\"capabilities\":{\"max_dma_maps\":1e400}}",
        "{}\0{}",
        "[]",
        "{\"capabilities\":[]}",
        "{\"capabilities\":null}",
        &deep,
        &long,
    ];
    for text in bad {
        let error = version(text).unwrap_err();
        assert!(error.to_string().contains("Version"), "{error}");
    }
    assert!(Version::parse(&[0, 0, 0]).is_err());
}

#[test]
fn a_region_tells_its_areas_only_where_there_is_room() {
    let info = RegionInfo { flags: wire::REGION_READ | wire::REGION_MMAP, size: 0x4000, ..RegionInfo::default() };
    let areas = [SparseArea { offset: 0x1000, size: 0x1000 }];
    let (short, with_file) = reply::region_info(info, &areas, 32);
    assert!(!with_file);
    assert_eq!(short, bytes![64u32, 0xdu32, 0u32, 32u32, 0x4000u64, 0u64]);
    let (whole, with_file) = reply::region_info(info, &areas, 64);
    assert!(with_file);
    let capability = bytes![1u16, 1u16, 0u32, 1u32, 0u32, 0x1000u64, 0x1000u64];
    assert_eq!(whole, [&bytes![64u32, 0xdu32, 0u32, 32u32, 0x4000u64, 0u64][..], &capability].concat());
    let (read, found) = reply::parse_region_info(&whole).unwrap();
    assert_eq!((read.size, found.unwrap()), (0x4000, areas.to_vec()));
    assert_eq!(reply::parse_region_info(&short).unwrap().1, None);
}

#[test]
fn lists_of_capabilities_that_lead_nowhere_are_refused() {
    let region = |cap_offset: u32, rest: &[u8]| {
        let info = bytes![0u32, 0xdu32, 0u32, cap_offset, 0x4000u64, 0u64];
        reply::parse_region_info(&[&info[..], rest].concat()).is_ok()
    };
    let area = |offset: u64, size: u64| bytes![1u16, 1u16, 0u32, 1u32, 0u32, offset, size];
    assert!(region(32, &area(0x1000, 0x1000)));
    assert!(region(32, &bytes![7u16, 1u16, 0u32]), "an unknown one is skipped");
    assert!(!region(8, &area(0x1000, 0x1000)), "within the description");
    assert!(!region(4096, &area(0x1000, 0x1000)), "beyond the end");
    assert!(!region(32, &bytes![7u16, 1u16, 32u32]), "a circle");
    assert!(!region(32, &bytes![1u16, 1u16, 0u32, u32::MAX, 0u32, 0u64, 0u64]), "more areas than there are bytes");
    assert!(!region(32, &area(0x1000, 0x4000)), "beyond the region");
    assert!(!region(32, &area(u64::MAX - 0xfff, 0x2000)), "an overflow");
    assert!(!region(32, &area(0x10, 0x1000)), "not of whole pages");
}

proptest! {
    #[test]
    fn no_bytes_make_a_request_panic(command in 0u16..25, flags: u32, payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&Header { flags, ..header(command) }, &payload);
        let _ = Request::parse(&header(command), &payload);
    }

    #[test]
    fn no_bytes_make_a_region_panic(
        flags: u32, cap_offset in 0u32..300, size: u64, rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let info = RegionInfo { flags: flags | wire::REGION_CAPS, cap_offset, size, ..RegionInfo::default() };
        let _ = reply::parse_region_info(&[info.as_bytes(), &rest].concat());
    }

    #[test]
    fn areas_survive_the_way(pages in prop::collection::vec((0u64..100, 1u64..100), 1..20)) {
        let areas: Vec<_> = pages.iter().map(|&(at, n)| SparseArea { offset: at << 12, size: n << 12 }).collect();
        let info = RegionInfo { size: 200 << 12, ..RegionInfo::default() };
        let (bytes, fits) = reply::region_info(info, &areas, 4096);
        prop_assert!(fits);
        prop_assert_eq!(reply::parse_region_info(&bytes).unwrap().1, Some(areas));
    }
}
