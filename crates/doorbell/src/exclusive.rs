//! I/O without futures: a queue pair that one owner submits to and polls.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nvme_spec::{AdminOpcode, NvmOpcode};

use crate::driver::Core;
use crate::error::RequestError;
use crate::memory::{DmaBuffer, GuestMemory, PagedRange, Payload};
use crate::namespace::{Inner, Kind, Namespace, Request};
use crate::queue::{Adopted, Found, Notes, QueuePair};

/// How often it is looked whether the device is done with what an owner left behind.
const LOOK: Duration = Duration::from_millis(1);

/// A queue pair of one's own, made by [`NvmeDriver::exclusive_queue`](crate::NvmeDriver::exclusive_queue).
///
/// Commands are submitted with a token, a number of the caller's choice, and come back with it from
/// [`poll`](Self::poll): there are no futures, no wakers and no interrupts, so it costs least and whoever owns it has to
/// poll. All that is checked elsewhere is checked here, before a command is sent and when it is completed.
///
/// * Data moves straight between the device and registered guest memory, or a buffer of the driver's, which goes
///   along and comes back. What the device cannot reach so is [`RequestError::NotDirect`].
/// * A queue that is full, or whose controller is being reset, is [`RequestError::WouldWait`]: poll, and try again. So
///   are blocks that a command of the process before still changes.
/// * Every command that was submitted comes back once, whatever becomes of the controller: after a reset those that
///   could not be sent once more with [`RequestError::Interrupted`], at the end all that are left with
///   [`RequestError::Gone`] or the reason. What fails for a passing reason is not tried again.
/// * When the driver is handed over, the queue goes along ([`Restored::exclusive_queues`](crate::Restored::exclusive_queues)).
///   While that is not decided, nothing is found, and a new command is [`RequestError::WouldWait`]; then every command that is
///   left here ends with [`RequestError::HandedOver`], and comes from the other queue as well, with what came of it.
/// * When it is dropped, commands in flight go on, and their memory stays until they are done. The queue is then given
///   back to the controller.
///
/// ```no_run
/// # async fn read(driver: &doorbell::NvmeDriver, namespace: &doorbell::Namespace) -> Result<(), doorbell::RequestError> {
/// let mut queue = driver.exclusive_queue().await?;
/// for token in 0..4 {
///     let buffer = driver.allocate_buffer(4096)?;
///     queue.read_buffer(namespace, token, token, 1, buffer).map_err(|(_, error)| error)?;
/// }
/// let mut left = 4;
/// while left != 0 {
///     for completed in queue.poll() {
///         completed.result.map_err(|error| *error)?;
///         let buffer = completed.buffer.expect("it went along");
///         println!("block {} begins with {:02x}", completed.token, buffer.to_vec()[0]);
///         left -= 1;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct ExclusiveQueue {
    core: Arc<Core>,
    queue: Arc<QueuePair>,
    /// Buffers of commands in flight, by slot.
    buffers: Box<[Option<DmaBuffer>]>,
    /// What the last look found, and how much of it was handed out.
    found: Found,
    handed_out: usize,
    /// What ended before that.
    earlier: VecDeque<Completed>,
}

/// A command that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completed {
    /// As it was submitted with.
    pub token: u64,
    /// What came of it. An error is boxed, so that success is small.
    pub result: Result<(), Box<RequestError>>,
    /// The buffer that went along.
    pub buffer: Option<DmaBuffer>,
}

impl ExclusiveQueue {
    pub(crate) fn new(core: Arc<Core>, queue: Arc<QueuePair>) -> Self {
        let buffers = (0..queue.depth()).map(|_| None).collect();
        Self { core, queue, buffers, found: Found::new(), handed_out: 0, earlier: VecDeque::new() }
    }

    /// Of another process, with the commands that it had.
    pub(crate) fn inherit(core: Arc<Core>, queue: Arc<QueuePair>, commands: impl Iterator<Item = Adopted>) -> Self {
        let mut own = Self::new(core, queue);
        for Adopted { token, held, .. } in commands {
            let slot = own.queue.slot_of(token);
            if let Some(place) = own.buffers.get_mut(usize::from(slot)) {
                *place = held.buffer;
            }
        }
        own
    }

