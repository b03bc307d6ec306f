//! Reads and writes, and every other command that moves data from or to a payload: the I/O path.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use doorbell_device::Access;
use nvme_spec::nvm::{PrInfo, ReadWriteCdw12};
use nvme_spec::{Cdw0, Command, NvmOpcode};

use super::long_way::LongWay;
use super::{Inner, Namespace, Protection};
use crate::error::RequestError;
use crate::memory::{DmaBuffer, GuestMemory, PagedRange, Payload, Pointers};
use crate::queue::{Notes, QueuePair, TimeLimit, Token, settled};

type WaitForQueue<'a> = Pin<Box<dyn Future<Output = Result<&'a QueuePair, RequestError>> + Send + 'a>>;

/// A read, write or compare under way. Does nothing until polled.
#[must_use = "futures do nothing unless polled"]
pub struct Transfer<'a> {
    request: Request<'a>,
    stage: Stage,
    /// Its slot, and in whose queue, while it is [`Stage::InFlight`].
    token: Token,
    queue: Option<&'a QueuePair>,
    detour: Detour<'a>,
}

/// What the I/O path does without.
enum Detour<'a> {
    None,
    /// Not begun, and to be carried in a way of its own.
    Special(Terms),
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

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not polled yet.
    New,
    /// In flight straight from the payload, with nothing but its slot.
    InFlight,
    /// Whatever needs more than that.
    Detour,
    Ended,
}

/// What was asked for.
pub(super) struct Request<'a> {
    pub(super) inner: &'a Inner,
    pub(super) payload: Payload<'a>,
    pub(super) kind: Kind,
    pub(super) cpu: u32,
    pub(super) block_count: u32,
    lba: u64,
    pub(super) tag: u64,
}

/// What a transfer is.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    opcode: NvmOpcode,
    fua: bool,
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
        Transfer { request, stage: Stage::New, token: Token::NONE, queue: None, detour: Detour::None }
    }
}

impl Kind {
    const READ: Self = Self { opcode: NvmOpcode::READ, fua: false, access: Access::Write, divisible: true };
    const WRITE: Self = Self { opcode: NvmOpcode::WRITE, fua: false, access: Access::Read, divisible: true };
    const COMPARE: Self = Self { opcode: NvmOpcode::COMPARE, fua: false, access: Access::Read, divisible: true };
}

