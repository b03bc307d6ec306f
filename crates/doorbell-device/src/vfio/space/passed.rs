//! Mappings that go from one process to another. The IOMMU keeps them meanwhile, and the pages behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use prost::Message;

use super::{Iommu, Iovas, Live, Space, Whose};
use crate::handover::Files;
use crate::{DeviceError, DmaMemory, HostMemory};

/// A mapping that crosses over.
#[derive(Clone, Copy, PartialEq, Message)]
pub(in super::super) struct PassedMapping {
    #[prost(uint64, tag = "1")]
    iova: u64,
    #[prost(uint64, tag = "2")]
    len: u64,
}

/// Memory that is named, in one of the mappings, and where another process finds it.
#[derive(Clone, Copy, PartialEq, Message)]
pub(in super::super) struct PassedMemory {
    #[prost(uint64, tag = "1")]
    iova: u64,
    #[prost(uint64, tag = "2")]
    len: u64,
    /// Which of the files.
    #[prost(uint32, tag = "3")]
    file: u32,
    /// Where in it.
    #[prost(uint64, tag = "4")]
    offset: u64,
}

/// What of a space crosses over.
pub(in super::super) struct Passed {
    /// What reaches the IOMMU.
    pub(in super::super) descriptors: Vec<OwnedFd>,
    /// The number of an IOAS, where there is one.
    pub(in super::super) ioas: Option<u32>,
    pub(in super::super) mappings: Vec<PassedMapping>,
    pub(in super::super) memory: Vec<PassedMemory>,
    pub(in super::super) files: Files,
}

impl Space {
    /// Whether all memory can go to another process.
    pub(in super::super) fn check_shareable(&self) -> Result<(), DeviceError> {
        match &*self.lock() {
            Some(live) if live.whose == Whose::Ours => live.check_shareable(),
            _ => Err(DeviceError::Gone("it was let go".into())),
        }
    }

    /// Holds everything as it is, until it is [decided](Self::decide) whose it is; and what another process needs of it to
    /// go on with `memory`.
    ///
    /// # Errors
    /// Then it is not held.
    pub(in super::super) fn hold(&self, memory: &[DmaMemory]) -> Result<Passed, DeviceError> {
        let mut live = self.lock();
        let live = live.as_mut().filter(|live| live.whose == Whose::Ours);
        let live = live.ok_or_else(|| DeviceError::Gone("it was let go".into()))?;
        live.check_shareable()?;
        let mut files = Files::default();
        let passed = memory.iter().map(|memory| {
            let (iova, len) = (memory.iova(), memory.len() as u64);
            memory.host().check_shareable()?;
            let unknown = || DeviceError::NotShareable { len: memory.len(), reason: "the device never had it".into() };
            let (file, offset) = memory.host().file().ok_or_else(unknown)?;
            live.iovas.around(iova, len).ok_or_else(unknown)?;
            Ok(PassedMemory { iova, len, file: files.number(file), offset })
        });
        let memory = passed.collect::<Result<_, DeviceError>>()?;
        let descriptors = live.iommu.descriptors().into_iter().map(|fd| fd.try_clone_to_owned());
        let descriptors = descriptors.collect::<Result<_, _>>().map_err(DeviceError::io("duplicating a descriptor"))?;
        let ioas = match live.iommu {
            Iommu::Type1 { .. } => None,
            Iommu::Iommufd { ioas, .. } => Some(ioas),
        };
        let mappings = live.iovas.all().map(|(iova, len)| PassedMapping { iova, len }).collect();
        live.whose = Whose::Undecided;
        Ok(Passed { descriptors, ioas, mappings, memory, files })
    }

    /// It is known whether the device has left for another process.
    pub(in super::super) fn decide(&self, left: bool) {
        let mut live = self.lock_now();
        match (left, &mut *live) {
            (true, live) => *live = None,
            (false, Some(live)) => live.whose = Whose::Ours,
            (false, None) => {}
        }
        drop(live);
        self.decided.notify_all();
    }

    /// Waits until that is known, if it is not.
    pub(in super::super) fn wait_decided(&self) {
        drop(self.lock());
    }

