use std::os::fd::{BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::wire::{self, Command, RegionAccess, RegionInfo, SparseArea};
use crate::{CallError, Capabilities, Malformed, Message, reply};

/// What a client asks of a server, over whatever finds the replies: a [`Caller`](crate::Caller), or something of the
/// client's own.
pub trait Call {
    /// What the server is capable of.
    fn server(&self) -> &Capabilities;

    /// Sends a request and waits for the reply to it. One that reports an error is an error.
    fn call(&mut self, command: Command, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> Result<Message, CallError>;

    /// What the device is.
    fn device_info(&mut self) -> Result<wire::DeviceInfo, CallError> {
        ask(self, Command::DeviceGetInfo, &wire::DeviceInfo { argsz: 16, ..Default::default() })
    }

    /// What a region is.
    fn region_info(&mut self, index: u32) -> Result<Region, CallError> {
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
    fn irq_info(&mut self, index: u32) -> Result<wire::IrqInfo, CallError> {
        ask(self, Command::DeviceGetIrqInfo, &wire::IrqInfo { argsz: 16, index, ..Default::default() })
    }

    /// Says what to do with interrupts.
    fn set_irqs(&mut self, set: wire::IrqSet, data: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        let argsz = size_of::<wire::IrqSet>().saturating_add(data.len());
        let set = wire::IrqSet { argsz: u32::try_from(argsz).unwrap_or(u32::MAX), ..set };
        self.call(Command::DeviceSetIrqs, &[set.as_bytes(), data], fds).map(drop)
    }

    /// Reads a region into `to`.
    fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), CallError> {
        let command = Command::RegionRead;
        let access = RegionAccess { offset, region, count: count(self, command, to.len())? };
        let reply = self.call(command, &[access.as_bytes()], &[])?;
        let answer = RegionAccess::read_from_prefix(&reply.payload).ok();
        match answer.filter(|(answer, data)| *answer == access && data.len() == to.len()) {
            Some((_, data)) => to.copy_from_slice(data),
            None => return Err(Malformed::new(command, format!("the reply to {access:?} is another")).into()),
        }
        Ok(())
    }

    /// Writes a region.
    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), CallError> {
        let command = Command::RegionWrite;
        let access = RegionAccess { offset, region, count: count(self, command, data.len())? };
        self.call(command, &[access.as_bytes(), data], &[]).map(drop)
    }

    /// Lets the device reach memory: `size` bytes of a file, from `map.offset` on.
    fn dma_map(&mut self, map: wire::DmaMap, file: Option<BorrowedFd<'_>>) -> Result<(), CallError> {
        let map = wire::DmaMap { argsz: 32, ..map };
        let fds: Vec<_> = file.into_iter().collect();
        self.call(Command::DmaMap, &[map.as_bytes()], &fds).map(drop)
    }

    /// Takes memory away from the device. When this returns, the device has let go of it.
    fn dma_unmap(&mut self, address: u64, size: u64) -> Result<(), CallError> {
        let unmap = wire::DmaUnmap { argsz: 24, flags: 0, address, size };
        self.call(Command::DmaUnmap, &[unmap.as_bytes()], &[]).map(drop)
    }

    /// Resets the device.
    fn reset(&mut self) -> Result<(), CallError> {
        self.call(Command::DeviceReset, &[], &[]).map(drop)
    }
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

/// A call of one structure, whose reply begins with another.
fn ask<Q, A>(by: &mut (impl Call + ?Sized), command: Command, question: &Q) -> Result<A, CallError>
where
    Q: IntoBytes + Immutable,
    A: FromBytes + KnownLayout + Immutable,
{
    let reply = by.call(command, &[question.as_bytes()], &[])?;
    let (answer, _) = A::read_from_prefix(&reply.payload)
        .map_err(|_| Malformed::new(command, format!("a reply with {} bytes", reply.payload.len())))?;
    Ok(answer)
}

fn count(by: &(impl Call + ?Sized), command: Command, len: usize) -> Result<u32, CallError> {
    let max = by.server().max_data_xfer_size;
    let count = u32::try_from(len).ok().filter(|&count| u64::from(count) <= max);
    count.ok_or_else(|| Malformed::new(command, format!("{len} bytes of data; the server takes {max}")).into())
}
