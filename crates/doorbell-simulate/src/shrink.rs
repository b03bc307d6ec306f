//! Makes a schedule that fails as short as it gets.

use crate::run::Failure;
use crate::scenario::{Scenario, Step};
use crate::try_one;

/// Takes steps out, as many as possible at a time, for as long as the same goes wrong.
pub(crate) fn shrink(scenario: &Scenario, failure: &Failure) -> (Scenario, Failure) {
    let mut best = (scenario.clone(), failure.clone());
    if let Some(last) = failure.step {
        best.0.steps.retain(|(number, _)| *number <= last);
    }
    let mut part = best.0.steps.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        let mut any = false;
        while from < best.0.steps.len() {
            let mut steps: Vec<(usize, Step)> = best.0.steps.clone();
            steps.drain(from..(from + part).min(best.0.steps.len()));
            let candidate = Scenario { steps, ..best.0.clone() };
            match try_one(&candidate, false) {
                Err(failure) if failure.kind == best.1.kind => {
                    best = (candidate, failure);
                    any = true;
                }
                _ => from += part,
            }
        }
        // A step that could not go may be able to now that others have gone.
        if !(any && part == 1) {
            part /= 2;
        }
    }
    best
}

/// The numbers of the steps that are left, as `--keep` takes them.
pub(crate) fn numbers(scenario: &Scenario) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (number, _) in &scenario.steps {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    let shown = |(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// Whether a number is among those that `--keep` names.
pub(crate) fn is_kept(keep: &str, number: usize) -> bool {
    keep.split(',').any(|part| match part.split_once('-') {
        Some((first, last)) => {
            first.parse().is_ok_and(|first: usize| first <= number)
                && last.parse().is_ok_and(|last: usize| number <= last)
        }
        None => part.parse() == Ok(number),
    })
}
