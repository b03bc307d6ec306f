//! What happened, counted.

use std::collections::BTreeMap;

/// Counts of everything that happened in one run, or in many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) io: u64,
    pub(crate) seeds: u64,
    pub(crate) virtual_seconds: u64,
    /// Of one run: looks at futures, tasks and devices.
    pub(crate) moments: u64,
    /// What was done, and what struck.
    pub(crate) actions: BTreeMap<&'static str, u64>,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Of the drivers' own counters.
    pub(crate) counters: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn action(&mut self, name: &'static str) {
        *self.actions.entry(name).or_default() += 1;
    }

    pub(crate) fn outcome(&mut self, name: &str) {
        match self.outcomes.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.outcomes.insert(name.to_owned(), 1)),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.io += other.io;
        self.seeds += other.seeds;
        self.virtual_seconds += other.virtual_seconds;
        let named = [
            (&mut self.actions, &other.actions),
            (&mut self.faults, &other.faults),
            (&mut self.counters, &other.counters),
        ];
        for (mine, others) in named {
            for (name, count) in others {
                *mine.entry(name).or_default() += count;
            }
        }
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(name.clone()).or_default() += count;
        }
    }

    pub(crate) fn faults(&self) -> u64 {
        self.faults.values().sum()
    }
}
