//! Queue pairs: rings, slots, their memory, and waiting for them.

mod adopt;
mod apart;
mod batch;
mod completions;
mod end;
mod exchange;
mod exclusive;
mod extras;
mod frozen;
mod history;
mod inspect;
mod lists;
mod lock;
mod pair;
mod pool;
pub(crate) mod pooled;
mod rare;
mod recovery;
mod rings;
mod slots;
mod waiting;
mod words;

pub(crate) use adopt::Adopted;
pub(crate) use batch::Hold;
pub(crate) use exchange::{Exchange, Refused, settled};
pub(crate) use exclusive::Found;
pub(crate) use extras::{InFlight, TimeLimit};
pub(crate) use frozen::{Crossing, Still, StillCommand};
pub(crate) use history::{Changes, Moments, replayable};
pub use inspect::{CommandState, Counters, QueueState};
pub(crate) use lists::{List, Lists};
pub(crate) use pair::{Held, Notes, OnFault, Parts, QueuePair};
pub(crate) use pool::Pool;
pub(crate) use slots::{MAX_DEPTH, SLOT_WORDS, Token};
pub(crate) use words::Words;
