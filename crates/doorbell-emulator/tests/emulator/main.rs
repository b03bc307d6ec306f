//! The emulated controller, driven by a host made by hand: raw rings, raw commands.

mod addresses;
mod admin_queues;
mod bring_up;
mod commands;
mod harness;
mod metadata;
mod odd_devices;
mod reads_and_writes;
mod scatter_gather;
