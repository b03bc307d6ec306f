//! Moving data between the host's memory and the controller: what a command's data pointer describes becomes a list of
//! [`Extent`]s, over which [`ToHost`] and [`FromHost`] go from front to back.

pub(crate) mod prp;
pub(crate) mod sgl;

use doorbell_device::inprocess::{DmaFault, DmaView};
use doorbell_device::{Access, HostMemory, OutOfRange};
use nvme_spec::command::{Cdw0, DataPointer};
use nvme_spec::{Command, Status};

use crate::config::SglSupport;
use crate::fault::Patch;

/// A contiguous piece of what a command moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where it is in the host's memory.
    pub(crate) iova: u64,
    pub(crate) len: u32,
    /// An SGL bit bucket: what would be written here is thrown away.
    pub(crate) discard: bool,
}

/// The pieces of one command's data, in a list that is used again for the next command.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    list: Vec<Extent>,
}

impl Extents {
    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    /// Adds a piece, joined with the one before where they touch.
    #[inline]
    pub(crate) fn push(&mut self, iova: u64, len: u32) {
        if let Some(last) = self.list.last_mut()
            && !last.discard
            && last.iova.checked_add(u64::from(last.len)) == Some(iova)
            && let Some(joined) = last.len.checked_add(len)
        {
            last.len = joined;
            return;
        }
        if len > 0 {
            self.list.push(Extent { iova, len, discard: false });
        }
    }

    pub(crate) fn push_discard(&mut self, len: u32) {
        if len > 0 {
            self.list.push(Extent { iova: 0, len, discard: true });
        }
    }

    pub(crate) fn as_slice(&self) -> &[Extent] {
        &self.list
    }
}

/// What is needed to understand data pointers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The memory page in use, in bytes (CC.MPS).
    pub(crate) page: u32,
    pub(crate) sgl: SglSupport,
}

/// Memory for lists that were copied from the host, used again for each command.
#[derive(Debug, Default)]
pub(crate) struct ListBuffer {
    bytes: Vec<u8>,
}

impl ListBuffer {
    /// `len` bytes of the host's memory, copied.
    fn load(&mut self, dma: &DmaView<'_>, iova: u64, len: usize) -> Result<&[u8], Status> {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
        let bytes = self.bytes.get_mut(..len).ok_or(Status::INTERNAL_ERROR)?;
        dma.read(iova, bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(bytes)
    }
}

/// Which way data goes; some SGL descriptors mean different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toward {
    Host,
    Controller,
}

/// Finds the pieces of an I/O command's data (NVMe Base 2.0, "Data Layout").
#[inline]
pub(crate) fn describe(
    dma: &DmaView<'_>,
    rules: Rules,
    command: &Command,
    len: u64,
    toward: Toward,
    lists: &mut ListBuffer,
    extents: &mut Extents,
) -> Result<(), Status> {
    match command.cdw0.psdt() {
        Cdw0::PSDT_PRP => prp::walk(dma, rules.page, command.dptr, len, lists, extents),
        Cdw0::PSDT_SGL | Cdw0::PSDT_SGL_METADATA_SGL if rules.sgl.is_supported() => {
            sgl::walk(dma, rules.sgl, command.dptr.as_sgl(), len, toward, lists, extents)
        }
        _ => Err(Status::INVALID_FIELD_IN_COMMAND),
    }
}

/// Finds the pieces of an admin command's data: PRPs only, on a memory-based transport.
pub(crate) fn describe_admin(
    dma: &DmaView<'_>,
    page: u32,
    dptr: DataPointer,
    len: u64,
    lists: &mut ListBuffer,
    extents: &mut Extents,
) -> Result<(), Status> {
    prp::walk(dma, page, dptr, len, lists, extents)
}

/// A position in a list of extents.
#[derive(Debug, Clone)]
struct Cursor<'a> {
    extents: std::slice::Iter<'a, Extent>,
    current: Extent,
    /// Bytes passed so far, for patches.
    position: u64,
}

const NOTHING: Extent = Extent { iova: 0, len: 0, discard: true };

impl<'a> Cursor<'a> {
    fn new(extents: &'a [Extent]) -> Self {
        Self { extents: extents.iter(), current: NOTHING, position: 0 }
    }

    /// The next piece, of at most `most` bytes; `None` at the end.
    #[inline]
    fn next(&mut self, most: usize) -> Option<Extent> {
        while self.current.len == 0 {
            self.current = *self.extents.next()?;
        }
        let len = self.current.len.min(u32::try_from(most).unwrap_or(u32::MAX));
        let piece = Extent { len, ..self.current };
        self.current.iova = self.current.iova.wrapping_add(u64::from(len));
        self.current.len = self.current.len.saturating_sub(len);
        self.position = self.position.wrapping_add(u64::from(len));
        Some(piece)
    }
}

