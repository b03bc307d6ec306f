//! Combinations such that every two values of different factors meet in at least one of them.

use anyhow::{Context, Result, ensure};

/// A value for each factor, in the factors' order.
pub(super) type Row = Vec<(String, String)>;

/// Something that varies.
#[derive(Debug, Clone)]
pub(super) struct Factor {
    name: String,
    values: Vec<String>,
}

/// Two values that cannot go together.
#[derive(Debug, Clone)]
pub(super) struct Without {
    one: (String, String),
    other: (String, String),
}

impl Factor {
    /// "NAME VALUE VALUE..."
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        let name = words.next().context("a factor has a name")?;
        let values: Vec<String> = words.collect();
        ensure!(!values.is_empty(), "factor {name} has no values");
        Ok(Self { name, values })
    }
}

impl Without {
    /// "NAME=VALUE NAME=VALUE"
    pub(super) fn parse(text: &str) -> Result<Self> {
        let pairs: Vec<(String, String)> = text
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let [one, other] = <[_; 2]>::try_from(pairs).ok().context("without NAME=VALUE NAME=VALUE")?;
        Ok(Self { one, other })
    }
}

/// Rows that cover all pairs which can go together. Each row covers as many pairs that are still open as can be found
/// greedily, so that the first rows are worth the most. The same each time.
pub(super) fn covering(factors: &[Factor], without: &[Without]) -> Result<Vec<Row>> {
    if let [only] = factors {
        return Ok(only.values.iter().map(|value| vec![(only.name.clone(), value.clone())]).collect());
    }
    let space = Space { factors, without };
    let mut open = space.pairs();
    let mut rows = Vec::new();
    while let Some(&pair) = open.first() {
        let row = space.row(&open, pair).with_context(|| {
            let (a, b) = (space.named(pair.0), space.named(pair.1));
            format!("no combination has both {}={} and {}={}", a.0, a.1, b.0, b.1)
        })?;
        open.retain(|pair| !(row.contains(&pair.0) && row.contains(&pair.1)));
        rows.push(row.into_iter().map(|choice| space.named(choice)).collect());
    }
    Ok(rows)
}

/// A factor and one of its values, by their places.
type Choice = (usize, usize);

struct Space<'a> {
    factors: &'a [Factor],
    without: &'a [Without],
}

impl Space<'_> {
    fn named(&self, (factor, value): Choice) -> (String, String) {
        let factor = &self.factors[factor];
        (factor.name.clone(), factor.values[value].clone())
    }

    fn choices(&self, factor: usize) -> impl Iterator<Item = Choice> {
        (0..self.factors[factor].values.len()).map(move |value| (factor, value))
    }

    fn together(&self, one: Choice, other: Choice) -> bool {
        let (one, other) = (self.named(one), self.named(other));
        !self
            .without
            .iter()
            .any(|pair| (pair.one == one && pair.other == other) || (pair.one == other && pair.other == one))
    }

    /// All pairs that can go together.
    fn pairs(&self) -> Vec<(Choice, Choice)> {
        let mut pairs = Vec::new();
        for first in 0..self.factors.len() {
            for second in first + 1..self.factors.len() {
                for one in self.choices(first) {
                    let others = self.choices(second).filter(|other| self.together(one, *other));
                    pairs.extend(others.map(|other| (one, other)));
                }
            }
        }
        pairs
    }

    /// A whole row with this pair in it.
    fn row(&self, open: &[(Choice, Choice)], pair: (Choice, Choice)) -> Option<Vec<Choice>> {
        let mut row = vec![pair.0, pair.1];
        let rest: Vec<usize> =
            (0..self.factors.len()).filter(|factor| *factor != pair.0.0 && *factor != pair.1.0).collect();
        self.complete(open, &mut row, &rest).then(|| {
            row.sort_unstable();
            row
        })
    }

    fn complete(&self, open: &[(Choice, Choice)], row: &mut Vec<Choice>, rest: &[usize]) -> bool {
        let Some((factor, rest)) = rest.split_first() else { return true };
        let fits = |choice: &Choice| row.iter().all(|chosen| self.together(*chosen, *choice));
        let mut candidates: Vec<Choice> = self.choices(*factor).filter(fits).collect();
        let gain = |choice: Choice| {
            let meets = |one, other| one == choice && row.contains(&other);
            open.iter().filter(|(one, other)| meets(*one, *other) || meets(*other, *one)).count()
        };
        candidates.sort_by_key(|choice| std::cmp::Reverse(gain(*choice)));
        for choice in candidates {
            row.push(choice);
            if self.complete(open, row, rest) {
                return true;
            }
            row.pop();
        }
        false
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn factors(lines: &[&str]) -> Vec<Factor> {
        lines.iter().map(|line| Factor::parse(line).expect("it is a factor")).collect()
    }

    fn has(row: &Row, name: &str, value: &str) -> bool {
        row.iter().any(|(n, v)| n == name && v == value)
    }

    #[test]
    fn every_pair_is_covered() -> Result<()> {
        let factors = factors(&["a 1 2 3", "b 1 2", "c 1 2 3", "d 1 2 3 4", "e 1 2"]);
        let rows = covering(&factors, &[])?;
        for one in &factors {
            for other in factors.iter().filter(|other| other.name != one.name) {
                for (x, y) in one.values.iter().flat_map(|x| other.values.iter().map(move |y| (x, y))) {
                    let covered = rows.iter().any(|row| has(row, &one.name, x) && has(row, &other.name, y));
                    assert!(covered, "{}={x} meets {}={y}", one.name, other.name);
                }
            }
        }
        assert!(rows.len() <= 18, "{} rows, of {} combinations", rows.len(), 3 * 2 * 3 * 4 * 2);
        assert!(rows.iter().all(|row| row.len() == 5));
        Ok(())
    }

    #[test]
    fn one_factor_alone_takes_each_of_its_values() -> Result<()> {
        assert_eq!(covering(&factors(&["a 1 2 3"]), &[])?.len(), 3);
        Ok(())
    }

    #[test]
    fn what_cannot_go_together_does_not() -> Result<()> {
        let factors = factors(&["size 4k 1m", "limit 8k 2m", "x 1 2"]);
        let rows = covering(&factors, &[Without::parse("size=1m limit=8k")?])?;
        assert!(rows.iter().all(|row| !(has(row, "size", "1m") && has(row, "limit", "8k"))));
        assert!(rows.iter().any(|row| has(row, "size", "1m") && has(row, "limit", "2m")));
        assert!(rows.iter().any(|row| has(row, "size", "4k") && has(row, "limit", "8k")));
        Ok(())
    }

    #[test]
    fn a_pair_that_nothing_completes_is_an_error() -> Result<()> {
        let factors = factors(&["a 1", "b 1", "c 1"]);
        let error = covering(&factors, &[Without::parse("a=1 c=1")?]).expect_err("c has no value left");
        assert_eq!(error.to_string(), "no combination has both a=1 and b=1");
        Ok(())
    }
}
