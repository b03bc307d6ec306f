use std::os::fd::OwnedFd;

/// What goes along with a controller: the caller's own bytes and descriptors.
#[derive(Debug, Default)]
pub struct Luggage {
    /// Any number of bytes.
    pub bytes: Vec<u8>,
    /// Descriptors, in this order.
    pub descriptors: Vec<OwnedFd>,
}

impl From<Vec<u8>> for Luggage {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, descriptors: Vec::new() }
    }
}