    /// What another process mapped, and has [passed](Self::hold) here. It is that process's until it has [begun](Self::begin)
    /// here.
    pub(in super::super) fn adopt(
        iommu: Iommu,
        mappings: &[PassedMapping],
        memory: &[PassedMemory],
        files: &[Arc<File>],
    ) -> Result<(Arc<Self>, Vec<DmaMemory>), DeviceError> {
        let bad = |what: String| DeviceError::NotAdoptable(what);
        let mut iovas = Iovas::new(iommu.ranges()?);
        for PassedMapping { iova, len } in mappings {
            if !iovas.insert(*iova, *len) {
                return Err(bad(format!("IOVA {iova:#x} is in use twice, or outside of what the IOMMU allows")));
            }
        }
        let mapped = mappings.iter().fold(0u64, |sum, mapping| sum.saturating_add(mapping.len));
        let mut wholes: BTreeMap<u64, Arc<Whole>> = BTreeMap::new();
        let mut arriving = Vec::new();
        for PassedMemory { iova, len, file, offset } in memory {
            let place = iovas.around(*iova, *len).filter(|_| *len != 0);
            let (start, mapped) =
                place.ok_or_else(|| bad(format!("{len:#x} bytes at IOVA {iova:#x} are not mapped")))?;
            let file = files.get(*file as usize).ok_or_else(|| bad(format!("file {file} is missing")))?;
            let bytes = usize::try_from(*len).map_err(|_| bad(format!("{len:#x} bytes of memory")))?;
            let host = HostMemory::from_file(file.clone(), *offset, bytes)?;
            let whole = wholes.entry(start).or_insert_with(|| Arc::new(Whole { iova: start, len: mapped }));
            arriving.push((host, *iova, whole.clone()));
        }
        let space = Self::made(Live { whose: Whose::Theirs, iommu, iovas, not_shareable: BTreeSet::new(), mapped });
        let arrived = arriving.into_iter().map(|(host, iova, whole)| {
            let space = space.clone();
            DmaMemory::new(host, iova, move || match Arc::into_inner(whole) {
                Some(Whole { iova, len }) => space.unmap(iova, len),
                None => Ok(()),
            })
        });
        let arrived = arrived.collect();
        Ok((space, arrived))
    }

    /// It is this process's from now on. What of it is not in `memory` is of no use to anybody, and is unmapped.
    pub(in super::super) fn begin(self: &Arc<Self>, memory: &[PassedMemory]) -> Result<(), DeviceError> {
        let mut live = self.lock();
        let Some(live) = &mut *live else { return Err(DeviceError::Gone("it was let go".into())) };
        live.whose = Whose::Ours;
        if let Err(error) = live.iommu.change_process() {
            tracing::debug!(%error, "the memory that is locked counts as that of the process before");
        }
        let used: BTreeSet<u64> = memory
            .iter()
            .filter_map(|memory| live.iovas.around(memory.iova, memory.len))
            .map(|(iova, _)| iova)
            .collect();
        let unused: Vec<(u64, u64)> = live.iovas.all().filter(|(iova, _)| !used.contains(iova)).collect();
        if unused.is_empty() {
            return Ok(());
        }
        let space = self.clone();
        let unmap = move || {
            for (iova, len) in unused {
                if let Err(error) = space.unmap(iova, len) {
                    // Before Linux 6, nobody but who mapped it can.
                    tracing::debug!(iova, len, %error, "memory of the process before stays mapped");
                }
            }
        };
        // Not in the way of who goes on.
        let thread = std::thread::Builder::new().name("doorbell-unmap".into());
        thread.spawn(unmap).map_err(DeviceError::io("starting a thread"))?;
        Ok(())
    }
}

impl Live {
    fn check_shareable(&self) -> Result<(), DeviceError> {
        let Some(iova) = self.not_shareable.first() else { return Ok(()) };
        let len = self.iovas.around(*iova, 0).map_or(0, |(_, len)| usize::try_from(len).unwrap_or(usize::MAX));
        let reason = "it does not lie in a file, such as a memfd, that is mapped here for both reading and writing";
        Err(DeviceError::NotShareable { len, reason: reason.into() })
    }
}

/// A mapping that is taken down when the last piece of it that is named goes.
struct Whole {
    iova: u64,
    len: u64,
}
