//! Error Information log page.

use crate::completion::StatusField;
use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// Error Information log entry (figure "Error Information Log Entry Data Structure").
    pub struct ErrorEntry {
        /// Error Count: counts errors over the controller's life, from 1; 0 is an unused entry.
        pub error_count: u64,
        /// Submission Queue ID; FFFFh for no particular command.
        pub sqid: u16,
        /// Command ID; FFFFh for no particular command.
        pub cid: u16,
        /// Status Info: the status of the completion; its phase tag may be anything.
        pub status: StatusField,
        /// Parameter Error Location.
        pub parameter_error_location: ParameterErrorLocation,
        /// LBA: the first one that failed.
        pub lba: u64,
        /// Namespace.
        pub nsid: u32,
        /// Vendor Specific Information Available: the log page of it, or 0.
        pub vendor_log_page: u8,
        /// Transport Type: 0 PCIe or no particular transport, 1 RDMA, 2 Fibre Channel, 3 TCP.
        pub trtype: u8,
        /// Command Set Indicator (Base 2.1).
        pub csi: u8,
        /// Opcode (Base 2.1).
        pub opcode: u8,
        /// Command Specific Information.
        pub command_specific: u64,
        /// Transport Type Specific Information.
        pub transport_specific: u16,
        /// Reserved.
        pub reserved42: Opaque<21>,
        /// Log Page Version: 1 where CSI and opcode are valid (Base 2.1).
        pub version: u8,
    }
}
assert_layout!(
    ErrorEntry, size = 64, sqid @ 8, cid @ 10, status @ 12, parameter_error_location @ 14, lba @ 16, nsid @ 24,
    vendor_log_page @ 28, trtype @ 29, csi @ 30, opcode @ 31, command_specific @ 32, transport_specific @ 40,
    version @ 63,
);

/// Where in the command the mistake is; FFFFh for nowhere in particular.
#[bitfield(u16)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ParameterErrorLocation {
    /// Byte in the command.
    pub byte: u8,
    /// Bit in the byte.
    #[bits(3)]
    pub bit: u8,
    #[bits(5)]
    __: u8,
}
