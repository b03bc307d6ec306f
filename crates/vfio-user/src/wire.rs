//! The structures as they are on the wire, in the byte order of the host.
//!
//! Nothing is checked here: reserved bits and unknown codes survive a round trip.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a [`Header`], with which every message begins.
pub const HEADER: usize = size_of::<Header>();

/// What every message begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    /// The sender's name for a request; its reply has the same.
    pub id: u16,
    /// A [`Command`], in requests and replies alike.
    pub command: u16,
    /// Bytes of the message with its header.
    pub size: u32,
    /// The type and the bits of [`flags`].
    pub flags: u32,
    /// In a reply with [`flags::ERROR`]: an errno, or 0.
    pub error: u32,
}

/// Bits of [`Header::flags`].
pub mod flags {
    /// The bits that tell what a message is.
    pub const TYPE: u32 = 0xf;
    /// The type of a request.
    pub const REQUEST: u32 = 0;
    /// The type of a reply.
    pub const REPLY: u32 = 1;
    /// The sender of this request wants no reply.
    pub const NO_REPLY: u32 = 1 << 4;
    /// What was asked for failed.
    pub const ERROR: u32 = 1 << 5;
}

impl Header {
    /// Whether it is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & flags::TYPE == flags::REPLY
    }

    /// Whether it is a request.
    pub fn is_request(&self) -> bool {
        self.flags & flags::TYPE == flags::REQUEST
    }

    /// Whether its sender wants a reply.
    pub fn wants_reply(&self) -> bool {
        self.is_request() && self.flags & flags::NO_REPLY == 0
    }

    /// Whether it reports an error.
    pub fn is_error(&self) -> bool {
        self.flags & flags::ERROR != 0
    }

    /// The header of a request. The size is filled in by who sends it.
    pub fn request(id: u16, command: Command) -> Self {
        Self { id, command: command as u16, ..Self::default() }
    }

    /// The header of the reply to this request.
    pub fn reply(&self) -> Self {
        Self { id: self.id, command: self.command, flags: flags::REPLY, ..Self::default() }
    }

    /// The header of the reply that the request failed, with an errno.
    pub fn error_reply(&self, errno: u32) -> Self {
        Self { flags: flags::REPLY | flags::ERROR, error: errno, ..self.reply() }
    }
}

/// What a message asks for, or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
#[expect(missing_docs, reason = "they are the protocol's own names")]
pub enum Command {
    Version = 1,
    DmaMap = 2,
    DmaUnmap = 3,
    DeviceGetInfo = 4,
    DeviceGetRegionInfo = 5,
    DeviceGetRegionIoFds = 6,
    DeviceGetIrqInfo = 7,
    DeviceSetIrqs = 8,
    RegionRead = 9,
    RegionWrite = 10,
    DmaRead = 11,
    DmaWrite = 12,
    DeviceReset = 13,
    DirtyPages = 14,
    RegionWriteMulti = 15,
    DeviceFeature = 16,
    MigrationDataRead = 17,
    MigrationDataWrite = 18,
}

impl Command {
    /// The command of a code, if it is one.
    pub fn from_code(code: u16) -> Option<Self> {
        use Command::*;
        let all = [
            Version,
            DmaMap,
            DmaUnmap,
            DeviceGetInfo,
            DeviceGetRegionInfo,
            DeviceGetRegionIoFds,
            DeviceGetIrqInfo,
            DeviceSetIrqs,
            RegionRead,
            RegionWrite,
            DmaRead,
            DmaWrite,
            DeviceReset,
            DirtyPages,
            RegionWriteMulti,
            DeviceFeature,
            MigrationDataRead,
            MigrationDataWrite,
        ];
        all.into_iter().find(|&command| command as u16 == code)
    }
}

/// The first bytes of a VERSION message; JSON follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VersionNumber {
    /// Changes when what is there changes.
    pub major: u16,
    /// Changes when something is added.
    pub minor: u16,
}

