//! Driver, socket, server, driver, socket, server, file: each in its threads.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use doorbell::{DriverError, DriverOptions, ErrorClass, GuestMemory, Namespace, NvmeDriver, PagedRange, ThreadRuntime};
use doorbell_device::{Access, HostMemory};
use doorbell_emulator::{ControllerConfig, NamespaceConfig, Subsystem};
use doorbell_relay::Drives;
use doorbell_serve::Endpoint;
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::block_on;

const SIZE: u64 = 8 << 20;
const START: u64 = 0x10_0000;
/// Bytes of a guest's memory.
const MEMORY: usize = 4 << 20;

struct Chain {
    directory: tempfile::TempDir,
    file_side: Subsystem,
    inner: Option<Endpoint>,
    drives: Drives,
    outer: Arc<Endpoint>,
}

fn options(socket: &Path) -> Result<DriverOptions, DriverError> {
    let device = VfioUserDevice::open(VfioUserOptions::new(socket).timeout(Duration::from_secs(10)));
    Ok(DriverOptions::new(device.unwrap()).cpus(2))
}

fn config() -> ControllerConfig {
    ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() }
}

fn chain() -> Chain {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::File::create(at("disk")).unwrap().set_len(SIZE).unwrap();
    let file_side = Subsystem::default();
    file_side.add_namespace(NamespaceConfig::file(at("disk"))).unwrap();
    let inner = Endpoint::start(&at("inner"), &file_side, config()).unwrap();
    let drives = Drives::new();
    let drive = block_on(drives.open("inner", || options(&at("inner")))).unwrap();
    let relay = block_on(drive.namespace(1)).unwrap();
    let (guest_side, follower) = (Subsystem::default(), relay.follower());
    let nsid = guest_side.add_namespace(relay.config()).unwrap();
    let outer = Arc::new(Endpoint::start(&at("outer"), &guest_side, config()).unwrap());
    let wakes = Arc::downgrade(&outer);
    follower.follow(&*ThreadRuntime::global(), guest_side, nsid, move || {
        if let Some(outer) = wakes.upgrade() {
            outer.wake();
        }
    });
    Chain { directory, file_side, inner: Some(inner), drives, outer }
}

impl Chain {
    fn connect(&self) -> (NvmeDriver, Namespace, GuestMemory) {
        while self.outer.statistics().connected {
            std::thread::yield_now();
        }
        let options = options(&self.directory.path().join("outer")).unwrap();
        block_on(async {
            let driver = options.open().await.unwrap();
            let namespace = driver.namespace(1).await.unwrap();
            let host = HostMemory::allocate(MEMORY).unwrap();
            let memory = GuestMemory::builder().region(START, host, Access::ReadWrite).build().unwrap();
            let memory = driver.register_memory(&memory).unwrap();
            (driver, namespace, memory)
        })
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// Writes and reads back, several at a time, on a CPU's queue: each job has its own part of namespace and memory.
async fn exercise(namespace: &Namespace, memory: &GuestMemory, cpu: u32) {
    const PART: usize = 256 << 10;
    for round in 0..8u64 {
        let jobs = (0..4u64).map(|job| async move {
            let len = [512, 4096, 65536, PART][(job + round) as usize % 4];
            let place = u64::from(cpu) * 4 + job;
            let (lba, at) = (place * 2048 + round, START + place * PART as u64);
            let pages: Vec<u64> = (at / 4096..).take(PART / 4096).collect();
            let range = PagedRange::new(0, len, &pages).unwrap();
            let data = pattern(round * 100 + place + 1, len);
            memory.write_at(at, &data).unwrap();
            let blocks = (len / 512) as u32;
            namespace.write(cpu, lba, blocks, round % 2 == 0, memory, range).await.unwrap();
            memory.write_at(at, &vec![0; len]).unwrap();
            namespace.read(cpu, lba, blocks, memory, range).await.unwrap();
            let mut back = vec![0; len];
            memory.read_at(at, &mut back).unwrap();
            assert!(back == data, "round {round}, job {job} on CPU {cpu}");
        });
        let mut jobs: Vec<_> = jobs.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            jobs.retain_mut(|job| job.as_mut().poll(context).is_pending());
            if jobs.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        namespace.flush(cpu).await.unwrap();
    }
}

#[test]
fn what_is_written_at_one_end_is_in_the_file_at_the_other() {
    let chain = chain();
    let (driver, namespace, memory) = chain.connect();
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let (namespace, memory) = (&namespace, &memory);
            scope.spawn(move || block_on(exercise(namespace, memory, cpu)));
        }
    });
    let data = pattern(99, 64 << 10);
    block_on(async {
        namespace.write_slice(0, 12345, true, &data).await.unwrap();
        driver.shutdown().await;
    });
    drop((namespace, memory));
    let disk = std::fs::read(chain.directory.path().join("disk")).unwrap();
    assert!(disk[12345 * 512..][..64 << 10] == data[..]);
    // A client that comes after finds it as well.
    let (driver, namespace, _memory) = chain.connect();
    block_on(async {
        let mut back = vec![0; 64 << 10];
        namespace.read_slice(1, 12345, &mut back).await.unwrap();
        assert!(back == data);
        driver.shutdown().await;
        chain.drives.shut_down().await;
    });
}

