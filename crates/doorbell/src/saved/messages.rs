//! What is in a saved state, field by field. Numbers are for ever.

use prost::{Enumeration, Message};

/// A driver.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Driver {
    /// Identify Controller (CNS 01h).
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) identify: Vec<u8>,
    /// Identify Controller, NVM command set (CNS 06h).
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) nvm: Vec<u8>,
    /// Controller Capabilities: another value is another controller.
    #[prost(fixed64, tag = "3")]
    pub(crate) cap: u64,
    /// CC.MPS, in bytes.
    #[prost(uint64, tag = "4")]
    pub(crate) page_size: u64,
    /// Whether commands may carry SGLs.
    #[prost(bool, tag = "5")]
    pub(crate) sgl: bool,
    /// I/O queues that there may be.
    #[prost(uint32, tag = "6")]
    pub(crate) queue_limit: u32,
    /// How completions are found: 0 by interrupt, 1 by polling, 2 by the caller's polling, 3 by both.
    #[prost(uint32, tag = "7")]
    pub(crate) completion: u32,
    #[prost(message, optional, tag = "8")]
    pub(crate) host_id: Option<HostId>,
    /// Features that the caller set.
    #[prost(message, repeated, tag = "9")]
    pub(crate) features: Vec<Feature>,
    /// All memory that the device reaches and that crosses over. The rest names it by its index here.
    #[prost(message, repeated, tag = "10")]
    pub(crate) memory: Vec<Memory>,
    /// The admin queue first.
    #[prost(message, repeated, tag = "11")]
    pub(crate) queues: Vec<Queue>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) registrations: Vec<Registration>,
    /// Namespaces that somebody holds.
    #[prost(message, repeated, tag = "13")]
    pub(crate) namespaces: Vec<Namespace>,
    /// NSIDs that were there when last looked at.
    #[prost(uint32, repeated, tag = "14")]
    pub(crate) nsids: Vec<u32>,
    /// Dword 0 of events that came, and were not dealt with to the end.
    #[prost(fixed32, repeated, tag = "15")]
    pub(crate) events: Vec<u32>,
    /// How often the controller was reset so far.
    #[prost(uint64, tag = "16")]
    pub(crate) resets: u64,
    /// Shadow doorbells, where they are set up.
    #[prost(message, optional, tag = "17")]
    pub(crate) shadows: Option<Shadows>,
    /// I/O queues that there may be with those that have an owner.
    #[prost(uint32, tag = "18")]
    pub(crate) queues_in_all: u32,
    /// VS.
    #[prost(fixed32, tag = "19")]
    pub(crate) version: u32,
    /// CRTO, where there is one.
    #[prost(fixed32, tag = "20")]
    pub(crate) crto: u32,
    /// Interrupt Coalescing, where it was asked for.
    #[prost(uint32, optional, tag = "21")]
    pub(crate) interrupt_coalescing: Option<u32>,
}

/// Shadow doorbells: a page of values and one of event indices.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Shadows {
    #[prost(uint32, tag = "1")]
    pub(crate) memory: u32,
    /// Whether the controller uses them.
    #[prost(bool, tag = "2")]
    pub(crate) active: bool,
}

/// The host identifier.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HostId {
    /// 8 or 16.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) bytes: Vec<u8>,
}

/// A feature that was set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Feature {
    #[prost(uint32, tag = "1")]
    pub(crate) fid: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) nsid: u32,
    #[prost(fixed32, tag = "3")]
    pub(crate) cdw11: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) data: Vec<u8>,
}

/// Memory that the device reaches.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Memory {
    #[prost(uint64, tag = "1")]
    pub(crate) iova: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) len: u64,
}

/// Where something lies in memory.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Place {
    /// Which memory.
    #[prost(uint32, tag = "1")]
    pub(crate) memory: u32,
    /// Byte offset in it.
    #[prost(uint64, tag = "2")]
    pub(crate) offset: u64,
}

