//! Servers that break the protocol, or die: typed errors in bounded time, nothing leaked.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use doorbell_device::{Device, DeviceError, HostMemory, leaked_mappings};
use doorbell_vfio_user::{VfioUserDevice, VfioUserOptions};
use proptest::prelude::*;
use vfio_user::wire::{self, Command, DeviceInfo, Header, IrqInfo, RegionInfo, SparseArea};
use vfio_user::{Connection, Limits, Message, Request, Version, reply};
use zerocopy::IntoBytes;

/// How long the client waits for a reply.
const TIMEOUT: Duration = Duration::from_millis(60);
/// How long all of what [`exercise`] does may take, whatever the server does.
const BOUND: Duration = Duration::from_secs(5);
const BAR: u64 = 0x4000;

/// What is done to one reply.
#[derive(Debug, Clone)]
enum Harm {
    /// The connection ends instead.
    Death,
    /// It never comes.
    Silence,
    /// Half of its header comes, then the connection ends.
    HalfAHeader,
    /// It is the reply to another request.
    WrongId,
    /// It is the reply to another command.
    WrongCommand,
    /// It is a request.
    NoReply,
    /// It reports an error.
    Refusal(u32),
    /// It announces so many bytes.
    Size(u32),
    /// So much of its payload comes.
    Shorter(usize),
    /// There is more payload.
    Longer(usize),
    /// A byte of its payload is another.
    Byte(usize, u8),
    /// There are so many descriptors, whatever there should be.
    Descriptors(usize),
    /// Requests without end come before it.
    Flood,
    /// A request for the client's memory comes before it.
    Dma { address: u64, count: u64, write: bool },
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Serves one client, and does harm to the reply to its `at`th message.
fn serve(listener: &UnixListener, at: usize, harm: &Harm) {
    let (stream, _) = listener.accept().unwrap();
    let mut connection = Connection::new(stream, Limits::default());
    let bar = HostMemory::allocate(BAR as usize).unwrap();
    for number in 0.. {
        let Ok(message) = connection.receive(Some(BOUND)) else { return };
        if !message.header.wants_reply() {
            continue;
        }
        let (mut payload, mut fds) = answer(&message, &bar);
        let mut header = message.header.reply();
        if number == at {
            match harm {
                Harm::Death => return,
                Harm::Silence => continue,
                Harm::HalfAHeader => {
                    let _ = rustix::io::write(&connection, &header.as_bytes()[..8]);
                    return;
                }
                Harm::WrongId => header.id = header.id.wrapping_add(1),
                Harm::WrongCommand => header.command += 1,
                Harm::NoReply => header.flags = 0,
                Harm::Refusal(errno) => (header, payload) = (message.header.error_reply(*errno), Vec::new()),
                Harm::Size(size) => {
                    let _ = rustix::io::write(&connection, Header { size: *size, ..header }.as_bytes());
                    continue;
                }
                Harm::Shorter(len) => payload.truncate(*len),
                Harm::Longer(len) => payload.resize(payload.len() + len, 0xff),
                Harm::Byte(at, value) => {
                    let len = payload.len().max(1);
                    if let Some(byte) = payload.get_mut(at % len) {
                        *byte = *value;
                    }
                }
                Harm::Descriptors(count) => fds = *count,
                Harm::Flood => {
                    let request = Header { id: 0, command: 99, ..Header::default() };
                    let started = Instant::now();
                    while started.elapsed() < TIMEOUT * 3 {
                        let flags = wire::flags::NO_REPLY;
                        if connection.send(Header { flags, ..request }, &[], &[], Some(TIMEOUT)).is_err() {
                            return;
                        }
                    }
                }
                Harm::Dma { address, count, write } => {
                    let command = if *write { Command::DmaWrite } else { Command::DmaRead };
                    let access = wire::DmaAccess { address: *address, count: *count };
                    let data = vec![7; if *write { (*count).min(4096) as usize } else { 0 }];
                    let request = Header::request(77, command);
                    let _ = connection.send(request, &[access.as_bytes(), &data], &[], Some(TIMEOUT));
                }
            }
        }
        let file = bar.file().unwrap().0;
        let fds = vec![file.as_fd(); fds];
        if connection.send(header, &[&payload], &fds, Some(BOUND)).is_err() {
            return;
        }
    }
}

/// What a good server answers, and with how many descriptors.
fn answer(message: &Message, _bar: &HostMemory) -> (Vec<u8>, usize) {
    let none = (Vec::new(), 0);
    let Ok(request) = Request::parse(&message.header, &message.payload) else { return none };
    match request {
        Request::Version(_) => (Version::default().to_bytes(), 0),
        Request::DeviceInfo(_) => {
            let info = DeviceInfo { argsz: 16, flags: wire::DEVICE_PCI | wire::DEVICE_RESET, regions: 9, irqs: 5 };
            (info.as_bytes().to_vec(), 0)
        }
        Request::RegionInfo(asked) => {
            let flags = wire::REGION_READ | wire::REGION_WRITE | wire::REGION_MMAP;
            let info = RegionInfo { argsz: 32, flags, index: asked.index, size: BAR, ..Default::default() };
            let area = SparseArea { offset: 0x1000, size: 0x1000 };
            let (bytes, whole) = reply::region_info(info, &[area], asked.argsz);
            (bytes, usize::from(whole))
        }
        Request::IrqInfo(asked) => (IrqInfo { argsz: 16, flags: 1, count: 3, ..asked }.as_bytes().to_vec(), 0),
        Request::RegionRead(access) => {
            let mut data = vec![0; access.count as usize];
            if (access.region, access.offset) == (wire::region::CONFIG, 8) {
                data.copy_from_slice(&0x0108_0200u32.to_le_bytes());
            }
            ([access.as_bytes(), &data].concat(), 0)
        }
        Request::RegionWrite(write) => {
            let count = write.data.len() as u32;
            let access = wire::RegionAccess { offset: write.offset, region: write.region, count };
            (access.as_bytes().to_vec(), 0)
        }
        Request::DmaUnmap(unmap) => (unmap.as_bytes().to_vec(), 0),
        _ => none,
    }
}

/// Uses everything that there is. An error ends it.
fn exercise(options: VfioUserOptions) -> Result<(), DeviceError> {
    let device = VfioUserDevice::open(options)?;
    device.read64(0)?;
    let memory = device.allocate(8192, 4096)?;
    device.write64(0x28, memory.iova())?;
    device.doorbell(0x1000)?.ring(1);
    device.doorbell(0x3000)?.ring(1);
    device.reset()?;
    drop(memory);
    let large = device.allocate(20 << 20, 4096)?;
    device.read32(0x1c)?;
    drop(large);
    device.release()?;
    assert!(device.read32(0x1c).is_err());
    Ok(())
}

/// How many messages [`exercise`] sends that are replied to, to a server that does no harm.
const MESSAGES: usize = 26;

/// What came of it; that it was in time, and that nothing was left.
fn meet(at: usize, harm: &Harm) -> Result<(), DeviceError> {
    // Some descriptors of the process are made on first use.
    static WARM: std::sync::Once = std::sync::Once::new();
    WARM.call_once(|| drop(run(usize::MAX, &Harm::Death)));
    let (before, leaked_before) = (descriptors(), leaked_mappings());
    let started = Instant::now();
    let result = run(at, harm);
    assert!(started.elapsed() < BOUND, "{harm:?} at {at} took {:?}", started.elapsed());
    // Memory that a server has not let go of is never given back: its file stays open on purpose.
    let leaked = (leaked_mappings() - leaked_before) as usize;
    // A mapping that the server has not confirmed was never handed out, and so is not counted.
    let unconfirmed = usize::from(result.is_err());
    let left = descriptors();
    assert!(
        (before + leaked..=before + leaked + unconfirmed).contains(&left),
        "{harm:?} at {at}: {left}, {before}, {leaked}"
    );
    result
}

fn run(at: usize, harm: &Harm) -> Result<(), DeviceError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, at, harm));
        let result = exercise(VfioUserOptions::new(&path).timeout(TIMEOUT));
        server.join().unwrap();
        result
    })
}

