//! A subsystem and its controllers as bytes, for another process to go on with. Fields are known by number; a header with a
//! checksum and versions is for whoever passes the bytes on.

mod config;
mod namespace;
pub(crate) mod state;
mod subsystem;
mod values;

pub(crate) use values::{bad, nanos, narrow, notice, time};

use prost::Message;

/// Why something cannot cross to another process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrossingError {
    /// The storage is this process's own.
    #[error("namespace {nsid} keeps its blocks where no other process can have them")]
    Storage {
        /// Which namespace.
        nsid: u32,
    },
    /// A descriptor cannot be duplicated.
    #[error("a descriptor cannot be duplicated: {0}")]
    Descriptor(String),
    /// Storage has not finished what it was told to do.
    #[error("{outstanding} operations are outstanding")]
    Outstanding {
        /// How many.
        outstanding: u32,
    },
}

/// Bytes that are no state of an emulated controller or subsystem, or not one that can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state of the emulated subsystem is damaged: {0}")]
pub struct StateError(pub(crate) String);

/// Bytes as what they should be.
pub(crate) fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, StateError> {
    M::decode(bytes).map_err(|error| StateError(error.to_string()))
}
