//! The driver, through the client, to a server that nobody here wrote.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use doorbell::{CompletionMode, DriverOptions, GuestMemory, PagedRange, RequestError, ShadowDoorbells};
use doorbell_device::{Access, Device, DeviceError, HostMemory, MapRequest};
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::block_on;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::foreign::Foreign;

const BYTES: usize = 256 << 10;
/// Where the guest's memory begins, and where data are read to.
const START: u64 = 0x10000;
const TO: u64 = 0x11_0000;

fn open(server: &Foreign) -> Arc<VfioUserDevice> {
    VfioUserDevice::open(VfioUserOptions::new(&server.path).timeout(Duration::from_secs(5))).unwrap()
}

/// Writes and reads back on each of 3 CPUs.
async fn write_and_read(options: DriverOptions, memory: GuestMemory, register: bool) {
    let driver = options.cpus(3).open().await.unwrap();
    let namespace = driver.namespace(1).await.unwrap();
    let memory = if register { driver.register_memory(&memory).unwrap() } else { memory };
    let pages = |start: u64| (start / 4096..).take(BYTES / 4096).collect::<Vec<u64>>();
    let (from, to) = (pages(START), pages(TO));
    for cpu in 0..3 {
        let pattern: Vec<u8> = (0..BYTES).map(|at| (at / 7 + cpu as usize) as u8).collect();
        memory.write_at(START, &pattern).unwrap();
        let blocks = (BYTES / namespace.block_size() as usize) as u32;
        let from = PagedRange::new(0, BYTES, &from).unwrap();
        let to = PagedRange::new(0, BYTES, &to).unwrap();
        namespace.write(cpu, 1000, blocks, false, &memory, from).await.unwrap();
        namespace.read(cpu, 1000, blocks, &memory, to).await.unwrap();
        let mut back = vec![0; BYTES];
        memory.read_at(TO, &mut back).unwrap();
        assert!(back == pattern, "what is read is what was written");
    }
    driver.shutdown().await;
}

fn memory_in_a_file() -> GuestMemory {
    let host = HostMemory::allocate(8 << 20).unwrap();
    GuestMemory::builder().region(START, host, Access::ReadWrite).build().unwrap()
}

fn exercise(mappable: bool, mode: CompletionMode) {
    let server = Foreign::start(mappable);
    let device = open(&server);
    let options = DriverOptions::new(device.clone()).completion(mode);
    block_on(write_and_read(options, memory_in_a_file(), true));
    assert_eq!(server.switched_on(), (0x6, 0x80), "memory and bus mastering; MSI-X");
    let by_message = server.shared.doorbell_messages.load(Ordering::SeqCst);
    assert_eq!(by_message == 0, mappable, "{by_message} doorbells came as messages");
    drop(device);
    assert_eq!(server.join().maps.load(Ordering::SeqCst), 0, "everything was unmapped");
}

#[test]
fn doorbells_are_stores_and_completions_interrupts() {
    exercise(true, CompletionMode::Interrupt);
}

#[test]
fn doorbells_are_messages_where_they_cannot_be_mapped() {
    exercise(false, CompletionMode::Interrupt);
    exercise(false, CompletionMode::Polling);
}

/// So many commands in flight, again and again; how many doorbells came as messages.
fn messages(shadows: ShadowDoorbells, in_flight: usize) -> u64 {
    const COMMANDS: usize = 960;
    let server = Foreign::start(false);
    let device = open(&server);
    let options = DriverOptions::new(device).cpus(1).completion(CompletionMode::Polling).shadow_doorbells(shadows);
    let count = block_on(async {
        let driver = options.open().await.unwrap();
        let namespace = driver.namespace(1).await.unwrap();
        namespace.flush(0).await.unwrap();
        let before = server.shared.doorbell_messages.load(Ordering::SeqCst);
        for _ in 0..COMMANDS / in_flight {
            let mut pending: Vec<_> = (0..in_flight).map(|_| Box::pin(namespace.flush(0))).collect();
            poll_fn(|context| {
                pending.retain_mut(|flush| flush.as_mut().poll(context).map(Result::unwrap).is_pending());
                if pending.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
        }
        let count = server.shared.doorbell_messages.load(Ordering::SeqCst) - before;
        driver.shutdown().await;
        count
    });
    server.join();
    count
}

#[test]
fn shadow_doorbells_save_messages() {
    for in_flight in [1, 16] {
        let with = messages(ShadowDoorbells::default(), in_flight);
        let without = messages(ShadowDoorbells::Never, in_flight);
        assert!(with < without, "{in_flight} in flight: {with} with shadows, {without} without");
    }
}

#[test]
fn memory_without_a_file_is_refused_by_name_and_bounces() {
    let server = Foreign::start(true);
    let device = open(&server);
    let mmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(START), 8 << 20)]).unwrap();
    let memory = GuestMemory::new(&mmap).unwrap();
    block_on(async {
        let driver = DriverOptions::new(device.clone()).cpus(1).open().await.unwrap();
        let error = driver.register_memory(&memory).unwrap_err();
        let RequestError::Device(source) = &error else { panic!("{error}") };
        assert!(matches!(&**source, DeviceError::Unmappable { reason, .. } if reason.contains("memfd")), "{error}");
        driver.shutdown().await;
    });
    block_on(write_and_read(DriverOptions::new(device), memory, false));
    server.join();
}

#[test]
fn what_lies_side_by_side_in_a_file_is_one_mapping() {
    let server = Foreign::start(true);
    let device = open(&server);
    let file = HostMemory::allocate(16 << 20).unwrap();
    let part = |offset: usize, len: usize| file.part(offset << 20, len << 20).unwrap();
    let maps = || server.shared.maps.load(Ordering::SeqCst);
    // As a guest's memory below and above a hole; the third is elsewhere in the file, the fourth not for writing.
    let request = |host, access| MapRequest { host, access, align: 2 << 20, offset: 0 };
    let parts = [(0, 4, true), (4, 4, true), (10, 2, true), (12, 2, false)];
    let access = |writable| if writable { Access::ReadWrite } else { Access::Read };
    let requests = parts.map(|(offset, len, writable)| request(part(offset, len), access(writable)));
    let mut mapped = device.map_all(requests.into()).unwrap();
    assert_eq!(maps(), 3);
    assert_eq!(mapped[1].iova(), mapped[0].iova() + (4 << 20));
    assert!(mapped.iter().all(|memory| memory.iova().is_multiple_of(2 << 20)));
    // The device has it until nothing of it is used.
    mapped.remove(0);
    assert_eq!(maps(), 3);
    mapped.remove(0);
    assert_eq!(maps(), 2);
    drop(mapped);
    assert_eq!(maps(), 0);
    drop(device);
    server.join();
}

#[test]
fn small_allocations_share_few_mappings() {
    let server = Foreign::start(true);
    let device = open(&server);
    // The queues of 64 CPUs, and more.
    let memory: Vec<_> =
        (0..130).map(|i| device.allocate(if i % 2 == 0 { 1200 << 10 } else { 512 << 10 }, 4096).unwrap()).collect();
    let maps = server.shared.maps.load(Ordering::SeqCst);
    assert!(maps <= 10, "{maps} mappings");
    let mut ranges: Vec<_> = memory.iter().map(|memory| (memory.iova(), memory.len() as u64)).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "they do not overlap");
    drop(memory);
    assert_eq!(server.shared.maps.load(Ordering::SeqCst), 0);
    drop(device);
    server.join();
}
