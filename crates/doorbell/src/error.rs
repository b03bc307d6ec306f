//! What can go wrong, and whose fault it is.
//!
//! [`RequestError`] is one command's, [`NamespaceError`] a namespace's, [`DriverError`] the controller's. Within each,
//! the caller's mistakes, the device's limits and the device's lies are different variants.

use std::fmt;
use std::sync::Arc;

use doorbell_device::DeviceError;
use nvme_spec::status::sct;
use nvme_spec::{Completion, Status};

pub use crate::memory::MemoryError;

/// Why a command did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The driver was shut down, or dropped.
    #[error("the NVMe driver has been shut down")]
    Gone,
    /// The device answered with an error status.
    #[error(transparent)]
    Nvme(#[from] NvmeError),
    /// The memory given cannot be used.
    #[error("unusable memory: {0}")]
    Memory(#[from] MemoryError),
    /// More than the device, or the bounce buffers, can carry in a command that may not be split.
    #[error("the transfer of {len} {unit} is too large, at most {max} are possible")]
    TooLarge {
        /// What was asked for.
        len: u64,
        /// What is possible.
        max: u64,
        /// Of what: blocks, bytes, ranges.
        unit: &'static str,
    },
    /// The memory given is shorter than the blocks asked for.
    #[error("the memory has {len} bytes, the transfer needs {needed}")]
    TooShort {
        /// Bytes given.
        len: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// A slice whose length is not a whole number of blocks.
    #[error("{len} bytes are not a whole number of blocks of {block_size} bytes")]
    NotBlocks {
        /// Bytes given.
        len: usize,
        /// Bytes of a block.
        block_size: u32,
    },
    /// Blocks outside the namespace. Nothing was sent.
    #[error("blocks {lba}+{block_count} are outside the namespace, which has {capacity} blocks")]
    OutOfRange {
        /// First block.
        lba: u64,
        /// Number of blocks.
        block_count: u64,
        /// Blocks of the namespace.
        capacity: u64,
    },
    /// A CPU that the driver was not set up for.
    #[error("CPU {cpu} is not one of the {count} that the driver was set up for")]
    NoSuchCpu {
        /// The CPU asked for.
        cpu: u32,
        /// CPUs there are, counted from 0.
        count: u32,
    },
    /// The controller does not report that it can do this. Nothing was sent.
    #[error("the controller does not support {0}")]
    Unsupported(&'static str),
    /// A parameter that the specification does not allow. Nothing was sent.
    #[error("{what} is {value}, allowed is {allowed}")]
    BadParameter {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What would be allowed.
        allowed: &'static str,
    },
    /// No I/O queue could be made for the command.
    #[error("no I/O queue could be created: {0}")]
    NoQueue(Arc<RequestError>),
    /// All the I/O queues that the controller and its interrupts allow are in use.
    #[error("all {limit} I/O queues that there can be are in use")]
    NoMoreQueues {
        /// How many there can be.
        limit: u16,
    },
    /// An exclusive queue is full, its controller is being reset, or a command of the process before still changes the
    /// blocks: look for completions, and try again. Or guest memory is to be registered while the driver is saved.
    #[error("the queue takes no command now")]
    WouldWait,
    /// The device cannot reach the memory, and an exclusive queue has no bounce buffers. Register the memory, or align it.
    #[error("the device cannot reach the memory directly")]
    NotDirect,
    /// The controller was reset while it had the command, which cannot be sent once more without harm. Whether it was
    /// carried out is not known.
    #[error("the controller was reset while it had the command, which may or may not have been carried out")]
    Interrupted,
    /// Another process has the controller now, or is about to. Who answers for the command there has its result.
    #[error("the controller was handed over to another process")]
    HandedOver,
    /// The device broke the protocol, and was given up.
    #[error("the device was given up: {0}")]
    Misbehaved(#[from] DeviceMisbehaved),
    /// The device failed, and was given up.
    #[error("the device was given up: {0}")]
    Failed(DeviceFailed),
    /// The device could not be reached.
    #[error("the device could not be reached: {0}")]
    Device(Arc<DeviceError>),
}

impl RequestError {
    /// The status, where the device answered with one.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            RequestError::Nvme(error) => Some(error.status),
            _ => None,
        }
    }

    /// What kind of failure this is, for a disk layer to act on.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            RequestError::Nvme(error) => error.class(),
            RequestError::OutOfRange { .. } => ErrorClass::OutOfRange,
            RequestError::Gone
            | RequestError::HandedOver
            | RequestError::Misbehaved(_)
            | RequestError::Failed(_)
            | RequestError::Device(_) => ErrorClass::Gone,
            RequestError::NoQueue(cause) => cause.class(),
            RequestError::Interrupted | RequestError::WouldWait | RequestError::NoMoreQueues { .. } => {
                ErrorClass::Transient
            }
            RequestError::Memory(_)
            | RequestError::TooLarge { .. }
            | RequestError::TooShort { .. }
            | RequestError::NotBlocks { .. }
            | RequestError::NoSuchCpu { .. }
            | RequestError::NotDirect
            | RequestError::Unsupported(_)
            | RequestError::BadParameter { .. } => ErrorClass::Invalid,
        }
    }
}

