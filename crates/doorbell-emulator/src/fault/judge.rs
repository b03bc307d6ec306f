use std::time::Duration;

use nvme_spec::opcode::NvmOpcode;
use nvme_spec::{Command, Status, StatusField};

use super::{CommandMatch, Fault, FaultPlan, Patch, QueueMatch, When};
use crate::saved::StateError;

/// Remembers how often each rule of a plan has matched and applied.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    rules: Vec<Tracked>,
}

#[derive(Debug)]
struct Tracked {
    when: When,
    then: Fault,
    matched: u64,
    applied: u64,
}

/// What is to be done to one command.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) dropped: bool,
    pub(crate) delay: Duration,
    pub(crate) duplicate: bool,
    pub(crate) fail: Option<StatusField>,
    pub(crate) completion: Option<BadCompletion>,
    pub(crate) patch: Option<Patch>,
    pub(crate) lose_interrupt: bool,
    pub(crate) controller: Option<Trouble>,
}

/// What is wrong with a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BadCompletion {
    pub(crate) cid: Option<u16>,
    pub(crate) sqid: Option<u16>,
    pub(crate) sqhd: Option<u16>,
    pub(crate) status_xor: u16,
    pub(crate) dw0: Option<u32>,
}

/// What can befall the controller as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Fatal,
    Stuck,
    NotReady,
    Gone,
}

impl Judge {
    pub(crate) fn new(plan: FaultPlan) -> Self {
        let track = |rule: super::FaultRule| Tracked { when: rule.when, then: rule.then, matched: 0, applied: 0 };
        Self { rules: plan.rules.into_iter().map(track).collect() }
    }

    /// Adds a rule at the end of the plan.
    pub(crate) fn add(&mut self, rule: super::FaultRule) {
        self.rules.push(Tracked { when: rule.when, then: rule.then, matched: 0, applied: 0 });
    }

    /// How often each rule has applied.
    pub(crate) fn applied(&self) -> Vec<u64> {
        self.rules.iter().map(|rule| rule.applied).collect()
    }

    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the plan has for a command.
    pub(crate) fn command(&mut self, sqid: u16, command: &Command) -> Option<Verdict> {
        let rule = self.rules.iter_mut().find_map(|rule| {
            let When::Command(wanted) = &rule.when else { return None };
            if !wanted.fits(sqid, command) {
                return None;
            }
            let applies = due(&mut rule.matched, &mut rule.applied, wanted.skip, wanted.every, wanted.count);
            applies.then_some(&rule.then)
        })?;
        Some(rule.verdict())
    }

    /// What the plan has for CC.EN = 1.
    pub(crate) fn enabled(&mut self) -> Option<Trouble> {
        self.rules.iter_mut().find_map(|rule| {
            let When::Enabled { skip, count } = rule.when else { return None };
            due(&mut rule.matched, &mut rule.applied, skip, 1, count).then(|| rule.then.trouble())?
        })
    }

    /// What the plan has for times up to `now`.
    pub(crate) fn time(&mut self, now: Duration) -> Option<Trouble> {
        self.rules.iter_mut().find_map(|rule| {
            let When::At { microseconds } = rule.when else { return None };
            (rule.applied == 0 && Duration::from_micros(microseconds) <= now).then(|| {
                rule.applied = 1;
                rule.then.trouble()
            })?
        })
    }

    /// The next time that the plan waits for.
    pub(crate) fn next_time(&self) -> Option<Duration> {
        let times = self.rules.iter().filter_map(|rule| match rule.when {
            When::At { microseconds } if rule.applied == 0 => Some(Duration::from_micros(microseconds)),
            _ => None,
        });
        times.min()
    }
}

impl Judge {
    /// The plan as JSON, and how often each rule has matched and applied.
    pub(crate) fn save(&self) -> (String, Vec<u64>, Vec<u64>) {
        let rule = |rule: &Tracked| super::FaultRule { when: rule.when.clone(), then: rule.then.clone() };
        let plan = FaultPlan { rules: self.rules.iter().map(rule).collect() };
        let matched = self.rules.iter().map(|rule| rule.matched).collect();
        // A plan is data that came from JSON, or could have.
        (serde_json::to_string(&plan).unwrap_or_default(), matched, self.applied())
    }

