//! Who has the controller: a word that two processes share. One of them changes it, once; but who has taken it and not said
//! so has touched nothing, and may lose it again.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use doorbell_device::HostMemory;

use crate::HandoverError;

/// On offer: the old process has it, and may not use it.
const OFFERED: u32 = 1;
/// The new process has it.
const TAKEN: u32 = 2;
/// The old process has it, and the offer is over.
const KEPT: u32 = 3;

/// The word.
#[derive(Debug)]
pub(crate) struct Owner {
    memory: HostMemory,
}

impl Owner {
    pub(crate) fn offer() -> Result<Self, HandoverError> {
        let owner = Self { memory: HostMemory::allocate(4096)? };
        owner.word()?.store(OFFERED, Ordering::SeqCst);
        Ok(owner)
    }

    /// The same word, in another process.
    pub(crate) fn from_descriptor(fd: OwnedFd) -> Result<Self, HandoverError> {
        let owner = Self { memory: HostMemory::from_file(Arc::new(File::from(fd)), 0, 4096)? };
        owner.word()?;
        Ok(owner)
    }

    pub(crate) fn descriptor(&self) -> Result<OwnedFd, HandoverError> {
        let what = "duplicating a descriptor";
        let (file, _) = self.memory.file().ok_or(HandoverError::Misbehaved("the word has no file".into()))?;
        file.try_clone().map(OwnedFd::from).map_err(HandoverError::io(what))
    }

    /// The new process takes it. Whether it was still on offer.
    pub(crate) fn take(&self) -> bool {
        self.decide(TAKEN)
    }

    /// The old process keeps it. Whether the other had not taken it.
    pub(crate) fn keep(&self) -> bool {
        self.decide(KEPT)
    }

    /// The old process has it again, whether the new one could not say that it has taken it, or ended before. Whether it had.
    pub(crate) fn take_back(&self) -> bool {
        self.change(TAKEN, KEPT)
    }

    /// Whether the old process has it for good.
    pub(crate) fn is_kept(&self) -> bool {
        self.word().is_ok_and(|word| word.load(Ordering::SeqCst) == KEPT)
    }

    fn decide(&self, owner: u32) -> bool {
        self.change(OFFERED, owner)
    }

    fn change(&self, from: u32, to: u32) -> bool {
        let swap = |word: &AtomicU32| word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        self.word().is_ok_and(|word| swap(word).is_ok())
    }

    fn word(&self) -> Result<&AtomicU32, HandoverError> {
        self.memory.dwords().first().ok_or_else(|| HandoverError::Misbehaved("there is no word".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_the_two_has_it() {
        for take_first in [true, false] {
            let old = Owner::offer().unwrap();
            let new = Owner::from_descriptor(old.descriptor().unwrap()).unwrap();
            let decided = if take_first { (new.take(), old.keep()) } else { (old.keep(), new.take()) };
            assert_eq!(decided, (true, false));
            assert!(!old.keep() && !new.take(), "it changes once");
            assert_eq!((old.take_back(), old.is_kept(), new.take()), (take_first, true, false));
        }
    }
}
