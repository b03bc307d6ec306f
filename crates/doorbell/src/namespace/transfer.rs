//! Reads and writes, and every other command that moves data from or to a payload: the I/O path.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use doorbell_device::Access;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};
use nvme_spec::{Cdw0, Command, NvmOpcode};

use super::{Inner, Namespace, Protection};
use crate::error::RequestError;
use crate::memory::{
    Chain, DmaBuffer, GuestMemory, MemoryError, PagedRange, Payload, Pointers, chain_pages, run_pointers,
};
use crate::queue::{Exchange, Notes, QueuePair, Refused};

type WaitForQueue<'a> = Pin<Box<dyn Future<Output = Result<&'a QueuePair, RequestError>> + Send + 'a>>;

/// A read, write or compare under way. Does nothing until polled.
#[must_use = "futures do nothing unless polled"]
pub struct Transfer<'a> {
    request: Request<'a>,
    step: Step,
    /// Blocks done, of a transfer that goes in pieces, and blocks of the piece under way.
    done: u32,
    piece: u32,
    /// From the moment there is a queue.
    exchange: Option<Exchange<'a>>,
    /// While there is none.
    no_queue: Option<WaitForQueue<'a>>,
}

/// What was asked for.
struct Request<'a> {
    inner: &'a Inner,
    payload: Payload<'a>,
    kind: Kind,
    cpu: u32,
    block_count: u32,
    lba: u64,
    tag: u64,
}

/// What a transfer is.
#[derive(Clone, Copy)]
struct Kind {
    opcode: NvmOpcode,
    fua: bool,
    /// What the device does with the memory.
    access: Access,
    /// Whether it may be carried in pieces.
    divisible: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Not polled yet.
    New,
    /// The CPU has no queue yet.
    NoQueue,
    /// To be submitted straight from the payload, if the device can reach it.
    Direct,
    /// To be submitted through the pool.
    Bounced,
    InFlight,
    /// In flight through the pool.
    InFlightBounced,
    Ended,
}

/// Why a command could not go out as it was to.
enum Unbuilt {
    Memory(MemoryError),
    /// The device cannot reach the memory, or it cannot be named to it.
    NeedsBounce,
}

impl From<MemoryError> for Unbuilt {
    fn from(error: MemoryError) -> Self {
        Unbuilt::Memory(error)
    }
}

