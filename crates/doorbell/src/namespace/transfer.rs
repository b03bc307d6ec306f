//! Reads and writes, and every other command that moves data from or to a payload: the I/O path.

use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use doorbell_device::Access;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};
use nvme_spec::{Cdw0, Command, NvmOpcode};

use super::long_way::LongWay;
use super::{Inner, Namespace, Protection};
use crate::error::RequestError;
use crate::memory::{DmaBuffer, GuestMemory, Life, MemoryError, PagedRange, Payload, Pointers};
use crate::queue::{List, Notes, QueuePair, TimeLimit, Token, settled};

type WaitForQueue<'a> = Pin<Box<dyn Future<Output = Result<&'a QueuePair, RequestError>> + Send + 'a>>;

/// A read, write or compare under way. Does nothing until polled.
#[must_use = "futures do nothing unless polled"]
pub struct Transfer<'a> {
    request: ManuallyDrop<Request<'a>>,
    in_flight: Option<InFlight<'a>>,
    /// Dropped by hand, as the request is, so that a transfer that is over is seen to be so in three comparisons.
    stage: ManuallyDrop<Stage<'a>>,
}

/// A command that is in flight straight from the payload, with nothing but its slot.
#[derive(Clone, Copy)]
struct InFlight<'a> {
    queue: &'a QueuePair,
    token: Token,
}

/// How far a transfer is that is not in flight with just a slot. The tag is a byte of its own, so that it is compared
/// and not worked out; and one stage has all that there is to drop, so that its absence is seen at a glance.
#[repr(u8)]
enum Stage<'a> {
    /// Not polled yet, and may need no more than a slot.
    New,
    /// Not polled yet, and to be carried in a way of its own.
    Special(Terms),
    /// There is nothing, or nothing more, to do.
    Ended,
    UnderWay(Way<'a>),
}

/// What few transfers wait for.
enum Way<'a> {
    /// The CPU has no queue yet.
    NoQueue(WaitForQueue<'a>, Terms),
    LongWay(LongWay<'a>),
    /// It failed for a passing reason, and goes on after a while.
    Later(Pin<Box<dyn Future<Output = ()> + Send + 'a>>, LongWay<'a>),
}

/// What few transfers need.
#[derive(Clone, Copy, Default)]
pub(super) struct Terms {
    pub(super) limit: TimeLimit,
    /// How often it was tried again.
    pub(super) retries: u32,
}

/// What came of submitting a transfer at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It is in flight.
    Pending,
    /// It is in flight, and completions were looked for since: it may be done already.
    Looked,
    /// It cannot go out like this. Nothing has happened yet.
    Not,
}

/// What was asked for.
pub(crate) struct Request<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) payload: Payload<'a>,
    pub(super) kind: Kind,
    pub(super) cpu: u32,
    pub(super) block_count: u32,
    lba: u64,
    pub(crate) tag: u64,
}

/// What a transfer is.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    opcode: NvmOpcode,
    /// What its CDW12 says besides the number of blocks.
    cdw12: ReadWriteCdw12,
    /// Whether not every controller has it.
    is_special: bool,
    /// What the device does with the memory.
    pub(super) access: Access,
    /// Whether it may be carried in pieces.
    pub(super) divisible: bool,
}

impl Namespace {
    /// Reads blocks into guest memory, on a CPU's queue.
    ///
    /// # Errors
    /// [`RequestError`]: blocks outside the namespace, more than
    /// [`max_transfer_block_count`](Self::max_transfer_block_count), memory that is too short or cannot be written;
    /// then nothing was sent. Or what the device answered.
    #[inline]
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
    #[inline]
    pub fn write<'a>(
        &'a self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        fua: bool,
        guest_memory: &'a GuestMemory,
        range: PagedRange<'a>,
    ) -> Transfer<'a> {
        let kind = Kind::WRITE.with_fua(fua);
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
    #[inline]
    pub fn read_buffer(&self, target_cpu: u32, lba: u64, block_count: u32, buffer: DmaBuffer) -> BufferTransfer<'_> {
        BufferTransfer(self.transfer(Kind::READ, target_cpu, lba, block_count, Payload::Buffer(Some(buffer))))
    }

    /// Writes from a buffer that goes along and comes back.
    #[inline]
    pub fn write_buffer(
        &self,
        target_cpu: u32,
        lba: u64,
        block_count: u32,
        fua: bool,
        buffer: DmaBuffer,
    ) -> BufferTransfer<'_> {
        let kind = Kind::WRITE.with_fua(fua);
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
        let kind = Kind::WRITE.with_fua(fua);
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
        let stage = if kind.is_special { Stage::Special(Terms::default()) } else { Stage::New };
        Transfer { request: ManuallyDrop::new(request), in_flight: None, stage: ManuallyDrop::new(stage) }
    }
}

