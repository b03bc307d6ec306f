use std::task::{Context, Poll};

use nvme_spec::{Command, Completion};

use super::lists::List;
use super::pair::{Held, NoSlot, Notes, QueuePair, StartError, Started};
use super::pool::Run;
use super::slots::Token;
use super::waiting::Place;
use crate::error::{Lost, NvmeError, RequestError};
use crate::memory::DmaBuffer;

/// One command on one queue, from its place in line to its result. Dropped at any point, it leaves nothing behind,
/// and what the device still works on stays until it is done.
pub(crate) struct Exchange<'q> {
    queue: &'q QueuePair,
    run_place: Option<Place>,
    run: Option<Run>,
    place: Option<Place>,
    token: Option<Token>,
    /// Whether completions were looked for right after it was submitted.
    looked: bool,
}

/// Why a command did not start.
pub(crate) enum Refused<E> {
    /// The queue takes no more commands.
    Lost(Lost),
    /// It could not be built.
    Build(E),
}

impl<'q> Exchange<'q> {
    #[inline]
    pub(crate) fn new(queue: &'q QueuePair) -> Self {
        Self { queue, run_place: None, run: None, place: None, token: None, looked: false }
    }

    /// Of a command that is under way already.
    pub(crate) fn started(queue: &'q QueuePair, token: Token, run: Option<Run>) -> Self {
        let mut exchange = Self::new(queue);
        (exchange.token, exchange.run) = (Some(token), run);
        exchange
    }

    pub(crate) fn queue(&self) -> &'q QueuePair {
        self.queue
    }

    /// Takes pages of the pool, in order of arrival. Before the slot, so that whoever holds pages only ever waits for
    /// slots, and slots wait for nobody. There are none when the queue takes no more commands, as starting one will say.
    pub(crate) fn poll_pages(&mut self, bytes: usize, context: &mut Context<'_>) -> Poll<()> {
        if self.run.is_none() {
            match self.queue.pool().poll_take(bytes, &mut self.run_place, context) {
                Poll::Ready(run) => self.run = Some(run),
                Poll::Pending if self.queue.pool().is_closed() => {}
                Poll::Pending => {
                    // What holds the pages may be behind the doorbell.
                    self.queue.tell_device();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    /// The pages taken.
    #[inline]
    pub(crate) fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    /// Keeps the first `bytes` of the pages taken, and hands the rest to another exchange of the same queue.
    pub(crate) fn share_pages(&mut self, bytes: usize, other: &mut Exchange<'q>) {
        if let Some(run) = self.run.take() {
            let (own, rest) = self.queue.pool().split(run, bytes);
            self.run = Some(own);
            other.run = rest;
        }
    }

    /// Gives the pages back, if there are any.
    #[inline(always)]
    pub(crate) fn return_pages(&mut self) {
        if let Some(run) = self.run.take() {
            self.queue.pool().give_back(run);
        }
    }

    /// Builds the command and rings the doorbell, as soon as there is a slot.
    #[inline(always)]
    pub(crate) fn poll_start<E>(
        &mut self,
        context: &mut Context<'_>,
        notes: Notes,
        build: impl FnOnce(List<'_>, Option<&Run>) -> Result<Command, E>,
    ) -> Poll<Result<(), Refused<E>>> {
        let run = self.run.as_ref();
        let notes = Notes { pages: run.map_or((0, 0), Run::pages), ..notes };
        match self.queue.start(context.waker(), &mut self.place, notes, |list| build(list, run)) {
            Ok(Started { token, looked }) => {
                self.token = Some(token);
                self.looked = looked;
                Poll::Ready(Ok(()))
            }
            Err(error) => self.not_started(error),
        }
    }

    #[cold]
    #[inline(never)]
    fn not_started<E>(&self, error: StartError<E>) -> Poll<Result<(), Refused<E>>> {
        match error {
            StartError::NoSlot(NoSlot::Full) => Poll::Pending,
            StartError::NoSlot(NoSlot::Closed) => Poll::Ready(Err(Refused::Lost(self.queue.lost()))),
            StartError::Build(error) => Poll::Ready(Err(Refused::Build(error))),
        }
    }

    /// Two commands in adjacent entries under one doorbell: this one and `second`.
    pub(crate) fn poll_start_pair<E>(
        &mut self,
        second: &mut Exchange<'q>,
        context: &mut Context<'_>,
        build: impl FnOnce([List<'_>; 2]) -> Result<[Command; 2], E>,
    ) -> Poll<Result<(), Refused<E>>> {
        let notes = [&self.run, &second.run].map(|run| {
            let pages = run.as_ref().map_or((0, 0), Run::pages);
            Notes { pages, ..Notes::default() }
        });
        match self.queue.start_pair(context.waker(), &mut self.place, notes, build) {
            Ok([first, other]) => {
                self.token = Some(first);
                second.token = Some(other);
                Poll::Ready(Ok(()))
            }
            Err(error) => self.not_started(error),
        }
    }

    /// Whether it may be done already, because completions were looked for right after it was submitted.
    #[inline(always)]
    pub(crate) fn may_be_done(&self) -> bool {
        self.looked
    }

    /// The claim on its slot, which is the taker's to settle from now on.
    #[cfg(all(test, doorbell_loom))]
    pub(super) fn take_token(&mut self) -> super::slots::Token {
        self.token.take().expect("a started command")
    }

    /// The completion of a started command; an error status is an error.
    pub(crate) fn poll_result(&mut self, context: &mut Context<'_>) -> Poll<Result<Completion, RequestError>> {
        let Some(token) = self.token else { return Poll::Ready(Err(RequestError::Gone)) };
        let result = std::task::ready!(self.queue.poll(token, context));
        self.token = None;
        Poll::Ready(settled(result))
    }
}

/// What came of a command; an error status is an error.
pub(crate) fn settled(result: Result<Completion, Lost>) -> Result<Completion, RequestError> {
    match result {
        Ok(completion) if completion.status.is_success() => Ok(completion),
        Ok(completion) => Err(NvmeError::new(&completion).into()),
        Err(lost) => Err(lost.into()),
    }
}

impl Drop for Exchange<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        self.abandon(None);
    }
}

impl Exchange<'_> {
    /// Gives everything up. What the device still works on stays, `buffer` with it, until it is done.
    pub(crate) fn abandon(&mut self, buffer: Option<DmaBuffer>) {
        if let Some(place) = self.place.take() {
            self.queue.leave(place);
        }
        if let Some(place) = self.run_place.take() {
            self.queue.pool().leave(place);
        }
        match self.token.take() {
            Some(token) => self.queue.forget(token, Held { run: self.run.take(), buffer }),
            None => self.return_pages(),
        }
    }
}