impl Namespace {
    /// Reads blocks into guest memory, on a CPU's queue.
    ///
    /// # Errors
    /// [`RequestError`]: blocks outside the namespace, more than
    /// [`max_transfer_block_count`](Self::max_transfer_block_count), memory that is too short or cannot be written;
    /// then nothing was sent. Or what the device answered.
    pub fn read<'a>(
        &'a self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        guest_memory: &'a GuestMemory,
        range: PagedRange<'a>,
    ) -> Transfer<'a> {
        self.transfer(Kind::READ, target_cpu, lba, block_count, Payload::Guest(guest_memory, range))
    }

    /// Writes blocks from guest memory, on a CPU's queue. With `fua` they are on the medium when it completes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write<'a>(
        &'a self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        fua: bool,
        guest_memory: &'a GuestMemory,
        range: PagedRange<'a>,
    ) -> Transfer<'a> {
        let kind = Kind { fua, ..Kind::WRITE };
        self.transfer(kind, target_cpu, lba, block_count, Payload::Guest(guest_memory, range))
    }

    /// Compares blocks with guest memory. A difference is [`ErrorClass::Miscompare`](crate::ErrorClass::Miscompare).
    ///
    /// # Errors
    /// As [`read`](Self::read), and if the controller has no Compare.
    pub fn compare<'a>(
        &'a self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        guest_memory: &'a GuestMemory,
        range: PagedRange<'a>,
    ) -> Transfer<'a> {
        self.transfer(Kind::COMPARE, target_cpu, lba, block_count, Payload::Guest(guest_memory, range))
    }

    /// Reads into a buffer that goes along and comes back. The buffer may be longer than the blocks.
    pub fn read_buffer(&self, target_cpu: u32, lba: u64, block_count: u32, buffer: DmaBuffer) -> BufferTransfer<'_> {
        BufferTransfer(self.transfer(Kind::READ, target_cpu, lba, block_count, Payload::Buffer(Some(buffer))))
    }

    /// Writes from a buffer that goes along and comes back.
    pub fn write_buffer(
        &self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        fua: bool,
        buffer: DmaBuffer,
    ) -> BufferTransfer<'_> {
        let kind = Kind { fua, ..Kind::WRITE };
        BufferTransfer(self.transfer(kind, target_cpu, lba, block_count, Payload::Buffer(Some(buffer))))
    }

    /// Reads into an ordinary slice, a whole number of blocks, through a bounce buffer. The slice is written in the
    /// future's own poll only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_slice<'a>(&'a self, target_cpu: u32, lba: u64, slice: &'a mut [u8]) -> Transfer<'a> {
        let block_count = self.blocks_of(slice.len());
        self.transfer(Kind::READ, target_cpu, lba, block_count, Payload::Into(slice))
    }

    /// Writes from an ordinary slice, a whole number of blocks, through a bounce buffer.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write_slice<'a>(&'a self, target_cpu: u32, lba: u64, fua: bool, slice: &'a [u8]) -> Transfer<'a> {
        let block_count = self.blocks_of(slice.len());
        let kind = Kind { fua, ..Kind::WRITE };
        self.transfer(kind, target_cpu, lba, block_count, Payload::From(slice))
    }

    /// Compares blocks with an ordinary slice.
    ///
    /// # Errors
    /// As [`compare`](Self::compare).
    pub fn compare_slice<'a>(&'a self, target_cpu: u32, lba: u64, slice: &'a [u8]) -> Transfer<'a> {
        let block_count = self.blocks_of(slice.len());
        self.transfer(Kind::COMPARE, target_cpu, lba, block_count, Payload::From(slice))
    }

    /// Rounded up, so that the transfer itself finds out if it is no whole number.
    fn blocks_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(self.inner().transfer_block_size as usize)).unwrap_or(u32::MAX)
    }

    #[inline(always)]
    fn transfer<'a>(&'a self, kind: Kind, cpu: u32, lba: u64, block_count: u32, payload: Payload<'a>) -> Transfer<'a> {
        let request = Request { inner: self.inner(), payload, kind, cpu, block_count, lba, tag: 0 };
        Transfer { request, step: Step::New, done: 0, piece: 0, exchange: None, no_queue: None }
    }
}

impl Kind {
    const READ: Self = Self { opcode: NvmOpcode::READ, fua: false, access: Access::Write, divisible: true };
    const WRITE: Self = Self { opcode: NvmOpcode::WRITE, fua: false, access: Access::Read, divisible: true };
    const COMPARE: Self = Self { opcode: NvmOpcode::COMPARE, fua: false, access: Access::Read, divisible: true };
}

