//! The command as its users meet it: arguments in, output, errors and exit status out.

mod bench;
mod chain;
mod data;
mod handover;
mod harness;
mod help;
mod identify;
mod logs_and_features;
mod mistakes;
mod pci;
mod registers;
mod reservations;
mod serve;
mod takeover;
mod vfio_user;
