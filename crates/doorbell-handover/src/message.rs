//! What the two processes say to each other. Bytes: a protocol buffer whose fields are known by number.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use prost::{Message, Oneof};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::HandoverError;

/// The version of the protocol.
pub(crate) const VERSION: u32 = 1;
/// The oldest version that understands it.
pub(crate) const OLDEST: u32 = 1;

/// What is taken of a body: more than any driver's state, and what goes along.
const LARGEST_BODY: u64 = 1 << 30;

/// One message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(oneof = "What", tags = "1, 2, 3, 4, 5")]
    pub(crate) what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum What {
    /// The new process is there.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// What the old one offers. With it come the word that says who has the controller, and the body.
    #[prost(message, tag = "2")]
    Offer(Offer),
    /// More descriptors; how many.
    #[prost(uint32, tag = "3")]
    Descriptors(u32),
    /// The new process has it.
    #[prost(bool, tag = "4")]
    Taken(bool),
    /// Why one of the two does not go on with it.
    #[prost(string, tag = "5")]
    Refused(String),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// The oldest version that the sender understands.
    #[prost(uint32, tag = "2")]
    pub(crate) oldest: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Offer {
    /// Bytes of the body.
    #[prost(uint64, tag = "1")]
    pub(crate) len: u64,
    /// CRC-32 of it.
    #[prost(fixed32, tag = "2")]
    pub(crate) crc: u32,
    /// Descriptors of the device.
    #[prost(uint32, tag = "3")]
    pub(crate) device_descriptors: u32,
    /// Descriptors that go along.
    #[prost(uint32, tag = "4")]
    pub(crate) other_descriptors: u32,
}

/// What is large, in a memory file.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Body {
    /// The device's back end.
    #[prost(string, tag = "1")]
    pub(crate) kind: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) device: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) driver: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) luggage: Vec<u8>,
}

impl Body {
    /// As a file, with its length and checksum.
    pub(crate) fn write(&self) -> Result<(OwnedFd, u64, u32), HandoverError> {
        let bytes = self.encode_to_vec();
        let what = "writing the state to a memory file";
        let file = memfd_create("doorbell-handover", MemfdFlags::CLOEXEC).map_err(HandoverError::io(what))?;
        let file = File::from(file);
        file.write_all_at(&bytes, 0).map_err(HandoverError::io(what))?;
        Ok((file.into(), bytes.len() as u64, crc32fast::hash(&bytes)))
    }

    pub(crate) fn read(fd: OwnedFd, len: u64, crc: u32) -> Result<Self, HandoverError> {
        let bad = |what: String| HandoverError::Misbehaved(what);
        let file = File::from(fd);
        let what = "reading the state from a memory file";
        let there_is = file.metadata().map_err(HandoverError::io(what))?.len();
        if len > LARGEST_BODY || len > there_is {
            return Err(bad(format!("{len} bytes of state announced, {there_is} came; {LARGEST_BODY} are possible")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0).map_err(HandoverError::io(what))?;
        if crc32fast::hash(&bytes) != crc {
            return Err(bad("the state is damaged: its checksum is wrong".into()));
        }
        Self::decode(&bytes[..]).map_err(|error| bad(format!("the state is damaged: {error}")))
    }
}
