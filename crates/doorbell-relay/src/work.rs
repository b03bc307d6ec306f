//! Operations, carried out by the drive.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use doorbell::{LargeTransferError, LbaRange, MemoryError, Namespace, PagedRange, RequestError, SplitPlan};

use crate::below::Shared;
use crate::memory::{Pages, Place};

/// An operation under way.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<(), RequestError>> + Send>>;

/// Which queue of which namespace.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) shared: Arc<Shared>,
    pub(crate) cpu: u32,
}

impl Way {
    fn namespace(&self) -> &Namespace {
        &self.shared.namespace
    }

    fn lba(&self, bytes: u64) -> u64 {
        bytes.checked_div(self.namespace().block_size().into()).unwrap_or_default()
    }

    /// Bytes of the largest transfer.
    fn most(&self) -> usize {
        let namespace = self.namespace();
        (namespace.max_transfer_block_count() as usize).saturating_mul(namespace.block_size() as usize).max(512)
    }

    /// What lies in a range of blocks, as one transfer can have them.
    fn whole(&self, len: usize) -> Option<u32> {
        u32::try_from(self.lba(len as u64)).ok().filter(|blocks| *blocks <= self.namespace().max_transfer_block_count())
    }

    /// Whether a transfer of so many bytes takes no more than a command.
    pub(crate) fn is_one_command(&self, len: usize) -> bool {
        len <= self.most()
    }

    /// Whether what is read has to be flushed: it is then on the medium, whoever wrote it.
    pub(crate) fn flushes_after(&self, fua: bool) -> bool {
        fua && self.namespace().has_volatile_write_cache()
    }

    /// What the driver has taken over of another process with this tag, if that is the whole of a transfer of so many bytes
    /// from an offset, and all that there is to do is to wait for it.
    pub(crate) fn resume(
        &self,
        tag: u64,
        offset: u64,
        len: u64,
    ) -> Option<impl Future<Output = Result<(), RequestError>> + use<>> {
        let Shared { drive, namespace, .. } = &*self.shared;
        let command = drive.claim(namespace.nsid(), tag)?;
        let blocks = (self.lba(offset), u32::try_from(self.lba(len)).ok()?);
        // What a read has put into pages of the driver is read once more: nobody was told of it.
        if command.blocks() != Some(blocks) || command.brings_data() {
            return None;
        }
        let memory = drive.keep_inherited();
        Some(async move {
            let result = command.await.completion.map(drop);
            drop(memory);
            result
        })
    }

    pub(crate) async fn read(self, offset: u64, to: Place, fua: bool, tag: u64) -> Result<(), RequestError> {
        let (namespace, cpu, lba) = (self.namespace(), self.cpu, self.lba(offset));
        match &to {
            Place::Pages(pages) => {
                let range = range(pages)?;
                match self.whole(range.len()) {
                    Some(blocks) => namespace.read(cpu, lba, blocks, &pages.memory, range).tag(tag).await?,
                    None => {
                        let blocks = self.lba(range.len() as u64);
                        let plan = SplitPlan::default();
                        namespace.read_large(cpu, lba, blocks, &pages.memory, range, plan).await.map_err(source)?;
                    }
                }
            }
            Place::Pieces(pieces) => {
                let len = pieces.iter().fold(0, |sum: usize, (_, len)| sum.saturating_add(*len));
                let mut bytes = vec![0; len];
                let mut at = offset;
                for part in bytes.chunks_mut(self.most()) {
                    namespace.read_slice(cpu, self.lba(at), part).await?;
                    at = at.saturating_add(part.len() as u64);
                }
                scatter(&bytes, pieces)?;
            }
        }
        if self.flushes_after(fua) { namespace.flush(cpu).await } else { Ok(()) }
    }