    pub(crate) fn restore(plan: &str, matched: &[u64], applied: &[u64]) -> Result<Self, StateError> {
        let plan = serde_json::from_str(plan).map_err(|error| StateError(format!("fault plan: {error}")))?;
        let mut judge = Self::new(plan);
        for (rule, (matched, applied)) in judge.rules.iter_mut().zip(matched.iter().zip(applied)) {
            (rule.matched, rule.applied) = (*matched, *applied);
        }
        Ok(judge)
    }
}

/// Counts one more match, and tells whether it is one on which the rule applies.
fn due(matched: &mut u64, applied: &mut u64, skip: u64, every: u64, count: Option<u64>) -> bool {
    let index = *matched;
    *matched = matched.saturating_add(1);
    let Some(index) = index.checked_sub(skip) else { return false };
    if !index.is_multiple_of(every.max(1)) || count.is_some_and(|count| *applied >= count) {
        return false;
    }
    *applied = applied.saturating_add(1);
    true
}

impl CommandMatch {
    fn fits(&self, sqid: u16, command: &Command) -> bool {
        let queue = match self.queue {
            None => true,
            Some(QueueMatch::Admin) => sqid == 0,
            Some(QueueMatch::Io) => sqid != 0,
            Some(QueueMatch::Id(id)) => sqid == id,
        };
        let mask = self.cdw10_mask.unwrap_or(0xff);
        queue
            && self.opcode.is_none_or(|opcode| opcode == command.cdw0.opcode())
            && self.nsid.is_none_or(|nsid| nsid == command.nsid)
            && self.cdw10.is_none_or(|cdw10| (cdw10 ^ command.cdw10) & mask == 0)
            && self.lba.is_none_or(|lba| sqid != 0 && touches(command, lba.first, lba.last))
    }
}

/// Whether an I/O command with SLBA and NLB touches blocks `first..=last`.
fn touches(command: &Command, first: u64, last: u64) -> bool {
    let has_range = matches!(
        NvmOpcode(command.cdw0.opcode()),
        NvmOpcode::READ
            | NvmOpcode::WRITE
            | NvmOpcode::COMPARE
            | NvmOpcode::WRITE_ZEROES
            | NvmOpcode::WRITE_UNCORRECTABLE
            | NvmOpcode::VERIFY
    );
    let start = command.cdw10_11();
    let end = start.saturating_add(u64::from(command.cdw12 & 0xffff));
    has_range && start <= last && first <= end
}

impl Fault {
    fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Fatal => Some(Trouble::Fatal),
            Self::Stuck => Some(Trouble::Stuck),
            Self::NotReady => Some(Trouble::NotReady),
            Self::Gone => Some(Trouble::Gone),
            _ => None,
        }
    }

    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict { controller: self.trouble(), ..Verdict::default() };
        match *self {
            Self::Drop => verdict.dropped = true,
            Self::Delay { microseconds } => verdict.delay = Duration::from_micros(microseconds),
            Self::Duplicate => verdict.duplicate = true,
            Self::Fail { sct, sc, dnr, crd, more } => {
                let status = StatusField::new().with_status(Status::new(sct, sc)).with_dnr(dnr).with_more(more);
                verdict.fail = Some(status.with_crd(crd & 0b11));
            }
            Self::CorruptCompletion { cid, sqid, sqhd, status_xor, dw0 } => {
                verdict.completion = Some(BadCompletion { cid, sqid, sqhd, status_xor, dw0 });
            }
            Self::CorruptData(ref patch) => verdict.patch = Some(patch.clone()),
            Self::LoseInterrupt => verdict.lose_interrupt = true,
            Self::Fatal | Self::Stuck | Self::NotReady | Self::Gone => {}
        }
        verdict
    }
}
