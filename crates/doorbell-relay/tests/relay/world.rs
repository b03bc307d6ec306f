//! A driver, an emulated controller, a driver below it, and another emulated controller: on one thread, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use doorbell::{ErrorClass, GuestMemory, LbaRange, Namespace, NvmeDriver, PagedRange, RequestError};
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::{CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, Subsystem};
use doorbell_relay::{Drive, Drives};
use doorbell_sim::World;
use nvme_spec::{NvmOpcode, Status};

/// Where a guest's memory begins.
const START: u64 = 0x10_0000;
const BLOCK: usize = 4096;

struct Stack {
    world: World,
    below: Subsystem,
    faults: Box<dyn Fn(FaultPlan)>,
    drive: Arc<Drive>,
    above: Subsystem,
    driver: NvmeDriver,
    namespace: Namespace,
    memory: GuestMemory,
}

fn stack() -> Stack {
    stack_of(ControllerConfig::default())
}

/// With a controller below that is like this.
fn stack_of(config: ControllerConfig) -> Stack {
    let world = World::new();
    let below = Subsystem::default();
    below.add_namespace(NamespaceConfig::ram(16 << 20).block_size(BLOCK as u32)).unwrap();
    let device = world.device(&below, config).unwrap();
    let lower = world.options(device.clone());
    let faults = move |plan| device.with_controller(|controller| controller.set_faults(plan));
    let drive = world.run(async { Drives::new().open("below", || Ok(lower)).await }).unwrap();
    let relay = world.run(drive.namespace(1)).unwrap();
    let (above, follower) = (Subsystem::default(), relay.follower());
    let nsid = above.add_namespace(relay.config()).unwrap();
    follower.follow(&**world.runtime(), above.clone(), nsid, || ());
    let device = world.device(&above, ControllerConfig::default()).unwrap();
    let driver = world.run(world.options(device).open()).unwrap();
    let namespace = world.run(driver.namespace(nsid)).unwrap();
    let host = HostMemory::allocate(4 << 20).unwrap();
    let memory = GuestMemory::builder().region(START, host, Access::ReadWrite).build().unwrap();
    let memory = driver.register_memory(&memory).unwrap();
    Stack { world, below, faults: Box::new(faults), drive, above, driver, namespace, memory }
}

impl Stack {
    fn write(&self, lba: u64, at: u64, bytes: &[u8]) -> Result<(), RequestError> {
        self.memory.write_at(at, bytes).unwrap();
        let (pages, offset) = pages(at, bytes.len());
        let range = PagedRange::new(offset, bytes.len(), &pages).unwrap();
        let blocks = (bytes.len() / BLOCK) as u32;
        self.world.run(self.namespace.write(0, lba, blocks, false, &self.memory, range))
    }

    fn read(&self, lba: u64, at: u64, len: usize) -> Result<Vec<u8>, RequestError> {
        let (pages, offset) = pages(at, len);
        let range = PagedRange::new(offset, len, &pages).unwrap();
        self.world.run(self.namespace.read(0, lba, (len / BLOCK) as u32, &self.memory, range))?;
        let mut bytes = vec![0; len];
        self.memory.read_at(at, &mut bytes).unwrap();
        Ok(bytes)
    }

    fn bounced(&self) -> u64 {
        let view = self.drive.driver().inspect();
        view.queues.iter().map(|queue| queue.counters.bounced).sum()
    }
}

fn pages(at: u64, len: usize) -> (Vec<u64>, usize) {
    let first = at / 4096;
    let end = (at + len as u64).div_ceil(4096);
    ((first..end).collect(), (at % 4096) as usize)
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / 4096) as u8 ^ seed).collect()
}

#[test]
fn data_goes_straight_between_the_guest_and_the_drive() {
    let stack = stack();
    for (seed, at, len) in [(1, START, BLOCK), (2, START + 512, 5 * BLOCK), (3, START + 0x10_0000, 512 * BLOCK)] {
        let data = pattern(seed, len);
        stack.write(seed.into(), at, &data).unwrap();
        assert_eq!(stack.read(seed.into(), at + 0x1000, len).unwrap(), data);
    }
    assert_eq!(stack.bounced(), 0, "nothing was copied");
}

#[test]
fn the_namespace_above_is_like_the_one_below() {
    let stack = stack();
    let below = stack.drive.driver().inspect();
    assert_eq!(stack.namespace.block_size(), BLOCK as u32);
    assert_eq!(stack.namespace.block_count(), below.namespaces[0].block_count);
    assert_eq!(stack.namespace.id(), below.namespaces[0].id);
}

