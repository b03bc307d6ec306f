//! One client: what it has set up, and what it asks.

mod regions;
mod saved;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use doorbell_device::inprocess::{Host, SoftController};
use doorbell_device::sigbus::Guard;
use doorbell_device::{DeviceError, HostMemory};
use doorbell_emulator::{Controller, Mark};
use rustix::io::Errno;
use vfio_user::wire::{self, Command, Header};
use vfio_user::{Capabilities, Connection, ConnectionError, Limits, Message, Request, Version};
use zerocopy::IntoBytes;

use crate::irqs::Irqs;
use crate::mappings::{MAX_MAPPINGS, Mappings};
use crate::pci::{ConfigSpace, MsixBar};

/// Where the doorbells begin in BAR 0.
const DOORBELLS: u64 = 0x1000;
/// The smallest BAR 0 (NVMe over PCIe Transport: bits 13 to 4 of it are reserved).
const MIN_BAR: u64 = 0x4000;
/// Bytes of one access: the protocol's default.
const MAX_TRANSFER: u32 = 1 << 20;
/// Bytes of one read that are given: no region is as large as that.
const MAX_READ: u32 = 1 << 16;
/// Descriptors in one message, also as QEMU limits it.
const MAX_FDS: usize = 16;
/// Messages taken before the controller has its turn.
const BURST: usize = 32;
/// From what size on unmapped memory may be a guest's RAM, of which the place is about to change.
const LARGE: u64 = 2 << 20;
/// How long the controller rests when such memory was unmapped, unless it comes back before.
const REST: Duration = Duration::from_millis(10);

/// A client.
pub(crate) struct Session {
    connection: Connection,
    /// Whether a version was agreed on.
    agreed: bool,
    config: ConfigSpace,
    msix: MsixBar,
    irqs: Irqs,
    mappings: Mappings,
    /// A memory of its own for each client: what another client still has mapped is another client's.
    doorbells: HostMemory,
    /// The file that the client maps: the doorbells are in it where they are in BAR 0, and nothing else is.
    bar_file: HostMemory,
    bar0: u64,
    /// The controller does nothing until then: large memory was unmapped, where.
    rest: Option<(Instant, u64)>,
    /// Accesses outside of the mappings, as far as they were looked at.
    faults: u64,
    /// Those that came before another process passed the client on.
    faults_before: u64,
    /// Whether the client was told what it does wrong with its memory.
    told: bool,
    /// Until then, the controller may still use memory that was taken away, or was reset and is not at rest.
    settling: Option<Mark>,
    /// What is answered then.
    held: Option<(Header, Vec<u8>)>,
    /// Of memory that was taken away: they go after the last who could touch it.
    guards: Vec<Guard>,
}

/// Why a session ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("{0}")]
    Misbehaved(String),
}

/// What is answered to a request: the payload, and a descriptor for it.
type Answer<'a> = Result<(Vec<u8>, Option<BorrowedFd<'a>>), Errno>;

impl Session {
    /// A client that has just connected.
    pub(crate) fn new(stream: UnixStream, controller: &Controller) -> Result<Self, DeviceError> {
        let config = controller.config();
        let register_space = controller.register_space() as u64;
        let bar0 = register_space.next_power_of_two().max(MIN_BAR);
        let msix = MsixBar::new(config.vectors);
        let bar_file = HostMemory::allocate(register_space as usize)?;
        let limits = Limits { payload: (MAX_TRANSFER as usize).saturating_add(64), fds: MAX_FDS };
        Ok(Self {
            connection: Connection::new(stream, limits),
            agreed: false,
            config: ConfigSpace::new(config.vendor_id, bar0, &msix),
            irqs: Irqs::new(msix.vectors),
            msix,
            mappings: Mappings::default(),
            doorbells: doorbells(&bar_file)?,
            bar_file,
            bar0,
            rest: None,
            faults: 0,
            faults_before: 0,
            told: false,
            settling: None,
            held: None,
            guards: Vec::new(),
        })
    }