#[test]
fn memory_is_given_back_all_the_way_down() {
    let chain = chain();
    let inner = chain.inner.as_ref().unwrap();
    let (driver, namespace, memory) = chain.connect();
    let before = inner.statistics().mapped_bytes;
    let (reading, stop) = (&namespace, &std::sync::atomic::AtomicBool::new(false));
    let pages: Vec<u64> = (START / 4096..).take(16).collect();
    std::thread::scope(|scope| {
        let memory = &memory;
        let reader = scope.spawn(move || {
            block_on(async {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let range = PagedRange::new(0, 65536, &pages).unwrap();
                    if reading.read(1, 0, 128, memory, range).await.is_err() {
                        break;
                    }
                }
            });
        });
        // Reads are under way in it until it goes.
        while inner.statistics().mapped_bytes < before + MEMORY as u64 {
            std::thread::yield_now();
        }
        block_on(driver.unregister_memory(memory));
        // The count comes after the answer.
        while inner.statistics().mapped_bytes > before {
            std::thread::yield_now();
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        reader.join().unwrap();
    });
    block_on(exercise_slices(&namespace));
    drop(driver);
}

async fn exercise_slices(namespace: &Namespace) {
    let data = pattern(5, 8192);
    namespace.write_slice(0, 3, false, &data).await.unwrap();
    let mut back = vec![0; 8192];
    namespace.read_slice(0, 3, &mut back).await.unwrap();
    assert_eq!(back, data);
}

#[test]
fn resize_and_removal_reach_the_far_end() {
    let chain = chain();
    let inner = chain.inner.as_ref().unwrap();
    let (_driver, namespace, _memory) = chain.connect();
    let old = namespace.block_count();
    chain.file_side.resize_namespace(1, 2 * SIZE).unwrap();
    inner.wake();
    assert_eq!(block_on(namespace.wait_resize(old)).unwrap(), 2 * old);
    block_on(namespace.write_slice(0, 2 * old - 1, true, &pattern(1, 512))).unwrap();
    chain.file_side.remove_namespace(1).unwrap();
    inner.wake();
    block_on(namespace.wait_removed());
    assert!(namespace.is_removed());
}

#[test]
fn a_drive_that_dies_ends_its_namespace_in_errors_not_in_silence() {
    let mut chain = chain();
    let (driver, namespace, memory) = chain.connect();
    let pages: Vec<u64> = (START / 4096..).take(16).collect();
    let range = PagedRange::new(0, 65536, &pages).unwrap();
    block_on(namespace.read(0, 0, 128, &memory, range)).unwrap();
    std::thread::scope(|scope| {
        let (namespace, memory) = (&namespace, &memory);
        let reader = scope.spawn(move || {
            block_on(async {
                loop {
                    if let Err(error) = namespace.read(0, 0, 128, memory, range).await {
                        return error;
                    }
                }
            })
        });
        drop(chain.inner.take());
        let error = reader.join().unwrap();
        assert!(matches!(error.class(), ErrorClass::Gone | ErrorClass::Other | ErrorClass::Invalid), "{error}");
        assert!(error.status().is_some(), "the server in the middle answers: {error}");
    });
    block_on(namespace.wait_removed());
    // The server in the middle goes on, without it.
    assert!(block_on(driver.namespaces()).unwrap().is_empty());
    block_on(driver.shutdown());
}
