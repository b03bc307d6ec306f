//! The saved state of a driver: bytes that another process, of this version or a later one, takes over from.
//!
//! ```text
//!   0  8  magic
//!   8  4  version of the writer
//!  12  4  oldest version that understands it
//!  16  4  CRC-32 of what follows
//!  20     the state: a protocol buffer whose fields are known by number
//! ```
//! Numbers are little-endian. A field's number is never used for something else; what a later version adds, earlier ones
//! skip, unless the state would mean something else to them: then the oldest version goes up.

mod messages;

pub(crate) use messages::{
    Command, CommandState, Driver, Feature, HostId, Memory, Namespace, Place, Queue, Region, Registration, Shadows,
};

use prost::Message;

/// The version of states that are written.
pub const STATE_VERSION: u32 = 2;
/// The oldest version that understands them.
const OLDEST_READER: u32 = 1;
/// The oldest version that knows of queues that have an owner. To earlier ones, they were a CPU's.
const OLDEST_WITH_OWNERS: u32 = 2;

const MAGIC: [u8; 8] = *b"doorbell";
const HEADER: usize = 20;

/// Bytes that are no state of a driver, or none for this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// They do not begin as a state does.
    #[error("this is not the saved state of a driver")]
    Foreign,
    /// A later version wrote it, and says that this one would misunderstand it.
    #[error(
        "the state is of version {version}, which only version {oldest} and later understand; this is {STATE_VERSION}"
    )]
    TooNew {
        /// The version that wrote it.
        version: u32,
        /// The oldest that understands it.
        oldest: u32,
    },
    /// It was cut short, or changed.
    #[error("the saved state is damaged: {0}")]
    Damaged(String),
}

/// The state as bytes.
pub(crate) fn write(driver: &Driver) -> Vec<u8> {
    let body = driver.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER.saturating_add(body.len()));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&STATE_VERSION.to_le_bytes());
    let has_owners = driver.queues.iter().any(|queue| queue.exclusive);
    let oldest = if has_owners { OLDEST_WITH_OWNERS } else { OLDEST_READER };
    bytes.extend_from_slice(&oldest.to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// The state that bytes are.
pub(crate) fn read(bytes: &[u8]) -> Result<Driver, StateError> {
    let word = |at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(StateError::Foreign);
    }
    let (Some(version), Some(oldest), Some(crc), Some(body)) = (word(8), word(12), word(16), bytes.get(HEADER..))
    else {
        return Err(StateError::Damaged("it ends within its header".into()));
    };
    if oldest > STATE_VERSION {
        return Err(StateError::TooNew { version, oldest });
    }
    if crc32fast::hash(body) != crc {
        return Err(StateError::Damaged("its checksum is wrong".into()));
    }
    Driver::decode(body).map_err(|error| StateError::Damaged(error.to_string()))
}

#[cfg(all(test, not(doorbell_loom)))]
mod tests;
