//! PCI functions, as the system knows them.

mod address;

pub use address::{BadPciAddress, PciAddress};
