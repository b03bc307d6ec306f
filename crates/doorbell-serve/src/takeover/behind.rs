//! What is behind namespaces, where that is more than a file. Whoever serves them knows how it crosses.

use std::error::Error;
use std::os::fd::OwnedFd;

use doorbell_emulator::{Backend, Subsystem};

/// Whatever is wrong with what is behind.
pub type BehindError = Box<dyn Error + Send + Sync>;

/// What crosses of it: bytes and descriptors.
#[derive(Debug, Default)]
pub struct Baggage {
    /// For this version of whoever wrote them or a later one.
    pub bytes: Vec<u8>,
    /// Descriptors, in an order that the bytes know.
    pub descriptors: Vec<OwnedFd>,
}

/// What was behind another server's namespaces, and arrives here. `()` is nothing.
///
/// Dropped before it [begins](Self::begin), it is still the other's.
pub trait Behind {
    /// What it is from then on.
    type Here;

    /// The storage of namespace `nsid`, of `size` bytes, by the [name](doorbell_emulator::Crossing::Elsewhere) that it had
    /// there. It is not used before everything has begun.
    fn bring(&mut self, nsid: u32, name: &str, size: u64) -> Option<Box<dyn Backend>>;

    /// It is this server's from now on, and cannot go back. Clients are served when it returns.
    fn begin(self, subsystem: &Subsystem) -> Self::Here;
}

impl Behind for () {
    type Here = ();

    fn bring(&mut self, _nsid: u32, _name: &str, _size: u64) -> Option<Box<dyn Backend>> {
        None
    }

    fn begin(self, _subsystem: &Subsystem) {}
}
