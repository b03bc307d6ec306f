//! Log pages that say what a controller supports: its log pages, and its commands with their effects.

use crate::log::LogId;
use crate::opcode::{AdminOpcode, NvmOpcode};
use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

wire! {
    /// Commands Supported and Effects log page (figure of that name), of one I/O command set.
    pub struct CommandEffects {
        /// Admin Commands Supported, by opcode.
        pub admin: [Effects; 256],
        /// I/O Commands Supported, by opcode.
        pub io: [Effects; 256],
        /// Reserved.
        pub reserved2048: Opaque<2048>,
    }

    /// Supported Log Pages log page (figure of that name).
    pub struct SupportedLogPages {
        /// By Log Page Identifier.
        pub pages: [SupportedLogPage; 256],
    }
}
assert_layout!(CommandEffects, size = 4096, io @ 1024, reserved2048 @ 2048);
assert_layout!(SupportedLogPages, size = 1024);

/// What a command does (figure "Commands Supported and Effects Data Structure").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Effects {
    /// Command Supported.
    pub csupp: bool,
    /// Logical Block Content Change.
    pub lbcc: bool,
    /// Namespace Capability Change.
    pub ncc: bool,
    /// Namespace Inventory Change.
    pub nic: bool,
    /// Controller Capability Change.
    pub ccc: bool,
    #[bits(9)]
    __: u16,
    /// Command Submission and Execution Relaxations: 0 none reported, 1 no restriction with the same namespace's (Base
    /// 2.1).
    #[bits(2)]
    pub cser: u8,
    /// Command Submission and Execution: 0 no restriction, 1 alone for its namespace, 2 alone altogether.
    #[bits(3)]
    pub cse: u8,
    /// UUID Selection Supported.
    pub uss: bool,
    /// Command Scope, a bit each for namespace, controller, NVM set, endurance group, domain and NVM subsystem; 0 not
    /// reported.
    #[bits(12)]
    pub csp: u16,
}

/// Whether and how a log page is supported (figure "LID Supported and Effects Data Structure").
#[bitfield(u32)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SupportedLogPage {
    /// LID Supported.
    pub lsupp: bool,
    /// Index Offset Supported.
    pub ios: bool,
    #[bits(14)]
    __: u16,
    /// LID Specific.
    pub specific: u16,
}

impl CommandEffects {
    /// What the log page says of an admin command.
    #[must_use]
    pub fn of_admin(&self, opcode: AdminOpcode) -> Effects {
        self.admin.get(usize::from(opcode.0)).copied().unwrap_or_default()
    }

    /// What the log page says of an I/O command.
    #[must_use]
    pub fn of_io(&self, opcode: NvmOpcode) -> Effects {
        self.io.get(usize::from(opcode.0)).copied().unwrap_or_default()
    }
}

impl SupportedLogPages {
    /// Whether a log page is supported.
    #[must_use]
    pub fn supports(&self, page: LogId) -> bool {
        self.pages.get(usize::from(page.0)).is_some_and(|page| page.lsupp())
    }
}
