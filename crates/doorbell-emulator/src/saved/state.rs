//! What is in a saved state, field by field. Numbers are for ever. Times are in nanoseconds of the controller's clock.

use prost::Message;

/// An NVM subsystem.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Subsystem {
    #[prost(string, tag = "1")]
    pub(crate) serial: String,
    #[prost(string, tag = "2")]
    pub(crate) model: String,
    #[prost(string, optional, tag = "3")]
    pub(crate) nqn: Option<String>,
    #[prost(uint32, tag = "4")]
    pub(crate) max_namespaces: u32,
    /// Namespaces ever added.
    #[prost(uint64, tag = "5")]
    pub(crate) added: u64,
    #[prost(message, repeated, tag = "6")]
    pub(crate) namespaces: Vec<Namespace>,
    #[prost(message, repeated, tag = "7")]
    pub(crate) ports: Vec<Port>,
}

/// A namespace.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Namespace {
    #[prost(uint32, tag = "1")]
    pub(crate) nsid: u32,
    /// 0 zeroes, 1 a file, 2 a file by io_uring, 3 memory, 4 nowhere, 5 elsewhere.
    #[prost(uint32, tag = "2")]
    pub(crate) storage: u32,
    /// The descriptor of its storage, by its place among all.
    #[prost(uint32, optional, tag = "3")]
    pub(crate) descriptor: Option<u32>,
    /// Bytes of the storage.
    #[prost(uint64, tag = "4")]
    pub(crate) size: u64,
    /// NSZE.
    #[prost(uint64, tag = "5")]
    pub(crate) blocks: u64,
    /// LBAF, as in Identify Namespace.
    #[prost(fixed32, repeated, tag = "6")]
    pub(crate) formats: Vec<u32>,
    #[prost(uint32, tag = "7")]
    pub(crate) format: u32,
    #[prost(bool, tag = "8")]
    pub(crate) inline_metadata: bool,
    #[prost(uint32, tag = "9")]
    pub(crate) protection: u32,
    /// It was made so.
    #[prost(bool, tag = "10")]
    pub(crate) read_only: bool,
    /// It is so now.
    #[prost(bool, tag = "11")]
    pub(crate) write_protected: bool,
    #[prost(bool, tag = "12")]
    pub(crate) shared: bool,
    /// Who has it attached; all if there is no list.
    #[prost(message, optional, tag = "13")]
    pub(crate) controllers: Option<Numbers>,
    #[prost(uint32, tag = "14")]
    pub(crate) dlfeat: u32,
    #[prost(uint32, tag = "15")]
    pub(crate) rescap: u32,
    /// NAWUN, NAWUPF, NACWU.
    #[prost(message, optional, tag = "16")]
    pub(crate) atomic: Option<Numbers>,
    /// NABSN, NABO, NABSPF.
    #[prost(message, optional, tag = "17")]
    pub(crate) atomic_boundary: Option<Numbers>,
    #[prost(uint32, tag = "18")]
    pub(crate) noiob: u32,
    /// NPWG, NPWA, NPDG, NPDA, NOWS, NPDGL.
    #[prost(message, optional, tag = "19")]
    pub(crate) optimal: Option<Numbers>,
    #[prost(uint32, tag = "20")]
    pub(crate) mssrl: u32,
    #[prost(uint32, tag = "21")]
    pub(crate) mcl: u32,
    #[prost(uint32, tag = "22")]
    pub(crate) msrc: u32,
    #[prost(bytes = "vec", optional, tag = "23")]
    pub(crate) eui64: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "24")]
    pub(crate) nguid: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "25")]
    pub(crate) uuid: Option<Vec<u8>>,
    #[prost(uint32, optional, tag = "26")]
    pub(crate) csi: Option<u32>,
    /// Blocks marked by Write Uncorrectable: first, and behind the last, of each range.
    #[prost(uint64, repeated, tag = "27")]
    pub(crate) uncorrectable: Vec<u64>,
    #[prost(message, optional, tag = "28")]
    pub(crate) reservations: Option<Reservations>,
    /// Written to since the last flush.
    #[prost(bool, tag = "29")]
    pub(crate) dirty: bool,
    /// What the storage elsewhere is called.
    #[prost(string, optional, tag = "30")]
    pub(crate) elsewhere: Option<String>,
    /// The descriptor of the blocks' metadata, where the format has any.
    #[prost(uint32, optional, tag = "31")]
    pub(crate) metadata: Option<u32>,
}

/// Numbers of which an empty list means something.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Numbers {
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) list: Vec<u32>,
}

