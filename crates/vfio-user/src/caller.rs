use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::{self, Command, Header, RegionAccess, RegionInfo, SparseArea, VersionNumber};
use crate::{CallError, Capabilities, Connection, ConnectionError, Malformed, Message, Version, reply};

/// The client's end of a connection: requests, and the replies to them.
///
/// Requests of the server are refused as they come; this crate shares the client's memory by descriptors alone.
#[derive(Debug)]
pub struct Caller {
    connection: Connection,
    next_id: u16,
    timeout: Option<Duration>,
    server: Capabilities,
}

/// A region, as its server describes it.
#[derive(Debug)]
pub struct Region {
    /// What it is.
    pub info: RegionInfo,
    /// The parts of it that can be mapped, if it says that it is not all of it.
    pub areas: Option<Vec<SparseArea>>,
    /// The file to map, from [`RegionInfo::offset`] on.
    pub file: Option<OwnedFd>,
}

impl Caller {
    /// Agrees on a version with a server. Each call waits up to `timeout` for its reply.
    pub fn new(
        connection: Connection,
        capabilities: Capabilities,
        timeout: Option<Duration>,
    ) -> Result<Self, CallError> {
        let mut caller = Self { connection, next_id: 0, timeout, server: Capabilities::default() };
        let proposed = Version { number: VersionNumber { major: 0, minor: 1 }, capabilities };
        let reply = caller.call(Command::Version, &[&proposed.to_bytes()], &[])?;
        let Version { number, capabilities } = Version::parse(&reply.payload)?;
        if number.major != 0 {
            return Err(CallError::Version { major: number.major, minor: number.minor });
        }
        caller.server = capabilities;
        Ok(caller)
    }

    /// What the server is capable of.
    pub fn server(&self) -> &Capabilities {
        &self.server
    }

    /// The connection itself.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends a request and waits for the reply to it. One that reports an error is an error.
    pub fn call(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message, CallError> {
        let id = self.send(command, 0, parts, fds)?;
        self.reply_to(command, id)
    }

    /// Sends a request that nobody replies to.
    pub fn tell(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        self.send(command, wire::flags::NO_REPLY, parts, fds).map(drop)
    }

    fn send(
        &mut self,
        command: Command,
        flags: u32,
        parts: &[&[u8]],
        fds: &[BorrowedFd<'_>],
    ) -> Result<u16, CallError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        self.connection.send(Header { flags, ..Header::request(id, command) }, parts, fds, self.timeout)?;
        Ok(id)
    }

    fn reply_to(&mut self, command: Command, id: u16) -> Result<Message, CallError> {
        let deadline = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let message = self.connection.receive(left)?;
            let header = message.header;
            if header.is_request() {
                if header.wants_reply() {
                    let refusal = header.error_reply(Errno::NOTSUP.raw_os_error().unsigned_abs());
                    self.connection.send(refusal, &[], &[], left)?;
                }
                continue;
            }
            // The reply to a call that was given up.
            if header.id != id {
                continue;
            }
            if !header.is_reply() || header.command != command as u16 {
                let reason = format!("a reply with command {} and flags {:#x}", header.command, header.flags);
                return Err(Malformed::new(command, reason).into());
            }
            if header.is_error() {
                return Err(CallError::Refused { command, errno: header.error });
            }
            return Ok(message);
        }
    }

    /// A call of one structure, whose reply begins with another.
    fn ask<Q, A>(&mut self, command: Command, question: &Q) -> Result<A, CallError>
    where
        Q: IntoBytes + Immutable,
        A: FromBytes + KnownLayout + Immutable,
    {
        let reply = self.call(command, &[question.as_bytes()], &[])?;
        let (answer, _) = A::read_from_prefix(&reply.payload)
            .map_err(|_| Malformed::new(command, format!("a reply with {} bytes", reply.payload.len())))?;
        Ok(answer)
    }

    /// What the device is.
    pub fn device_info(&mut self) -> Result<wire::DeviceInfo, CallError> {
        self.ask(Command::DeviceGetInfo, &wire::DeviceInfo { argsz: 16, ..Default::default() })
    }

