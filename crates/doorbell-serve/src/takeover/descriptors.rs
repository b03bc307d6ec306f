//! Descriptors that cross, by their place.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::{TakeoverError, damaged};

/// Puts a descriptor among those that cross, and gives its place.
pub(crate) fn pass(fds: &mut Vec<OwnedFd>, fd: BorrowedFd<'_>) -> io::Result<u32> {
    fds.push(fd.try_clone_to_owned()?);
    Ok(fds.len().saturating_sub(1) as u32)
}

/// Descriptors that have crossed.
pub(crate) struct Descriptors(Vec<Option<OwnedFd>>);

impl Descriptors {
    pub(super) fn new(fds: impl Iterator<Item = OwnedFd>) -> Self {
        Self(fds.map(Some).collect())
    }

    /// One that only one has.
    pub(crate) fn take(&mut self, at: u32) -> Result<OwnedFd, TakeoverError> {
        let fd = self.0.get_mut(at as usize).and_then(Option::take);
        fd.map_or_else(|| damaged(format!("there is no descriptor {at}")), Ok)
    }

    /// One that several may have.
    pub(crate) fn share(&self, at: u32) -> Result<OwnedFd, TakeoverError> {
        let Some(Some(fd)) = self.0.get(at as usize) else { return damaged(format!("there is no descriptor {at}")) };
        fd.try_clone().map_err(|source| TakeoverError::Io { what: "duplicating a descriptor", source })
    }
}
