//! Submission and completion queues, as the controller sees them: where they are, how far each side has come.

mod completion;
mod doorbell;
mod submission;
mod window;

pub(crate) use completion::CompletionQueue;
pub(crate) use doorbell::{DoorbellSlot, ShadowBuffers};
pub(crate) use submission::SubmissionQueue;

use doorbell_device::inprocess::{DmaFault, DmaView};

use crate::config::{MAX_QUEUE_ENTRIES, MAX_QUEUE_PAIRS};
use crate::saved::{StateError, bad, state};

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// The submission queues there are, the admin queue first.
    pub(crate) submission: Vec<SubmissionQueue>,
    /// The completion queues, by identifier.
    pub(crate) completion: Vec<Option<CompletionQueue>>,
    pub(crate) shadow: Option<ShadowBuffers>,
    /// Which submission queue was served last, by its place.
    pub(crate) served: usize,
}

impl Queues {
    pub(crate) fn clear(&mut self) {
        self.submission.clear();
        self.completion.clear();
        self.shadow = None;
    }

    /// A submission queue: nearly always the one that is being served.
    #[inline]
    pub(crate) fn submission_of(&self, qid: u16) -> Option<&SubmissionQueue> {
        let served = self.submission.get(self.served).filter(|queue| queue.id == qid);
        served.or_else(|| self.submission.iter().find(|queue| queue.id == qid))
    }

    pub(crate) fn find_submission(&self, qid: u16) -> Option<usize> {
        self.submission.iter().position(|queue| queue.id == qid)
    }

    #[inline]
    pub(crate) fn completion(&mut self, qid: u16) -> Option<&mut CompletionQueue> {
        self.completion.get_mut(usize::from(qid))?.as_mut()
    }

    /// Makes doorbell buffers those of all I/O queues, and writes the present values to them.
    pub(crate) fn set_shadow(&mut self, dma: &DmaView<'_>, dstrd: u8, buffers: ShadowBuffers) -> Result<(), DmaFault> {
        self.shadow = Some(buffers);
        for queue in self.submission.iter_mut().filter(|queue| queue.id != 0) {
            queue.shadow = doorbell::start(dma, DoorbellSlot::tail(queue.id, dstrd), buffers, queue.tail)?;
        }
        for (id, queue) in (0..).zip(&mut self.completion).skip(1) {
            if let Some(queue) = queue {
                queue.shadow = doorbell::start(dma, DoorbellSlot::head(id, dstrd), buffers, queue.head)?;
            }
        }
        Ok(())
    }

    /// Adds a submission queue.
    pub(crate) fn add_submission(
        &mut self,
        dma: &DmaView<'_>,
        dstrd: u8,
        mut queue: SubmissionQueue,
    ) -> Result<(), DmaFault> {
        if let Some(buffers) = self.shadow.filter(|_| queue.id != 0) {
            queue.shadow = doorbell::start(dma, DoorbellSlot::tail(queue.id, dstrd), buffers, 0)?;
        }
        if let Some(completion) = self.completion(queue.cqid) {
            completion.users = completion.users.saturating_add(1);
        }
        self.submission.push(queue);
        Ok(())
    }

    /// Adds a completion queue.
    pub(crate) fn add_completion(
        &mut self,
        dma: &DmaView<'_>,
        dstrd: u8,
        qid: u16,
        mut queue: CompletionQueue,
    ) -> Result<(), DmaFault> {
        if let Some(buffers) = self.shadow.filter(|_| qid != 0) {
            queue.shadow = doorbell::start(dma, DoorbellSlot::head(qid, dstrd), buffers, 0)?;
        }
        let index = usize::from(qid);
        if self.completion.len() <= index {
            self.completion.resize_with(index.saturating_add(1), || None);
        }
        if let Some(slot) = self.completion.get_mut(index) {
            *slot = Some(queue);
        }
        Ok(())
    }
}

impl Queues {
    /// Puts the queues into a controller's state.
    pub(crate) fn save(&self, to: &mut state::Controller) {
        to.submission = self.submission.iter().map(SubmissionQueue::save).collect();
        let completion = (0..).zip(&self.completion);
        to.completion = completion.filter_map(|(id, queue)| Some(queue.as_ref()?.save(id))).collect();
        to.shadow = self.shadow.map(|buffers| {
            let ShadowBuffers { values, event_indices, len } = buffers;
            state::ShadowBuffers { values, event_indices, len }
        });
    }

    /// The queues of a controller's state, which they are taken out of.
    pub(crate) fn restore(from: &mut state::Controller, dstrd: u8) -> Result<Self, StateError> {
        let shadow = from.shadow.map(|buffers| {
            let state::ShadowBuffers { values, event_indices, len } = buffers;
            ShadowBuffers { values, event_indices, len }
        });
        let mut queues = Self { shadow, ..Self::default() };
        for saved in std::mem::take(&mut from.completion) {
            let (id, size) = (saved.id as usize, saved.size);
            if id > usize::from(MAX_QUEUE_PAIRS) || size > MAX_QUEUE_ENTRIES || queues.completion(id as u16).is_some() {
                return bad(format!("completion queue {id} of {size} entries"));
            }
            if queues.completion.len() <= id {
                queues.completion.resize_with(id.saturating_add(1), || None);
            }
            if let Some(slot) = queues.completion.get_mut(id) {
                *slot = Some(CompletionQueue::restore(saved, dstrd, shadow)?);
            }
        }
        for saved in std::mem::take(&mut from.submission) {
            let (id, size) = (saved.id, saved.size);
            let queue = SubmissionQueue::restore(saved, dstrd, shadow)?;
            let is_new = id <= u32::from(MAX_QUEUE_PAIRS) && queues.find_submission(queue.id).is_none();
            let Some(completion) = queues.completion(queue.cqid).filter(|_| is_new && size <= MAX_QUEUE_ENTRIES) else {
                return bad(format!("submission queue {id} of {size} entries"));
            };
            completion.users = completion.users.saturating_add(1);
            queues.submission.push(queue);
        }
        Ok(queues)
    }
}

#[inline]
fn next(index: u32, size: u32) -> u32 {
    let next = index.wrapping_add(1);
    if next >= size { 0 } else { next }
}

/// How far it is from one index to another, forwards.
#[inline]
fn distance(from: u32, to: u32, size: u32) -> u32 {
    if to >= from { to.wrapping_sub(from) } else { to.wrapping_add(size).wrapping_sub(from) }
}
