//! The vfio-user protocol: how a PCI device in one process is used by another, over a UNIX socket.
//!
//! [`wire`] holds the structures, [`Connection`] moves whole messages with their descriptors, [`Request`] and the types
//! of [`reply`] check what is in them, [`Version`] is what both sides agree on first. [`Call`] is what a client asks for,
//! [`Caller`] a client's end: it sends a request and finds the reply to it. A server is written with [`Connection`] and [`Request`] alone, and never
//! has to wait.
//!
//! The peer is trusted in nothing. Sizes, counts, offsets and descriptors are checked before they are used, memory and
//! time that one message takes are bounded, and a descriptor that nobody asked for is closed.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

mod call;
mod caller;
mod connection;
mod error;
pub mod reply;
mod request;
mod version;
pub mod wire;

pub use call::{Call, Region};
pub use caller::Caller;
pub use connection::{Connection, Limits, Message};
pub use error::{CallError, ConnectionError, Malformed};
pub use request::{Request, Write};
pub use version::{Capabilities, Version};
