//! A server over a drive, and another in its place while the drive has commands of its client in flight.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell::{DriverOptions, GuestMemory, Namespace, NvmeDriver, PagedRange};
use doorbell_device::{Access, Device, HostMemory};
use doorbell_emulator::{
    Backend, CommandMatch, ControllerConfig, Fault, FaultPlan, NamespaceConfig, QueueMatch, Subsystem,
};
use doorbell_relay::{Arriving, Departing, Drives};
use doorbell_serve::{Baggage, Behind, BehindError, Belongings, Endpoint, hand_over, take_over};
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use futures_lite::future::{block_on, poll_once};

const BLOCK: usize = 4096;
/// Where a guest's memory begins.
const START: u64 = 0x10_0000;
/// How long the drive takes for a command: longer than it takes a server to be replaced twice.
const LATER: Duration = Duration::from_secs(2);

type Change = fn(DriverOptions) -> DriverOptions;

fn device(socket: &Path) -> Arc<VfioUserDevice> {
    VfioUserDevice::open(VfioUserOptions::new(socket).timeout(Duration::from_secs(10))).unwrap()
}

fn config() -> ControllerConfig {
    ControllerConfig { queue_pairs: 4, vectors: 5, ..ControllerConfig::default() }
}

/// A drive, and a server over it.
struct Stack {
    server: Server,
    change: Change,
    drive: Endpoint,
    _directory: tempfile::TempDir,
}

/// Who uses the server.
struct Guest {
    namespace: Namespace,
    memory: GuestMemory,
    _driver: NvmeDriver,
}

struct Server {
    endpoint: Arc<Endpoint>,
    drives: Drives,
    subsystem: Subsystem,
}

/// What arrives in the place of a server's drives.
struct Coming(Arriving);

impl Behind for Coming {
    type Here = Drives;

    fn bring(&mut self, nsid: u32, name: &str, size: u64) -> Option<Box<dyn Backend>> {
        self.0.bring(nsid, name, size)
    }

    fn begin(self, _subsystem: &Subsystem) -> Drives {
        let (drives, followers) = self.0.begin();
        assert!(followers.iter().all(|(_, follower)| follower.is_some()));
        drives
    }
}

impl Server {
    /// Another takes its place.
    fn replaced(self, change: Change) -> Self {
        let (give, take) = UnixStream::pair().unwrap();
        let Self { drives, subsystem, endpoint } = self;
        let mut departing = Departing::default();
        let leave = || {
            departing = drives.depart(Instant::now() + Duration::from_secs(5))?;
            let (bytes, descriptors) = departing.parts()?;
            Ok::<_, BehindError>(Baggage { bytes, descriptors })
        };
        let options = move |device: Arc<dyn Device>| change(DriverOptions::new(device).cpus(2));
        let arrive = |Baggage { bytes, descriptors, .. }| Ok(Coming(Arriving::new(&bytes, descriptors, options)?));
        let taken = std::thread::scope(|threads| {
            let new = threads.spawn(|| take_over(take, arrive));
            hand_over(give, &subsystem, slice::from_ref(&endpoint), Belongings::default(), leave).unwrap();
            new.join().unwrap()
        });
        departing.let_go();
        let (mut taken, drives) = taken.unwrap();
        Self { drives, subsystem: taken.subsystem, endpoint: Arc::new(taken.endpoints.remove(0)) }
    }
}

impl Stack {
    fn new(change: Change) -> (Self, Guest) {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { directory.path().join(name) };
        let blocks = Subsystem::default();
        blocks.add_namespace(NamespaceConfig::ram(8 << 20).block_size(BLOCK as u32)).unwrap();
        let drive = Endpoint::start(&at("drive"), &blocks, config()).unwrap();
        let drives = Drives::new();
        let options = || Ok(change(DriverOptions::new(device(&at("drive"))).cpus(2)));
        let relay = block_on(block_on(drives.open("drive", options)).unwrap().namespace(1)).unwrap();
        let subsystem = Subsystem::default();
        subsystem.add_namespace(relay.config()).unwrap();
        let endpoint = Arc::new(Endpoint::start(&at("server"), &subsystem, config()).unwrap());
        let server = Server { drives, subsystem, endpoint };
        let driver = block_on(DriverOptions::new(device(&at("server"))).cpus(1).open()).unwrap();
        let namespace = block_on(driver.namespace(1)).unwrap();
        let host = HostMemory::allocate(4 << 20).unwrap();
        let memory = GuestMemory::builder().region(START, host, Access::ReadWrite).build().unwrap();
        let memory = driver.register_memory(&memory).unwrap();
        (Self { _directory: directory, drive, change, server }, Guest { namespace, memory, _driver: driver })
    }

    fn replace_server(self) -> Self {
        Self { server: self.server.replaced(self.change), ..self }
    }

