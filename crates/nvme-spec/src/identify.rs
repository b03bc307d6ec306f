//! Identify data structures (NVMe Base 2.0, "Identify command"; NVM Command Set 1.0, the same).
//!
//! What can be asked for is in [`cns`]; the structures are named for what they describe.

mod capabilities;
pub mod cns;
mod controller;
mod descriptors;
mod independent;
mod lists;
mod namespace;
mod namespace_features;
mod nvm;

pub use capabilities::{
    Anacap, Apsta, Cmic, Ctratt, Fna, Frmw, Fuses, Lpa, Mec, Nvmsr, Nwpc, Oacs, Oaes, Oncs, QueueEntrySize, Sanicap,
    Sgls, Vwc, Vwci,
};
pub use controller::{ControllerType, IdentifyController, PowerFlags, PowerScale, PowerState};
pub use descriptors::{Descriptors, MalformedDescriptor, NamespaceDescriptor, NamespaceIds};
pub use independent::{IdentifyNamespaceIndependent, IndependentNsfeat, Nstat};
pub use lists::{CommandSetCombinations, ControllerList, NamespaceList};
pub use namespace::{IdentifyNamespace, LbaFormat};
pub use namespace_features::{Dlfeat, Dpc, Dps, Flbas, Fpi, Mc, Nmic, Nsattr, Nsfeat, PiType, Rescap};
pub use nvm::{ExtendedLbaFormat, IdentifyControllerNvm, IdentifyNamespaceNvm, PiFormat, Pic};

/// Length of every Identify data structure, in bytes.
pub const IDENTIFY_LEN: usize = 4096;
