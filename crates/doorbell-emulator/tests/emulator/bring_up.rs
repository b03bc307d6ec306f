//! Registers: enabling, disabling, shutting down, resetting.

use std::time::Duration;

use doorbell_device::Device;
use doorbell_emulator::{ControllerConfig, Subsystem};
use nvme_spec::identify::{IdentifyController, IdentifyNamespace, NamespaceList};
use nvme_spec::registers::{Aqa, Cc, Csts, NSSR_MAGIC, Version, offset};

use crate::harness::{Host, host};

#[test]
fn comes_up_and_identifies() {
    let mut host = host();
    let controller: IdentifyController = host.identify_as(1, 0);
    assert_eq!(controller.sn.as_str(), "DOORBELL0001");
    assert_eq!(controller.ver, Version::V2_0);
    let namespace: IdentifyNamespace = host.identify_as(0, 1);
    assert_eq!(namespace.nsze, (64 << 20) / 4096);
    assert_eq!(namespace.lba_format().unwrap().lbads(), 12);
    let list: NamespaceList = host.identify_as(2, 0);
    assert!(list.iter().eq([1]));
}

#[test]
fn takes_its_time_to_become_ready() {
    let config = ControllerConfig {
        ready_after: Duration::from_millis(3),
        disable_after: Duration::from_millis(2),
        ..ControllerConfig::default()
    };
    let mut host = Host::off(&Subsystem::default(), config);
    host.pass(Duration::from_secs(1));
    host.set_up_admin();
    host.write_cc(host.cc());
    assert_eq!(host.step().wake_at, Some(Duration::from_millis(1003)));
    assert!(!host.csts().rdy());
    host.pass(Duration::from_millis(2));
    assert!(!host.csts().rdy());
    host.pass(Duration::from_millis(1));
    assert!(host.csts().rdy());
    host.write_cc(host.cc().with_en(false));
    host.step();
    assert!(host.csts().rdy());
    host.pass(Duration::from_millis(2));
    assert!(!host.csts().rdy());
}

#[test]
fn what_cannot_be_enabled_is_fatal() {
    let wrong: [fn(&Host) -> Cc; 4] = [
        |host| host.cc().with_mps(5),
        |host| host.cc().with_css(Cc::CSS_ALL),
        |host| host.cc().with_ams(1),
        |host| host.cc().with_crime(true),
    ];
    for wrong in wrong {
        let mut host = Host::off(&Subsystem::default(), ControllerConfig::default());
        host.set_up_admin();
        host.write_cc(wrong(&host));
        host.step();
        assert!(host.csts().cfs() && !host.csts().rdy());
        host.disable();
        host.enable();
        assert!(!host.csts().cfs());
    }
    let mut host = Host::off(&Subsystem::default(), ControllerConfig::default());
    host.set_up_admin();
    host.device.write32(offset::AQA, Aqa::new().with_asqs(0).with_acqs(31).into_bits()).unwrap();
    host.write_cc(host.cc());
    host.step();
    assert!(host.csts().cfs());
}

#[test]
fn an_unreachable_admin_queue_is_fatal() {
    let mut host = host();
    // Its memory is freed under it.
    host.admin.sq = host.allocate(4096);
    host.admin.tail_bell.ring(1 + host.admin.tail);
    host.step();
    assert!(host.csts().cfs());
}

#[test]
fn shuts_down_and_comes_back() {
    for shn in [Cc::SHN_NORMAL, Cc::SHN_ABRUPT] {
        let config = ControllerConfig { shutdown_after: Duration::from_millis(5), ..ControllerConfig::default() };
        let mut host = Host::new(config);
        host.write_cc(host.cc().with_shn(shn));
        host.step();
        assert_eq!(host.csts().shst(), Csts::SHST_OCCURRING);
        host.pass(Duration::from_millis(5));
        assert_eq!(host.csts().shst(), Csts::SHST_COMPLETE);
        host.disable();
        host.enable();
        assert_eq!(host.csts().shst(), Csts::SHST_NONE);
        assert!(host.identify(1, 0).is_ok());
    }
}

#[test]
fn subsystem_reset_takes_all_controllers() {
    let subsystem = Subsystem::default();
    let first = Host::enabled(&subsystem, ControllerConfig::default());
    let mut second = Host::enabled(&subsystem, ControllerConfig::default());
    first.device.write32(offset::NSSR, NSSR_MAGIC).unwrap();
    // At once for whoever looks, whether the controller has run since or not.
    for host in [&first, &second] {
        assert_eq!(host.csts(), Csts::new().with_nssro(true));
        assert_eq!(host.device.read64(offset::ASQ).unwrap(), 0);
    }
    second.device.write32(offset::CSTS, Csts::new().with_nssro(true).into_bits()).unwrap();
    assert!(!second.csts().nssro());
    second.enable();
    assert!(second.identify(1, 0).is_ok());
}

#[test]
fn function_reset_forgets_everything() {
    let mut host = host();
    host.device.reset().unwrap();
    assert_eq!(host.device.read32(offset::CC).unwrap(), 0);
    assert_eq!(host.csts(), Csts::new());
    assert_eq!(host.device.read32(offset::AQA).unwrap(), 0);
    host.enable();
    assert!(host.identify(1, 0).is_ok());
}

#[test]
fn registers_read_as_they_should() {
    let host = Host::off(&Subsystem::default(), ControllerConfig { dstrd: 4, mqes: 7, ..Default::default() });
    let cap = host.cap();
    assert_eq!((cap.mqes(), cap.dstrd(), cap.cqr(), cap.to()), (7, 4, true, 20));
    assert!(!cap.cmbs() && !cap.pmrs());
    assert_eq!(host.device.read32(offset::CAP + 4).unwrap(), (cap.into_bits() >> 32) as u32);
    assert_eq!(host.device.read32(offset::VS).unwrap(), Version::V2_0.into_bits());
    assert_eq!(host.device.read32(offset::CRTO).unwrap(), 20);
    for register in [offset::CMBLOC, offset::CMBSZ, offset::PMRCAP, offset::NSSR] {
        assert_eq!(host.device.read32(register).unwrap(), 0);
    }
    // Two halves, the upper one alone, and the low bits that are not there.
    host.device.write32(offset::ASQ, 0x1234_5fff).unwrap();
    host.device.write32(offset::ASQ + 4, 7).unwrap();
    assert_eq!(host.device.read64(offset::ASQ).unwrap(), 0x7_1234_5000);
}

#[test]
fn what_came_before_enabling_is_no_event() {
    let mut host = host();
    host.disable();
    host.subsystem.add_namespace(doorbell_emulator::NamespaceConfig::ram(1 << 20)).unwrap();
    host.enable();
    host.submit(0, &nvme_spec::AdminOpcode::ASYNC_EVENT_REQUEST.command());
    host.step();
    assert!(host.ring(0).peek().is_none());
    host.subsystem.remove_namespace(2).unwrap();
    host.step();
    assert!(host.ring(0).peek().is_some());
}
