//! What goes wrong, as data: rules that match a command, or a moment in the controller's life, and say what to do.
//!
//! A plan is deterministic: the same commands meet the same faults.

mod judge;
mod plan;

pub use plan::{CommandMatch, Fault, FaultPlan, FaultRule, LbaRange, Patch, QueueMatch, When};

pub(crate) use judge::{BadCompletion, Judge, Trouble, Verdict};