impl Request<'_> {
    /// Checks what the caller asked for; `Ok(false)` if there is nothing to do.
    #[inline(always)]
    fn check(&self) -> Result<bool, RequestError> {
        let inner = self.inner;
        inner.check_present()?;
        if self.kind.opcode == NvmOpcode::COMPARE && !inner.core.identify.oncs.compare() {
            return Err(RequestError::Unsupported("Compare"));
        }
        let needed = self.bytes(self.block_count);
        let len = self.payload.len();
        if len != needed && matches!(self.payload, Payload::Into(_) | Payload::From(_)) {
            return Err(RequestError::NotBlocks { len, block_size: inner.transfer_block_size });
        }
        if self.block_count > inner.max_transfer_blocks {
            let (len, max) = (self.block_count.into(), inner.max_transfer_blocks.into());
            return Err(RequestError::TooLarge { len, max, unit: "blocks" });
        }
        if len < needed {
            return Err(RequestError::TooShort { len, needed });
        }
        inner.check_range(self.lba, self.block_count.into())?;
        Ok(self.block_count != 0)
    }

    /// Bytes that blocks have in memory.
    #[inline(always)]
    fn bytes(&self, blocks: u32) -> usize {
        blocks as usize * self.inner.transfer_block_size as usize
    }

    /// The command for `blocks` of its blocks, past those that are `done`.
    #[inline(always)]
    fn command(&self, done: u32, blocks: u32, pointers: Pointers) -> Command {
        let lba = self.lba + u64::from(done);
        let mut cdw12 = ReadWriteCdw12::new().with_nlb((blocks - 1) as u16).with_fua(self.kind.fua);
        let mut cdw14 = 0;
        if let Protection::Type(pi) = self.inner.fixed.protection {
            (cdw12, cdw14) = protect(cdw12, pi, lba);
        }
        let mut command = Command {
            cdw0: Cdw0::new().with_opcode(self.kind.opcode.0).with_psdt(pointers.psdt),
            nsid: self.inner.nsid,
            dptr: pointers.dptr,
            cdw12: cdw12.into(),
            cdw14,
            ..Command::default()
        };
        command.set_cdw10_11(lba);
        command
    }
}

impl<'a> Transfer<'a> {
    /// Marks the command with a number of the owner's, which those who inspect or take over the queue see.
    pub fn tag(mut self, tag: u64) -> Self {
        self.request.tag = tag;
        self
    }

    /// Forbids carrying it in pieces: what does not fit the bounce pool is then
    /// [`TooLarge`](RequestError::TooLarge), instead of being written a part at a time.
    pub fn whole(mut self) -> Self {
        self.request.kind.divisible = false;
        self
    }