/// Reservations of a namespace.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Reservations {
    #[prost(uint32, tag = "1")]
    pub(crate) generation: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) kind: u32,
    #[prost(message, repeated, tag = "3")]
    pub(crate) registrants: Vec<Registrant>,
    #[prost(message, optional, tag = "4")]
    pub(crate) holder: Option<HostId>,
    #[prost(bool, tag = "5")]
    pub(crate) ptpl: bool,
}

/// A host with a key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Registrant {
    #[prost(message, optional, tag = "1")]
    pub(crate) host: Option<HostId>,
    #[prost(fixed64, tag = "2")]
    pub(crate) key: u64,
}

/// Who a host is: 8 or 16 bytes, or else the host of a controller after so many resets.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HostId {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) bytes: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) cntlid: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) epoch: u32,
}

/// A controller as its subsystem sees it, with what it has not noticed yet.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Port {
    #[prost(uint32, tag = "1")]
    pub(crate) cntlid: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) host: Option<HostId>,
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) changed: Vec<u32>,
    /// NSID and kind of each notice.
    #[prost(uint32, repeated, tag = "4")]
    pub(crate) notices: Vec<u32>,
    #[prost(uint32, repeated, tag = "5")]
    pub(crate) abort: Vec<u32>,
    /// 0 none, 1 of the subsystem, 2 of its power.
    #[prost(uint32, tag = "6")]
    pub(crate) reset: u32,
}

/// A controller.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Controller {
    #[prost(uint32, tag = "1")]
    pub(crate) cntlid: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) config: Option<Config>,
    #[prost(message, optional, tag = "3")]
    pub(crate) registers: Option<Registers>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) submission: Vec<SubmissionQueue>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) completion: Vec<CompletionQueue>,
    #[prost(message, optional, tag = "6")]
    pub(crate) shadow: Option<ShadowBuffers>,
    #[prost(message, optional, tag = "7")]
    pub(crate) features: Option<Features>,
    #[prost(message, optional, tag = "8")]
    pub(crate) events: Option<Events>,
    #[prost(uint32, repeated, tag = "9")]
    pub(crate) changed: Vec<u32>,
    #[prost(bool, tag = "10")]
    pub(crate) more_changed: bool,
    #[prost(message, optional, tag = "11")]
    pub(crate) reservation_log: Option<ReservationLog>,
    #[prost(message, optional, tag = "12")]
    pub(crate) health: Option<Health>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) delayed: Vec<Delayed>,
    #[prost(uint64, tag = "14")]
    pub(crate) now: u64,
    #[prost(uint64, optional, tag = "15")]
    pub(crate) powered_on: Option<u64>,
    /// A fault plan, as JSON.
    #[prost(string, tag = "16")]
    pub(crate) faults: String,
    /// How often each of its rules matched, and applied.
    #[prost(uint64, repeated, tag = "17")]
    pub(crate) faults_matched: Vec<u64>,
    #[prost(uint64, repeated, tag = "18")]
    pub(crate) faults_applied: Vec<u64>,
    #[prost(uint32, tag = "19")]
    pub(crate) epoch: u32,
    /// Completion queues whose interrupt is still to be raised.
    #[prost(uint32, repeated, tag = "20")]
    pub(crate) raise: Vec<u32>,
    /// 0 none, 1 stuck, 2 gone.
    #[prost(uint32, tag = "21")]
    pub(crate) plight: u32,
    /// Deletions of submission queues that wait: 8 words each.
    #[prost(fixed64, repeated, tag = "22")]
    pub(crate) deletions: Vec<u64>,
    #[prost(bool, tag = "23")]
    pub(crate) flushing: bool,
    #[prost(message, repeated, tag = "24")]
    pub(crate) outstanding: Vec<Outstanding>,
    /// The number of the next command that storage is given.
    #[prost(uint64, tag = "25")]
    pub(crate) next: u64,
}

/// A command that storage has not finished.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Outstanding {
    /// By which storage knows it.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) sqid: u32,
    #[prost(fixed64, repeated, tag = "3")]
    pub(crate) command: Vec<u64>,
}