/// A queue pair.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Queue {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    /// Commands that can be in flight; the rings have an entry more.
    #[prost(uint32, tag = "2")]
    pub(crate) depth: u32,
    /// The interrupt vector, where there is one.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) vector: Option<u32>,
    /// The CPU that it was made for.
    #[prost(uint32, tag = "4")]
    pub(crate) cpu: u32,
    #[prost(message, optional, tag = "5")]
    pub(crate) submission: Option<Place>,
    #[prost(message, optional, tag = "6")]
    pub(crate) completion: Option<Place>,
    /// PRP list pages.
    #[prost(message, optional, tag = "7")]
    pub(crate) lists: Option<Place>,
    #[prost(uint32, tag = "8")]
    pub(crate) list_words: u32,
    /// The bounce pool: all of this memory.
    #[prost(uint32, tag = "9")]
    pub(crate) pool: u32,
    #[prost(uint32, tag = "10")]
    pub(crate) sq_tail: u32,
    #[prost(uint32, tag = "11")]
    pub(crate) sq_head: u32,
    #[prost(uint32, tag = "12")]
    pub(crate) cq_head: u32,
    /// The phase that a new completion will carry.
    #[prost(bool, tag = "13")]
    pub(crate) phase: bool,
    /// Commands sent so far.
    #[prost(uint64, tag = "14")]
    pub(crate) submitted: u64,
    /// The identifier of each slot's last command.
    #[prost(uint32, repeated, tag = "15")]
    pub(crate) identifiers: Vec<u32>,
    /// Commands that have a slot.
    #[prost(message, repeated, tag = "16")]
    pub(crate) commands: Vec<Command>,
    /// It has an owner, and no CPU.
    #[prost(bool, tag = "17")]
    pub(crate) exclusive: bool,
}

/// A command that has a slot.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Command {
    /// CID, of which the low bits are the slot.
    #[prost(uint32, tag = "1")]
    pub(crate) identifier: u32,
    #[prost(enumeration = "CommandState", tag = "2")]
    pub(crate) state: i32,
    /// The submission queue entry: 8 words.
    #[prost(fixed64, repeated, tag = "3")]
    pub(crate) words: Vec<u64>,
    /// The completion queue entry: 2 words, once it is there.
    #[prost(fixed64, repeated, tag = "4")]
    pub(crate) result: Vec<u64>,
    #[prost(uint64, tag = "5")]
    pub(crate) tag: u64,
    /// The registration that its data lies in; 0 for none.
    #[prost(uint64, tag = "6")]
    pub(crate) registration: u64,
    /// Its number in its queue.
    #[prost(uint64, tag = "7")]
    pub(crate) sequence: u64,
    /// The pages of the pool that it has.
    #[prost(uint32, tag = "8")]
    pub(crate) first_page: u32,
    #[prost(uint32, tag = "9")]
    pub(crate) pages: u32,
    /// The buffer that its data is in, if it is one.
    #[prost(uint32, optional, tag = "10")]
    pub(crate) buffer: Option<u32>,
    /// The bytes of the buffer that were asked for.
    #[prost(uint64, tag = "11")]
    pub(crate) buffer_len: u64,
}

/// What becomes of a command that crosses over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
pub(crate) enum CommandState {
    /// The device has it.
    InFlight = 0,
    /// The device has it, and nobody waits for it.
    Orphaned = 1,
    /// Its result is there, and nobody has it yet.
    Done = 2,
}

/// Guest memory that the device reaches.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Registration {
    /// By which commands name it.
    #[prost(uint64, tag = "1")]
    pub(crate) key: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) regions: Vec<Region>,
}

/// A region of guest memory.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Region {
    #[prost(uint64, tag = "1")]
    pub(crate) gpa: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) memory: u32,
    /// Whether the device may write to it.
    #[prost(bool, tag = "3")]
    pub(crate) writable: bool,
    /// Whether the device may read it.
    #[prost(bool, tag = "4")]
    pub(crate) readable: bool,
}

/// A namespace that somebody holds. What is not here is looked up again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Namespace {
    #[prost(uint32, tag = "1")]
    pub(crate) nsid: u32,
    #[prost(bool, tag = "2")]
    pub(crate) removed: bool,
    #[prost(bool, tag = "3")]
    pub(crate) carry_metadata: bool,
    #[prost(uint64, tag = "4")]
    pub(crate) block_count: u64,
    /// What Identify showed of it (CNS 00h).
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) identify: Vec<u8>,
    /// And for the NVM command set (CNS 05h), where that was asked for.
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(crate) nvm: Option<Vec<u8>>,
    /// Its identifiers (CNS 03h): EUI-64, NGUID, UUID.
    #[prost(bytes = "vec", optional, tag = "7")]
    pub(crate) eui64: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(crate) nguid: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(crate) uuid: Option<Vec<u8>>,
}