    /// Its identifier, by which [`inspect`](crate::NvmeDriver::inspect) shows it.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.queue.id()
    }

    /// Commands that can be in flight.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.queue.depth()
    }

    /// Reads blocks into registered guest memory.
    ///
    /// # Errors
    /// As [`Namespace::read`], and what this type says. Then nothing was sent, and the token does not come back.
    #[inline]
    pub fn read(
        &mut self,
        namespace: &Namespace,
        token: u64,
        lba: u64,
        block_count: u32,
        memory: &GuestMemory,
        range: PagedRange<'_>,
    ) -> Result<(), RequestError> {
        self.submit(namespace, Kind::READ, token, lba, block_count, Payload::Guest(memory, range))
    }

    /// Writes blocks from registered guest memory. With `fua` they are on the medium when it completes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "as `Namespace::write`, and a token")]
    pub fn write(
        &mut self,
        namespace: &Namespace,
        token: u64,
        lba: u64,
        block_count: u32,
        fua: bool,
        memory: &GuestMemory,
        range: PagedRange<'_>,
    ) -> Result<(), RequestError> {
        self.submit(namespace, Kind::WRITE.with_fua(fua), token, lba, block_count, Payload::Guest(memory, range))
    }

    /// Compares blocks with registered guest memory.
    ///
    /// # Errors
    /// As [`read`](Self::read), and if the controller has no Compare.
    pub fn compare(
        &mut self,
        namespace: &Namespace,
        token: u64,
        lba: u64,
        block_count: u32,
        memory: &GuestMemory,
        range: PagedRange<'_>,
    ) -> Result<(), RequestError> {
        self.submit(namespace, Kind::COMPARE, token, lba, block_count, Payload::Guest(memory, range))
    }

    /// Reads into a buffer that goes along and comes back.
    ///
    /// # Errors
    /// As [`read`](Self::read), with the buffer.
    #[inline]
    pub fn read_buffer(
        &mut self,
        namespace: &Namespace,
        token: u64,
        lba: u64,
        block_count: u32,
        buffer: DmaBuffer,
    ) -> Result<(), (DmaBuffer, RequestError)> {
        self.submit_buffer(namespace, Kind::READ, token, lba, block_count, buffer)
    }

    /// Writes from a buffer that goes along and comes back.
    ///
    /// # Errors
    /// As [`read`](Self::read), with the buffer.
    #[inline]
    pub fn write_buffer(
        &mut self,
        namespace: &Namespace,
        token: u64,
        lba: u64,
        block_count: u32,
        fua: bool,
        buffer: DmaBuffer,
    ) -> Result<(), (DmaBuffer, RequestError)> {
        self.submit_buffer(namespace, Kind::WRITE.with_fua(fua), token, lba, block_count, buffer)
    }

    /// Makes what was written before durable (NVM Command Set, Flush).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn flush(&mut self, namespace: &Namespace, token: u64) -> Result<(), RequestError> {
        let inner = namespace.inner();
        self.check_own(inner)?;
        let notes = Notes { tag: token, ..Notes::default() };
        self.keep_found();
        self.queue.submit_own(notes, |_| {
            inner.check_standing(None)?;
            Ok(inner.command(NvmOpcode::FLUSH))
        })?;
        Ok(())
    }

    /// Looks for completions, and hands out what has ended: those of one look, so an empty one means that there is none
    /// now. What is not taken comes with the next.
    #[inline]
    pub fn poll(&mut self) -> impl Iterator<Item = Completed> {
        self.keep_found();
        self.queue.look_own(&mut self.found);
        std::iter::from_fn(|| self.next())
    }

    /// The next of those found.
    #[inline(always)]
    fn next(&mut self) -> Option<Completed> {
        if !self.earlier.is_empty() {
            return self.earlier.pop_front();
        }
        // Not copied: it was just written, in smaller parts than a copy would read.
        let ended = self.found.get(self.handed_out)?;
        self.handed_out = self.handed_out.saturating_add(1);
        let buffer = self.buffers.get_mut(usize::from(ended.slot)).and_then(Option::take);
        Some(Completed { token: ended.tag, result: self.queue.result_of(ended), buffer })
    }

    /// Slots of what was found are free, and may be taken anew: what was not handed out by now is kept elsewhere.
    #[inline(always)]
    fn keep_found(&mut self) {
        if self.handed_out != self.found.len() {
            self.keep_rest();
        }
        self.found.clear();
        self.handed_out = 0;
    }

    #[cold]
    #[inline(never)]
    fn keep_rest(&mut self) {
        let earlier = std::mem::take(&mut self.earlier);
        let rest: Vec<_> = std::iter::from_fn(|| self.next()).collect();
        self.earlier = earlier;
        self.earlier.extend(rest);
    }

    #[inline(always)]
    fn submit(
        &mut self,
        namespace: &Namespace,
        kind: Kind,
        token: u64,
        lba: u64,
        block_count: u32,
        payload: Payload<'_>,
    ) -> Result<(), RequestError> {
        let request = Request::new(namespace, payload, kind, lba, block_count, token);
        self.submit_request(&request)?;
        Ok(())
    }

    #[inline(always)]
    fn submit_buffer(
        &mut self,
        namespace: &Namespace,
        kind: Kind,
        token: u64,
        lba: u64,
        block_count: u32,
        buffer: DmaBuffer,
    ) -> Result<(), (DmaBuffer, RequestError)> {
        let payload = Payload::Buffer(Some(buffer));
        let request = Request::new(namespace, payload, kind, lba, block_count, token);
        let submitted = self.submit_request(&request);
        let Payload::Buffer(Some(buffer)) = request.payload else { return Ok(()) };
        match submitted {
            Ok(Some(slot)) => {
                if let Some(place) = self.buffers.get_mut(usize::from(slot)) {
                    *place = Some(buffer);
                }
                Ok(())
            }
            Ok(None) => {
                if let Some(completed) = self.earlier.back_mut() {
                    completed.buffer = Some(buffer);
                }
                Ok(())
            }
            Err(error) => Err((buffer, error)),
        }
    }

    /// Its slot; `None` where there is nothing to do, and it has ended already.
    #[inline(always)]
    fn submit_request(&mut self, request: &Request<'_>) -> Result<Option<u16>, RequestError> {
        self.keep_found();
        match request.in_one_page() {
            Some((iova, memory)) if request.inner.core.id == self.core.id => {
                let notes = Notes { tag: request.tag, registration: memory.key, ..Notes::default() };
                // Under the queue's lock, from where on unregistering the memory waits for the command.
                let submitted = self.queue.submit_own(notes, |_| request.for_one_page(iova, memory));
                submitted.map(Some)
            }
            _ => self.submit_other(request),
        }
    }

    #[inline(never)]
    fn submit_other(&mut self, request: &Request<'_>) -> Result<Option<u16>, RequestError> {
        self.check_own(request.inner)?;
        if !request.check()? {
            self.earlier.push_back(Completed { token: request.tag, result: Ok(()), buffer: None });
            return Ok(None);
        }
        let registration = request.payload.registration(request.inner.direct_driver());
        let Some(registration) = registration else { return Err(RequestError::NotDirect) };
        let notes = Notes { tag: request.tag, registration, ..Notes::default() };
        self.queue.submit_own(notes, |list| request.straight(list)).map(Some)
    }

    fn check_own(&self, namespace: &Inner) -> Result<(), RequestError> {
        if namespace.core.id == self.core.id { Ok(()) } else { Err(OTHER_DRIVER) }
    }
}

