//! N: getting a namespace.

use std::error::Error;

use doorbell::{NamespaceError, NamespaceOptions, Protection, RequestError};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig};
use nvme_spec::Status;
use nvme_spec::identify::cns::Cns;
use nvme_spec::identify::{Dps, Flbas, IdentifyNamespace, PiType};

use crate::bench::{Bench, pattern};
use crate::odd::{identify, namespaces_are, page, patch};

/// Namespace 1, with faults, asked for with options.
fn ask_with(faults: FaultPlan, options: NamespaceOptions) -> Result<doorbell::Namespace, NamespaceError> {
    let bench = Bench::new();
    let driver = bench.driver(ControllerConfig { faults, ..ControllerConfig::default() });
    bench.run(driver.namespace_with(1, options))
}

fn ask(page: &IdentifyNamespace) -> Result<doorbell::Namespace, NamespaceError> {
    ask_with(namespaces_are(page), NamespaceOptions::default())
}

#[test]
fn n1_nsid_0_and_the_broadcast_nsid_are_refused_unsent() {
    let bench = Bench::new();
    let (driver, _namespace) = bench.up();
    let before = driver.inspect().admin.queue.counters.submitted;
    for nsid in [0, 0xffff_ffff] {
        let result = bench.run(driver.namespace(nsid));
        assert!(matches!(result, Err(NamespaceError::InvalidNsid { nsid: n }) if n == nsid), "{result:?}");
    }
    assert_eq!(driver.inspect().admin.queue.counters.submitted, before);
}

#[test]
fn n1_identify_namespace_is_read_once() {
    let again = CommandMatch { skip: 1, ..identify(Cns::NAMESPACE) };
    let namespace = ask_with(FaultPlan::on(again, Fault::Fatal), NamespaceOptions::default()).expect("a namespace");
    assert_eq!((namespace.nsid(), namespace.block_count()), (1, 32768));
}

#[test]
fn n1_a_namespace_without_blocks_is_not_found() {
    let bench = Bench::new();
    let (driver, _namespace) = bench.up();
    // Possible and inactive; impossible.
    for nsid in [7, 5000] {
        let result = bench.run(driver.namespace(nsid));
        assert!(matches!(result, Err(NamespaceError::NotFound { nsid: n }) if n == nsid), "{result:?}");
    }
    let result = ask(&IdentifyNamespace { nsze: 0, ..page(&[(9, 0)]) });
    assert!(matches!(result, Err(NamespaceError::NotFound { nsid: 1 })), "{result:?}");
}

#[test]
fn n1_another_command_set_is_refused_by_name() {
    // Behind EUI-64, NGUID and UUID.
    let zoned = FaultPlan::on(identify(Cns::NAMESPACE_DESCRIPTORS), patch(56, &[2]));
    let error = ask_with(zoned, NamespaceOptions::default()).expect_err("no NVM namespace");
    assert!(matches!(error, NamespaceError::CommandSet { nsid: 1, csi: 2, .. }), "{error:?}");
    assert!(error.to_string().to_lowercase().contains("zoned"), "{error}");
}

#[test]
fn n2_the_format_index_has_high_bits_where_there_are_many_formats() {
    let mut formats = [(9, 0); 20];
    formats[17] = (12, 0);
    let seventeenth = Flbas::new().with_index_low(1).with_index_high(1);
    let many = IdentifyNamespace { flbas: seventeenth, ..page(&formats) };
    assert_eq!(ask(&many).expect("format 17").block_size(), 4096);
    // With 16 formats or fewer, the high bits are somebody else's.
    let few = IdentifyNamespace { flbas: seventeenth, ..page(&[(9, 0), (13, 0)]) };
    assert_eq!(ask(&few).expect("format 1").block_size(), 8192);
}

#[test]
fn n2_an_index_above_the_formats_is_flbas_invalid() {
    let mut formats = page(&[(9, 0), (9, 0)]);
    formats.flbas = Flbas::new().with_index_low(2);
    formats.lbaf[2] = formats.lbaf[0];
    let error = ask(&formats).expect_err("no format 2");
    assert!(matches!(error, NamespaceError::FlbasInvalid { index: 2, count: 2 }), "{error:?}");
    // Formats with unique attributes count too.
    formats.nulbaf = 1;
    assert_eq!(ask(&formats).expect("format 2").block_size(), 512);
}

#[test]
fn n3_only_block_sizes_that_there_are() {
    for lbads in 0..=20 {
        let result = ask(&page(&[(lbads, 0)]));
        match (lbads, result) {
            (9..=16, Ok(namespace)) => assert_eq!(namespace.block_size(), 1 << lbads),
            (0..=8 | 17.., Err(NamespaceError::LbaFormatInvalid(format))) => assert_eq!(format.lbads(), lbads),
            (_, result) => panic!("LBADS {lbads}: {result:?}"),
        }
    }
}

#[test]
fn n4_protection_information_is_the_controllers_affair() {
    let bench = Bench::with(NamespaceConfig::ram(1 << 20).protection(PiType::TYPE1));
    let driver = bench.driver(ControllerConfig::default());
    let namespace = bench.run(driver.namespace(1)).expect("a namespace");
    assert_eq!(namespace.protection(), Protection::Type(1));
    assert_eq!((namespace.block_size(), namespace.transfer_block_size()), (512, 512));
    let data = pattern(1, 8 * 512);
    bench.run(namespace.write_slice(0, 3, false, &data)).expect("written");
    let mut back = vec![0; data.len()];
    bench.run(namespace.read_slice(0, 3, &mut back)).expect("read and checked");
    assert_eq!(back, data);
}