impl From<DeviceError> for RequestError {
    fn from(error: DeviceError) -> Self {
        RequestError::Device(Arc::new(error))
    }
}

/// An error status, as the device gave it (NVMe Base 2.0, Status Field).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct NvmeError {
    /// Status Code Type and Status Code.
    pub status: Status,
    /// Do Not Retry: the same command would fail again.
    pub do_not_retry: bool,
    /// Command Retry Delay: which of CRDT1..CRDT3 to wait for before a retry; 0 for none.
    pub retry_delay: u8,
    /// More: the Error Information log page has more about it.
    pub more: bool,
    /// Dword 0 of the completion.
    pub dw0: u32,
}

/// What kind of failure it is, for a disk layer to act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// A reservation of another host forbids it.
    Conflict,
    /// The medium failed: these blocks, not the device.
    Medium,
    /// End-to-end protection information did not match.
    Protection,
    /// Blocks outside the namespace, or no room in it.
    OutOfRange,
    /// It may well succeed when tried again.
    Transient,
    /// The namespace, or the whole device, is not there any more.
    Gone,
    /// Compared blocks differ.
    Miscompare,
    /// The command is not allowed, not supported or malformed.
    Invalid,
    /// Any other failure of the device.
    Other,
}

impl NvmeError {
    pub(crate) fn new(completion: &Completion) -> Self {
        Self {
            status: completion.status.status(),
            do_not_retry: completion.status.dnr(),
            retry_delay: completion.status.crd(),
            more: completion.status.more(),
            dw0: completion.dw0,
        }
    }

    /// A status that the driver gives in the device's stead, not to be retried.
    pub(crate) fn of(status: Status) -> Self {
        Self { status, do_not_retry: true, retry_delay: 0, more: false, dw0: 0 }
    }

    /// What kind of failure this is, for a disk layer to act on.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self.status {
            Status::RESERVATION_CONFLICT => ErrorClass::Conflict,
            Status::COMPARE_FAILURE => ErrorClass::Miscompare,
            Status::END_TO_END_GUARD_CHECK_ERROR
            | Status::END_TO_END_APPLICATION_TAG_CHECK_ERROR
            | Status::END_TO_END_REFERENCE_TAG_CHECK_ERROR => ErrorClass::Protection,
            Status::LBA_OUT_OF_RANGE | Status::CAPACITY_EXCEEDED => ErrorClass::OutOfRange,
            Status::INVALID_NAMESPACE_OR_FORMAT => ErrorClass::Gone,
            Status::NAMESPACE_NOT_READY
            | Status::COMMAND_INTERRUPTED
            | Status::TRANSIENT_TRANSPORT_ERROR
            | Status::ABORT_REQUESTED
            | Status::ABORTED_SQ_DELETION
            | Status::FORMAT_IN_PROGRESS
            | Status::SANITIZE_IN_PROGRESS
                if !self.do_not_retry =>
            {
                ErrorClass::Transient
            }
            status if status.sct() == sct::MEDIA => ErrorClass::Medium,
            status if status.sct() == sct::PATH && !self.do_not_retry => ErrorClass::Transient,
            Status::INTERNAL_ERROR | Status::DATA_TRANSFER_ERROR if !self.do_not_retry => ErrorClass::Transient,
            Status::INVALID_COMMAND_OPCODE | Status::INVALID_FIELD_IN_COMMAND => ErrorClass::Invalid,
            _ => ErrorClass::Other,
        }
    }
}