const OTHER_DRIVER: RequestError = RequestError::BadParameter {
    what: "the namespace",
    value: 0,
    allowed: "one that was opened by the driver of the queue",
};

impl Drop for ExclusiveQueue {
    fn drop(&mut self) {
        self.queue.disown(|slot| self.buffers.get_mut(usize::from(slot)).and_then(Option::take));
        let (core, queue) = (self.core.clone(), self.queue.clone());
        self.core.options.runtime.spawn("give a queue back", Box::pin(async move { core.take_back(queue).await }));
    }
}

impl fmt::Debug for ExclusiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExclusiveQueue").field("id", &self.id()).field("depth", &self.depth()).finish_non_exhaustive()
    }
}

impl Core {
    /// Waits until the device is done with what the owner of a queue left behind, and deletes the queue.
    async fn take_back(&self, queue: Arc<QueuePair>) {
        loop {
            queue.drain();
            if self.check_running().is_err() {
                // It ends with all the others.
                return;
            }
            if queue.in_flight().is_empty() && !self.is_recovering() {
                break;
            }
            self.pause(LOOK).await;
        }
        // A reset forgets all queues; until then, or until it is deleted, the device may use its memory.
        if !self.issuers.condemn(&queue, || self.condemned().push(queue.clone())) {
            return;
        }
        let id = queue.id();
        if self.delete_queue(AdminOpcode::DELETE_IO_SQ, id).await
            && self.delete_queue(AdminOpcode::DELETE_IO_CQ, id).await
        {
            self.condemned().retain(|other| !Arc::ptr_eq(other, &queue));
        }
    }
}
