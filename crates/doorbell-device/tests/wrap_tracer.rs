//! The tracer around a device that is brought up.

mod common;

use common::Driver;
use doorbell_device::wrap::{Tracer, What};
use doorbell_device::zero_work::{Options, ZeroWork};
use doorbell_device::{Access, Device, HostMemory, MapRequest};
use nvme_spec::registers::offset;
use nvme_spec::{AdminOpcode, Command};

#[test]
fn everything_is_written_down_in_order() {
    let device = Tracer::new(ZeroWork::new(Options { interrupts: 1, ..Options::default() }).unwrap(), 1000);
    let vector = device.interrupt(0).unwrap();
    let mut driver = Driver::new(device.clone());
    driver.admin(AdminOpcode::ABORT, Command::default());
    vector.take();
    device.reset().unwrap();
    device.read32(0x1001).unwrap_err();
    drop(driver);

    let events = device.events();
    assert!(events.iter().zip(1..).all(|(event, sequence)| event.sequence == sequence));
    let at = |what: &dyn Fn(&What) -> bool| events.iter().position(|event| what(&event.what)).unwrap();
    let steps = [
        at(&|what| *what == What::Interrupt { vector: 0 }),
        at(&|what| matches!(what, What::Map { len: 4096, access: Access::ReadWrite, .. })),
        at(&|what| matches!(what, What::Write { offset: offset::ASQ, len: 8, .. })),
        at(&|what| matches!(what, What::Write { offset: offset::CC, len: 4, .. })),
        at(&|what| matches!(what, What::Read { offset: offset::CSTS, value: 1, .. })),
        at(&|what| *what == What::Doorbell { offset: 0x1000, value: 1 }),
        at(&|what| *what == What::Raised { vector: 0 }),
        at(&|what| *what == What::Doorbell { offset: 0x1040, value: 1 }),
        at(&|what| *what == What::Taken { vector: 0, count: 1 }),
        at(&|what| *what == What::Reset),
        at(&|what| matches!(what, What::Failed { call: "read32", .. })),
        at(&|what| matches!(what, What::Unmap { len: 4096, .. })),
    ];
    assert!(steps.is_sorted(), "{steps:?}\n{device}");
    assert!(device.to_string().contains("write32  CC = 460001h"), "{device}");
}

#[test]
fn only_the_latest_events_are_kept() {
    let device = Tracer::new(ZeroWork::new(Options::default()).unwrap(), 3);
    for _ in 0..5 {
        device.read32(offset::VS).unwrap();
    }
    let kept: Vec<u64> = device.events().iter().map(|event| event.sequence).collect();
    assert_eq!((kept, device.count()), (vec![3, 4, 5], 5));
    device.clear();
    assert!(device.events().is_empty());
}

#[test]
fn a_vector_is_watched_once_however_often_it_is_asked_for() {
    let device = Tracer::new(ZeroWork::new(Options { interrupts: 1, ..Options::default() }).unwrap(), 10);
    device.interrupt(0).unwrap();
    device.interrupt(0).unwrap().raise();
    assert_eq!(device.count(), 3);
}

#[test]
fn tracers_stack_and_pass_memory_on() {
    let bottom = ZeroWork::new(Options::default()).unwrap();
    let device = Tracer::new(Tracer::new(bottom.clone(), 10), 10);
    let host = HostMemory::allocate(8192).unwrap();
    let request = MapRequest { host: host.clone(), access: Access::Read, align: 4096, offset: 0 };
    let memory = device.map(request).unwrap();
    host.write_at(5000, b"x").unwrap();
    let mut seen = [0];
    bottom.dma_space().view().read(memory.iova() + 5000, &mut seen).unwrap();
    assert_eq!(seen, *b"x");
    let iova = memory.iova();
    drop(memory);
    assert!(bottom.dma_space().view().read(iova, &mut seen).is_err());
}