/// What a controller can do.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Config {
    #[prost(fixed32, tag = "1")]
    pub(crate) version: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) vendor_id: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) ieee_oui: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) firmware: String,
    #[prost(uint32, tag = "5")]
    pub(crate) queue_pairs: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) mqes: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) dstrd: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) mpsmin: u32,
    #[prost(uint32, tag = "9")]
    pub(crate) mpsmax: u32,
    #[prost(uint32, tag = "10")]
    pub(crate) mdts: u32,
    /// 0 none, 1 of bytes, 2 of dwords.
    #[prost(uint32, tag = "11")]
    pub(crate) sgl: u32,
    #[prost(uint32, tag = "12")]
    pub(crate) vectors: u32,
    /// 0 MSI-X, 1 MSI, 2 the pin.
    #[prost(uint32, tag = "13")]
    pub(crate) interrupts: u32,
    #[prost(uint64, tag = "14")]
    pub(crate) ready_after: u64,
    #[prost(uint64, tag = "15")]
    pub(crate) disable_after: u64,
    #[prost(uint64, tag = "16")]
    pub(crate) shutdown_after: u64,
    #[prost(uint32, tag = "17")]
    pub(crate) to: u32,
    #[prost(uint32, optional, tag = "18")]
    pub(crate) crwmt: Option<u32>,
    #[prost(uint32, tag = "19")]
    pub(crate) rtd3e: u32,
    #[prost(uint32, repeated, tag = "20")]
    pub(crate) crdt: Vec<u32>,
    #[prost(bool, tag = "21")]
    pub(crate) nssrs: bool,
    #[prost(uint32, tag = "22")]
    pub(crate) aerl: u32,
    #[prost(uint32, tag = "23")]
    pub(crate) acl: u32,
    #[prost(uint32, tag = "24")]
    pub(crate) elpe: u32,
    #[prost(uint32, tag = "25")]
    pub(crate) oncs: u32,
    #[prost(bool, tag = "26")]
    pub(crate) format: bool,
    #[prost(bool, tag = "27")]
    pub(crate) doorbell_buffer_config: bool,
    #[prost(bool, tag = "28")]
    pub(crate) compare_and_write: bool,
    #[prost(bool, tag = "29")]
    pub(crate) volatile_write_cache: bool,
    #[prost(bool, tag = "30")]
    pub(crate) flush_all: bool,
    #[prost(bool, tag = "31")]
    pub(crate) host_id_128: bool,
    #[prost(uint32, tag = "32")]
    pub(crate) wzsl: u32,
    #[prost(uint32, tag = "33")]
    pub(crate) wusl: u32,
    #[prost(uint32, tag = "34")]
    pub(crate) vsl: u32,
    #[prost(uint32, tag = "35")]
    pub(crate) dmrl: u32,
    #[prost(uint32, tag = "36")]
    pub(crate) dmrsl: u32,
    #[prost(uint64, tag = "37")]
    pub(crate) dmsl: u64,
    #[prost(uint32, tag = "38")]
    pub(crate) awun: u32,
    #[prost(uint32, tag = "39")]
    pub(crate) awupf: u32,
    #[prost(uint32, tag = "40")]
    pub(crate) acwu: u32,
    #[prost(bool, tag = "41")]
    pub(crate) identify_nvm_controller: bool,
    /// 0 all, 1 none, 2 refused.
    #[prost(uint32, tag = "42")]
    pub(crate) descriptors: u32,
    #[prost(bool, tag = "43")]
    pub(crate) effects_log: bool,
    #[prost(bool, tag = "44")]
    pub(crate) extended_log: bool,
    #[prost(bool, tag = "45")]
    pub(crate) namespace_notices: bool,
    #[prost(uint64, optional, tag = "46")]
    pub(crate) latency: Option<u64>,
    #[prost(uint64, optional, tag = "47")]
    pub(crate) housekeeping: Option<u64>,
}

/// The registers that are not constant.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Registers {
    #[prost(fixed32, tag = "1")]
    pub(crate) cc: u32,
    #[prost(fixed32, tag = "2")]
    pub(crate) csts: u32,
    #[prost(fixed32, tag = "3")]
    pub(crate) aqa: u32,
    #[prost(fixed64, tag = "4")]
    pub(crate) asq: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) acq: u64,
    #[prost(fixed32, tag = "6")]
    pub(crate) masked: u32,
    #[prost(message, optional, tag = "7")]
    pub(crate) enabling: Option<Due>,
    #[prost(message, optional, tag = "8")]
    pub(crate) disabling: Option<Due>,
    #[prost(message, optional, tag = "9")]
    pub(crate) shutdown: Option<Due>,
}

/// When something is done.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Due {
    #[prost(uint64, tag = "1")]
    pub(crate) takes: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(crate) at: Option<u64>,
}

