//! What is fuzzed: functions of bytes, which must return. `cargo fuzz run NAME` looks for bytes with which they do not.
//!
//! Each is run over its corpus by the tests of the crate that it is about, so that it keeps working.

#![forbid(unsafe_code)]

mod driver;
mod emulator;
mod peers;
mod spec;
mod state;

pub use driver::driver;
pub use emulator::emulator;
pub use peers::{client, requests, server};
pub use spec::spec;
pub use state::state;
