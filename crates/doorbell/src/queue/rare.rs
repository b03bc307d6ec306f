use std::ops::{Deref, DerefMut};

use arrayvec::ArrayVec;

use super::batch::Unrung;
use super::frozen::Frozen;
use super::pair::{Gate, Rest};
use super::waiting::Waiting;

/// What is nearly always just as in a quiet queue, behind one flag that says so: the I/O path looks at that alone.
///
/// Whoever touches any of it clears the flag by doing so; [`settle`](Self::settle), before the lock is released, sets it
/// again if all is quiet. So it never says quiet of what is not.
pub(super) struct Rare {
    quiet: bool,
    things: Things,
}

/// See [`Rare`].
pub(super) struct Things {
    pub(super) gate: Gate,
    /// Completions are no longer looked at.
    pub(super) halted: bool,
    /// Of a queue with an owner: commands ended, and it was not the owner who found out.
    pub(super) ended: bool,
    /// Who waits for slots.
    pub(super) waiting: Waiting<ArrayVec<u16, 2>>,
    /// How many wait in [`QueuePair::retire`](super::pair::QueuePair::retire).
    pub(super) retiring: usize,
    /// For [`QueuePair::unlock`](super::pair::QueuePair::unlock) to do.
    pub(super) rest: Option<Box<Rest>>,
    pub(super) unrung: Unrung,
    /// Set while it is held still, so that another process can take it over. It is halted then.
    pub(super) frozen: Option<Box<Frozen>>,
    /// How often it was held still or let go on: odd while it is held still.
    pub(super) stillness: u32,
}

impl Rare {
    pub(super) fn new() -> Self {
        let things = Things {
            gate: Gate::Open,
            halted: false,
            ended: false,
            waiting: Waiting::new(),
            retiring: 0,
            rest: None,
            unrung: Unrung::default(),
            frozen: None,
            stillness: 0,
        };
        Self { quiet: true, things }
    }

    /// Whether the queue takes commands, nobody waits for slots or for commands to end, and nothing is left to do after
    /// unlocking. `false` may also mean that somebody touched something since the lock was taken.
    #[inline(always)]
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(super) fn settle(&mut self) {
        let Things { gate, halted, ended, waiting, retiring, rest, unrung, frozen: _, stillness: _ } = &self.things;
        let waited_for = waiting.is_hungry() || *retiring != 0;
        let open = *gate == Gate::Open && !halted;
        self.quiet = open && !ended && !waited_for && rest.is_none() && unrung.is_nothing();
    }

    /// What else is to be done once the lock is released.
    pub(super) fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

impl Deref for Rare {
    type Target = Things;

    fn deref(&self) -> &Things {
        &self.things
    }
}

impl DerefMut for Rare {
    fn deref_mut(&mut self) -> &mut Things {
        self.quiet = false;
        &mut self.things
    }
}
