//! I/O Command Set Independent Identify Namespace (CNS 08h): what namespaces of all command sets have.

use super::namespace_features::{Fpi, Nmic, Nsattr, Rescap};
use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// I/O Command Set Independent Identify Namespace data structure (NVMe Base 2.0, figure of that name).
    pub struct IdentifyNamespaceIndependent {
        /// Common Namespace Features.
        pub nsfeat: IndependentNsfeat,
        /// Namespace Multi-path I/O and Namespace Sharing Capabilities.
        pub nmic: Nmic,
        /// Reservation Capabilities.
        pub rescap: Rescap,
        /// Format Progress Indicator.
        pub fpi: Fpi,
        /// ANA Group Identifier; 0 none.
        pub anagrpid: u32,
        /// Namespace Attributes.
        pub nsattr: Nsattr,
        /// Reserved.
        pub reserved9: u8,
        /// NVM Set Identifier; 0 none.
        pub nvmsetid: u16,
        /// Endurance Group Identifier; 0 none.
        pub endgid: u16,
        /// Namespace Status.
        pub nstat: Nstat,
        /// Key Per I/O Status (Base 2.1).
        pub kpios: u8,
        /// Maximum Key Tag (Base 2.1).
        pub maxkt: u16,
        /// Reserved.
        pub reserved18: Opaque<2>,
        /// Reachability Group Identifier (Base 2.1).
        pub rgrpid: u32,
        /// Reserved.
        pub reserved24: Opaque<4072>,
    }
}
assert_layout!(
    IdentifyNamespaceIndependent, size = 4096, nmic @ 1, anagrpid @ 4, nsattr @ 8, nvmsetid @ 10, endgid @ 12,
    nstat @ 14, kpios @ 15, maxkt @ 16, rgrpid @ 20, reserved24 @ 24,
);

/// Common Namespace Features.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IndependentNsfeat {
    #[bits(3)]
    __: u8,
    /// NGUID and EUI64 are never used again for another namespace.
    pub unique_ids: bool,
    /// Rotational Media (Base 2.1).
    pub rotational: bool,
    /// Volatile Write Cache Not Present, for this namespace (Base 2.1).
    pub no_volatile_write_cache: bool,
    #[bits(2)]
    __: u8,
}

/// Namespace Status.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Nstat {
    /// The namespace is ready.
    pub ready: bool,
    #[bits(7)]
    __: u8,
}