    /// What a region is.
    pub fn region_info(&mut self, index: u32) -> Result<Region, CallError> {
        let command = Command::DeviceGetRegionInfo;
        let mut argsz = 4096;
        for _ in 0..2 {
            let question = RegionInfo { argsz, index, ..Default::default() };
            let Message { payload, mut fds, .. } = self.call(command, &[question.as_bytes()], &[])?;
            let (info, areas) = reply::parse_region_info(&payload)?;
            if info.index != index {
                return Err(Malformed::new(command, format!("region {} instead of {index}", info.index)).into());
            }
            if info.argsz > argsz && info.argsz as usize > payload.len() {
                argsz = info.argsz.min(1 << 16);
                continue;
            }
            return Ok(Region { info, areas, file: fds.drain(..).next() });
        }
        Err(Malformed::new(command, "a description that never fits").into())
    }

    /// What a kind of interrupts is.
    pub fn irq_info(&mut self, index: u32) -> Result<wire::IrqInfo, CallError> {
        self.ask(Command::DeviceGetIrqInfo, &wire::IrqInfo { argsz: 16, index, ..Default::default() })
    }

    /// Says what to do with interrupts.
    pub fn set_irqs(&mut self, set: wire::IrqSet, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        let argsz = size_of::<wire::IrqSet>().saturating_add(data.len());
        let set = wire::IrqSet { argsz: u32::try_from(argsz).unwrap_or(u32::MAX), ..set };
        self.call(Command::DeviceSetIrqs, &[set.as_bytes(), data], fds).map(drop)
    }

    /// Reads a region into `to`.
    pub fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), CallError> {
        let command = Command::RegionRead;
        let access = RegionAccess { offset, region, count: self.count(command, to.len())? };
        let reply = self.call(command, &[access.as_bytes()], &[])?;
        let answer = RegionAccess::read_from_prefix(&reply.payload).ok();
        match answer.filter(|(answer, data)| *answer == access && data.len() == to.len()) {
            Some((_, data)) => to.copy_from_slice(data),
            None => return Err(Malformed::new(command, format!("the reply to {access:?} is another")).into()),
        }
        Ok(())
    }

    /// Writes a region.
    pub fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), CallError> {
        let command = Command::RegionWrite;
        let access = RegionAccess { offset, region, count: self.count(command, data.len())? };
        self.call(command, &[access.as_bytes(), data], &[]).map(drop)
    }

    fn count(&self, command: Command, len: usize) -> Result<u32, CallError> {
        let max = self.server.max_data_xfer_size;
        let count = u32::try_from(len).ok().filter(|&count| u64::from(count) <= max);
        count.ok_or_else(|| Malformed::new(command, format!("{len} bytes of data; the server takes {max}")).into())
    }

    /// Lets the device reach memory: `size` bytes of a file, from `map.offset` on.
    pub fn dma_map(&mut self, map: wire::DmaMap, file: Option<BorrowedFd<'_>>) -> Result<(), CallError> {
        let map = wire::DmaMap { argsz: 32, ..map };
        let fds: Vec<_> = file.into_iter().collect();
        self.call(Command::DmaMap, &[map.as_bytes()], &fds).map(drop)
    }

    /// Takes memory away from the device. When this returns, the device has let go of it.
    pub fn dma_unmap(&mut self, address: u64, size: u64) -> Result<(), CallError> {
        let unmap = wire::DmaUnmap { argsz: 24, flags: 0, address, size };
        self.call(Command::DmaUnmap, &[unmap.as_bytes()], &[]).map(drop)
    }

    /// Resets the device.
    pub fn reset(&mut self) -> Result<(), CallError> {
        self.call(Command::DeviceReset, &[], &[]).map(drop)
    }

    /// Whether the server is gone. Costs a system call.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Ends the connection for both sides.
    pub fn shutdown(&self) {
        self.connection.shutdown();
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

impl From<ConnectionError> for std::io::Error {
    fn from(e: ConnectionError) -> Self {
        match e {
            ConnectionError::Io { source, .. } => source,
            ConnectionError::TimedOut => std::io::Error::new(std::io::ErrorKind::TimedOut, e),
            ConnectionError::Closed { .. } => std::io::Error::new(std::io::ErrorKind::ConnectionReset, e),
            e => std::io::Error::new(std::io::ErrorKind::InvalidData, e),
        }
    }
}