impl Request<'_> {
    /// Whether it may go out as it is, as far as blocks and namespace go. What may not, [`check`](Self::check) says why.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        let inner = self.inner;
        let some = self.block_count.wrapping_sub(1) < inner.max_transfer_blocks;
        let inside = inner.block_count().checked_sub(self.block_count.into()).is_some_and(|last| self.lba <= last);
        some && inside && self.kind.opcode != NvmOpcode::COMPARE && self.is_direct()
    }

    /// Checks what the caller asked for; `Ok(false)` if there is nothing to do.
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

    /// Whether the device may reach the payload itself.
    #[inline(always)]
    pub(super) fn is_direct(&self) -> bool {
        !self.inner.core.options.always_bounce
    }

    /// Bytes that blocks have in memory.
    #[inline(always)]
    pub(super) fn bytes(&self, blocks: u32) -> usize {
        blocks as usize * self.inner.transfer_block_size as usize
    }

    /// The command for `blocks` of its blocks, past those that are `done`.
    #[inline(always)]
    pub(super) fn command(&self, done: u32, blocks: u32, pointers: Pointers) -> Command {
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

    /// Sets how long this command may take, instead of [`DriverOptions::io_timeout`](crate::DriverOptions::io_timeout);
    /// `None` for as long as it likes. It is looked at no more often than every 10 ms, and about every eighth of the
    /// shortest limit.
    pub fn timeout(mut self, limit: Option<Duration>) -> Self {
        if self.stage == Stage::New {
            self.request.inner.core.expect_limit(limit);
            self.stage = Stage::Detour;
            self.detour = Detour::Special(Terms { limit: limit.map_or(TimeLimit::None, TimeLimit::After), retries: 0 });
        }
        self
    }

    #[inline(always)]
    fn poll_transfer(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if self.stage == Stage::InFlight
            && let Some(queue) = self.queue
            && queue.claim_success(self.token)
        {
            self.stage = Stage::Ended;
            return Poll::Ready(Ok(()));
        }
        self.poll_rest(context)
    }

    #[inline(never)]
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if self.stage == Stage::New
            && let Some(looked) = self.start_now(context.waker())
        {
            // Its waker is registered, so a completion from here on wakes it.
            return if looked { self.poll_in_flight(context) } else { Poll::Pending };
        }
        self.poll_stage(context)
    }

    /// Submits it at once, as most are: in order, straight from one page, and with nothing to wait for. `None` if it is
    /// not so; then nothing has happened yet. Otherwise whether it may be done already.
    #[inline(always)]
    fn start_now(&mut self, waker: &Waker) -> Option<bool> {
        let request = &self.request;
        if !request.is_plain() {
            return None;
        }
        let core = &*request.inner.core;
        let (bytes, access) = (request.bytes(request.block_count), request.kind.access);
        let (iova, registration) = request.payload.in_one_page(core.id, &core.layout, access, bytes)?;
        let queue = &**core.issuers.get(request.cpu).ok()??;
        let ready = queue.begin(waker)?;
        // Under the queue's lock. Of the namespace, because after a reset nothing goes to another disk in its place.
        if request.inner.is_removed() || registration.is_some_and(|registration| !registration.is_alive()) {
            ready.withdraw();
            return None;
        }
        // From here on, unregistering the memory waits for the command.
        let registration = registration.map_or(0, |registration| registration.key);
        let notes = Notes { tag: request.tag, registration, ..Notes::default() };
        let started = ready.submit(notes, request.command(0, request.block_count, Pointers::one_page(iova)));
        self.stage = Stage::InFlight;
        self.token = started.token;
        self.queue = Some(queue);
        Some(started.looked)
    }

    #[inline(never)]
    fn poll_stage(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        match self.stage {
            Stage::New => {
                self.stage = Stage::Detour;
                self.begin(Terms::default(), context)
            }
            Stage::InFlight => self.poll_in_flight(context),
            Stage::Detour => self.poll_detour(context),
            Stage::Ended => Poll::Ready(Err(RequestError::Gone)),
        }
    }

    #[inline(never)]
    fn poll_in_flight(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let Some(queue) = self.queue else { return Poll::Ready(Err(RequestError::Gone)) };
        let result = settled(ready!(queue.poll(self.token, context)));
        self.stage = Stage::Ended;
        match result {
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => self.fail(error, LongWay::new(&self.request, queue, Terms::default()), context),
        }
    }

    /// Ends with an error, or goes on later if that passes.
    #[cold]
    fn fail(
        &mut self,
        error: RequestError,
        mut way: LongWay<'a>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        (self.queue, self.stage) = (None, Stage::Ended);
        let core = &self.request.inner.core;
        let wait = match &error {
            RequestError::Nvme(status) => core.retry_after(status, way.retries()),
            _ => None,
        };
        let Some(wait) = wait else { return Poll::Ready(Err(error)) };
        way.go_back();
        self.detour = Detour::Later(Box::pin(core.pause(wait)), way);
        self.stage = Stage::Detour;
        self.poll_detour(context)
    }

    fn go_long_way(
        &mut self,
        queue: &'a QueuePair,
        terms: Terms,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), RequestError>> {
        self.detour = Detour::LongWay(LongWay::new(&self.request, queue, terms));
        self.poll_detour(context)
    }

    /// Checks the request, and finds its queue.
    fn begin(&mut self, terms: Terms, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let (inner, cpu) = (self.request.inner, self.request.cpu);
        let queue = match self.request.check() {
            Ok(true) => inner.core.issuers.get(cpu),
            ended => {
                (self.stage, self.detour) = (Stage::Ended, Detour::None);
                return Poll::Ready(ended.map(drop));
            }
        };
        match queue {
            Ok(Some(queue)) => self.go_long_way(queue, terms, context),
            Ok(None) => {
                let wait = async move { Ok(&**inner.core.issuers.wait(&inner.core, cpu).await?) };
                self.detour = Detour::NoQueue(Box::pin(wait), terms);
                self.poll_detour(context)
            }
            Err(error) => {
                (self.stage, self.detour) = (Stage::Ended, Detour::None);
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_detour(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        let result = match &mut self.detour {
            Detour::LongWay(way) => ready!(way.poll(&mut self.request, context)),
            Detour::Special(terms) => {
                let terms = *terms;
                return self.begin(terms, context);
            }
            Detour::NoQueue(wait, terms) => {
                let terms = *terms;
                match ready!(wait.as_mut().poll(context)) {
                    Ok(queue) => return self.go_long_way(queue, terms, context),
                    Err(error) => Err(error),
                }
            }
            Detour::Later(wait, _) => {
                ready!(wait.as_mut().poll(context));
                return self.go_on(context);
            }
            Detour::None => Err(RequestError::Gone),
        };
        if let Err(error) = result {
            return self.fail_detour(error, context);
        }
        // Its pages are others' now; the future may live on for long.
        self.detour = Detour::None;
        self.stage = Stage::Ended;
        Poll::Ready(Ok(()))
    }

    #[cold]
    fn go_on(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        if let Detour::Later(_, way) = std::mem::replace(&mut self.detour, Detour::None) {
            self.detour = Detour::LongWay(way);
        }
        self.poll_detour(context)
    }

    #[cold]
    fn fail_detour(&mut self, error: RequestError, context: &mut Context<'_>) -> Poll<Result<(), RequestError>> {
        self.stage = Stage::Ended;
        match std::mem::replace(&mut self.detour, Detour::None) {
            Detour::LongWay(way) => self.fail(error, way, context),
            _ => Poll::Ready(Err(error)),
        }
    }

    /// What the device still works on stays, the buffer with it, until it is done.
    #[cold]
    #[inline(never)]
    fn abandon(&mut self) {
        let buffer = match &mut self.request.payload {
            Payload::Buffer(buffer) => buffer.take(),
            _ => None,
        };
        match (self.queue, std::mem::replace(&mut self.detour, Detour::None)) {
            (Some(queue), _) => queue.forget(self.token, buffer.into()),
            (None, Detour::LongWay(way)) => way.abandon(buffer),
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

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_transfer(context)
    }
}

impl Drop for Transfer<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.stage == Stage::InFlight || self.stage == Stage::Detour {
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