    /// Calls `f` with what the controller reaches of this client.
    pub(crate) fn with_host<R>(&self, f: impl FnOnce(&Host<'_>) -> R) -> R {
        let raise = |vector: u16| self.irqs.raise(vector);
        f(&Host { dma: &self.mappings.space().view(), doorbells: &self.doorbells, interrupt: &raise })
    }

    pub(crate) fn doorbells(&self) -> &HostMemory {
        &self.doorbells
    }

    /// Until when the controller must not run, if so.
    pub(crate) fn rests_until(&mut self) -> Option<Instant> {
        let (until, _) = self.rest?;
        if Instant::now() >= until {
            self.rest = None;
        }
        self.rest.map(|(until, _)| until)
    }

    /// How many mappings there are, of how many bytes, and how many accesses were outside of them.
    pub(crate) fn memory(&self) -> (usize, u64, u64) {
        let (count, bytes) = self.mappings.size();
        (count, bytes, self.mappings.space().fault_count().saturating_add(self.faults_before))
    }

    /// Says in the log, once, why the controller cannot reach the client's memory, if that is plain.
    pub(crate) fn explain_faults(&mut self) {
        let space = self.mappings.space();
        let faults = space.fault_count();
        if std::mem::replace(&mut self.faults, faults) == faults || self.told {
            return;
        }
        if let Some(fault) = space.faults().iter().find(|fault| self.mappings.is_unusable(fault.iova)) {
            self.told = true;
            tracing::warn!(
                "the controller is to use memory at {:#x} that the client does not share: a QEMU guest's memory has to be \
                 shared (-object memory-backend-memfd,share=on,... and -M memory-backend=...)",
                fault.iova
            );
        }
    }

    /// Answers what the client has sent, but not for long. Says whether something came, and whether replies wait for the
    /// client to read.
    pub(crate) fn pump(&mut self, controller: &mut Controller) -> Result<Pumped, End> {
        if self.mappings.is_lost() {
            return Err(End::Misbehaved("it truncated memory that it shares".into()));
        }
        for taken in 0..BURST {
            if !self.settle(controller)? {
                return Ok(Pumped { worked: taken > 0, blocked: false, waits: true });
            }
            // No request before the last reply has gone: one reply is all that ever waits.
            if !self.connection.flush()? {
                return Ok(Pumped { worked: taken > 0, blocked: true, waits: false });
            }
            let Some(message) = self.connection.try_receive()? else {
                return Ok(Pumped { worked: taken > 0, blocked: false, waits: false });
            };
            self.answer(controller, message)?;
        }
        Ok(Pumped { worked: true, blocked: false, waits: false })
    }

    /// Whether the next request may be looked at: what the last one was about is over.
    fn settle(&mut self, controller: &mut Controller) -> Result<bool, End> {
        let Some(mark) = self.settling else { return Ok(true) };
        controller.hear_from_storage();
        if !controller.has_passed(mark) {
            return Ok(false);
        }
        self.settling = None;
        self.guards.clear();
        if let Some((header, payload)) = self.held.take() {
            self.reply(header, &payload, None)?;
        }
        Ok(true)
    }

    fn answer(&mut self, controller: &mut Controller, message: Message) -> Result<(), End> {
        let Message { header, payload, fds, surplus_fds } = message;
        if !header.is_request() {
            return Err(End::Misbehaved(format!("a message with flags {:#x}, which is no request", header.flags)));
        }
        let request = match Request::parse(&header, &payload) {
            Ok(_) if surplus_fds => Err(Errno::INVAL),
            Ok(request) => Ok(request),
            Err(error) => {
                tracing::warn!(%error, "refused");
                Err(if Command::from_code(header.command).is_none() { Errno::NOSYS } else { Errno::INVAL })
            }
        };
        if !self.agreed {
            return self.agree(header, request);
        }
        tracing::trace!(?request, "request");
        let answer = request.and_then(|request| match request {
            // What has to be known after `self` was changed is not borrowed from it.
            Request::RegionInfo(info) => self.region_info(info),
            request => self.carry_out(controller, request, fds).map(|payload| (payload, None)),
        });
        let answer = match answer {
            Ok((payload, fd)) => Ok((payload, fd.map(|fd| fd.try_clone_to_owned()).transpose())),
            Err(errno) => Err(errno),
        };
        match answer {
            Ok((payload, Ok(None))) if self.settling.is_some_and(|mark| !controller.has_passed(mark)) => {
                self.held = Some((header, payload));
                Ok(())
            }
            Ok((payload, Ok(fd))) => self.reply(header, &payload, fd.as_ref().map(AsFd::as_fd)),
            Ok((_, Err(_))) => self.refuse(header, Errno::MFILE),
            Err(errno) => self.refuse(header, errno),
        }
    }

    fn reply(&mut self, header: Header, payload: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), End> {
        if header.wants_reply() {
            self.connection.queue(header.reply(), &[payload], fd.as_slice())?;
        }
        Ok(())
    }

    fn refuse(&mut self, header: Header, errno: Errno) -> Result<(), End> {
        tracing::debug!(command = header.command, %errno, "the client's request fails");
        if header.wants_reply() {
            self.connection.queue(header.error_reply(errno.raw_os_error().unsigned_abs()), &[], &[])?;
        }
        Ok(())
    }

    /// The first request of a client. What is not a version that we speak ends the session.
    fn agree(&mut self, header: Header, request: Result<Request<'_>, Errno>) -> Result<(), End> {
        let proposed = match request {
            Ok(Request::Version(version)) if version.number.major == 0 => version,
            Ok(Request::Version(version)) => {
                self.refuse(header, Errno::PROTONOSUPPORT)?;
                let wire::VersionNumber { major, minor } = version.number;
                return Err(End::Misbehaved(format!("version {major}.{minor} of the protocol; 0.1 is spoken here")));
            }
            _ => {
                self.refuse(header, Errno::INVAL)?;
                return Err(End::Misbehaved("no valid version to begin with".into()));
            }
        };
        let answer = Version {
            number: wire::VersionNumber { major: 0, minor: proposed.number.minor.min(1) },
            capabilities: Capabilities {
                max_msg_fds: MAX_FDS as u32,
                max_data_xfer_size: MAX_TRANSFER.into(),
                max_dma_maps: (MAX_MAPPINGS as u64).min(proposed.capabilities.max_dma_maps),
                pgsizes: 4096,
                write_multiple: proposed.capabilities.write_multiple,
            },
        };
        tracing::info!(?proposed, "a client");
        self.agreed = true;
        self.reply(header, &answer.to_bytes(), None)
    }

    fn carry_out(
        &mut self,
        controller: &mut Controller,
        request: Request<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<Vec<u8>, Errno> {
        match request {
            Request::DmaMap(map) => {
                let mut fds = fds.into_iter();
                let file = fds.next();
                if fds.next().is_some() {
                    return Err(Errno::INVAL);
                }
                self.mappings.map(map, file)?;
                if self.rest.is_some_and(|(_, at)| at.checked_sub(map.address).is_some_and(|to| to < map.size)) {
                    self.rest = None;
                }
                Ok(Vec::new())
            }
            Request::DmaUnmap(unmap) => self.dma_unmap(controller, unmap),
            Request::DeviceInfo(info) if (info.argsz as usize) < size_of::<wire::DeviceInfo>() => Err(Errno::INVAL),
            Request::DeviceInfo(_) => {
                let flags = wire::DEVICE_RESET | wire::DEVICE_PCI;
                let info = wire::DeviceInfo { argsz: 16, flags, regions: wire::region::COUNT, irqs: wire::irq::COUNT };
                Ok(info.as_bytes().to_vec())
            }
            Request::IrqInfo(info) => Ok(self.irqs.info(info.index).ok_or(Errno::INVAL)?.as_bytes().to_vec()),
            Request::SetIrqs(set, data) => self.irqs.set(set, data, fds).map(|()| Vec::new()),
            Request::RegionRead(access) => self.region_read(controller, access),
            Request::RegionWrite(write) => {
                self.region_write(controller, write)?;
                let count = write.data.len() as u32;
                let access = wire::RegionAccess { offset: write.offset, region: write.region, count };
                Ok(access.as_bytes().to_vec())
            }
            Request::RegionWriteMulti(writes) => {
                let count = writes.len() as u64;
                for write in writes {
                    self.region_write(controller, write)?;
                }
                Ok(count.as_bytes().to_vec())
            }
            Request::Reset => {
                self.reset(controller);
                Ok(Vec::new())
            }
            Request::Version(_) => Err(Errno::INVAL),
            // Optional, or for migration, which there is none of.
            Request::RegionIoFds(_) | Request::Other(_) | Request::RegionInfo(_) => Err(Errno::NOTSUP),
        }
    }

    fn dma_unmap(&mut self, controller: &mut Controller, unmap: wire::DmaUnmap) -> Result<Vec<u8>, Errno> {
        let wire::DmaUnmap { flags, address, size, .. } = unmap;
        match flags {
            0 => {
                self.guards.extend(self.mappings.unmap(address, size)?);
                self.settling = Some(controller.forget_memory(address, size));
                if size >= LARGE {
                    self.rest = Instant::now().checked_add(REST).map(|until| (until, address));
                }
            }
            wire::UNMAP_ALL if address == 0 && size == 0 => {
                self.guards.extend(self.mappings.unmap_all());
                self.settling = Some(controller.forget_memory(0, u64::MAX));
            }
            wire::UNMAP_GET_DIRTY => return Err(Errno::NOTSUP),
            _ => return Err(Errno::INVAL),
        }
        Ok(unmap.as_bytes().to_vec())
    }

    /// A reset of the function. The client's memory and interrupts stay as they are.
    pub(crate) fn reset(&mut self, controller: &mut Controller) {
        controller.function_reset();
        self.settling = Some(controller.mark());
        for doorbell in self.doorbells.dwords() {
            doorbell.store(0, Ordering::Release);
        }
        self.irqs.forget_pending();
    }
}

/// The doorbells in the file of BAR 0.
fn doorbells(bar: &HostMemory) -> Result<HostMemory, DeviceError> {
    let len = bar.len().saturating_sub(DOORBELLS as usize);
    match bar.file() {
        Some((file, 0)) => HostMemory::from_file(file.clone(), DOORBELLS, len),
        _ => Err(DeviceError::Unsupported("memory without a file for the doorbells")),
    }
}

/// What came of [`Session::pump`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pumped {
    pub(crate) worked: bool,
    /// A reply waits for the client to read.
    pub(crate) blocked: bool,
    /// A reply waits for the controller to be done with something.
    pub(crate) waits: bool,
}

impl AsFd for Session {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