#[test]
fn n4_other_metadata_is_refused_until_it_is_asked_for() {
    let carry = NamespaceOptions::default().carry_metadata(true);
    let interleaved = Flbas::new().with_metadata_inline(true);
    let type1 = Dps::new().with_pi_type(PiType::TYPE1);
    let plain = IdentifyNamespace { flbas: interleaved, ..page(&[(9, 8)]) };
    let error = ask(&plain).expect_err("metadata would be lost");
    assert!(matches!(error, NamespaceError::Metadata { bytes: 8 }), "{error:?}");
    let namespace = ask_with(namespaces_are(&plain), carry).expect("metadata are carried");
    assert_eq!((namespace.block_size(), namespace.transfer_block_size()), (512, 520));
    // More than the protection information.
    let more = IdentifyNamespace { dps: type1, ..page(&[(9, 16)]) };
    let error = ask(&more).expect_err("metadata would be lost");
    assert!(matches!(error, NamespaceError::Metadata { bytes: 16 }), "{error:?}");
}

#[test]
fn n5_mdts_counts_the_controllers_smallest_pages() {
    let blocks = |config: ControllerConfig, block_size: u32, option: Option<usize>| {
        let bench = Bench::with(NamespaceConfig::ram(64 << 20).block_size(block_size));
        let options = bench.options(config);
        let options = match option {
            Some(bytes) => options.max_transfer(bytes),
            None => options,
        };
        let driver = bench.run(options.open()).expect("it comes up");
        bench.run(driver.namespace(1)).map(|namespace| namespace.max_transfer_block_count())
    };
    let config = |mpsmin, mdts| ControllerConfig { mpsmin, mdts, ..ControllerConfig::default() };
    assert_eq!(blocks(config(0, 5), 512, None).expect("a namespace"), 256);
    assert_eq!(blocks(config(4, 1), 512, None).expect("a namespace"), 256);
    // No limit from the device: the option's, 2 MiB unless set, and never more than 2^16 blocks.
    assert_eq!(blocks(config(0, 0), 512, None).expect("a namespace"), 4096);
    assert_eq!(blocks(config(0, 0), 512, Some(64 << 20)).expect("a namespace"), 1 << 16);
    assert_eq!(blocks(config(0, 0), 4096, Some(512)).expect("a namespace"), 1);
    let error = blocks(config(0, 3), 65536, None).expect_err("less than a block");
    assert!(matches!(error, NamespaceError::MdtsInvalid { bytes: 32768, block_size: 65536 }), "{error:?}");
}

#[test]
fn n6_a_namespace_has_one_handle_at_a_time() {
    let bench = Bench::new();
    let (driver, namespace) = bench.up();
    let error = bench.run(driver.namespace(1)).expect_err("a handle lives");
    assert!(matches!(error, NamespaceError::DuplicateRequest { nsid: 1 }), "{error:?}");
    drop(namespace);
    let both = futures_lite::future::zip(driver.namespace(1), driver.namespace(1));
    let (first, second) = bench.run(both);
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    // A request that failed, or went away, is in nobody's way.
    drop((first, second));
    let _ = futures_lite::future::block_on(futures_lite::future::poll_once(Box::pin(driver.namespace(1))));
    bench.run(driver.namespace(1)).expect("a handle");
}

#[test]
fn n6_a_namespace_that_comes_back_has_a_new_live_handle() {
    let bench = Bench::new();
    let (driver, old) = bench.up();
    bench.subsystem.remove_namespace(1).expect("removed");
    bench.world.settle();
    bench.subsystem.add_namespace(NamespaceConfig::ram(1 << 20).nsid(1)).expect("added");
    bench.world.settle();
    let new = bench.run(driver.namespace(1)).expect("a new handle");
    assert!(old.is_removed() && !new.is_removed());
    drop(old);
    bench.run(new.flush(0)).expect("alive");
    // The old handle's end does not make the new one forgotten.
    let error = bench.run(driver.namespace(1)).expect_err("a handle lives");
    assert!(matches!(error, NamespaceError::DuplicateRequest { nsid: 1 }), "{error:?}");
    bench.subsystem.resize_namespace(1, 2 << 20).expect("resized");
    bench.world.settle();
    assert_eq!(new.block_count(), 4096);
}

#[test]
fn n7_a_failed_identify_has_its_source() {
    for cns in [Cns::NAMESPACE, Cns::NAMESPACE_DESCRIPTORS] {
        let faults = FaultPlan::on(identify(cns), Fault::fail(Status::INTERNAL_ERROR));
        let error = ask_with(faults, NamespaceOptions::default()).expect_err("Identify fails");
        assert!(matches!(error, NamespaceError::Request(RequestError::Nvme(_))), "{error:?}");
        let source = error.source().and_then(|source| source.downcast_ref::<RequestError>());
        assert_eq!(source.and_then(RequestError::status), Some(Status::INTERNAL_ERROR));
    }
}
