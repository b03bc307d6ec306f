//! The client against servers: one on the crate `vfio_user`, which nobody here wrote, and ones that break the protocol.

mod driver;
mod foreign;
