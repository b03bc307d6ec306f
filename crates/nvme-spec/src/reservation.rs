//! Reservations (NVMe Base 2.0, "Reservations" and the Reservation Register, Acquire, Release and Report commands).

use crate::scalar::Opaque;
use bitfield_struct::bitfield;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

codes! {
    /// Reservation Type, RTYPE.
    pub struct ReservationType(u8);
    /// Nobody holds a reservation.
    NONE = 0, "No reservation";
    WRITE_EXCLUSIVE = 1, "Write Exclusive";
    EXCLUSIVE_ACCESS = 2, "Exclusive Access";
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 3, "Write Exclusive - Registrants Only";
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 4, "Exclusive Access - Registrants Only";
    WRITE_EXCLUSIVE_ALL_REGISTRANTS = 5, "Write Exclusive - All Registrants";
    EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 6, "Exclusive Access - All Registrants";
}

codes! {
    /// Reservation Register Action, RREGA; three bits.
    pub struct RegisterAction(u8);
    REGISTER = 0, "Register Reservation Key";
    UNREGISTER = 1, "Unregister Reservation Key";
    REPLACE = 2, "Replace Reservation Key";
}

codes! {
    /// Reservation Acquire Action, RACQA; three bits.
    pub struct AcquireAction(u8);
    ACQUIRE = 0, "Acquire";
    PREEMPT = 1, "Preempt";
    PREEMPT_AND_ABORT = 2, "Preempt and Abort";
}

codes! {
    /// Reservation Release Action, RRELA; three bits.
    pub struct ReleaseAction(u8);
    RELEASE = 0, "Release";
    CLEAR = 1, "Clear";
}

codes! {
    /// Change Persist Through Power Loss State, CPTPL; two bits.
    pub struct ChangePtpl(u8);
    NO_CHANGE = 0, "No change";
    /// Reservations and registrants are released by a power loss.
    CLEAR = 2, "Clear";
    /// Reservations and registrants persist through a power loss.
    SET = 3, "Set";
}

/// Dword 10 of Reservation Register.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RegisterCdw10 {
    /// Reservation Register Action.
    #[bits(3)]
    pub rrega: RegisterAction,
    /// Ignore Existing Key: CRKEY is not checked.
    pub iekey: bool,
    /// Dispersed Namespace Reservation Support (Base 2.1).
    pub disnsrs: bool,
    #[bits(25)]
    __: u32,
    /// Change Persist Through Power Loss State.
    #[bits(2)]
    pub cptpl: ChangePtpl,
}

/// Dword 10 of Reservation Acquire.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AcquireCdw10 {
    /// Reservation Acquire Action.
    #[bits(3)]
    pub racqa: AcquireAction,
    /// Ignore Existing Key: CRKEY is not checked.
    pub iekey: bool,
    /// Dispersed Namespace Reservation Support (Base 2.1).
    pub disnsrs: bool,
    #[bits(3)]
    __: u8,
    /// Reservation Type.
    #[bits(8)]
    pub rtype: ReservationType,
    __: u16,
}

/// Dword 10 of Reservation Release.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReleaseCdw10 {
    /// Reservation Release Action.
    #[bits(3)]
    pub rrela: ReleaseAction,
    /// Ignore Existing Key: CRKEY is not checked.
    pub iekey: bool,
    /// Dispersed Namespace Reservation Support (Base 2.1).
    pub disnsrs: bool,
    #[bits(3)]
    __: u8,
    /// Reservation Type.
    #[bits(8)]
    pub rtype: ReservationType,
    __: u16,
}

/// Dword 11 of Reservation Report; dword 10 is the number of dwords to transfer, 0's based.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReportCdw11 {
    /// Extended Data Structure: the form with 128-bit host identifiers.
    pub eds: bool,
    /// Dispersed Namespace Reservation Support (Base 2.1).
    pub disnsrs: bool,
    #[bits(30)]
    __: u32,
}