/// The host's memory could not be reached, or the command describes less of it than it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Memory that the controller was not given.
    #[error(transparent)]
    Fault(#[from] DmaFault),
    /// More was moved than the command describes.
    #[error("the command's data pointer describes less memory than was to be moved")]
    Exhausted,
}

/// Whether a piece lies within one mapping if it lies in any: mappings are of whole pages.
#[inline]
fn in_one_page(iova: u64, len: usize) -> bool {
    (iova & 0xfff).saturating_add(len as u64) <= 4096
}

/// Calls `each` with what of a piece lies in one mapping: the mapping's memory and the offset in it, bytes of the piece that
/// went before, and how many these are.
#[inline]
fn by_part(
    dma: &DmaView<'_>,
    piece: Extent,
    access: Access,
    mut each: impl FnMut(&HostMemory, usize, usize, usize) -> Result<(), OutOfRange>,
) -> Result<(), TransferError> {
    let len = piece.len as usize;
    if in_one_page(piece.iova, len) {
        let (host, at) = dma.resolve(piece.iova, len, access)?;
        return each(host, at, 0, len).map_err(|_| TransferError::Exhausted);
    }
    let mut done = 0;
    while done < len {
        let iova = piece.iova.wrapping_add(done as u64);
        let part = dma.part(iova, len.saturating_sub(done), access)?;
        each(part.host, part.offset, done, part.len).map_err(|_| TransferError::Exhausted)?;
        done = done.saturating_add(part.len.max(1));
    }
    Ok(())
}

static ZEROES: [u8; 4096] = [0; 4096];

/// The host's memory as the target of a command's data, filled from front to back.
#[derive(Clone)]
pub struct ToHost<'a> {
    dma: &'a DmaView<'a>,
    cursor: Cursor<'a>,
    patch: Option<&'a Patch>,
}

impl<'a> ToHost<'a> {
    pub(crate) fn new(dma: &'a DmaView<'a>, extents: &'a [Extent], patch: Option<&'a Patch>) -> Self {
        Self { dma, cursor: Cursor::new(extents), patch }
    }

    /// Writes the next bytes.
    #[inline]
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let at = self.cursor.position;
            let piece = self.cursor.next(bytes.len()).ok_or(TransferError::Exhausted)?;
            let (now, later) = bytes.split_at_checked(piece.len as usize).ok_or(TransferError::Exhausted)?;
            bytes = later;
            if piece.discard {
                continue;
            }
            if in_one_page(piece.iova, now.len()) {
                let (memory, offset) = self.dma.resolve(piece.iova, now.len(), Access::Write)?;
                memory.write_at(offset, now).map_err(|_| TransferError::Exhausted)?;
            } else {
                self.dma.write(piece.iova, now)?;
            }
            if let Some(patch) = self.patch {
                self.spoil(patch, at, piece.iova, now)?;
            }
        }
        Ok(())
    }

    /// Writes the next `len` bytes from memory, from `offset` on.
    #[inline]
    pub fn put_from(&mut self, memory: &HostMemory, mut offset: usize, mut len: usize) -> Result<(), TransferError> {
        if self.patch.is_some() {
            let mut bytes = vec![0; len];
            memory.read_at(offset, &mut bytes).map_err(|_| TransferError::Exhausted)?;
            return self.put(&bytes);
        }
        while len > 0 {
            let piece = self.cursor.next(len).ok_or(TransferError::Exhausted)?;
            if !piece.discard {
                by_part(self.dma, piece, Access::Write, |host, at, done, part| {
                    memory.copy_to(offset.saturating_add(done), host, at, part)
                })?;
            }
            offset = offset.saturating_add(piece.len as usize);
            len = len.saturating_sub(piece.len as usize);
        }
        Ok(())
    }

    /// Passes over the next `len` bytes, which have to be there to be written, and leaves them as they are.
    #[inline]
    pub fn skip(&mut self, mut len: usize) -> Result<(), TransferError> {
        while len > 0 {
            let piece = self.cursor.next(len).ok_or(TransferError::Exhausted)?;
            if !piece.discard {
                by_part(self.dma, piece, Access::Write, |_, _, _, _| Ok(()))?;
            }
            len = len.saturating_sub(piece.len as usize);
        }
        Ok(())
    }

    /// Writes the next `len` bytes as zeroes.
    #[inline]
    pub fn zero(&mut self, mut len: usize) -> Result<(), TransferError> {
        if self.patch.is_some() {
            return self.zero_and_spoil(len);
        }
        while len > 0 {
            let piece = self.cursor.next(len).ok_or(TransferError::Exhausted)?;
            if !piece.discard {
                by_part(self.dma, piece, Access::Write, |host, at, _, part| host.zero(at, part))?;
            }
            len = len.saturating_sub(piece.len as usize);
        }
        Ok(())
    }

    #[cold]
    fn zero_and_spoil(&mut self, mut len: usize) -> Result<(), TransferError> {
        while len > 0 {
            let now = ZEROES.get(..len).unwrap_or(&ZEROES);
            self.put(now)?;
            len = len.saturating_sub(now.len());
        }
        Ok(())
    }

    #[cold]
    fn spoil(&self, patch: &Patch, at: u64, iova: u64, bytes: &[u8]) -> Result<(), TransferError> {
        let mut copy = bytes.to_vec();
        if patch.apply(at, &mut copy) {
            self.dma.write(iova, &copy)?;
        }
        Ok(())
    }
}

