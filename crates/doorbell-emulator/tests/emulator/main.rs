//! The emulated controller, driven by a host made by hand: raw rings, raw commands.

mod admin_queues;
mod bring_up;
mod harness;
mod reads_and_writes;
