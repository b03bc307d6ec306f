//! Interrupts, shadow doorbells, arbitration.

use std::sync::atomic::Ordering;
use std::time::Duration;

use doorbell_device::{Device, DmaMemory};
use doorbell_emulator::{ControllerConfig, InterruptMode};
use nvme_spec::admin::{create_io_cq, create_io_sq};
use nvme_spec::feature::{FeatureId, InterruptCoalescing, InterruptVectorConfiguration};
use nvme_spec::registers::offset;
use nvme_spec::{AdminOpcode, Command, DataPointer, NvmOpcode, Status};

use crate::harness::{Host, Ring, host, io_command};

fn flush() -> Command {
    io_command(NvmOpcode::FLUSH)
}

fn queue(host: &mut Host, qid: u16, vector: Option<u16>) {
    let ring = Ring::new(&*host.device, qid, 64, 64, host.page, host.dstrd);
    host.admin_ok(&create_io_cq(qid, 64, ring.cq.iova(), vector));
    host.admin_ok(&create_io_sq(qid, 64, ring.sq.iova(), qid));
    host.io.push(ring);
}

#[test]
fn once_for_a_batch_and_only_where_enabled() {
    let mut host = host();
    queue(&mut host, 2, Some(5));
    queue(&mut host, 3, None);
    let vectors: Vec<_> = (0..8).map(|vector| host.device.interrupt(vector).unwrap()).collect();
    let taken = |vectors: &[doorbell_device::Interrupt]| vectors.iter().map(|v| v.take()).collect::<Vec<_>>();
    taken(&vectors);
    for qid in [2, 3] {
        for _ in 0..20 {
            host.submit(qid, &flush());
        }
    }
    host.step();
    assert_eq!(taken(&vectors), [0, 0, 0, 0, 0, 1, 0, 0]);
}

/// 4 completions or 200 µs; but at once on a vector that says so.
#[test]
fn coalescing_waits_for_as_many_or_as_long_as_was_set() {
    let mut host = host();
    queue(&mut host, 2, Some(5));
    queue(&mut host, 3, Some(6));
    let set = |fid: FeatureId, cdw11| Command { cdw10: fid.0.into(), cdw11, ..AdminOpcode::SET_FEATURES.command() };
    let coalescing = InterruptCoalescing::new().with_thr(3).with_time(2);
    host.admin_ok(&set(FeatureId::INTERRUPT_COALESCING, coalescing.into()));
    let at_once = InterruptVectorConfiguration::new().with_iv(6).with_cd(true);
    host.admin_ok(&set(FeatureId::INTERRUPT_VECTOR_CONFIGURATION, at_once.into()));
    let [gathered, at_once] = [5, 6].map(|vector| host.device.interrupt(vector).unwrap());
    let (ms, us) = (Duration::from_millis(1), Duration::from_micros(1));
    host.pass(ms);
    for (qid, commands) in [(2, 3), (3, 1)] {
        for _ in 0..commands {
            host.submit(qid, &flush());
        }
    }
    host.step();
    assert_eq!((gathered.take(), at_once.take()), (0, 1));
    // The fourth.
    host.submit(2, &flush());
    host.step();
    assert_eq!(gathered.take(), 1);
    assert_eq!(host.pass(ms).wake_at, None);
    assert_eq!(gathered.take(), 0);
    // Or time.
    host.submit(2, &flush());
    let wake_at = host.step().wake_at.unwrap();
    host.pass(199 * us);
    assert_eq!(gathered.take(), 0);
    assert_eq!(host.pass(us).wake_at, None);
    assert_eq!((gathered.take(), host.now), (1, wake_at));
    // A reset forgets all of it.
    host.submit(2, &flush());
    host.step();
    host.disable();
    host.pass(ms);
    assert_eq!(gathered.take(), 0);
}

#[test]
fn without_vectors_it_is_polled() {
    let mut host = Host::new(ControllerConfig { vectors: 0, ..Default::default() });
    assert_eq!(host.device.interrupt_count(), 0);
    let memory = host.allocate(4096);
    host.admin_fails(&create_io_cq(2, 4, memory.iova(), Some(1)), Status::INVALID_INTERRUPT_VECTOR);
    host.io_ok(&flush());
}

#[test]
fn masked_interrupts_come_when_unmasked() {
    let config = ControllerConfig { interrupts: InterruptMode::Msi, vectors: 4, ..Default::default() };
    let mut host = Host::new(config);
    queue(&mut host, 2, Some(3));
    let interrupt = host.device.interrupt(3).unwrap();
    host.device.write32(offset::INTMS, 1 << 3).unwrap();
    assert_eq!(host.device.read32(offset::INTMC).unwrap(), 1 << 3);
    host.run(2, &flush());
    assert_eq!(interrupt.take(), 0);
    host.device.write32(offset::INTMC, 1 << 3).unwrap();
    host.step();
    assert_eq!(interrupt.take(), 1);
    // With MSI-X the registers do nothing.
    let msix = self::host();
    msix.device.write32(offset::INTMS, 1).unwrap();
    assert_eq!(msix.device.read32(offset::INTMS).unwrap(), 0);
}