    /// From now on every command takes the drive a while, and is counted.
    fn slow_down(&self) {
        let io = CommandMatch { queue: Some(QueueMatch::Io), ..CommandMatch::default() };
        let plan = FaultPlan::on(io, Fault::delay(LATER));
        self.drive.with_controller(|controller| controller.set_faults(plan)).unwrap();
    }

    fn counted(&self) -> u64 {
        self.drive.with_controller(|controller| controller.faults_applied()).unwrap()[0]
    }

    /// How many it has in flight, once it is as many.
    fn wait_for(&self, commands: u64) {
        let begun = Instant::now();
        while self.counted() != commands {
            assert!(begun.elapsed() < Duration::from_secs(10), "{} in flight", self.counted());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn speed_up(&self) {
        self.drive.with_controller(|controller| controller.set_faults(FaultPlan::default())).unwrap();
    }
}

impl Guest {
    fn fill(&self, page: u64, byte: u8) {
        self.memory.write_at(page * 4096, &[byte; BLOCK]).unwrap();
    }

    fn byte(&self, page: u64) -> u8 {
        let mut block = [0; BLOCK];
        self.memory.read_at(page * 4096, &mut block).unwrap();
        assert!(block.iter().all(|byte| *byte == block[0]), "page {page:#x} is torn");
        block[0]
    }
}

const PAGE: u64 = START / 4096;

fn page(number: u64) -> [u64; 1] {
    [PAGE + number]
}

fn all(gpns: &[u64]) -> PagedRange<'_> {
    PagedRange::new(0, gpns.len() * 4096, gpns).unwrap()
}

/// Eight reads and eight writes are under way while the server is replaced twice. Gives how many commands the drive had.
fn crossing(change: Change) -> u64 {
    let (mut stack, guest) = Stack::new(change);
    let Guest { namespace, memory, .. } = &guest;
    for number in 0..8 {
        guest.fill(PAGE + number, number as u8 + 1);
        let pages = page(number);
        block_on(namespace.write(0, number, 1, false, memory, all(&pages))).unwrap();
    }
    stack.slow_down();
    let pages: Vec<_> = (0..16).map(page).collect();
    // Reads to other pages, of what is there; and writes of other blocks from the pages that are there.
    let mut reads: Vec<_> =
        (0..8).map(|at| Box::pin(namespace.read(0, at as u64, 1, memory, all(&pages[at + 8])))).collect();
    let mut writes: Vec<_> =
        (0..8).map(|at| Box::pin(namespace.write(0, at as u64 + 8, 1, false, memory, all(&pages[at])))).collect();
    block_on(async {
        for operation in reads.iter_mut().chain(&mut writes) {
            assert!(poll_once(operation).await.is_none());
        }
    });
    stack.wait_for(16);
    stack = stack.replace_server().replace_server();
    for operation in reads.into_iter().chain(writes) {
        block_on(operation).unwrap();
    }
    assert_eq!((0..8).map(|at| guest.byte(PAGE + at + 8)).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    let counted = stack.counted();
    stack.speed_up();
    for number in 0..8 {
        let pages = page(number + 16);
        block_on(namespace.read(0, number + 8, 1, memory, all(&pages))).unwrap();
        assert_eq!(u64::from(guest.byte(PAGE + number + 16)), number + 1);
    }
    counted
}

#[test]
fn what_the_drive_has_in_flight_is_carried_out_once() {
    assert_eq!(crossing(|options| options), 16);
}

#[test]
fn what_was_read_into_buffers_is_read_anew() {
    let counted = crossing(|options| options.always_bounce(true));
    assert!((16..=32).contains(&counted), "reads are sent again by each server, writes are not: {counted}");
}

#[test]
fn other_commands_are_sent_anew_or_waited_for() {
    let (mut stack, guest) = Stack::new(|options| options);
    let namespace = &guest.namespace;
    let block = [7; BLOCK];
    block_on(namespace.write_slice(0, 3, false, &block)).unwrap();
    stack.slow_down();
    let mut flush = pin!(namespace.flush(0));
    let mut compare = pin!(namespace.compare_slice(0, 3, &block));
    let mut verify = pin!(namespace.verify(0, 3, 1));
    block_on(async {
        assert!(poll_once(&mut flush).await.is_none());
        assert!(poll_once(&mut compare).await.is_none());
        assert!(poll_once(&mut verify).await.is_none());
    });
    stack.wait_for(3);
    stack = stack.replace_server();
    stack.speed_up();
    block_on(flush).unwrap();
    block_on(compare).unwrap();
    block_on(verify).unwrap();
    // What cannot be sent again is waited for: it is done when there is another server.
    let mut zeroes = pin!(namespace.write_zeroes(0, 3, 1, false, false));
    assert!(block_on(poll_once(&mut zeroes)).is_none());
    let _stack = stack.replace_server();
    block_on(zeroes).unwrap();
    let mut now = [1; BLOCK];
    block_on(namespace.read_slice(0, 3, &mut now)).unwrap();
    assert_eq!(now, [0; BLOCK]);
}