#[test]
fn other_commands_go_down_as_they_are() {
    let stack = stack();
    let Stack { world, namespace, .. } = &stack;
    let data = pattern(4, 4 * BLOCK);
    stack.write(8, START, &data).unwrap();
    world.run(namespace.compare_slice(0, 8, &data)).unwrap();
    let differs = world.run(namespace.compare_slice(0, 9, &data)).unwrap_err();
    assert_eq!(differs.class(), ErrorClass::Miscompare);
    world.run(namespace.flush(0)).unwrap();
    world.run(namespace.verify(0, 8, 4)).unwrap();
    world.run(namespace.write_zeroes(0, 8, 1, true, true)).unwrap();
    world.run(namespace.deallocate(0, &[LbaRange { lba: 10, block_count: 1 }])).unwrap();
    let mut expected = data.clone();
    expected[..BLOCK].fill(0);
    expected[2 * BLOCK..3 * BLOCK].fill(0);
    assert_eq!(stack.read(8, START, 4 * BLOCK).unwrap(), expected);
    world.run(namespace.copy(0, 100, &[LbaRange { lba: 8, block_count: 4 }])).unwrap();
    assert_eq!(stack.read(100, START, 4 * BLOCK).unwrap(), expected);
    let (old, new) = (&expected[BLOCK..2 * BLOCK], pattern(5, BLOCK));
    world.run(namespace.compare_and_write(0, 9, old, &new, false)).unwrap();
    let differs = world.run(namespace.compare_and_write(0, 9, old, &new, false)).unwrap_err();
    assert_eq!(differs.class(), ErrorClass::Miscompare);
    assert_eq!(stack.read(9, START, BLOCK).unwrap(), new);
    world.run(namespace.write_uncorrectable(0, 9, 1)).unwrap();
    assert_eq!(stack.read(9, START, BLOCK).unwrap_err().class(), ErrorClass::Medium);
}

#[test]
fn statuses_come_up_as_they_are() {
    let stack = stack();
    for status in [Status::UNRECOVERED_READ_ERROR, Status::NAMESPACE_NOT_READY, Status::ACCESS_DENIED] {
        (stack.faults)(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), Fault::fail(status)));
        assert_eq!(stack.read(0, START, BLOCK).unwrap_err().status(), Some(status));
    }
}

#[test]
fn what_a_drive_lacks_is_refused_by_the_namespace() {
    let mut config = ControllerConfig::default();
    config.oncs.set_verify(false);
    let stack = stack_of(config);
    let refused = stack.world.run(stack.namespace.verify(0, 0, 1)).unwrap_err();
    assert_eq!(refused.status(), Some(Status::INVALID_COMMAND_OPCODE));
}

#[test]
fn a_drive_of_small_transfers_gets_large_ones_in_parts() {
    let stack = stack_of(ControllerConfig { mdts: 2, ..ControllerConfig::default() });
    let data = pattern(6, 100 * BLOCK);
    stack.write(1, START + 1024, &data).unwrap();
    assert_eq!(stack.read(1, START, 100 * BLOCK).unwrap(), data);
}

#[test]
fn a_new_size_and_the_end_come_up() {
    let stack = stack();
    let old = stack.namespace.block_count();
    stack.below.resize_namespace(1, 32 << 20).unwrap();
    assert_eq!(stack.world.run(stack.namespace.wait_resize(old)).unwrap(), 2 * old);
    let last = 2 * old - 1;
    stack.write(last, START, &pattern(7, BLOCK)).unwrap();
    assert!(stack.above.resize_namespace(1, 1 << 20).is_err(), "its size is that of the one below");
    stack.below.remove_namespace(1).unwrap();
    stack.world.run(stack.namespace.wait_removed());
    assert!(stack.namespace.is_removed());
    assert!(stack.above.namespaces().is_empty());
}

#[test]
fn a_namespace_that_is_given_up_can_be_had_again() {
    let stack = stack();
    stack.above.remove_namespace(1).unwrap();
    stack.world.run(stack.namespace.wait_removed());
    stack.world.settle();
    let again = stack.world.run(stack.drive.namespace(1)).unwrap();
    assert_eq!(again.namespace().block_count(), 4096);
}

#[test]
fn a_reset_waits_for_the_drive() {
    let stack = stack();
    // The queues are there, so that the next read goes out in its first poll.
    stack.read(0, START, BLOCK).unwrap();
    let slow = Fault::Delay { microseconds: 2_000_000 };
    (stack.faults)(FaultPlan::on(CommandMatch::io(NvmOpcode::READ.0), slow));
    let (pages, _) = pages(START, BLOCK);
    let range = PagedRange::new(0, BLOCK, &pages).unwrap();
    let begun = stack.world.now();
    let ended = stack.world.run(async {
        let mut read = stack.namespace.read(0, 0, 1, &stack.memory, range);
        let in_flight =
            std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut read).poll(context)));
        assert!(in_flight.await.is_pending());
        stack.world.sleep(Duration::from_millis(1)).await;
        stack.driver.reset_controller().await.unwrap();
        let reset = stack.world.now();
        read.await.unwrap();
        reset
    });
    assert!(ended - begun >= Duration::from_secs(2), "the drive had the guest's memory until then");
}