/// The host's memory as the source of a command's data, read from front to back. Each byte is read once.
#[derive(Clone)]
pub struct FromHost<'a> {
    dma: &'a DmaView<'a>,
    cursor: Cursor<'a>,
    patch: Option<&'a Patch>,
}

impl<'a> FromHost<'a> {
    pub(crate) fn new(dma: &'a DmaView<'a>, extents: &'a [Extent], patch: Option<&'a Patch>) -> Self {
        Self { dma, cursor: Cursor::new(extents), patch }
    }

    /// Reads the next bytes.
    #[inline]
    pub fn take(&mut self, mut bytes: &mut [u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let at = self.cursor.position;
            let piece = self.cursor.next(bytes.len()).ok_or(TransferError::Exhausted)?;
            let (now, later) = bytes.split_at_mut_checked(piece.len as usize).ok_or(TransferError::Exhausted)?;
            bytes = later;
            if piece.discard {
                now.fill(0);
            } else if in_one_page(piece.iova, now.len()) {
                let (memory, offset) = self.dma.resolve(piece.iova, now.len(), Access::Read)?;
                memory.read_at(offset, now).map_err(|_| TransferError::Exhausted)?;
            } else {
                self.dma.read(piece.iova, now)?;
            }
            if let Some(patch) = self.patch {
                patch.apply(at, now);
            }
        }
        Ok(())
    }

    /// Reads the next `len` bytes into memory, from `offset` on.
    #[inline]
    pub fn take_into(&mut self, memory: &HostMemory, mut offset: usize, mut len: usize) -> Result<(), TransferError> {
        if self.patch.is_some() {
            let mut bytes = vec![0; len];
            self.take(&mut bytes)?;
            return memory.write_at(offset, &bytes).map_err(|_| TransferError::Exhausted);
        }
        while len > 0 {
            let piece = self.cursor.next(len).ok_or(TransferError::Exhausted)?;
            if piece.discard {
                memory.zero(offset, piece.len as usize).map_err(|_| TransferError::Exhausted)?;
            } else {
                by_part(self.dma, piece, Access::Read, |host, at, done, part| {
                    host.copy_to(at, memory, offset.saturating_add(done), part)
                })?;
            }
            offset = offset.saturating_add(piece.len as usize);
            len = len.saturating_sub(piece.len as usize);
        }
        Ok(())
    }

    /// Passes over the next `len` bytes without reading them.
    pub fn skip(&mut self, mut len: usize) -> Result<(), TransferError> {
        while len > 0 {
            let piece = self.cursor.next(len).ok_or(TransferError::Exhausted)?;
            len = len.saturating_sub(piece.len as usize);
        }
        Ok(())
    }
}

/// Whether all of the pieces can be reached, so that a command fails before it changed anything.
#[inline]
pub(crate) fn check_reachable(dma: &DmaView<'_>, extents: &Extents, access: Access) -> Result<(), Status> {
    for extent in extents.as_slice() {
        if !extent.discard && !reachable(dma, extent.iova, u64::from(extent.len), access) {
            return Err(Status::DATA_TRANSFER_ERROR);
        }
    }
    Ok(())
}

/// Joined pages may lie in mappings of their own, so what is not in one piece is asked for page by page.
#[inline]
fn reachable(dma: &DmaView<'_>, iova: u64, len: u64, access: Access) -> bool {
    const PAGE: u64 = 4096;
    if len <= PAGE {
        return dma.resolve(iova, len as usize, access).is_ok();
    }
    let Some(end) = iova.checked_add(len) else { return false };
    let mut at = iova;
    while at < end {
        // Mappings are of whole pages, so what starts in a page and ends in it lies in one mapping.
        let next = at.saturating_sub(at % PAGE).saturating_add(PAGE).min(end);
        if dma.resolve(at, next.saturating_sub(at) as usize, access).is_err() {
            return false;
        }
        at = next;
    }
    true
}
