//! The emulated controller, driven by a host made by hand: raw rings, raw commands.

mod addresses;
mod admin_queues;
mod any_transfer;
mod bring_up;
mod commands;
mod corpus;
mod faults;
mod features;
mod harness;
mod hostile;
mod interrupts;
mod later;
mod logs_and_events;
mod management;
mod metadata;
mod odd_devices;
mod reads_and_writes;
mod reservations;
mod ring;
mod saved;
mod scatter_gather;