impl fmt::Display for NvmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device answered: {}", self.status)?;
        if self.do_not_retry {
            f.write_str(", do not retry")?;
        }
        Ok(())
    }
}

impl std::error::Error for NvmeError {}

/// How a device broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceMisbehaved {
    /// A completion names a command identifier that no slot has.
    #[error("queue {queue}: a completion names command {cid:#06x}, which does not exist")]
    UnknownCommand {
        /// Where.
        queue: u16,
        /// The identifier.
        cid: u16,
    },
    /// A completion names an earlier command of a slot.
    #[error("queue {queue}: a completion names command {cid:#06x}, which ended before")]
    StaleCommand {
        /// Where.
        queue: u16,
        /// The identifier.
        cid: u16,
    },
    /// A command was completed twice.
    #[error("queue {queue}: command {cid:#06x} was completed twice")]
    CompletedTwice {
        /// Where.
        queue: u16,
        /// The identifier.
        cid: u16,
    },
    /// A completion says it belongs to another submission queue.
    #[error("queue {queue}: a completion says it is of queue {sqid}")]
    WrongQueue {
        /// Where it was found.
        queue: u16,
        /// What it says.
        sqid: u16,
    },
    /// A completion's head pointer is past the submission queue.
    #[error("queue {queue}: a completion's head pointer is {sqhd}, the queue has {entries} entries")]
    HeadOutOfRange {
        /// Where.
        queue: u16,
        /// The pointer.
        sqhd: u16,
        /// Entries of the queue.
        entries: u16,
    },
    /// A structure that the device returned makes no sense.
    #[error("{what} is {value:#x}: {why}")]
    BadData {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// How a device failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceFailed {
    /// CSTS.CFS is set.
    #[error("it reports a fatal error (CSTS.CFS)")]
    Fatal,
    /// CSTS.RDY is clear though nobody disabled it: it was reset by somebody else, or its registers are switched off.
    #[error("it is not ready any more, and was not disabled by this driver (CSTS {csts:#x})")]
    NotReady {
        /// Controller Status.
        csts: u32,
    },
    /// Its registers read all ones: it is no longer there.
    #[error("its registers read all ones, it is gone")]
    Gone,
    /// It is being taken away, or was: unplugged, its link or its server dead.
    #[error("it is lost: {0}")]
    Lost(String),
    /// It did not answer an admin command in time. What the admin queue looked like is said.
    #[error("admin command {opcode:#04x} was not answered within {seconds} s ({queue})")]
    AdminTimeout {
        /// Opcode.
        opcode: u8,
        /// How long it was waited for.
        seconds: u64,
        /// The admin queue: head, phase, interrupts seen.
        queue: String,
    },
    /// It did not answer an I/O command in time.
    #[error("command {cid:#06x} of I/O queue {queue} (opcode {opcode:#04x}) was not answered within {seconds} s")]
    IoTimeout {
        /// Opcode.
        opcode: u8,
        /// The queue's identifier.
        queue: u16,
        /// Command identifier.
        cid: u16,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Nothing is wrong with it: the caller wants it reset.
    #[error("its reset was asked for")]
    ResetAsked,
    /// Nothing is wrong with it: the caller wants its NVM subsystem reset.
    #[error("the reset of its NVM subsystem was asked for")]
    SubsystemResetAsked,
    /// It could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// After a reset it could not be brought back, or was not what it had been.
    #[error("it could not be brought back after a reset: {0}")]
    NotRecovered(String),
}

/// Why commands ended without a result.
#[derive(Debug, Clone)]
pub(crate) enum Lost {
    Shutdown,
    HandedOver,
    Misbehaved(DeviceMisbehaved),
    Failed(DeviceFailed),
    /// Just this command: the controller was reset.
    Interrupted,
}

impl From<Lost> for RequestError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Shutdown => RequestError::Gone,
            Lost::HandedOver => RequestError::HandedOver,
            Lost::Interrupted => RequestError::Interrupted,
            Lost::Misbehaved(error) => RequestError::Misbehaved(error),
            Lost::Failed(error) => RequestError::Failed(error),
        }
    }
}

