//! PCI functions, as the system knows them: which NVMe drives there are, who has them, and giving them to VFIO and back.
//!
//! All of it reads and writes sysfs and procfs, under a root that can be another folder ([`Sysfs::at`]): that is how its
//! tests show it every kind of machine.

#![forbid(unsafe_code)]

mod address;
mod bind;
mod block;
mod doctor;
mod function;
mod names;
mod processes;
mod sysfs;

pub use address::{BadPciAddress, PciAddress};
pub use bind::{Bound, bind, unbind};
pub use block::{BlockDevice, Use};
pub use doctor::{Check, Finding, Limits, diagnose};
pub use function::{Function, Member, find, functions};
pub use names::PciIds;
pub use processes::Process;
pub use sysfs::{PciError, Sysfs};

#[cfg(test)]
mod tree;
