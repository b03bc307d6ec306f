use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A list of rules. For each command, the first rule that applies is carried out.
///
/// As JSON, which is also what `fault=FILE` of an [address](crate::EmulatedSpec) reads:
/// ```
/// let plan: doorbell_emulator::FaultPlan = serde_json::from_str(r#"{ "rules": [
///     { "when": { "command": { "queue": "io", "opcode": 2, "every": 100 } },
///       "then": { "fail": { "sct": 2, "sc": 129 } } },
///     { "when": { "command": { "queue": { "id": 3 }, "skip": 10, "count": 1 } }, "then": "drop" },
///     { "when": { "command": { "lba": { "first": 0, "last": 7 } } }, "then": { "delay": { "microseconds": 500 } } },
///     { "when": { "enabled": {} }, "then": "not_ready" }
/// ] }"#)?;
/// assert_eq!(plan.rules.len(), 4);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultPlan {
    /// The rules, in order.
    pub rules: Vec<FaultRule>,
}

impl FaultPlan {
    /// A plan of one rule for commands.
    pub fn on(command: CommandMatch, then: Fault) -> Self {
        Self { rules: vec![FaultRule { when: When::Command(command), then }] }
    }

    /// The plan with another rule for commands at its end.
    #[must_use]
    pub fn and_on(mut self, command: CommandMatch, then: Fault) -> Self {
        self.rules.push(FaultRule { when: When::Command(command), then });
        self
    }
}

/// When, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// What the rule waits for.
    pub when: When,
    /// What it does then.
    pub then: Fault,
}

/// What a rule waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum When {
    /// A command was taken from a submission queue.
    Command(CommandMatch),
    /// CC.EN was set.
    Enabled {
        /// How often nothing is done first.
        #[serde(default)]
        skip: u64,
        /// How often it is done; without limit if not given.
        #[serde(default)]
        count: Option<u64>,
    },
    /// The controller's clock reached a time. Done once.
    At {
        /// The time, in microseconds.
        microseconds: u64,
    },
}

/// Which commands a rule is for: those for which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CommandMatch {
    /// The submission queue.
    pub queue: Option<QueueMatch>,
    /// The opcode.
    pub opcode: Option<u8>,
    /// The namespace.
    pub nsid: Option<u32>,
    /// An I/O command that touches one of these blocks (commands with a range list, such as Dataset Management, never
    /// do).
    pub lba: Option<LbaRange>,
    /// Command dword 10, of which only the bits of `cdw10_mask` count: the CNS of Identify, the log or feature
    /// identifier.
    pub cdw10: Option<u32>,
    /// See `cdw10`; FFh if not given.
    pub cdw10_mask: Option<u32>,
    /// How many matching commands are left alone first.
    pub skip: u64,
    /// Of those after, only every `every`th is meant, the first one included. 0 is 1.
    pub every: u64,
    /// How often the rule applies; without limit if not given.
    pub count: Option<u64>,
}

impl CommandMatch {
    /// Admin commands of an opcode.
    pub fn admin(opcode: u8) -> Self {
        Self { queue: Some(QueueMatch::Admin), opcode: Some(opcode), ..Self::default() }
    }

    /// I/O commands of an opcode.
    pub fn io(opcode: u8) -> Self {
        Self { queue: Some(QueueMatch::Io), opcode: Some(opcode), ..Self::default() }
    }

    /// Only the first `count`.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self { count: Some(count), ..self }
    }
}

/// Which submission queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueMatch {
    /// The admin queue.
    Admin,
    /// Every I/O queue.
    Io,
    /// The queue with this identifier.
    Id(u16),
}

/// Blocks from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LbaRange {
    /// The first block.
    pub first: u64,
    /// The last block.
    pub last: u64,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fault {
    /// The command is taken and never completed, nor carried out.
    Drop,
    /// The command is carried out, and completed later.
    Delay {
        /// How much later, in microseconds.
        microseconds: u64,
    },
    /// The command is completed twice.
    Duplicate,
    /// The command is not carried out and fails.
    Fail {
        /// Status code type.
        sct: u8,
        /// Status code.
        sc: u8,
        /// Do Not Retry.
        #[serde(default)]
        dnr: bool,
        /// Command Retry Delay, 0 to 3.
        #[serde(default)]
        crd: u8,
        /// More.
        #[serde(default)]
        more: bool,
    },
    /// The command is carried out, and its completion is wrong in what is given here.
    CorruptCompletion {
        /// Another command identifier.
        #[serde(default)]
        cid: Option<u16>,
        /// Another submission queue identifier.
        #[serde(default)]
        sqid: Option<u16>,
        /// Another submission queue head.
        #[serde(default)]
        sqhd: Option<u16>,
        /// The status field (bits 15:1 of the upper half of dword 3, with the phase tag as bit 0), exclusive or'ed.
        #[serde(default)]
        status_xor: u16,
        /// Another dword 0.
        #[serde(default)]
        dw0: Option<u32>,
    },
    /// The command is carried out on data that is not what it was: what goes to the host, or comes from it, is patched.
    CorruptData(Patch),
    /// The command is carried out and completed, and the interrupt for that does not come.
    LoseInterrupt,
    /// CSTS.CFS is set and nothing is processed any more, until a reset.
    Fatal,
    /// Nothing is processed any more, until a reset; registers look healthy.
    Stuck,
    /// With [`When::Enabled`]: CSTS.RDY stays 0.
    NotReady,
    /// Every register reads as all ones and nothing is processed, as if the device had been unplugged. For good.
    Gone,
}

/// A change to data on its way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Patch {
    /// Byte offset in the command's data of the first byte that is changed.
    pub offset: u64,
    /// Bytes that replace those that are there.
    pub set: Vec<u8>,
    /// Bytes that are exclusive or'ed with those that are there (after `set`).
    pub xor: Vec<u8>,
}

impl Patch {
    /// Changes what lies in `bytes`, which begin at byte `at` of the data; tells whether anything did.
    pub(crate) fn apply(&self, at: u64, bytes: &mut [u8]) -> bool {
        let mut changed = false;
        for (index, byte) in (at..).zip(bytes) {
            let Some(index) = index.checked_sub(self.offset).and_then(|index| usize::try_from(index).ok()) else {
                continue;
            };
            if index >= self.set.len() && index >= self.xor.len() {
                break;
            }
            let before = *byte;
            if let Some(set) = self.set.get(index) {
                *byte = *set;
            }
            *byte ^= self.xor.get(index).unwrap_or(&0);
            changed |= before != *byte;
        }
        changed
    }
}

impl Fault {
    /// A failure with a status, which may be tried again.
    pub fn fail(status: nvme_spec::Status) -> Self {
        Self::Fail { sct: status.sct(), sc: status.sc(), dnr: false, crd: 0, more: false }
    }

    /// A delay.
    pub fn delay(by: Duration) -> Self {
        Self::Delay { microseconds: by.as_micros() as u64 }
    }
}