    #[inline(always)]
    fn poll_transfer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if self.step == Step::InFlight
            && let Some(exchange) = &mut self.exchange
            && exchange.claim_success()
        {
            self.step = Step::Ended;
            return Poll::Ready(Ok(()));
        }
        self.poll_rest(context)
    }

    #[inline(never)]
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        match self.step {
            Step::New => {
                if !self.request.check()? {
                    return Poll::Ready(Ok(()));
                }
                match self.request.inner.core.issuers.get(self.request.cpu)? {
                    Some(queue) => self.take_queue(queue),
                    None => self.wait_for_queue(),
                }
            }
            Step::InFlight => return self.poll_in_flight(context),
            _ => {}
        }
        if self.step == Step::NoQueue {
            let Some(wait) = &mut self.no_queue else { return Poll::Ready(Err(RequestError::Gone)) };
            let queue = std::task::ready!(wait.as_mut().poll(context))?;
            self.no_queue = None;
            self.take_queue(queue);
        }
        if self.step == Step::Direct {
            match std::task::ready!(self.poll_direct(context)) {
                Ok(()) => {
                    self.step = Step::InFlight;
                    // Its waker is registered, so a completion from here on wakes it.
                    return match &self.exchange {
                        Some(exchange) if exchange.may_be_done() => self.poll_in_flight(context),
                        _ => Poll::Pending,
                    };
                }
                Err(refused) => {
                    // Pages taken for a list are too few for data.
                    if let Some(exchange) = &mut self.exchange {
                        exchange.return_pages();
                    }
                    match refused {
                        Refused::Lost(lost) => return Poll::Ready(Err(lost.into())),
                        Refused::Build(Unbuilt::Memory(error)) => return Poll::Ready(Err(error.into())),
                        Refused::Build(Unbuilt::NeedsBounce) => self.step = Step::Bounced,
                    }
                }
            }
        }
        self.poll_pieces(context)
    }

    #[inline(never)]
    fn poll_in_flight(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(Err(RequestError::Gone)) };
        let result = std::task::ready!(exchange.poll_result(context));
        exchange.return_pages();
        self.step = Step::Ended;
        Poll::Ready(result.map(drop))
    }

    /// Piece by piece through the pool, whose pages are others' as soon as it is over, well or badly.
    #[cold]
    #[inline(never)]
    fn poll_pieces(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let result = std::task::ready!(self.poll_each_piece(context));
        if let Some(exchange) = &mut self.exchange {
            exchange.return_pages();
        }
        self.step = Step::Ended;
        Poll::Ready(result)
    }

    fn poll_each_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        loop {
            if self.step == Step::Bounced {
                std::task::ready!(self.poll_bounced(context))?;
                self.step = Step::InFlightBounced;
            }
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(Err(RequestError::Gone)) };
            std::task::ready!(exchange.poll_result(context))?;
            self.finish_piece()?;
            if self.done == self.request.block_count {
                return Poll::Ready(Ok(()));
            }
            self.step = Step::Bounced;
        }
    }

    #[inline(always)]
    fn take_queue(&mut self, queue: &'a QueuePair) {
        self.exchange = Some(Exchange::new(queue));
        self.step = if self.request.inner.core.options.always_bounce { Step::Bounced } else { Step::Direct };
    }

    #[cold]
    fn wait_for_queue(&mut self) {
        let (inner, cpu) = (self.request.inner, self.request.cpu);
        self.no_queue = Some(Box::pin(async move { Ok(&**inner.core.issuers.wait(&inner.core, cpu).await?) }));
        self.step = Step::NoQueue;
    }

    /// Submits it straight from the payload, if the device can reach that.
    #[inline(always)]
    fn poll_direct(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Refused<Unbuilt>>> {
        let request = &self.request;
        let core = &*request.inner.core;
        let Some(registration) = request.payload.registration(core.id) else {
            return Poll::Ready(Err(Refused::Build(Unbuilt::NeedsBounce)));
        };
        let Some(exchange) = &mut self.exchange else {
            return Poll::Ready(Err(Refused::Lost(core.lost())));
        };
        let bytes = request.bytes(request.block_count);
        let pool = exchange.queue().pool();
        let chain_pages = chain_pages(&core.layout, exchange.queue().list_words(), bytes);
        if chain_pages != 0 {
            let chain_bytes = chain_pages * core.page_size;
            if chain_bytes > pool.capacity() {
                return Poll::Ready(Err(Refused::Build(Unbuilt::NeedsBounce)));
            }
            std::task::ready!(exchange.poll_pages(chain_bytes, context));
        }
        let notes = Notes { tag: request.tag, registration, bounced: false };
        exchange.poll_start(context, notes, |list, run| {
            let chain = run.map(|run| {
                let (memory, offset, _) = pool.memory(run);
                Chain { memory, offset }
            });
            let pointers =
                request.payload.pointers(core.id, &core.layout, list, chain, request.kind.access, (0, bytes))?;
            Ok(request.command(0, request.block_count, pointers.ok_or(Unbuilt::NeedsBounce)?))
        })
    }

    /// Submits the next piece through the pool.
    fn poll_bounced(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let core = &*self.request.inner.core;
        let total = self.request.bytes(self.request.block_count);
        let Some(queue) = self.exchange.as_ref().map(Exchange::queue) else {
            return Poll::Ready(Err(core.lost().into()));
        };
        let pool = queue.pool();
        // One SGL data block says any run of pages; a PRP list may need pages of the pool itself.
        let list_pages = |bytes| if core.layout.sgl { 0 } else { chain_pages(&core.layout, queue.list_words(), bytes) };
        let capacity = pool.capacity() - list_pages(pool.capacity().min(total)) * core.page_size;
        let largest = capacity / self.request.inner.transfer_block_size as usize;
        if largest == 0 || (largest < self.request.block_count as usize && !self.request.kind.divisible) {
            let error = RequestError::TooLarge { len: total as u64, max: capacity as u64, unit: "bytes" };
            return Poll::Ready(Err(error));
        }
        // Before anything is sent, the whole of the memory is looked at.
        if self.done == 0 {
            self.request.payload.check(0, total, self.request.kind.access)?;
        }
        self.piece = (self.request.block_count - self.done).min(u32::try_from(largest).unwrap_or(u32::MAX));
        let (done, piece) = (self.request.bytes(self.done), self.request.bytes(self.piece));
        let (request, done_blocks, blocks) = (&self.request, self.done, self.piece);
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(Err(core.lost().into())) };
        let data = piece.next_multiple_of(core.page_size);
        std::task::ready!(exchange.poll_pages(data + list_pages(piece) * core.page_size, context));
        let notes = Notes { tag: request.tag, registration: 0, bounced: true };
        let started = exchange.poll_start(context, notes, |list, run| {
            let nowhere = MemoryError::NotPresent { gpa: u64::MAX };
            let (memory, offset, _) = pool.memory(run.ok_or(nowhere.clone())?);
            if request.kind.access == Access::Read {
                request.payload.copy_out((done, piece), memory, offset)?;
            }
            let chain = Chain { memory, offset: offset + data };
            let pointers = run_pointers(memory, offset, core.layout, list, Some(chain), piece);
            Ok::<_, MemoryError>(request.command(done_blocks, blocks, pointers.ok_or(nowhere)?))
        });
        match std::task::ready!(started) {
            Ok(()) => {}
            Err(Refused::Lost(lost)) => return Poll::Ready(Err(lost.into())),
            Err(Refused::Build(error)) => return Poll::Ready(Err(error.into())),
        }
        Poll::Ready(Ok(()))
    }

    /// A piece came through the pool: copies what was read to where it belongs, and gives the pages back.
    fn finish_piece(&mut self) -> Result<(), RequestError> {
        let part = (self.request.bytes(self.done), self.request.bytes(self.piece));
        let Some(exchange) = &mut self.exchange else { return Ok(()) };
        if self.request.kind.access == Access::Write
            && let Some(run) = exchange.run()
        {
            let (memory, offset, _) = exchange.queue().pool().memory(run);
            self.request.payload.copy_in(part, memory, offset)?;
        }
        self.done += self.piece;
        exchange.return_pages();
        Ok(())
    }
}