impl Kind {
    pub(crate) const READ: Self = Self { opcode: NvmOpcode::READ, access: Access::Write, ..Self::WRITE };
    pub(crate) const COMPARE: Self = Self { opcode: NvmOpcode::COMPARE, is_special: true, ..Self::WRITE };
    pub(crate) const WRITE: Self = Self {
        opcode: NvmOpcode::WRITE,
        cdw12: ReadWriteCdw12::new(),
        is_special: false,
        access: Access::Read,
        divisible: true,
    };

    pub(crate) fn with_fua(self, fua: bool) -> Self {
        Self { cdw12: self.cdw12.with_fua(fua), ..self }
    }
}

impl<'a> Request<'a> {
    /// Of a queue that is no CPU's.
    #[inline(always)]
    pub(crate) fn new(
        namespace: &'a Namespace,
        payload: Payload<'a>,
        kind: Kind,
        lba: u64,
        block_count: u32,
        tag: u64,
    ) -> Self {
        Self { inner: namespace.inner(), payload, kind, cpu: 0, block_count, lba, tag }
    }

    /// Where the device finds its data, if it may go out as it is, now, straight from one page; and how long it does.
    #[inline(always)]
    pub(crate) fn in_one_page(&self) -> Option<(u64, &Life)> {
        if !self.has_blocks() || self.kind.is_special || !self.inner.is_well() {
            return None;
        }
        let (inner, bytes) = (self.inner, self.bytes(self.block_count));
        self.payload.in_one_page(inner.direct_driver, &inner.core.layout, self.kind.access, bytes)
    }

    /// Its command where [`in_one_page`](Self::in_one_page) says where its data is. Under the queue's lock: after a reset
    /// nothing goes to another disk in the old one's place, and unregistering the memory waits for the command.
    #[inline(always)]
    pub(crate) fn for_one_page(&self, iova: u64, memory: &Life) -> Result<Command, RequestError> {
        if self.inner.is_removed() {
            return Err(self.inner.removed());
        }
        if memory.has_ended() {
            return Err(MemoryError::Unregistered.into());
        }
        Ok(self.command(0, self.block_count, Pointers::one_page(iova)))
    }

    /// Its command, straight from the payload. Under the queue's lock, as [`for_one_page`](Self::for_one_page).
    pub(crate) fn straight(&self, list: List<'_>) -> Result<Command, RequestError> {
        let (inner, bytes) = (self.inner, self.bytes(self.block_count));
        inner.check_standing(Some((self.lba, self.block_count.into())))?;
        let (driver, access) = (inner.direct_driver, self.kind.access);
        let pointers = self.payload.pointers(driver, &inner.core.layout, list, None, access, (0, bytes))?;
        Ok(self.command(0, self.block_count, pointers.ok_or(RequestError::NotDirect)?))
    }

    /// Whether there are such blocks, and not too many. If not, [`check`](Self::check) says why.
    #[inline(always)]
    fn has_blocks(&self) -> bool {
        let inner = self.inner;
        let some = self.block_count.wrapping_sub(1) < inner.max_transfer_blocks;
        let inside = inner.block_count().checked_sub(self.block_count.into()).is_some_and(|last| self.lba <= last);
        some && inside
    }