/// Memory of the client that the server may reach from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaMap {
    /// Bytes of this structure.
    pub argsz: u32,
    /// [`DMA_READ`] and [`DMA_WRITE`].
    pub flags: u32,
    /// Where the memory begins in the file whose descriptor comes along.
    pub offset: u64,
    /// Its first address, as the device names it.
    pub address: u64,
    /// Bytes of memory.
    pub size: u64,
}

/// [`DmaMap::flags`]: the device may read.
pub const DMA_READ: u32 = 1 << 0;
/// [`DmaMap::flags`]: the device may write.
pub const DMA_WRITE: u32 = 1 << 1;

/// Memory that the server may not reach any more. The reply says the same again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaUnmap {
    /// Bytes of the reply that are wanted at most.
    pub argsz: u32,
    /// 0 or [`UNMAP_ALL`].
    pub flags: u32,
    /// The address that was mapped.
    pub address: u64,
    /// The size that was mapped.
    pub size: u64,
}

/// [`DmaUnmap::flags`]: the server wants to know what was written; only in older clients.
pub const UNMAP_GET_DIRTY: u32 = 1 << 0;
/// [`DmaUnmap::flags`]: everything is unmapped; address and size are 0.
pub const UNMAP_ALL: u32 = 1 << 1;

/// What a device is. Request and reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DeviceInfo {
    /// Bytes of the reply: wanted at most, or there are.
    pub argsz: u32,
    /// [`DEVICE_RESET`] and [`DEVICE_PCI`].
    pub flags: u32,
    /// How many regions there are.
    pub regions: u32,
    /// How many kinds of interrupts there are.
    pub irqs: u32,
}

/// [`DeviceInfo::flags`]: the device can be reset.
pub const DEVICE_RESET: u32 = 1 << 0;
/// [`DeviceInfo::flags`]: it is a PCI device.
pub const DEVICE_PCI: u32 = 1 << 1;

/// What a region of a device is. Request and reply; in a reply, capabilities may follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionInfo {
    /// Bytes of the reply: wanted at most, or needed for all of it.
    pub argsz: u32,
    /// The bits that begin with `REGION_`.
    pub flags: u32,
    /// Which region: one of [`region`].
    pub index: u32,
    /// Where the first capability is, from the start of this structure on; 0 if there is none.
    pub cap_offset: u32,
    /// Bytes of the region.
    pub size: u64,
    /// Where the region begins in the file whose descriptor comes along.
    pub offset: u64,
}

/// [`RegionInfo::flags`]: it can be read.
pub const REGION_READ: u32 = 1 << 0;
/// [`RegionInfo::flags`]: it can be written.
pub const REGION_WRITE: u32 = 1 << 1;
/// [`RegionInfo::flags`]: it, or parts of it, can be mapped.
pub const REGION_MMAP: u32 = 1 << 2;
/// [`RegionInfo::flags`]: it has capabilities.
pub const REGION_CAPS: u32 = 1 << 3;

/// What each capability of a region begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CapabilityHeader {
    /// Which capability: [`CAP_SPARSE_MMAP`], or an unknown one.
    pub id: u16,
    /// Its version.
    pub version: u16,
    /// Where the next one is, from the start of the [`RegionInfo`] on; 0 if there is none.
    pub next: u32,
}

/// [`CapabilityHeader::id`]: only parts of the region can be mapped. A [`SparseHeader`] and so many [`SparseArea`]s follow.
pub const CAP_SPARSE_MMAP: u16 = 1;

/// How many areas follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseHeader {
    /// How many [`SparseArea`]s follow.
    pub areas: u32,
    /// Nothing.
    pub reserved: u32,
}

/// A part of a region that can be mapped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SparseArea {
    /// Where it begins in the region; in the file, [`RegionInfo::offset`] is added.
    pub offset: u64,
    /// Bytes of it.
    pub size: u64,
}

