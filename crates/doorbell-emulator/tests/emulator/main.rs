//! The emulated controller, driven by a host made by hand: raw rings, raw commands.

mod addresses;
mod admin_queues;
mod bring_up;
mod harness;
mod odd_devices;
mod reads_and_writes;