wire! {
    /// Data of Reservation Register.
    pub struct RegisterData {
        /// Current Reservation Key.
        pub crkey: u64,
        /// New Reservation Key.
        pub nrkey: u64,
    }

    /// Data of Reservation Acquire.
    pub struct AcquireData {
        /// Current Reservation Key.
        pub crkey: u64,
        /// Preempt Reservation Key.
        pub prkey: u64,
    }

    /// Data of Reservation Release.
    pub struct ReleaseData {
        /// Current Reservation Key.
        pub crkey: u64,
    }

    /// Header of a reservation report (figure "Reservation Status Data Structure"): 24 bytes, followed by
    /// [`RegisteredController`]s.
    pub struct ReportHeader {
        /// Generation: counts registrations, and what changes them.
        pub generation: u32,
        /// Reservation Type in place.
        pub rtype: ReservationType,
        /// Number of Registered Controllers (called Registrants since 2.1), unaligned: [`ReportHeader::regctl`].
        pub regctl_bytes: [u8; 2],
        /// Reserved.
        pub reserved7: Opaque<2>,
        /// Persist Through Power Loss State: 0 released by a power loss, 1 persists.
        pub ptpls: u8,
        /// Reserved.
        pub reserved10: Opaque<14>,
    }

    /// Header of an extended reservation report (figure "Reservation Status Extended Data Structure"): 64 bytes, followed
    /// by [`RegisteredControllerExtended`]s.
    pub struct ReportHeaderExtended {
        /// What the short form has.
        pub header: ReportHeader,
        /// Reserved.
        pub reserved24: Opaque<40>,
    }

    /// Registered Controller data structure (figure of that name).
    pub struct RegisteredController {
        /// Controller ID; FFFFh for a controller that does not exist now.
        pub cntlid: u16,
        /// Reservation Status.
        pub rcsts: RegistrantStatus,
        /// Reserved.
        pub reserved3: Opaque<5>,
        /// Host Identifier.
        pub hostid: u64,
        /// Reservation Key.
        pub rkey: u64,
    }

    /// Registered Controller Extended data structure (figure of that name).
    pub struct RegisteredControllerExtended {
        /// Controller ID; FFFFh for a controller that does not exist now.
        pub cntlid: u16,
        /// Reservation Status.
        pub rcsts: RegistrantStatus,
        /// Reserved.
        pub reserved3: Opaque<5>,
        /// Reservation Key.
        pub rkey: u64,
        /// Host Identifier.
        pub hostid: [u8; 16],
        /// Reserved.
        pub reserved32: Opaque<32>,
    }
}

/// Reservation Status of a registrant, RCSTS.
#[bitfield(u8)]
#[derive(PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RegistrantStatus {
    /// The host holds the reservation.
    pub holder: bool,
    #[bits(7)]
    __: u8,
}

assert_layout!(RegisterData, size = 16, crkey @ 0, nrkey @ 8);
assert_layout!(AcquireData, size = 16, crkey @ 0, prkey @ 8);
assert_layout!(ReleaseData, size = 8);
assert_layout!(ReportHeader, size = 24, generation @ 0, rtype @ 4, regctl_bytes @ 5, ptpls @ 9);
assert_layout!(ReportHeaderExtended, size = 64);
assert_layout!(RegisteredController, size = 24, rcsts @ 2, hostid @ 8, rkey @ 16);
assert_layout!(RegisteredControllerExtended, size = 64, rcsts @ 2, rkey @ 8, hostid @ 16);

impl ReportHeader {
    /// Number of Registered Controllers.
    #[must_use]
    pub const fn regctl(&self) -> u16 {
        u16::from_le_bytes(self.regctl_bytes)
    }

    /// Sets the Number of Registered Controllers.
    pub const fn set_regctl(&mut self, count: u16) {
        self.regctl_bytes = count.to_le_bytes();
    }

    /// How long the report is that this heads, in bytes.
    #[must_use]
    pub const fn report_len(&self, extended: bool) -> usize {
        let (header, each) = if extended {
            (size_of::<ReportHeaderExtended>(), size_of::<RegisteredControllerExtended>())
        } else {
            (size_of::<Self>(), size_of::<RegisteredController>())
        };
        header.saturating_add((self.regctl() as usize).saturating_mul(each))
    }
}

impl RegisteredController {
    /// The same in the extended form, the 64-bit host identifier in the first eight bytes.
    #[must_use]
    pub fn widen(&self) -> RegisteredControllerExtended {
        let mut hostid = [0; 16];
        for (to, from) in hostid.iter_mut().zip(self.hostid.to_le_bytes()) {
            *to = from;
        }
        RegisteredControllerExtended {
            cntlid: self.cntlid,
            rcsts: self.rcsts,
            rkey: self.rkey,
            hostid,
            ..RegisteredControllerExtended::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dwords() {
        let register =
            RegisterCdw10::new().with_rrega(RegisterAction::REPLACE).with_iekey(true).with_cptpl(ChangePtpl::SET);
        assert_eq!(register.into_bits(), 0xc000_000a);
        let acquire = AcquireCdw10::new()
            .with_racqa(AcquireAction::PREEMPT_AND_ABORT)
            .with_rtype(ReservationType::EXCLUSIVE_ACCESS_ALL_REGISTRANTS);
        assert_eq!(acquire.into_bits(), 0x0602);
        let release = ReleaseCdw10::new().with_rrela(ReleaseAction::CLEAR).with_rtype(ReservationType::WRITE_EXCLUSIVE);
        assert_eq!(release.into_bits(), 0x0101);
    }

    #[test]
    fn reports() {
        let mut header = ReportHeader::default();
        header.set_regctl(0x0102);
        assert_eq!(header.as_bytes()[5..7], [2, 1]);
        assert_eq!(header.report_len(false), 24 + 24 * 0x102);
        assert_eq!(header.report_len(true), 64 + 64 * 0x102);
        let short = RegisteredController { hostid: 0x0807_0605_0403_0201, rkey: 9, ..Default::default() };
        assert_eq!(short.widen().hostid, [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
