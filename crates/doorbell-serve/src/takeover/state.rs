//! What a server hands over, field by field. Numbers are for ever. Descriptors go beside it, and are named by their place
//! among those of the same endpoint.

use prost::Message;

/// A server.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Server {
    /// The emulated subsystem, in its own form.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) subsystem: Vec<u8>,
    /// How many descriptors are the subsystem's. They come first.
    #[prost(uint32, tag = "2")]
    pub(crate) descriptors: u32,
    /// Their descriptors follow, in order.
    #[prost(message, repeated, tag = "3")]
    pub(crate) endpoints: Vec<Endpoint>,
    /// When everything stood still, in nanoseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub(crate) frozen_at: u64,
    /// The control socket: its path. Its descriptor follows those of the endpoints.
    #[prost(string, optional, tag = "5")]
    pub(crate) control: Option<String>,
    /// Bytes of a block, where a namespace that is added does not say.
    #[prost(uint32, tag = "6")]
    pub(crate) block_size: u32,
    /// Namespaces whose files are locked. The descriptors of the locks come next.
    #[prost(uint32, repeated, tag = "7")]
    pub(crate) locked: Vec<u32>,
    /// What is behind the namespaces, in a form of its own.
    #[prost(bytes = "vec", tag = "8")]
    pub(crate) behind: Vec<u8>,
    /// How many of the descriptors are for that: the last.
    #[prost(uint32, tag = "9")]
    pub(crate) behind_descriptors: u32,
}

/// A controller behind a socket.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Endpoint {
    #[prost(string, tag = "1")]
    pub(crate) path: String,
    #[prost(uint32, tag = "2")]
    pub(crate) listener: u32,
    /// The emulated controller, in its own form.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) controller: Vec<u8>,
    /// What the controller's clock shows, in nanoseconds.
    #[prost(uint64, tag = "4")]
    pub(crate) elapsed: u64,
    #[prost(message, optional, tag = "5")]
    pub(crate) session: Option<Session>,
    #[prost(uint64, tag = "6")]
    pub(crate) clients: u64,
    #[prost(bool, tag = "7")]
    pub(crate) connected: bool,
    #[prost(uint64, tag = "8")]
    pub(crate) turned_away: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) runs: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) sleeps: u64,
    /// How many descriptors are this endpoint's.
    #[prost(uint32, tag = "11")]
    pub(crate) descriptors: u32,
    /// Commands that storage has not finished.
    #[prost(uint32, tag = "12")]
    pub(crate) outstanding: u32,
}

/// A client.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Session {
    /// Its connection, which is between two messages.
    #[prost(uint32, tag = "1")]
    pub(crate) stream: u32,
    /// The file with its doorbells.
    #[prost(uint32, tag = "2")]
    pub(crate) bar: u32,
    /// Whether a version was agreed on.
    #[prost(bool, tag = "3")]
    pub(crate) agreed: bool,
    /// The PCI configuration space.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) config: Vec<u8>,
    /// The BAR of the MSI-X table.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) msix: Vec<u8>,
    /// The vectors, and the pin.
    #[prost(message, repeated, tag = "6")]
    pub(crate) lines: Vec<Line>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) mappings: Vec<Mapping>,
    /// Accesses to memory that was not mapped.
    #[prost(uint64, tag = "8")]
    pub(crate) faults: u64,
    /// Whether the log says what the client does wrong with its memory.
    #[prost(bool, tag = "9")]
    pub(crate) told: bool,
}

/// An interrupt.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Line {
    /// The client's eventfd.
    #[prost(uint32, optional, tag = "1")]
    pub(crate) signal: Option<u32>,
    #[prost(bool, tag = "2")]
    pub(crate) pending: bool,
    #[prost(bool, tag = "3")]
    pub(crate) masked: bool,
}

/// Memory of the client.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Mapping {
    #[prost(uint64, tag = "1")]
    pub(crate) address: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) len: u64,
    /// As in the client's request.
    #[prost(uint32, tag = "3")]
    pub(crate) flags: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) offset: u64,
    #[prost(uint32, optional, tag = "5")]
    pub(crate) file: Option<u32>,
}
