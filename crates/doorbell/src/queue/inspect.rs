//! What a queue pair shows of itself.

use std::sync::atomic::Ordering;

use super::pair::QueuePair;
use super::slots::State;

/// What a queue pair counts.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Commands submitted.
    pub submitted: u64,
    /// Completions taken from the ring.
    pub completed: u64,
    /// Doorbells rung, of both rings.
    pub doorbells: u64,
    /// Times somebody looked for completions.
    pub polls: u64,
    /// Looks that found some.
    pub polls_found: u64,
    /// Interrupts that led to a look.
    pub interrupts: u64,
    /// Commands whose data went through bounce pages.
    pub bounced: u64,
    /// Commands that had to wait for a slot.
    pub waited: u64,
    /// Commands whose future was dropped while they were in flight.
    pub orphaned: u64,
    /// Commands that were sent once more after the controller was reset.
    pub replayed: u64,
    /// Commands that failed for a passing reason and were tried again.
    pub retried: u64,
}

impl QueuePair {
    /// A look at the queue as it is.
    pub(crate) fn inspect(&self) -> QueueState {
        let inner = self.lock.lock();
        let (sq_tail, sq_head, cq_head) = (inner.sq.tail(), inner.sq.head(), inner.cq.head());
        let (phase, waiting) = (inner.cq.phase(), inner.rare.waiting.len());
        let doorbells = inner.counters.submitted - inner.without_doorbell + inner.counters.doorbells;
        let interrupts = self.interrupts.load(Ordering::Relaxed);
        let counters = Counters { doorbells, interrupts, ..inner.counters };
        self.unlock(inner);
        let commands = (0..self.depth()).filter_map(|slot| {
            let slot = self.slots.at(slot);
            let (state, cid) = slot.state();
            let command = slot.command();
            (state != State::Free).then(|| CommandState {
                cid,
                state: format!("{state:?}"),
                opcode: command.cdw0.opcode(),
                nsid: command.nsid,
                lba: command.cdw10_11(),
                tag: slot.tag(),
            })
        });
        let (pool_pages, pool_in_use) = self.pool().usage();
        QueueState {
            id: self.id(),
            depth: self.depth(),
            sq_tail,
            sq_head,
            cq_head,
            phase,
            counters,
            waiting,
            commands: commands.collect(),
            pool_pages,
            pool_in_use,
            fault: self.fault().map(|fault| fault.to_string()),
        }
    }
}

/// What a queue pair looks like at a moment.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct QueueState {
    /// Queue identifier; 0 is the admin queue.
    pub id: u16,
    /// Commands that can be in flight.
    pub depth: u16,
    /// Submission queue tail.
    pub sq_tail: u16,
    /// Submission queue head, as the device last reported it.
    pub sq_head: u16,
    /// Completion queue head.
    pub cq_head: u16,
    /// The phase that a new completion will carry.
    pub phase: bool,
    /// What was counted.
    pub counters: Counters,
    /// Commands that wait for a slot.
    pub waiting: usize,
    /// Commands that have a slot.
    pub commands: Vec<CommandState>,
    /// Pages of the bounce pool.
    pub pool_pages: usize,
    /// Pages of the bounce pool in use.
    pub pool_in_use: usize,
    /// How the device broke the protocol here, if it did.
    pub fault: Option<String>,
}

/// A command that has a slot.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct CommandState {
    /// Command identifier.
    pub cid: u16,
    /// In flight, done and not yet claimed, orphaned or lost.
    pub state: String,
    /// Opcode.
    pub opcode: u8,
    /// Namespace identifier.
    pub nsid: u32,
    /// Command dwords 10 and 11: the first LBA, of commands that have one.
    pub lba: u64,
    /// The owner's tag.
    pub tag: u64,
}
