use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::wire::{self, Command, Header, MultiWrite, RegionAccess};
use crate::{Malformed, Version};

/// A request, as far as its own bytes tell: whether its sizes and counts agree. What they mean for the device is for
/// who serves it to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// The first request of a connection.
    Version(Version),
    /// Memory comes.
    DmaMap(wire::DmaMap),
    /// Memory goes.
    DmaUnmap(wire::DmaUnmap),
    /// What the device is.
    DeviceInfo(wire::DeviceInfo),
    /// What a region is.
    RegionInfo(wire::RegionInfo),
    /// Which descriptors take accesses of a region.
    RegionIoFds(wire::RegionIoFds),
    /// What a kind of interrupts is.
    IrqInfo(wire::IrqInfo),
    /// What to do with interrupts, and with [`wire::SET_DATA_BOOL`] a byte for each.
    SetIrqs(wire::IrqSet, &'a [u8]),
    /// Reads a region.
    RegionRead(RegionAccess),
    /// Writes a region.
    RegionWrite(Write<'a>),
    /// Writes a region, or several, again and again.
    RegionWriteMulti(Vec<Write<'a>>),
    /// Resets the device.
    Reset,
    /// One that this crate knows the name of, and nothing else.
    Other(Command),
}

/// A write to a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write<'a> {
    /// Which region.
    pub region: u32,
    /// Where in it.
    pub offset: u64,
    /// What is written.
    pub data: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a request; the header has to be that of one.
    pub fn parse(header: &Header, payload: &'a [u8]) -> Result<Self, Malformed> {
        let Some(command) = Command::from_code(header.command) else {
            return Err(Malformed { command: header.command, reason: "there is no such command".into() });
        };
        let bytes = Bytes { command, payload };
        if !header.is_request() {
            return Err(bytes.bad("it is no request"));
        }
        Ok(match command {
            Command::Version => Self::Version(Version::parse(payload)?),
            Command::DmaMap => Self::DmaMap(bytes.exactly()?),
            Command::DmaUnmap => Self::DmaUnmap(bytes.first()?.0),
            Command::DeviceGetInfo => Self::DeviceInfo(bytes.first()?.0),
            Command::DeviceGetRegionInfo => Self::RegionInfo(bytes.first()?.0),
            Command::DeviceGetRegionIoFds => Self::RegionIoFds(bytes.first()?.0),
            Command::DeviceGetIrqInfo => Self::IrqInfo(bytes.first()?.0),
            Command::DeviceSetIrqs => {
                let (set, data): (wire::IrqSet, _) = bytes.first()?;
                bytes.set_irqs(set, data)?
            }
            Command::RegionRead => Self::RegionRead(bytes.exactly()?),
            Command::RegionWrite => Self::RegionWrite(bytes.write()?),
            Command::RegionWriteMulti => Self::RegionWriteMulti(bytes.writes()?),
            Command::DeviceReset => Self::Reset,
            other => Self::Other(other),
        })
    }
}

/// A payload, and whose it is.
struct Bytes<'a> {
    command: Command,
    payload: &'a [u8],
}

impl<'a> Bytes<'a> {
    #[cold]
    fn bad(&self, reason: impl Into<String>) -> Malformed {
        Malformed::new(self.command, reason)
    }

    /// A structure, and what follows it.
    fn first<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<(T, &'a [u8]), Malformed> {
        T::read_from_prefix(self.payload).map_err(|_| self.wrong_size(size_of::<T>()))
    }

    /// A structure and nothing else.
    fn exactly<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T, Malformed> {
        match self.first()? {
            (value, []) => Ok(value),
            _ => Err(self.wrong_size(size_of::<T>())),
        }
    }

    #[cold]
    fn wrong_size(&self, wanted: usize) -> Malformed {
        self.bad(format!("{} bytes of payload instead of {wanted}", self.payload.len()))
    }

    fn set_irqs(&self, set: wire::IrqSet, data: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let kinds = wire::SET_DATA_NONE | wire::SET_DATA_BOOL | wire::SET_DATA_EVENTFD;
        let actions = wire::SET_ACTION_MASK | wire::SET_ACTION_UNMASK | wire::SET_ACTION_TRIGGER;
        let one_of = |mask: u32| (set.flags & mask).count_ones() == 1;
        if set.flags & !(kinds | actions) != 0 || !one_of(kinds) || !one_of(actions) {
            return Err(self.bad(format!("flags {:#x} are not one kind of data and one action", set.flags)));
        }
        if set.start.checked_add(set.count).is_none() {
            return Err(self.bad(format!("{} interrupts from {} on", set.count, set.start)));
        }
        if set.flags & wire::SET_DATA_BOOL == 0 {
            return Ok(Request::SetIrqs(set, &[]));
        }
        match data.get(..set.count as usize) {
            Some(data) => Ok(Request::SetIrqs(set, data)),
            None => Err(self.bad(format!("{} bytes of data for {} interrupts", data.len(), set.count))),
        }
    }

    fn write(&self) -> Result<Write<'a>, Malformed> {
        let (access, data): (RegionAccess, _) = self.first()?;
        if data.len() != access.count as usize {
            return Err(self.bad(format!("{} bytes of data where {} are announced", data.len(), access.count)));
        }
        Ok(Write { region: access.region, offset: access.offset, data })
    }

    fn writes(&self) -> Result<Vec<Write<'a>>, Malformed> {
        let (count, rest): (u64, _) = self.first()?;
        let (chunks, tail) = rest.as_chunks::<{ size_of::<MultiWrite>() }>();
        if !tail.is_empty() || chunks.len() as u64 != count {
            return Err(self.bad(format!("{} bytes of payload for {count} writes", self.payload.len())));
        }
        let write = |chunk: &'a [u8; size_of::<MultiWrite>()]| {
            let (access, data) = RegionAccess::read_from_prefix(chunk).ok()?;
            let data = data.get(..access.count as usize)?;
            Some(Write { region: access.region, offset: access.offset, data })
        };
        let writes: Option<Vec<_>> = chunks.iter().map(write).collect();
        writes.ok_or_else(|| self.bad("a write of more than 8 bytes"))
    }
}
