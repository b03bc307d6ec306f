//! A namespace: what it was made from, and what became of it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nvme_spec::identify::{Dlfeat, LbaFormat, NamespaceIds, PiType, Rescap};

use super::values::fixed;
use super::{CrossingError, StateError, bad, narrow, state};
use crate::backend::{Backend, Crossing, FileBackend, NullBackend, RingBackend, SharedRamBackend};
use crate::block_metadata::BlockMetadata;
use crate::marks::Marks;
use crate::namespace::{Namespace, State};
use crate::namespace_config::{AtomicUnits, NamespaceConfig, OptimalSizes, Storage};
use crate::reservation::Reservations;
use crate::sync::{read, write};

/// Puts a descriptor among those that cross, and gives its place.
fn pass(fds: &mut Vec<OwnedFd>, fd: BorrowedFd<'_>) -> Result<u32, CrossingError> {
    fds.push(fd.try_clone_to_owned().map_err(|error| CrossingError::Descriptor(error.to_string()))?);
    Ok(fds.len().saturating_sub(1) as u32)
}

impl Namespace {
    /// Whether the namespace can cross, before anything is done about it.
    pub(crate) fn check_crossing(&self) -> Result<(), CrossingError> {
        let state = read(&self.state);
        if state.data.crossing().is_none() { Err(CrossingError::Storage { nsid: self.nsid }) } else { Ok(()) }
    }

    pub(crate) fn save(&self, fds: &mut Vec<OwnedFd>) -> Result<state::Namespace, CrossingError> {
        self.check_crossing()?;
        let state = read(&self.state);
        let State { config, ids, .. } = &*state;
        let mut elsewhere = None;
        let (storage, fd) = match state.data.crossing() {
            None => return Err(CrossingError::Storage { nsid: self.nsid }),
            Some(Crossing::Elsewhere(name)) => {
                elsewhere = Some(name.to_owned());
                (5, None)
            }
            Some(Crossing::Zero) => (0, None),
            Some(Crossing::File(fd)) => (1, Some(fd)),
            Some(Crossing::Ring(fd)) => (2, Some(fd)),
            Some(Crossing::Memory(fd)) => (3, Some(fd)),
            Some(Crossing::Null) => (4, None),
        };
        let list = |list: &[u16]| state::Numbers { list: list.iter().map(|number| (*number).into()).collect() };
        Ok(state::Namespace {
            nsid: self.nsid,
            storage,
            descriptor: fd.map(|fd| pass(fds, fd)).transpose()?,
            size: state.data.size(),
            blocks: state.blocks,
            formats: config.formats.iter().map(|format| format.into_bits()).collect(),
            format: config.format as u32,
            inline_metadata: config.inline_metadata,
            protection: config.protection.0.into(),
            read_only: config.read_only,
            write_protected: state.write_protected,
            shared: config.shared,
            controllers: config.controllers.as_deref().map(list),
            dlfeat: config.dlfeat.into_bits().into(),
            rescap: config.rescap.into_bits().into(),
            atomic: config.atomic.map(|units| list(&[units.nawun, units.nawupf, units.nacwu])),
            atomic_boundary: Some(list(&config.atomic_boundary)),
            noiob: config.noiob.into(),
            optimal: config.optimal.map(|optimal| {
                let OptimalSizes { npwg, npwa, npdg, npda, nows, npdgl } = optimal;
                let mut sizes = list(&[npwg, npwa, npdg, npda, nows]);
                sizes.list.push(npdgl);
                sizes
            }),
            mssrl: config.mssrl.into(),
            mcl: config.mcl,
            msrc: config.msrc.into(),
            eui64: ids.eui64.map(Into::into),
            nguid: ids.nguid.map(Into::into),
            uuid: ids.uuid.map(Into::into),
            csi: ids.csi.map(Into::into),
            uncorrectable: state.uncorrectable.save(),
            reservations: Some(state.reservations.save()),
            dirty: state.dirty.load(std::sync::atomic::Ordering::Relaxed),
            elsewhere,
            metadata: state.metadata.as_ref().map(|metadata| pass(fds, metadata.as_fd())).transpose()?,
        })
    }
}

/// A file that crossed.
fn take(fds: &mut [Option<OwnedFd>], at: u32) -> Result<File, StateError> {
    let fd = fds.get_mut(at as usize).and_then(Option::take);
    fd.map(File::from).ok_or_else(|| StateError(format!("there is no descriptor {at}")))
}

/// Storage that is not in the state: of which namespace, by which name, how many bytes.
pub(crate) type Bring<'a> = &'a mut dyn FnMut(u32, &str, u64) -> Option<Box<dyn Backend>>;

