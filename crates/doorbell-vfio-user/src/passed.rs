//! A connection that goes from one process to another: what is said of it, and in which order its descriptors go.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use doorbell_device::{Arriving, DeviceError, DmaMemory, Interrupt, Leaving, Parts};
use prost::Message;
use vfio_user::{Capabilities, Connection, Limits};

use crate::bar::{Bar, PassedArea};
use crate::device::VfioUserDevice;
use crate::keeper::Shared;
use crate::link::Link;
use crate::options::VfioUserOptions;
use crate::space::{Arrived, PassedRegion};

/// What [`Parts::kind`] says.
pub(crate) const KIND: &str = "vfio-user";

/// The descriptors are the socket, the file of the doorbells if there is one, an eventfd for each vector, and the files
/// of the memory.
#[derive(Clone, PartialEq, Message)]
struct Passed {
    #[prost(bytes = "vec", tag = "1")]
    socket: Vec<u8>,
    #[prost(uint64, optional, tag = "2")]
    reconnect_ms: Option<u64>,
    #[prost(uint64, tag = "3")]
    timeout_ms: u64,
    /// Vectors to use at most.
    #[prost(uint32, tag = "4")]
    most_vectors: u32,
    #[prost(message, optional, tag = "5")]
    server: Option<Server>,
    /// The number of the last request.
    #[prost(uint32, tag = "6")]
    last_id: u32,
    #[prost(bool, tag = "7")]
    can_reset: bool,
    /// Vectors that there are.
    #[prost(uint32, tag = "8")]
    vectors: u32,
    #[prost(uint64, tag = "9")]
    bar_size: u64,
    /// What is mapped of BAR0.
    #[prost(message, repeated, tag = "10")]
    areas: Vec<PassedArea>,
    /// Below it, every IOVA was handed out or skipped.
    #[prost(uint64, tag = "11")]
    used: u64,
    #[prost(message, repeated, tag = "12")]
    regions: Vec<PassedRegion>,
    /// The memory that is named, in that order.
    #[prost(message, repeated, tag = "13")]
    memory: Vec<PassedMemory>,
}

/// What the server is capable of.
#[derive(Clone, PartialEq, Message)]
struct Server {
    #[prost(uint32, tag = "1")]
    max_msg_fds: u32,
    #[prost(uint64, tag = "2")]
    max_data_xfer_size: u64,
    #[prost(uint64, tag = "3")]
    max_dma_maps: u64,
    #[prost(uint64, tag = "4")]
    pgsizes: u64,
    #[prost(bool, tag = "5")]
    write_multiple: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PassedMemory {
    #[prost(uint64, tag = "1")]
    iova: u64,
    #[prost(uint64, tag = "2")]
    len: u64,
}

impl VfioUserDevice {
    pub(crate) fn pass(&self, memory: &[DmaMemory]) -> Result<Leaving, DeviceError> {
        let handle = &self.handle;
        let shared = handle.shared.clone();
        let pool = handle.lock_pool();
        let changes = shared.space.lock();
        let link = shared.link().map_err(|end| end.error())?;
        link.hold()?;
        // From here on, what fails lets it go on.
        let held = HeldLink(Some(link.clone()));
        let (mut regions, files) = shared.space.pass(&changes)?;
        for region in pool.regions() {
            regions.iter_mut().filter(|passed| passed.iova == region).for_each(|passed| passed.shared = true);
        }
        let named = |memory: &DmaMemory| {
            let (iova, len) = (memory.iova(), memory.len() as u64);
            let known = shared.space.around(iova, len);
            let missing = || DeviceError::NotShareable { len: memory.len(), reason: "the device never had it".into() };
            known.map(|_| PassedMemory { iova, len }).ok_or_else(missing)
        };
        let memory = memory.iter().map(named).collect::<Result<_, _>>()?;
        let (socket, last_id) = link.socket()?;
        let mut descriptors = vec![socket];
        let (bar_file, areas) = shared.bar.pass();
        let eventfds = shared.interrupts.iter().map(AsFd::as_fd);
        for fd in bar_file.iter().map(|file| file.as_fd()).chain(eventfds) {
            descriptors.push(fd.try_clone_to_owned().map_err(DeviceError::io("duplicating a descriptor"))?);
        }
        descriptors.extend(files.descriptors()?);
        let options = &shared.options;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let passed = Passed {
            socket: options.socket.as_os_str().as_bytes().to_vec(),
            reconnect_ms: options.reconnect.map(milliseconds),
            timeout_ms: milliseconds(options.timeout),
            most_vectors: options.vectors,
            server: Some(Server {
                max_msg_fds: link.server.max_msg_fds,
                max_data_xfer_size: link.server.max_data_xfer_size,
                max_dma_maps: link.server.max_dma_maps,
                pgsizes: link.server.pgsizes,
                write_multiple: link.server.write_multiple,
            }),
            last_id: last_id.into(),
            can_reset: shared.can_reset,
            vectors: u32::try_from(shared.interrupts.len()).unwrap_or(u32::MAX),
            bar_size: shared.bar.size() as u64,
            areas,
            used: changes.used,
            regions,
            memory,
        };
        let parts = Parts { kind: KIND.into(), state: passed.encode_to_vec(), descriptors };
        // Memory that is given back now waits for the decision, and is not known to it.
        let kept = self.handle.clone();
        Ok(Leaving::new(parts, move |left| {
            held.decide(left);
            drop(kept);
        }))
    }

