//! Storage that carries commands out by itself, and tells later.

use doorbell_device::Access;
use doorbell_device::inprocess::{DmaView, MappedPart};
use nvme_spec::{Status, StatusField};

use crate::transfer::{Extent, FromHost, ToHost};

/// A controller's own way into storage that finishes operations later: given by [`Backend::lane`](crate::Backend::lane).
///
/// It is only called by the controller, which is not reentrant; what works for it elsewhere wakes the controller by the
/// waker that it was made with, once for anything that [`poll`](Self::poll) can then hand over, at least while the controller
/// [sleeps](Self::sleep). Operations may be carried out
/// in any order, and each is to end, however the storage fares: until then a controller that is reset is not ready again.
pub trait Lane: Send {
    /// Takes an operation, which has been checked against the namespace. Nothing needs to happen before the next
    /// [`poll`](Self::poll), so that many operations can be sent off together.
    ///
    /// # Errors
    /// The status that the command ends with at once.
    fn submit(&mut self, ticket: Ticket, operation: Operation<'_>) -> Result<(), Status>;

    /// Sends off what was taken, and adds to `ended` what has ended. From then on an operation touches the host's memory
    /// no more.
    fn poll(&mut self, ended: &mut Vec<Ended>);

    /// Whether the controller sleeps from now on, and is to be woken, or polls by itself. Says whether something has ended
    /// that `poll` would hand over. For storage whose wake-ups cost something; others always wake.
    fn sleep(&mut self, _asleep: bool) -> bool {
        false
    }

    /// Memory at these addresses is taken away from the controller; no operation that is submitted after names it. Gives
    /// up what is kept of it for later, such as a registration. Says whether that is done already; otherwise it ends
    /// like an operation.
    fn forget(&mut self, _ticket: Ticket, _iova: u64, _len: u64) -> bool {
        true
    }

    /// Whether all that is outstanding could be gone on with in another process, as long as nothing here is polled any more:
    /// because [`resume`](Self::resume) finds it there, or because it does no harm to be carried out once more.
    fn may_leave(&self) -> bool {
        false
    }

    /// Goes on with an operation that a lane of another process had outstanding, on so many bytes from an offset. Says
    /// whether it was found; if not, it was never begun, or [does no harm](Self::may_leave), and is submitted anew.
    fn resume(&mut self, _ticket: Ticket, _offset: u64, _len: u64) -> bool {
        false
    }
}

/// Which operation it is, among those that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    pub(crate) index: u32,
    number: u64,
}

impl Ticket {
    pub(crate) fn new(index: u32, number: u64) -> Self {
        Self { index, number }
    }

    /// A number that no other outstanding operation of the subsystem has, and that this one keeps in another process. Never 0.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// What became of an operation.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Which.
    pub ticket: Ticket,
    /// Success, or the status code type, status code and Do Not Retry that the command ends with.
    pub status: StatusField,
}

/// What storage is to do. Offsets and lengths are in bytes, whole blocks within the namespace.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Operation<'a> {
    /// Read.
    Read {
        /// Where in the namespace.
        offset: u64,
        /// Where to.
        to: Data<'a>,
        /// Force Unit Access.
        fua: bool,
    },
    /// Write.
    Write {
        /// Where in the namespace.
        offset: u64,
        /// Where from.
        from: Data<'a>,
        /// Force Unit Access.
        fua: bool,
    },
    /// Compare.
    Compare {
        /// Where in the namespace.
        offset: u64,
        /// What with.
        with: Data<'a>,
    },
    /// The fused Compare and Write.
    CompareAndWrite {
        /// Where in the namespace.
        offset: u64,
        /// What is there if it is to be written.
        compare: Data<'a>,
        /// What is written.
        write: Data<'a>,
        /// Force Unit Access.
        fua: bool,
    },
    /// Copy.
    Copy {
        /// The sources, each an offset and a length, laid end to end.
        from: &'a [(u64, u64)],
        /// Where to.
        to: u64,
        /// Force Unit Access.
        fua: bool,
    },
    /// Verify.
    Verify {
        /// Where in the namespace.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Write Zeroes.
    WriteZeroes {
        /// Where in the namespace.
        offset: u64,
        /// How much.
        len: u64,
        /// The blocks may be deallocated for it (DEAC).
        deallocate: bool,
        /// Force Unit Access.
        fua: bool,
    },
    /// Write Uncorrectable.
    WriteUncorrectable {
        /// Where in the namespace.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Dataset Management, Deallocate.
    Deallocate {
        /// Each an offset and a length.
        ranges: &'a [(u64, u64)],
    },
    /// Flush.
    Flush,
}

/// The host's memory that an operation moves data from or to.
#[derive(Clone, Copy)]
pub struct Data<'a> {
    dma: &'a DmaView<'a>,
    extents: &'a [Extent],
    access: Access,
}

/// A piece of it, contiguous at the host's addresses and in this process.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Its first address.
    pub iova: u64,
    /// Bytes.
    pub len: usize,
    /// Where it is; `None` where what would be written is thrown away (an SGL bit bucket).
    pub memory: Option<MappedPart<'a>>,
}

impl<'a> Data<'a> {
    pub(crate) fn new(dma: &'a DmaView<'a>, extents: &'a [Extent], access: Access) -> Self {
        Self { dma, extents, access }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.len as usize))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    /// The pieces, in order.
    ///
    /// # Errors
    /// None but what is a mistake of the controller's: all of it was found to be reachable.
    pub fn pieces(self) -> impl Iterator<Item = Result<Piece<'a>, Status>> {
        let mut extents = self.extents.iter();
        let mut rest = Extent { iova: 0, len: 0, discard: false };
        std::iter::from_fn(move || {
            if rest.len == 0 {
                rest = *extents.next()?;
            }
            let Extent { iova, len, discard } = rest;
            if discard {
                rest.len = 0;
                return Some(Ok(Piece { iova: 0, len: len as usize, memory: None }));
            }
            let part = match self.dma.part(iova, len as usize, self.access) {
                Ok(part) => part,
                Err(_) => {
                    rest.len = 0;
                    return Some(Err(Status::DATA_TRANSFER_ERROR));
                }
            };
            rest.iova = iova.wrapping_add(part.len as u64);
            rest.len = len.saturating_sub(part.len as u32);
            Some(Ok(Piece { iova, len: part.len, memory: Some(part) }))
        })
    }

    /// Copies it, for storage that cannot take it from where it is.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn copy(&self) -> Result<Vec<u8>, Status> {
        let mut bytes = vec![0; self.len()];
        FromHost::new(self.dma, self.extents, None).take(&mut bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        Ok(bytes)
    }

    /// Fills it at once, for storage that has the data already.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn fill(&self, bytes: &[u8]) -> Result<(), Status> {
        ToHost::new(self.dma, self.extents, None).put(bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)
    }
}