/// Why a controller could not be brought up, or shut down.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The device could not be reached, or refused memory or interrupts.
    #[error("{what}: {source}")]
    Device {
        /// What was being done.
        what: &'static str,
        /// What went wrong.
        source: Arc<DeviceError>,
    },
    /// The registers read all ones: nothing is there.
    #[error("the controller's registers read all ones: nothing is there")]
    NotThere,
    /// The controller lacks something without which the driver cannot work.
    #[error("the controller is not supported: {0}")]
    Unsupported(String),
    /// It did not become ready, or did not stop, in the time it gives itself.
    #[error("the controller did not {what} within {waited_ms} ms (CSTS {csts:#x})")]
    TimedOut {
        /// What it should have done.
        what: &'static str,
        /// How long it was waited for.
        waited_ms: u64,
        /// Controller Status at the end.
        csts: u32,
    },
    /// CSTS.CFS was set.
    #[error("the controller reports a fatal error while it should {what} (CSTS {csts:#x})")]
    Fatal {
        /// What it should have done.
        what: &'static str,
        /// Controller Status.
        csts: u32,
    },
    /// An admin command of bring-up failed.
    #[error("{what}: {source}")]
    Command {
        /// What the command was for.
        what: &'static str,
        /// How it failed.
        source: RequestError,
    },
    /// An option has a value that is not allowed.
    #[error("option {option} is {value}, allowed is {allowed}")]
    BadOption {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What would be allowed.
        allowed: String,
    },
}

impl DriverError {
    pub(crate) fn device(what: &'static str) -> impl FnOnce(DeviceError) -> Self {
        move |source| DriverError::Device { what, source: Arc::new(source) }
    }

    pub(crate) fn command(what: &'static str) -> impl FnOnce(RequestError) -> Self {
        move |source| DriverError::Command { what, source }
    }
}

/// Why there is no handle for a namespace.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// A command failed, Identify among them.
    #[error("identifying the namespace failed: {0}")]
    Request(#[from] RequestError),
    /// No namespace has this NSID (NSZE is 0).
    #[error("there is no namespace {nsid}")]
    NotFound {
        /// The NSID.
        nsid: u32,
    },
    /// NSID 0 or FFFFFFFFh, which name no single namespace.
    #[error("NSID {nsid:#x} names no single namespace; allowed is 1 to 0xfffffffe")]
    InvalidNsid {
        /// The NSID.
        nsid: u32,
    },
    /// A handle for it lives already.
    #[error("namespace {nsid} is in use through another handle")]
    DuplicateRequest {
        /// The NSID.
        nsid: u32,
    },
    /// It belongs to another command set than NVM.
    #[error("namespace {nsid} is of the {name} command set, not of the NVM command set")]
    CommandSet {
        /// The NSID.
        nsid: u32,
        /// Command Set Identifier.
        csi: u8,
        /// Its name.
        name: &'static str,
    },
    /// FLBAS names a format that is not listed.
    #[error("FLBAS names LBA format {index}, the namespace has {count}")]
    FlbasInvalid {
        /// The format's index.
        index: u8,
        /// How many formats there are, counted from 0.
        count: u8,
    },
    /// The data size of the LBA format is none that there is.
    #[error("the LBA format's data size is 2^{}, allowed is 2^9 to 2^16", .0.lbads())]
    LbaFormatInvalid(nvme_spec::identify::LbaFormat),
    /// The format carries metadata that nobody asked for.
    #[error("the namespace has {bytes} bytes of metadata a block, which would be lost; ask to carry them")]
    Metadata {
        /// Bytes a block.
        bytes: u16,
    },
    /// MDTS allows less than one block.
    #[error("the controller's largest transfer of {bytes} bytes is less than a block of {block_size}")]
    MdtsInvalid {
        /// Bytes that the controller allows.
        bytes: u64,
        /// Bytes of a block.
        block_size: u32,
    },
}