/// A submission queue.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct SubmissionQueue {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) cqid: u32,
    #[prost(fixed64, tag = "3")]
    pub(crate) base: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) size: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) head: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) tail: u32,
    #[prost(bool, tag = "7")]
    pub(crate) closed: bool,
    #[prost(uint32, optional, tag = "8")]
    pub(crate) reported: Option<u32>,
    /// The event index as last written, where there is a shadow doorbell.
    #[prost(uint32, optional, tag = "9")]
    pub(crate) published: Option<u32>,
}

/// A completion queue.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CompletionQueue {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) vector: Option<u32>,
    #[prost(fixed64, tag = "3")]
    pub(crate) base: u64,
    #[prost(uint32, tag = "4")]
    pub(crate) size: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) head: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) tail: u32,
    #[prost(bool, tag = "7")]
    pub(crate) phase: bool,
    #[prost(uint32, optional, tag = "8")]
    pub(crate) reported: Option<u32>,
    #[prost(uint32, optional, tag = "9")]
    pub(crate) published: Option<u32>,
    /// Completions that found the queue full: 2 words each.
    #[prost(fixed64, repeated, tag = "10")]
    pub(crate) backlog: Vec<u64>,
}

/// The buffers of Doorbell Buffer Config.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ShadowBuffers {
    #[prost(fixed64, tag = "1")]
    pub(crate) values: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) event_indices: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) len: u32,
}

/// Values of features.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Features {
    /// Feature, what for, and value of each.
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) current: Vec<u32>,
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) saved: Vec<u32>,
    /// Milliseconds, as they were set.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) timestamp: Option<u64>,
    /// When they were set.
    #[prost(uint64, tag = "4")]
    pub(crate) timestamp_set: u64,
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) behavior: Vec<u8>,
}

/// Asynchronous events.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Events {
    /// Command identifiers of the requests that wait.
    #[prost(uint32, repeated, tag = "1")]
    pub(crate) requests: Vec<u32>,
    /// Dword 0 of events that wait.
    #[prost(fixed32, repeated, tag = "2")]
    pub(crate) pending: Vec<u32>,
    /// Types that were told and not read since, a bit each.
    #[prost(uint32, tag = "3")]
    pub(crate) masked: u32,
}

/// The Reservation Notification log page.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReservationLog {
    #[prost(uint64, tag = "1")]
    pub(crate) count: u64,
    /// Count, NSID and kind of each notice.
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) notices: Vec<u64>,
}

/// What is counted, and what is told of the controller's health.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Health {
    #[prost(uint32, tag = "1")]
    pub(crate) temperature: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) available_spare: u32,
    #[prost(uint32, tag = "3")]
    pub(crate) available_spare_threshold: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) percentage_used: u32,
    /// Warnings that were set, and those that are on.
    #[prost(uint32, tag = "5")]
    pub(crate) condition_warnings: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) warnings: u32,
    #[prost(uint64, tag = "7")]
    pub(crate) bytes_read: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) bytes_written: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) reads: u64,
    #[prost(uint64, tag = "10")]
    pub(crate) writes: u64,
    #[prost(uint64, tag = "11")]
    pub(crate) power_cycles: u64,
    #[prost(uint64, tag = "12")]
    pub(crate) unsafe_shutdowns: u64,
    #[prost(uint64, tag = "13")]
    pub(crate) media_errors: u64,
    #[prost(uint64, tag = "14")]
    pub(crate) errors: u64,
    /// Entries of the error log, newest first.
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(crate) entries: Vec<Vec<u8>>,
}

/// A completion that is due later.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Delayed {
    #[prost(uint64, tag = "1")]
    pub(crate) at: u64,
    /// Its place among those that are due at the same time.
    #[prost(uint64, tag = "2")]
    pub(crate) order: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) sqid: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) cid: u32,
    #[prost(uint32, tag = "5")]
    pub(crate) nsid: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) opcode: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) status: u32,
    #[prost(uint64, tag = "8")]
    pub(crate) result: u64,
    #[prost(bool, tag = "9")]
    pub(crate) twice: bool,
    #[prost(bool, tag = "10")]
    pub(crate) quiet: bool,
    #[prost(message, optional, tag = "11")]
    pub(crate) bad: Option<BadCompletion>,
}

/// What is wrong with a completion.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct BadCompletion {
    #[prost(uint32, optional, tag = "1")]
    pub(crate) cid: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    pub(crate) sqid: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub(crate) sqhd: Option<u32>,
    #[prost(uint32, tag = "4")]
    pub(crate) status_xor: u32,
    #[prost(uint32, optional, tag = "5")]
    pub(crate) dw0: Option<u32>,
}
