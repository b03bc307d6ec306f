//! Queue pairs: rings, slots, their memory, and waiting for them.

mod exchange;
mod lock;
mod pair;
mod pool;
mod rings;
mod slots;
mod waiting;
mod words;

pub(crate) use exchange::{Exchange, Refused};
pub use pair::{CommandState, Counters, QueueState};
pub(crate) use pair::{List, Lists, Notes, Parts, QueuePair};
pub(crate) use pool::Pool;
pub(crate) use slots::{MAX_DEPTH, SLOT_WORDS};
pub(crate) use words::Words;