    /// Checks what the caller asked for; `Ok(false)` if there is nothing to do.
    pub(crate) fn check(&self) -> Result<bool, RequestError> {
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
    pub(super) fn bytes(&self, blocks: u32) -> usize {
        (blocks as usize).wrapping_mul(self.inner.transfer_block_size as usize)
    }

    /// The command for `blocks` of its blocks, past those that are `done`.
    #[inline(always)]
    pub(super) fn command(&self, done: u32, blocks: u32, pointers: Pointers) -> Command {
        let lba = self.lba.wrapping_add(done.into());
        let mut cdw12 = self.kind.cdw12.with_nlb(blocks.wrapping_sub(1) as u16);
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
    #[inline]
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

    /// Sets how long this command may take, instead of [`DriverOptions::io_timeout`](crate::DriverOptions::io_timeout);
    /// `None` for as long as it likes. It is looked at no more often than every 10 ms, and about every eighth of the
    /// shortest limit.
    pub fn timeout(mut self, limit: Option<Duration>) -> Self {
        if let Stage::New | Stage::Special(_) = *self.stage {
            self.request.inner.core.expect_limit(limit);
            *self.stage = Stage::Special(Terms { limit: limit.map_or(TimeLimit::None, TimeLimit::After), retries: 0 });
        }
        self
    }

    #[inline(always)]
    fn poll_transfer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if let Some(InFlight { queue, token }) = self.in_flight {
            if !queue.claim_success(token) {
                return self.poll_stage(context);
            }
            self.in_flight = None;
            return Poll::Ready(Ok(()));
        }
        if matches!(*self.stage, Stage::New) {
            // There is nothing in it to drop.
            std::mem::forget(std::mem::replace(&mut *self.stage, Stage::Ended));
            return match self.start_now(context.waker()) {
                Start::Pending => Poll::Pending,
                Start::Looked => self.poll_stage(context),
                Start::Not => self.begin(Terms::default(), context),
            };
        }
        self.poll_stage(context)
    }

    /// Submits it at once, as most are: in order, straight from one page, and with nothing to wait for.
    #[inline(never)]
    fn start_now(&mut self, waker: &Waker) -> Start {
        let request = &self.request;
        if !request.has_blocks() {
            return Start::Not;
        }
        let inner = request.inner;
        let core = &*inner.core;
        let (bytes, access) = (request.bytes(request.block_count), request.kind.access);
        let one_page = request.payload.in_one_page(inner.direct_driver, &core.layout, access, bytes);
        let Some((iova, memory)) = one_page else { return Start::Not };
        let Ok(Some(queue)) = core.issuers.get(request.cpu) else { return Start::Not };
        let Some(ready) = queue.begin(waker) else { return Start::Not };
        // Under the queue's lock. Of the namespace, because after a reset nothing goes to another disk in its place.
        if !inner.is_well() || memory.has_ended() {
            ready.withdraw();
            return Start::Not;
        }
        // From here on, unregistering the memory waits for the command.
        let notes = Notes { tag: request.tag, registration: memory.key, ..Notes::default() };
        let started = ready.submit(notes, request.command(0, request.block_count, Pointers::one_page(iova)));
        self.in_flight = Some(InFlight { queue, token: started.token });
        // Its waker is registered, so a completion from here on wakes it.
        if started.looked { Start::Looked } else { Start::Pending }
    }

    #[inline(never)]
    fn poll_stage(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if let Some(InFlight { queue, token }) = self.in_flight {
            let result = settled(ready!(queue.poll(token, context)));
            self.in_flight = None;
            return match result {
                Ok(_) => Poll::Ready(Ok(())),
                Err(error) => self.fail(error, LongWay::new(queue, Terms::default()), context),
            };
        }
        let result = match &mut *self.stage {
            Stage::New => return self.begin(Terms::default(), context),
            Stage::Special(terms) => {
                let terms = *terms;
                return self.begin(terms, context);
            }
            Stage::UnderWay(Way::NoQueue(wait, terms)) => {
                let terms = *terms;
                match ready!(wait.as_mut().poll(context)) {
                    Ok(queue) => return self.go_long_way(queue, terms, context),
                    Err(error) => Err(error),
                }
            }
            Stage::UnderWay(Way::LongWay(way)) => ready!(way.poll(&mut self.request, context)),
            Stage::UnderWay(Way::Later(wait, _)) => {
                ready!(wait.as_mut().poll(context));
                return self.go_on(context);
            }
            Stage::Ended => Err(RequestError::Gone),
        };
        if let Err(error) = result {
            return self.fail_on_the_way(error, context);
        }
        // Its pages are others' now; the future may live on for long.
        *self.stage = Stage::Ended;
        Poll::Ready(Ok(()))
    }

    /// Checks the request, and finds its queue.
    #[inline(never)]
    fn begin(&mut self, terms: Terms, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        *self.stage = Stage::Ended;
        if !self.request.check()? {
            return Poll::Ready(Ok(()));
        }
        let (inner, cpu) = (self.request.inner, self.request.cpu);
        match inner.core.issuers.get(cpu)? {
            Some(queue) => self.go_long_way(queue, terms, context),
            None => {
                let wait = async move { Ok(&**inner.core.issuers.wait(&inner.core, cpu).await?) };
                *self.stage = Stage::UnderWay(Way::NoQueue(Box::pin(wait), terms));
                self.poll_stage(context)
            }
        }
    }

    fn go_long_way(
        &mut self,
        queue: &'a QueuePair,
        terms: Terms,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        if self.request.inner.is_held_back() {
            return self.wait_for_inherited(queue, terms, context);
        }
        *self.stage = Stage::UnderWay(Way::LongWay(LongWay::new(queue, terms)));
        self.poll_stage(context)
    }

    /// Goes on when no command of the process before changes its blocks any more.
    #[cold]
    #[inline(never)]
    fn wait_for_inherited(
        &mut self,
        queue: &'a QueuePair,
        terms: Terms,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        let Request { inner, lba, block_count, .. } = *self.request;
        let wait = inner.core.wait_for_inherited(inner.nsid, Some((lba, block_count.into())));
        *self.stage = Stage::UnderWay(Way::Later(Box::pin(wait), LongWay::new(queue, terms)));
        self.poll_stage(context)
    }

    /// Ends with an error, or goes on later if that passes.
    #[cold]
    fn fail(
        &mut self,
        error: RequestError,
        mut way: LongWay<'a>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        let core = &self.request.inner.core;
        let wait = match &error {
            RequestError::Nvme(status) => core.retry_after(status, way.retries()),
            _ => None,
        };
        let Some(wait) = wait else { return Poll::Ready(Err(error)) };
        way.go_back();
        *self.stage = Stage::UnderWay(Way::Later(Box::pin(core.pause(wait)), way));
        self.poll_stage(context)
    }

    #[cold]
    fn fail_on_the_way(&mut self, error: RequestError, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        match std::mem::replace(&mut *self.stage, Stage::Ended) {
            Stage::UnderWay(Way::LongWay(way)) => self.fail(error, way, context),
            _ => Poll::Ready(Err(error)),
        }
    }

    #[cold]
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if let Stage::UnderWay(Way::Later(_, way)) = std::mem::replace(&mut *self.stage, Stage::Ended) {
            *self.stage = Stage::UnderWay(Way::LongWay(way));
        }
        self.poll_stage(context)
    }

    /// Drops all there is to drop. What the device still works on stays, the buffer with it, until it is done.
    #[cold]
    #[inline(never)]
    fn abandon(&mut self) {
        let buffer = match &mut self.request.payload {
            Payload::Buffer(buffer) => buffer.take(),
            _ => None,
        };
        match (self.in_flight, std::mem::replace(&mut *self.stage, Stage::Ended)) {
            (Some(InFlight { queue, token }), _) => queue.forget(token, buffer.into()),
            (None, Stage::UnderWay(Way::LongWay(way))) => way.abandon(buffer),
            (None, _) => {}
        }
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

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_transfer(context)
    }
}

impl Drop for Transfer<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let has_buffer = matches!(self.request.payload, Payload::Buffer(Some(_)));
        if self.in_flight.is_some() || has_buffer || matches!(*self.stage, Stage::UnderWay(_)) {
            self.abandon();
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

    /// As [`Transfer::timeout`].
    pub fn timeout(self, limit: Option<Duration>) -> Self {
        let Self(transfer) = self;
        Self(transfer.timeout(limit))
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