/// Has the controller make, check and strip protection information: the guard always, the reference tag where the
/// type has one that follows from the LBA.
fn protect(cdw12: ReadWriteCdw12, pi: u8, lba: u64) -> (ReadWriteCdw12, u32) {
    let by_lba = pi != 3;
    let info = PrInfo::new().with_pract(true).with_check_guard(true).with_check_reference(by_lba);
    (cdw12.with_prinfo(info.into_bits()), if by_lba { lba as u32 } else { 0 })
}

impl Future for Transfer<'_> {
    type Output = Result<(), RequestError>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_transfer(context)
    }
}

impl Drop for Transfer<'_> {
    #[inline]
    fn drop(&mut self) {
        // In flight, the device may still use the buffer: the slot keeps it.
        if self.step == Step::InFlight
            && let (Payload::Buffer(buffer), Some(exchange)) = (&mut self.request.payload, &mut self.exchange)
        {
            exchange.abandon(buffer.take());
        }
    }
}

/// A transfer with a buffer of the driver's, which comes back with the result.
#[must_use = "futures do nothing unless polled"]
pub struct BufferTransfer<'a>(Transfer<'a>);

impl BufferTransfer<'_> {
    /// As [`Transfer::tag`].
    pub fn tag(self, tag: u64) -> Self {
        let Self(mut transfer) = self;
        transfer.request.tag = tag;
        Self(transfer)
    }
}

impl Future for BufferTransfer<'_> {
    type Output = (DmaBuffer, Result<(), RequestError>);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = std::task::ready!(self.0.poll_transfer(context));
        match &mut self.0.request.payload {
            Payload::Buffer(buffer) => match buffer.take() {
                Some(buffer) => Poll::Ready((buffer, result)),
                // Polled after it was ready: there is nothing to give back any more.
                None => Poll::Pending,
            },
            _ => Poll::Pending,
        }
    }
}
