//! The contract (`docs/contract.md`), rule by rule: each test's name begins with the rule's number.
//!
//! Driver and emulated controllers run on one thread in virtual time, so every run is the same.

#![forbid(unsafe_code)]
#![cfg(test)]

mod batch;
mod bench;
mod between_processes;
mod bounce;
mod bringup;
mod budget;
mod buffers;
mod cancellation;
mod change;
mod coalescing;
mod commands;
mod completion;
mod copy;
mod corpus;
mod data_path;
mod deadlines;
mod deallocate;
mod depth;
mod distrust;
mod errors;
mod events;
mod exclusive;
mod handover;
mod hands;
mod listing;
mod loss;
mod manager;
mod memory;
mod namespace;
mod odd;
mod odd_devices;
mod pointers;
mod pool_lists;
mod queues;
mod reading;
mod recovery;
mod removal;
mod reservations;
mod retries;
mod shadow;
mod smoke;
mod spy;
mod stress;
mod threads;