    /// Goes on with a connection of another process: what [`Device::leave`](doorbell_device::Device::leave) of a
    /// `VfioUserDevice` has given there.
    ///
    /// # Errors
    /// [`DeviceError::NotAdoptable`] if that makes no sense; [`DeviceError::Io`] or [`DeviceError::Unmappable`] if the system
    /// refuses. The other process can go on then.
    pub fn adopt(parts: Parts) -> Result<Arriving, DeviceError> {
        let bad = |what: &str| DeviceError::NotAdoptable(what.into());
        if parts.kind != KIND {
            return Err(DeviceError::NotAdoptable(format!("it is a device of kind {:?}, not {KIND:?}", parts.kind)));
        }
        let passed = Passed::decode(&parts.state[..]).map_err(|error| DeviceError::NotAdoptable(error.to_string()))?;
        let mut descriptors = parts.descriptors.into_iter();
        let mut next = |what: &str| descriptors.next().ok_or_else(|| bad(what));
        let socket = UnixStream::from(next("there is no socket")?);
        let bar_file = match passed.areas.is_empty() {
            true => None,
            false => Some(Arc::new(File::from(next("the file of the doorbells is missing")?))),
        };
        let mut interrupts = Vec::new();
        for _ in 0..passed.vectors {
            interrupts.push(Interrupt::from_fd(next("an interrupt is missing")?));
        }
        let files: Vec<Arc<File>> = descriptors.map(|fd: OwnedFd| Arc::new(File::from(fd))).collect();
        let Arrived { space, regions } = Arrived::new(&passed.regions, &files, passed.used)?;

        let server = passed.server.ok_or_else(|| bad("nothing is said of the server"))?;
        let server = Capabilities {
            max_msg_fds: server.max_msg_fds,
            max_data_xfer_size: server.max_data_xfer_size,
            max_dma_maps: server.max_dma_maps,
            pgsizes: server.pgsizes,
            write_multiple: server.write_multiple,
        };
        let options = VfioUserOptions {
            socket: OsString::from_vec(passed.socket).into(),
            reconnect: passed.reconnect_ms.map(Duration::from_millis),
            timeout: Duration::from_millis(passed.timeout_ms.max(1)),
            vectors: passed.most_vectors,
        };
        let loss = Interrupt::new()?;
        let bar_size = usize::try_from(passed.bar_size).map_err(|_| bad("BAR0 is too large"))?;
        let bar = Bar::adopt(bar_size, &passed.areas, bar_file, &loss)?;
        let last_id = u16::try_from(passed.last_id).map_err(|_| bad("the number of the last message is too large"))?;
        let connection = Connection::new(socket, Limits::default());
        let (link, receiving) = Link::go_on(connection, server, last_id, options.timeout)?;
        let link = Arc::new(link);
        let shared = Shared::elsewhere(options, bar, passed.can_reset, interrupts, space, loss);
        let device = Self::attended(Arc::new(shared), |kept| kept.keep_once_begun(receiving))?;

        let handle = device.handle.clone();
        for placed in regions {
            let shared = passed.regions.iter().any(|region| region.iova == placed.region && region.shared);
            let in_use = |memory: &PassedMemory| {
                device.handle.shared.space.around(memory.iova, memory.len) == Some(placed.region)
            };
            // A chunk of which nothing is in use is not gone on with.
            if shared && passed.memory.iter().any(in_use) {
                handle.shared.space.use_too(placed.region);
                handle.lock_pool().add(placed);
            }
        }
        let memory = passed.memory.iter().map(|PassedMemory { iova, len }| {
            let missing = || DeviceError::NotAdoptable(format!("the {len:#x} bytes at IOVA {iova:#x} are not there"));
            let len = usize::try_from(*len).map_err(|_| missing())?;
            handle.in_use(*iova, len).ok_or_else(missing)
        });
        let memory: Vec<DmaMemory> = memory.collect::<Result<_, _>>()?;
        let begin = move || {
            handle.shared.begin(link);
            let unused = handle.shared.space.unused();
            if !unused.is_empty() {
                // Not in the way of who goes on.
                let release = move || unused.into_iter().for_each(|region| drop(handle.release(region)));
                let thread = std::thread::Builder::new().name("doorbell-unmap".into());
                thread.spawn(release).map_err(DeviceError::io("starting a thread"))?;
            }
            Ok(())
        };
        Ok(Arriving::new(device, memory, begin))
    }
}

/// Goes on here when dropped, or leaves.
struct HeldLink(Option<Arc<Link>>);

impl HeldLink {
    fn decide(mut self, left: bool) {
        if left && let Some(link) = self.0.take() {
            link.leave();
        }
    }
}

impl Drop for HeldLink {
    fn drop(&mut self) {
        if let Some(link) = self.0.take() {
            link.go_on_here();
        }
    }
}
