use std::io;

use crate::DeviceError;

/// What goes wrong. With the constructors' defaults it does so each time from the first on; see [`Rule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A register reads as a value; as its lower half, where 32 bits are read. `None` is any register.
    ReadAs {
        /// Byte offset.
        register: Option<usize>,
        /// What is read.
        value: u64,
    },
    /// A register keeps reading as what it was when the rule first held.
    ReadStuck {
        /// Byte offset.
        register: usize,
    },
    /// Writes to a register, or to any, do nothing. Doorbells are another matter.
    WriteLost {
        /// Byte offset.
        register: Option<usize>,
    },
    /// A doorbell, or any, does nothing.
    DoorbellLost {
        /// Byte offset from the start of the registers.
        doorbell: Option<usize>,
    },
    /// A doorbell, or any, reaches the device only on
    /// [`release_doorbells`](super::FaultInjector::release_doorbells), each with its last value.
    DoorbellDelayed {
        /// Byte offset from the start of the registers.
        doorbell: Option<usize>,
    },
    /// An interrupt of a vector, or of any, is lost. Only of devices in this process: what the kernel or another
    /// process signals does not come by here.
    InterruptLost {
        /// Which vector.
        vector: Option<u32>,
    },
    /// Mapping or allocating memory fails.
    MapFails(MapFailure),
    /// Mapping or allocating memory fails with [`MapFailure::Limit`] while so many mappings live.
    MapLimit {
        /// How many may live at a time.
        mappings: usize,
    },
    /// The reset fails, and the device is not reset.
    ResetFails,
    /// The device is no longer there: registers read all ones; writes, doorbells and interrupts are lost; mapping and
    /// reset fail with [`DeviceError::Gone`].
    Gone,
    /// The device is no longer there, and its back end knows: as [`Gone`](Self::Gone), and register access fails with
    /// [`DeviceError::Gone`].
    KnownGone,
}

/// How mapping memory fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapFailure {
    /// [`DeviceError::MappingLimit`].
    Limit,
    /// [`DeviceError::Unmappable`].
    Unmappable,
    /// [`DeviceError::Io`], out of memory.
    OutOfMemory,
}

/// A fault and when it happens: after so many chances to, and then so many times. It is data: build it, keep it,
/// print it, compare it.
///
/// ```
/// use doorbell_device::wrap::{Fault, MapFailure};
///
/// // The third and fourth mapping fail.
/// let rule = Fault::MapFails(MapFailure::Limit).after(2).times(2);
/// assert_eq!(rule, Fault::MapFails(MapFailure::Limit).times(2).after(2));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What goes wrong.
    pub fault: Fault,
    /// How many chances it lets pass first.
    pub after: u64,
    /// How many times it happens then; `u64::MAX` is for ever.
    pub times: u64,
}

impl Fault {
    /// A register that reads as a value.
    pub const fn read_as(register: usize, value: u64) -> Rule {
        Self::ReadAs { register: Some(register), value }.always()
    }

    /// All registers read all ones, and nothing else is wrong.
    pub const fn reads_all_ones() -> Rule {
        Self::ReadAs { register: None, value: u64::MAX }.always()
    }

    /// The fault, each time.
    pub const fn always(self) -> Rule {
        Rule { fault: self, after: 0, times: u64::MAX }
    }

    /// The fault, after so many chances to.
    pub const fn after(self, chances: u64) -> Rule {
        self.always().after(chances)
    }

    /// The fault, so many times.
    pub const fn times(self, times: u64) -> Rule {
        self.always().times(times)
    }
}

impl Rule {
    /// Lets so many chances pass first.
    #[must_use]
    pub const fn after(self, chances: u64) -> Self {
        Self { after: chances, ..self }
    }

    /// Happens so many times.
    #[must_use]
    pub const fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }
}

impl From<Fault> for Rule {
    fn from(fault: Fault) -> Self {
        fault.always()
    }
}

impl MapFailure {
    pub(super) fn error(self, len: usize) -> DeviceError {
        match self {
            Self::Limit => DeviceError::MappingLimit("by an injected fault".into()),
            Self::Unmappable => DeviceError::Unmappable { len, reason: "by an injected fault".into() },
            Self::OutOfMemory => DeviceError::Io {
                what: "mapping memory (an injected fault)",
                source: io::Error::from(io::ErrorKind::OutOfMemory),
            },
        }
    }
}

/// A rule and how often it had its chance.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) rule: Rule,
    pub(super) chances: u64,
    /// What a stuck register was when it stuck.
    pub(super) stuck: Option<u64>,
}

impl Running {
    /// Takes a chance: whether the fault happens this time.
    pub(super) fn chance(&mut self) -> bool {
        let chance = self.chances;
        self.chances += 1;
        chance.checked_sub(self.rule.after).is_some_and(|nth| nth < self.rule.times)
    }

    /// How often the fault happened.
    pub(super) fn happened(&self) -> u64 {
        self.chances.saturating_sub(self.rule.after).min(self.rule.times)
    }
}
