//! Submission and completion queues, as the controller sees them: where they are, how far each side has come.

mod completion;
mod doorbell;
mod submission;
mod window;

pub(crate) use completion::CompletionQueue;
pub(crate) use doorbell::{DoorbellSlot, ShadowBuffers};
pub(crate) use submission::SubmissionQueue;

use doorbell_device::inprocess::{DmaFault, DmaView};

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    /// The submission queues there are, the admin queue first.
    pub(crate) submission: Vec<SubmissionQueue>,
    /// The completion queues, by identifier.
    pub(crate) completion: Vec<Option<CompletionQueue>>,
    pub(crate) shadow: Option<ShadowBuffers>,
}

impl Queues {
    pub(crate) fn clear(&mut self) {
        self.submission.clear();
        self.completion.clear();
        self.shadow = None;
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