#[test]
fn a_good_server_is_no_trouble() {
    let _one = one_at_a_time();
    meet(usize::MAX, &Harm::Death).unwrap();
}

#[test]
fn death_at_each_message_is_an_error_or_the_end() {
    let _one = one_at_a_time();
    for at in 0..MESSAGES {
        for harm in [Harm::Death, Harm::HalfAHeader] {
            // The end of all is an end too.
            if let Err(error) = meet(at, &harm) {
                let expected = matches!(error, DeviceError::Gone(_) | DeviceError::Unusable { .. });
                assert!(expected, "{harm:?} at {at}: {error:?}");
            }
        }
    }
}

#[test]
fn replies_that_never_come_are_waited_for_so_long() {
    let _one = one_at_a_time();
    for at in 0..MESSAGES {
        for harm in [Harm::Silence, Harm::WrongId, Harm::Flood] {
            let _ = meet(at, &harm);
        }
    }
}

#[test]
fn descriptors_that_are_missing_or_too_many_are_neither_used_nor_leaked() {
    let _one = one_at_a_time();
    for at in 0..MESSAGES {
        for count in [0, 1, 3, 16, 40] {
            let _ = meet(at, &Harm::Descriptors(count));
        }
    }
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        Just(Harm::WrongCommand),
        Just(Harm::NoReply),
        any::<u32>().prop_map(Harm::Refusal),
        any::<u32>().prop_map(Harm::Size),
        (0usize..64).prop_map(Harm::Shorter),
        (1usize..9000).prop_map(Harm::Longer),
        (any::<usize>(), any::<u8>()).prop_map(|(at, value)| Harm::Byte(at, value)),
        (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(address, count, write)| Harm::Dma {
            address,
            count,
            write
        }),
        (0u64..0x30_0000, 0u64..8192, any::<bool>()).prop_map(|(at, count, write)| Harm::Dma {
            address: (1 << 32) + at,
            count,
            write
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_reply_is_it_is_an_error_or_none(at in 0..MESSAGES, harm in harm()) {
        let _one = one_at_a_time();
        let _ = meet(at, &harm);
    }
}
