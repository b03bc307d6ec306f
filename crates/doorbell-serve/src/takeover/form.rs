//! The form of a state.
//!
//! ```text
//!   0  8  magic
//!   8  4  version of the writer
//!  12  4  oldest version that understands it
//!  16  4  CRC-32 of what follows
//!  20     the state: a protocol buffer whose fields are known by number
//! ```
//! Numbers are little-endian. What a later version adds, earlier ones skip, unless the state would mean something else to
//! them: then the oldest version goes up.

use prost::Message;

use super::{TakeoverError, damaged, state};

/// The version of states that are written.
pub(crate) const VERSION: u32 = 2;
/// The oldest version that understands them.
const OLDEST_READER: u32 = 1;
/// The oldest version that goes on with commands that are under way. Earlier ones would lose them.
const OLDEST_TO_GO_ON: u32 = 2;

const MAGIC: [u8; 8] = *b"doorserv";
const HEADER: usize = 20;

/// The state as bytes.
pub(super) fn write(server: &state::Server) -> Vec<u8> {
    let body = server.encode_to_vec();
    let mut bytes = Vec::with_capacity(HEADER.saturating_add(body.len()));
    bytes.extend_from_slice(&MAGIC);
    let is_busy = server.endpoints.iter().any(|endpoint| endpoint.outstanding > 0);
    let oldest = if is_busy { OLDEST_TO_GO_ON } else { OLDEST_READER };
    for word in [VERSION, oldest, crc32fast::hash(&body)] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&body);
    bytes
}

/// The state that bytes are.
pub(super) fn read(bytes: &[u8]) -> Result<state::Server, TakeoverError> {
    let word = |at: usize| {
        let word = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
        return Err(TakeoverError::Foreign);
    }
    let (Some(version), Some(oldest), Some(crc), Some(body)) = (word(8), word(12), word(16), bytes.get(HEADER..))
    else {
        return damaged("it ends within its header");
    };
    if oldest > VERSION {
        return Err(TakeoverError::TooNew { version, oldest });
    }
    if crc32fast::hash(body) != crc {
        return damaged("its checksum is wrong");
    }
    state::Server::decode(body).or_else(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<u8> {
        write(&state::Server { block_size: 4096, locked: vec![1, 7], ..state::Server::default() })
    }

    #[test]
    fn any_change_is_noticed() {
        assert_eq!(read(&some()).unwrap().locked, [1, 7]);
        let bytes = some();
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x10;
            // Who wrote it does not matter.
            assert_eq!(read(&bytes).is_ok(), (8..12).contains(&at), "byte {at}");
            read(&bytes[..at]).expect_err("it is cut short");
        }
    }

    #[test]
    fn a_later_version_decides_who_understands_it() {
        let mut bytes = some();
        bytes[8] = 9;
        read(&bytes).expect("it says that version 1 understands it");
        bytes[12] = 3;
        assert!(matches!(read(&bytes), Err(TakeoverError::TooNew { version: 9, oldest: 3 })));
    }

    #[test]
    fn version_1_is_not_given_commands_under_way() {
        let with = |outstanding| {
            let endpoint = state::Endpoint { outstanding, ..state::Endpoint::default() };
            write(&state::Server { endpoints: vec![endpoint], ..state::Server::default() })[12]
        };
        assert_eq!((with(0), with(1)), (1, 2));
    }

    #[test]
    fn fields_of_later_versions_are_skipped() {
        let mut bytes = some();
        // Field 1000, a varint.
        bytes.extend_from_slice(&[0xc0, 0x3e, 0x05]);
        let crc = crc32fast::hash(&bytes[HEADER..]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&bytes).unwrap().block_size, 4096);
    }
}