impl state::Namespace {
    /// The namespace, with its descriptor out of those that crossed.
    pub(crate) fn restore(self, fds: &mut [Option<OwnedFd>], bring: Bring<'_>) -> Result<Namespace, StateError> {
        let nsid = self.nsid;
        let refused = |error: &dyn std::fmt::Display| StateError(format!("namespace {nsid}: {error}"));
        let ids = NamespaceIds {
            eui64: self.eui64.as_deref().map(|id| fixed("EUI-64", id)).transpose()?,
            nguid: self.nguid.as_deref().map(|id| fixed("NGUID", id)).transpose()?,
            uuid: self.uuid.as_deref().map(|id| fixed("UUID", id)).transpose()?,
            csi: self.csi.map(|csi| narrow("CSI", csi)).transpose()?,
        };
        let metadata = self.metadata.map(|at| take(fds, at)).transpose()?;
        let config = self.config(self.storage(fds, bring)?)?;
        let namespace = Namespace::new(nsid, config, ids).map_err(|error| refused(&error))?;
        {
            let mut state = write(&namespace.state);
            if self.blocks == 0 || self.blocks > state.blocks {
                return bad(format!("namespace {nsid} of {} blocks, there are {}", self.blocks, state.blocks));
            }
            state.blocks = self.blocks;
            match (&mut state.metadata, metadata) {
                (None, None) => {}
                (Some(there), Some(file)) => {
                    *there = BlockMetadata::from_file(file, self.blocks).map_err(|error| refused(&error))?;
                }
                _ => return bad(format!("namespace {nsid} has metadata, and a format that has none, or the reverse")),
            }
            state.write_protected = self.write_protected;
            state.uncorrectable = Marks::restore(&self.uncorrectable)?;
            state.reservations = Reservations::restore(self.reservations.unwrap_or_default())?;
            *state.dirty.get_mut() = self.dirty;
        }
        Ok(namespace)
    }

    fn storage(&self, fds: &mut [Option<OwnedFd>], bring: Bring<'_>) -> Result<Box<dyn Backend>, StateError> {
        let nsid = self.nsid;
        let refused = |error: &dyn std::fmt::Display| StateError(format!("namespace {nsid}: {error}"));
        let mut file = || match self.descriptor {
            Some(at) => take(fds, at),
            None => bad(format!("namespace {nsid} has no descriptor")),
        };
        Ok(match self.storage {
            0 => Box::new(NullBackend::zeroes(self.size)),
            1 => Box::new(FileBackend::new(file()?).map_err(|error| refused(&error))?),
            2 => Box::new(RingBackend::new(file()?).map_err(|error| refused(&error))?),
            3 => Box::new(SharedRamBackend::from_file(file()?, self.size).map_err(|error| refused(&error))?),
            4 => Box::new(NullBackend::new(self.size)),
            5 => match &self.elsewhere {
                Some(name) => match bring(nsid, name, self.size) {
                    Some(storage) => storage,
                    None => return bad(format!("nobody brings {name:?}, the storage of namespace {nsid}")),
                },
                None => return bad(format!("namespace {nsid} has storage without a name")),
            },
            other => return bad(format!("namespace {nsid} has storage of kind {other}")),
        })
    }

    fn config(&self, storage: Box<dyn Backend>) -> Result<NamespaceConfig, StateError> {
        let numbers = |list: &state::Numbers| list.list.iter().map(|number| narrow("number", *number)).collect();
        let short = |list: &state::Numbers| -> Result<Vec<u16>, StateError> { numbers(list) };
        let three = |list: &state::Numbers| -> Result<[u16; 3], StateError> {
            short(list)?.try_into().or_else(|_| bad("not three numbers"))
        };
        let optimal = |list: &state::Numbers| match list.list[..] {
            [npwg, npwa, npdg, npda, nows, npdgl] => Ok(OptimalSizes {
                npwg: narrow("NPWG", npwg)?,
                npwa: narrow("NPWA", npwa)?,
                npdg: narrow("NPDG", npdg)?,
                npda: narrow("NPDA", npda)?,
                nows: narrow("NOWS", nows)?,
                npdgl,
            }),
            _ => bad("not six optimal sizes"),
        };
        Ok(NamespaceConfig {
            nsid: Some(self.nsid),
            formats: self.formats.iter().map(|format| LbaFormat::from_bits(*format)).collect(),
            format: self.format as usize,
            inline_metadata: self.inline_metadata,
            protection: PiType(narrow("protection information", self.protection)?),
            read_only: self.read_only,
            shared: self.shared,
            controllers: self.controllers.as_ref().map(short).transpose()?,
            dlfeat: Dlfeat::from_bits(narrow("DLFEAT", self.dlfeat)?),
            rescap: Rescap::from_bits(narrow("RESCAP", self.rescap)?),
            atomic: (self.atomic.as_ref().map(three).transpose()?).map(|[nawun, nawupf, nacwu]| AtomicUnits {
                nawun,
                nawupf,
                nacwu,
            }),
            atomic_boundary: self.atomic_boundary.as_ref().map(three).transpose()?.unwrap_or_default(),
            noiob: narrow("NOIOB", self.noiob)?,
            optimal: self.optimal.as_ref().map(optimal).transpose()?,
            mssrl: narrow("MSSRL", self.mssrl)?,
            mcl: self.mcl,
            msrc: narrow("MSRC", self.msrc)?,
            ..NamespaceConfig::new(Storage::Custom(storage))
        })
    }
}
