use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zerocopy::{FromBytes, IntoBytes};

use crate::Malformed;
use crate::wire::{Command, VersionNumber};

/// What a side speaks, and what it is capable of: a VERSION message's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version {
    /// Major and minor version.
    pub number: VersionNumber,
    /// What the sender is capable of.
    pub capabilities: Capabilities,
}

/// What a side is capable of. What it does not say has a default of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Descriptors that the sender takes in one message.
    pub max_msg_fds: u32,
    /// Bytes of data of one access that the sender takes.
    pub max_data_xfer_size: u64,
    /// DMA mappings that can be there at a time.
    pub max_dma_maps: u64,
    /// The page sizes of DMA mappings, or-ed.
    pub pgsizes: u64,
    /// Whether REGION_WRITE_MULTI is understood.
    pub write_multiple: bool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { max_msg_fds: 1, max_data_xfer_size: 1 << 20, max_dma_maps: 65535, pgsizes: 4096, write_multiple: false }
    }
}

/// The JSON around the capabilities. Both are objects: an array would do for `serde`, which takes it for the fields of a
/// structure in their order.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    capabilities: Map<String, Value>,
}

/// Bytes of JSON that are looked at.
const MAX_JSON: usize = 4096;

impl Version {
    /// Reads a payload. The JSON, with or without the NUL at its end, may be missing.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let malformed = |reason: String| Malformed::new(Command::Version, reason);
        let (number, text) = VersionNumber::read_from_prefix(payload)
            .map_err(|_| malformed(format!("{} bytes hold no version number", payload.len())))?;
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        if text.len() > MAX_JSON {
            return Err(malformed(format!("{} bytes of capabilities; {MAX_JSON} are read at most", text.len())));
        }
        if text.is_empty() {
            return Ok(Self { number, capabilities: Capabilities::default() });
        }
        let capabilities = capabilities(text)
            .map_err(|error| malformed(format!("the capabilities are not as they must be: {error}")))?;
        Ok(Self { number, capabilities })
    }

    /// The payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.number.as_bytes().to_vec();
        let text = serde_json::json!({ "capabilities": self.capabilities }).to_string();
        bytes.extend(text.bytes());
        bytes.push(0);
        bytes
    }
}

fn capabilities(text: &[u8]) -> Result<Capabilities, serde_json::Error> {
    let object: Map<String, Value> = serde_json::from_slice(text)?;
    let Envelope { capabilities } = serde_json::from_value(Value::Object(object))?;
    serde_json::from_value(Value::Object(capabilities))
}
