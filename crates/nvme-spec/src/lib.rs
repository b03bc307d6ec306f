//! What NVMe puts on the wire: registers, commands, completions, status codes, identify data, log pages and features, as
//! the NVM Express specifications lay them out.
//!
//! Section and figure names in the documentation are those of the *NVM Express Base Specification 2.0* and the *NVM
//! Command Set Specification 1.0*. Fields that later minor revisions placed in bytes reserved by 2.0 are included where
//! an older device's zeroes mean "not supported", and say so.
//!
//! # Two views
//! Every structure is plain data of the size and alignment the device uses, and converts from and to bytes with
//! [`zerocopy`]. Nothing is checked on the way: bits that are reserved, or codes that are unknown, survive a round trip.
//! What needs checking (text, lists of descriptors, lengths) has accessors and iterators that cannot panic, whatever
//! the bytes.
//!
//! # Byte order
//! NVMe is little-endian and so is every machine this crate is for. Integers are native ones, so that a command is
//! written and a completion read with plain loads and stores, and a field is a field rather than a conversion on the
//! hot path. A big-endian target is refused at compile time instead of being silently wrong.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::string_slice,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

#[cfg(target_endian = "big")]
compile_error!("nvme-spec keeps NVMe's little-endian integers as native ones; big-endian targets are not supported");

#[cfg(test)]
extern crate std;

#[macro_use]
mod macros;

pub mod admin;
pub mod command;
pub mod completion;
pub mod event;
pub mod feature;
pub mod identify;
pub mod log;
pub mod nvm;
pub mod opcode;
pub mod registers;
pub mod reservation;
pub mod scalar;
pub mod sgl;
pub mod status;

pub use command::{Cdw0, Command, DataPointer};
pub use completion::{Completion, StatusField};
pub use opcode::{AdminOpcode, NvmOpcode};
pub use status::Status;

/// The Namespace Identifier that addresses all namespaces ("broadcast value").
pub const NSID_ALL: u32 = 0xffff_ffff;