#[test]
fn the_pin_stays_while_there_is_something() {
    let config = ControllerConfig { interrupts: InterruptMode::Pin, ..Default::default() };
    let mut host = Host::new(config);
    assert_eq!(host.device.interrupt_count(), 1);
    let pin = host.device.interrupt(0).unwrap();
    pin.take();
    host.submit(1, &flush());
    host.step();
    assert_eq!(pin.take(), 1);
    host.device.write32(offset::INTMS, 1).unwrap();
    host.device.write32(offset::INTMC, 1).unwrap();
    host.step();
    assert_eq!(pin.take(), 1);
    host.ring(1).pop().unwrap();
    host.device.write32(offset::INTMS, 1).unwrap();
    host.device.write32(offset::INTMC, 1).unwrap();
    host.step();
    assert_eq!(pin.take(), 0);
}

struct Shadow {
    values: DmaMemory,
    events: DmaMemory,
}

impl Shadow {
    fn new(host: &mut Host) -> Self {
        let shadow = Self { values: host.allocate(4096), events: host.allocate(4096) };
        let dptr = DataPointer::prp(shadow.values.iova(), shadow.events.iova());
        host.admin_ok(&Command { dptr, ..AdminOpcode::DOORBELL_BUFFER_CONFIG.command() });
        shadow
    }

    fn set(&self, index: usize, value: u32) {
        self.values.host().dwords()[index].store(value, Ordering::Release);
    }

    fn event(&self, index: usize) -> u32 {
        self.events.host().dwords()[index].load(Ordering::Acquire)
    }
}

#[test]
fn shadow_doorbells_are_enough() {
    let mut host = host();
    host.io_ok(&flush());
    let shadow = Shadow::new(&mut host);
    // What was there before goes on.
    assert_eq!(shadow.values.host().dwords()[2].load(Ordering::Acquire), 1);
    for round in 2..10 {
        let cid = host.cid();
        let command = Command { cdw0: flush().cdw0.with_cid(cid), ..flush() };
        let ring = host.ring(1);
        ring.push(&command);
        shadow.set(2, ring.tail);
        host.step();
        assert_eq!(host.ring(1).pop().unwrap().cid, cid);
        // The host is asked to ring for the next one.
        assert_eq!(shadow.event(2), round);
    }
    // The admin queue has none.
    assert!(host.identify(1, 0).is_ok());
    // A queue made later has one from the start.
    queue(&mut host, 2, None);
    let command = Command { cdw0: flush().cdw0.with_cid(7), ..flush() };
    host.ring(2).push(&command);
    shadow.set(4, 1);
    host.step();
    assert_eq!(host.ring(2).peek().unwrap().cid, 7);
}

#[test]
fn a_shadow_that_goes_away_is_fatal() {
    let mut host = host();
    let shadow = Shadow::new(&mut host);
    drop(shadow);
    host.step();
    assert!(host.csts().cfs());
}

#[test]
fn shadow_buffers_are_checked() {
    let mut host = host();
    let memory = host.allocate(8192);
    let at = memory.iova();
    for (values, events) in [(0, at), (at, 0), (at, at), (at + 8, at + 4096)] {
        let dptr = DataPointer::prp(values, events);
        let command = Command { dptr, ..AdminOpcode::DOORBELL_BUFFER_CONFIG.command() };
        host.admin_fails(&command, Status::INVALID_FIELD_IN_COMMAND);
    }
    let nowhere = DataPointer::prp(0x1000, 0x2000);
    let command = Command { dptr: nowhere, ..AdminOpcode::DOORBELL_BUFFER_CONFIG.command() };
    host.admin_fails(&command, Status::DATA_TRANSFER_ERROR);
}

#[test]
fn several_submission_queues_share_a_completion_queue() {
    let mut host = host();
    let ring = Ring::new(&*host.device, 9, 16, 16, host.page, host.dstrd);
    host.admin_ok(&create_io_sq(9, 16, ring.sq.iova(), 1));
    host.io.push(ring);
    let other = host.submit(9, &flush());
    let own = host.submit(1, &flush());
    host.step();
    let got: Vec<(u16, u16)> = std::iter::from_fn(|| host.ring(1).pop()).map(|c| (c.sqid, c.cid)).collect();
    assert_eq!(got, [(1, own), (9, other)]);
}