/// Asks for descriptors that take a region's accesses. Request, and the first bytes of the reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionIoFds {
    /// Bytes of the reply: wanted at most, or needed for all of it.
    pub argsz: u32,
    /// 0.
    pub flags: u32,
    /// Which region.
    pub index: u32,
    /// How many sub-regions follow.
    pub count: u32,
}

/// What a kind of interrupt can do. Request and reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqInfo {
    /// Bytes of the reply.
    pub argsz: u32,
    /// The bits that begin with `IRQ_`.
    pub flags: u32,
    /// Which kind: one of [`irq`].
    pub index: u32,
    /// How many there are of it.
    pub count: u32,
}

/// [`IrqInfo::flags`]: it is raised by an eventfd.
pub const IRQ_EVENTFD: u32 = 1 << 0;
/// [`IrqInfo::flags`]: it can be masked.
pub const IRQ_MASKABLE: u32 = 1 << 1;
/// [`IrqInfo::flags`]: it masks itself when it is raised.
pub const IRQ_AUTOMASKED: u32 = 1 << 2;
/// [`IrqInfo::flags`]: all are set up at once, or none.
pub const IRQ_NORESIZE: u32 = 1 << 3;

/// What to do with interrupts. With [`SET_DATA_BOOL`], so many bytes follow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqSet {
    /// Bytes of the request.
    pub argsz: u32,
    /// One bit of those that begin with `SET_DATA_`, one of `SET_ACTION_`.
    pub flags: u32,
    /// Which kind: one of [`irq`].
    pub index: u32,
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// [`IrqSet::flags`]: there are no data.
pub const SET_DATA_NONE: u32 = 1 << 0;
/// [`IrqSet::flags`]: a byte for each interrupt follows.
pub const SET_DATA_BOOL: u32 = 1 << 1;
/// [`IrqSet::flags`]: a descriptor for each interrupt comes along, or none to take those away that are there.
pub const SET_DATA_EVENTFD: u32 = 1 << 2;
/// [`IrqSet::flags`]: masks.
pub const SET_ACTION_MASK: u32 = 1 << 3;
/// [`IrqSet::flags`]: unmasks.
pub const SET_ACTION_UNMASK: u32 = 1 << 4;
/// [`IrqSet::flags`]: raises, or says what raising does.
pub const SET_ACTION_TRIGGER: u32 = 1 << 5;

/// An access to a region. The data follow a write's request and a read's reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RegionAccess {
    /// Where in the region.
    pub offset: u64,
    /// Which region.
    pub region: u32,
    /// Bytes of data.
    pub count: u32,
}

/// One write of a REGION_WRITE_MULTI, which begins with how many there are, as a `u64`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MultiWrite {
    /// Where.
    pub access: RegionAccess,
    /// The data, as many bytes as `access` says.
    pub data: [u8; 8],
}

/// An access of the server to the client's memory. The data follow a write's request and a read's reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DmaAccess {
    /// Where, as the device names it.
    pub address: u64,
    /// Bytes of data.
    pub count: u64,
}

/// Regions of a PCI device.
pub mod region {
    /// Base address registers 0 to 5.
    pub const BAR0: u32 = 0;
    /// The expansion ROM.
    pub const ROM: u32 = 6;
    /// The configuration space.
    pub const CONFIG: u32 = 7;
    /// VGA.
    pub const VGA: u32 = 8;
    /// How many there are.
    pub const COUNT: u32 = 9;
}

/// Kinds of interrupts of a PCI device.
pub mod irq {
    /// A pin.
    pub const INTX: u32 = 0;
    /// Message-signalled.
    pub const MSI: u32 = 1;
    /// Message-signalled, extended.
    pub const MSIX: u32 = 2;
    /// Errors.
    pub const ERROR: u32 = 3;
    /// The device wants to be given back.
    pub const REQUEST: u32 = 4;
    /// How many there are.
    pub const COUNT: u32 = 5;
}