    pub(crate) async fn write(self, offset: u64, from: Source, fua: bool, tag: u64) -> Result<(), RequestError> {
        let (namespace, cpu, lba) = (self.namespace(), self.cpu, self.lba(offset));
        match &from {
            Source::Pages(pages) => {
                let range = range(pages)?;
                match self.whole(range.len()) {
                    Some(blocks) => namespace.write(cpu, lba, blocks, fua, &pages.memory, range).tag(tag).await,
                    None => {
                        let blocks = self.lba(range.len() as u64);
                        let plan = SplitPlan::default();
                        namespace.write_large(cpu, lba, blocks, fua, &pages.memory, range, plan).await.map_err(source)
                    }
                }
            }
            Source::Bytes(bytes) => {
                let mut at = offset;
                for part in bytes.chunks(self.most()) {
                    namespace.write_slice(cpu, self.lba(at), fua, part).tag(tag).await?;
                    at = at.saturating_add(part.len() as u64);
                }
                Ok(())
            }
        }
    }

    pub(crate) async fn compare(self, offset: u64, bytes: Vec<u8>) -> Result<(), RequestError> {
        let mut at = offset;
        for part in bytes.chunks(self.most()) {
            self.namespace().compare_slice(self.cpu, self.lba(at), part).await?;
            at = at.saturating_add(part.len() as u64);
        }
        Ok(())
    }

    pub(crate) async fn compare_and_write(
        self,
        offset: u64,
        compare: Vec<u8>,
        write: Vec<u8>,
        fua: bool,
    ) -> Result<(), RequestError> {
        self.namespace().compare_and_write(self.cpu, self.lba(offset), &compare, &write, fua).await
    }

    pub(crate) async fn copy(self, to: u64, from: Vec<(u64, u64)>, fua: bool) -> Result<(), RequestError> {
        let ranges: Vec<_> = from.into_iter().map(|range| self.lba_range(range)).collect();
        self.namespace().copy(self.cpu, self.lba(to), &ranges).await?;
        if fua { self.namespace().flush(self.cpu).await } else { Ok(()) }
    }

    pub(crate) async fn verify(self, offset: u64, len: u64) -> Result<(), RequestError> {
        self.namespace().verify(self.cpu, self.lba(offset), self.lba(len)).await
    }

    pub(crate) async fn write_zeroes(
        self,
        offset: u64,
        len: u64,
        deallocate: bool,
        fua: bool,
    ) -> Result<(), RequestError> {
        self.namespace().write_zeroes(self.cpu, self.lba(offset), self.lba(len), deallocate, fua).await
    }

    pub(crate) async fn write_uncorrectable(self, offset: u64, len: u64) -> Result<(), RequestError> {
        self.namespace().write_uncorrectable(self.cpu, self.lba(offset), self.lba(len)).await
    }

    pub(crate) async fn deallocate(self, ranges: Vec<(u64, u64)>) -> Result<(), RequestError> {
        let ranges: Vec<_> = ranges.into_iter().map(|range| self.lba_range(range)).collect();
        self.namespace().deallocate(self.cpu, &ranges).await
    }

    pub(crate) async fn flush(self) -> Result<(), RequestError> {
        self.namespace().flush(self.cpu).await
    }

    fn lba_range(&self, (offset, len): (u64, u64)) -> LbaRange {
        LbaRange { lba: self.lba(offset), block_count: self.lba(len) }
    }
}

/// What is written.
pub(crate) enum Source {
    Pages(Pages),
    Bytes(Vec<u8>),
}

fn range(pages: &Pages) -> Result<PagedRange<'_>, RequestError> {
    pages.range().ok_or(RequestError::Memory(MemoryError::Unregistered))
}

fn source(error: LargeTransferError) -> RequestError {
    error.source
}

/// Copies to where the pieces are.
fn scatter(bytes: &[u8], pieces: &[(Option<(doorbell_device::HostMemory, usize)>, usize)]) -> Result<(), RequestError> {
    let mut rest = bytes;
    for (memory, len) in pieces {
        let Some((now, later)) = rest.split_at_checked(*len) else { break };
        rest = later;
        if let Some((memory, offset)) = memory
            && memory.write_at(*offset, now).is_err()
        {
            return Err(RequestError::Memory(MemoryError::Unregistered));
        }
    }
    Ok(())
}
