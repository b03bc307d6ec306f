//! A queue pair that another process held still, and that goes on here.

use nvme_spec::Command;

use super::extras::{Extra, TimeLimit};
use super::frozen::{Crossing, Still};
use super::pair::{Held, OnFault, Parts, QueuePair};
use super::rings::{CompletionRing, SubmissionRing};
use super::slots::{Slots, State, Token};

/// A command that another process sent, and whose result is this one's to claim.
pub(crate) struct Adopted {
    pub(crate) token: Token,
    pub(crate) command: Command,
    pub(crate) tag: u64,
    pub(crate) sequence: u64,
    /// Nobody waited for it there, so nobody claims it here.
    pub(crate) orphaned: bool,
    /// Its data is in the pages that it holds, which otherwise say where its data is.
    pub(crate) bounced: bool,
    /// Memory of the driver's that it uses until it is done.
    pub(crate) held: Held,
}

impl QueuePair {
    /// Goes on with a queue as it was held still, in the same memory. Looking for completions is the caller's to begin.
    ///
    /// # Errors
    /// What makes no sense in it.
    pub(crate) fn adopt(parts: Parts, on_fault: OnFault, still: Still) -> Result<(Self, Vec<Adopted>), &'static str> {
        let queue = Self::with_rings(parts, on_fault);
        let (depth, entries) = (queue.depth(), queue.depth() + 1);
        if [still.sq_tail, still.sq_head, still.cq_head].iter().any(|position| *position >= entries) {
            return Err("a position past the end of a ring");
        }
        if still.identifiers.len() != usize::from(depth) {
            return Err("not one identifier for each slot");
        }
        let mut adopted = Vec::new();
        {
            let mut inner = queue.lock.lock();
            inner.sq = SubmissionRing::at(queue.id, entries, still.sq_tail, still.sq_head);
            inner.cq = CompletionRing::at(entries, still.cq_head, still.phase);
            (inner.counters.submitted, inner.without_doorbell) = (still.submitted, still.submitted);
            for (index, cid) in (0..depth).zip(&still.identifiers) {
                if queue.slots.of_cid(*cid) != index {
                    return Err("an identifier of another slot");
                }
                queue.slots.at(index).set_state(State::Free, *cid);
            }
            for command in still.commands {
                let Token { cid } = command.token;
                let index = queue.slots.of_cid(cid);
                if index >= depth || still.identifiers.get(usize::from(index)) != Some(&cid) {
                    return Err("a command with the identifier of another");
                }
                let slot = queue.slots.at(index);
                if slot.state().0 != State::Free {
                    return Err("two commands in one slot");
                }
                if command.sequence == 0 || command.sequence > still.submitted {
                    return Err("a command that was not sent yet");
                }
                let run = match command.pages {
                    (_, 0) => None,
                    _ if queue.exclusive => return Err("pages, which commands of an owner do without"),
                    pages => {
                        Some(queue.pool.take_again(pages).ok_or("pages that another command has, or that are none")?)
                    }
                };
                queue.free.unclaim(index);
                let extra = Extra { sequence: command.sequence, limit: TimeLimit::Usual, pages: command.pages };
                inner.extras.set(index, depth, extra);
                let bounced = run.is_some() && command.registration == 0 && command.buffer.is_none();
                let mut held = Held { run, buffer: command.buffer };
                slot.start(cid, &command.words, command.tag, command.registration, command.sequence);
                match command.state {
                    Crossing::Orphaned => {
                        slot.set_state(State::Orphaned, cid);
                        if !held.is_empty() {
                            inner.held.push((index, std::mem::take(&mut held)));
                        }
                    }
                    Crossing::InFlight => {}
                    Crossing::Done => {
                        slot.finish(cid, command.result);
                        inner.rare.ended = queue.exclusive;
                    }
                }
                adopted.push(Adopted {
                    token: command.token,
                    command: Command::from_words(command.words),
                    tag: command.tag,
                    sequence: command.sequence,
                    orphaned: command.state == Crossing::Orphaned,
                    bounced,
                    held,
                });
            }
            queue.unlock(inner);
        }
        Ok((queue, adopted))
    }

    /// Waits until the device is done with a command of this number.
    pub(crate) async fn wait_for(&self, token: Token, sequence: u64) {
        self.retire(is_command(token, sequence)).await;
    }

    /// Whether the device is not done with a command of this number.
    pub(crate) fn is_in_flight(&self, token: Token, sequence: u64) -> bool {
        self.is_busy(is_command(token, sequence))
    }
}

/// Whether a slot has the command of this number.
fn is_command(token: Token, sequence: u64) -> impl Fn(&Slots, u16) -> bool {
    move |slots, slot| slot == slots.of_cid(token.cid) && slots.at(slot).sequence() == sequence
}
