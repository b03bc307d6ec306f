//! Identify data structures (NVMe Base 2.0, "Identify command"; NVM Command Set, the same).

mod capabilities;
mod controller;
mod namespace;
mod namespace_features;

pub use capabilities::{
    Anacap, Apsta, Cmic, Ctratt, Fna, Frmw, Fuses, Lpa, Mec, Nvmsr, Nwpc, Oacs, Oaes, Oncs, QueueEntrySize, Sanicap,
    Sgls, Vwc, Vwci,
};
pub use controller::{ControllerType, IdentifyController, PowerFlags, PowerScale, PowerState};
pub use namespace::{IdentifyNamespace, LbaFormat};
pub use namespace_features::{Dlfeat, Dpc, Dps, Flbas, Fpi, Mc, Nmic, Nsattr, Nsfeat, PiType, Rescap};

/// Length of every Identify data structure, in bytes.
pub const IDENTIFY_LEN: usize = 4096;
