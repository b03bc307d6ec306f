//! What was kept against what is counted.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::table;

/// How much more than kept, in per cent, is no growth: another compiler, another layout of the same code.
const TOLERANCE: f64 = 3.0;

/// Allocations and system calls are whole; less than this is one at start-up, divided among all I/Os.
const NOISE: f64 = 0.005;

/// What an I/O costs in one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) case: String,
    pub(crate) in_flight: u64,
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    pub(crate) system_calls: f64,
}

pub(crate) fn read(text: &str) -> Result<Vec<Figures>> {
    serde_json::from_str(text).context("not a list of case, in_flight, instructions, allocations and system_calls")
}

/// One case a line, so that a change reads well in a diff.
pub(crate) fn written(figures: &[Figures]) -> String {
    let lines: Vec<String> = figures.iter().filter_map(|figures| serde_json::to_string(figures).ok()).collect();
    format!("[\n  {}\n]\n", lines.join(",\n  "))
}

/// Kept and counted figures, case by case.
pub(crate) struct Gate {
    rows: Vec<(Option<Figures>, Option<Figures>)>,
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Judgement {
    Same,
    Better,
    Grown,
    Allocates,
    Calls,
    Unknown,
    Missing,
}

impl Gate {
    pub(crate) fn new(kept: Vec<Figures>, mut counted: Vec<Figures>) -> Self {
        let mut rows = Vec::new();
        for kept in kept {
            let same = |counted: &Figures| counted.case == kept.case && counted.in_flight == kept.in_flight;
            let found = counted.iter().position(same).map(|found| counted.remove(found));
            rows.push((Some(kept), found));
        }
        rows.extend(counted.into_iter().map(|counted| (None, Some(counted))));
        Self { rows }
    }

    /// A row a case.
    pub(crate) fn table(&self) -> String {
        let mut table = table::new(["case", "in flight", "kept", "now", "change", "allocations", "system calls", ""]);
        for row in &self.rows {
            let (kept, counted) = (row.0.as_ref(), row.1.as_ref());
            let Some(either) = counted.or(kept) else { continue };
            let shown =
                |figures: Option<&Figures>| figures.map_or("-".to_owned(), |f| format!("{:.1}", f.instructions));
            let change = kept.zip(counted).map_or("-".to_owned(), |(kept, counted)| {
                format!("{:+.1} %", growth(kept.instructions, counted.instructions))
            });
            table.add_row([
                either.case.clone(),
                either.in_flight.to_string(),
                shown(kept),
                shown(counted),
                change,
                counted.map_or("-".to_owned(), |counted| format!("{:.2}", counted.allocations)),
                counted.map_or("-".to_owned(), |counted| format!("{:.2}", counted.system_calls)),
                remark(judge(row)).to_owned(),
            ]);
        }
        (1..=6).for_each(|column| table::right(&mut table, column));
        table::shown(&table)
    }

    /// An error if a case got worse, or cannot be compared.
    pub(crate) fn verdict(&self) -> Result<()> {
        let count = |wanted: &[Judgement]| self.rows.iter().filter(|row| wanted.contains(&judge(row))).count();
        let (grown, strange) = (
            count(&[Judgement::Grown, Judgement::Allocates, Judgement::Calls]),
            count(&[Judgement::Unknown, Judgement::Missing]),
        );
        ensure!(grown == 0, "an I/O got more expensive in {grown} cases (limit: {TOLERANCE} % more instructions)");
        ensure!(strange == 0, "{strange} cases cannot be compared (`cargo xtask instructions --update` keeps these)");
        if count(&[Judgement::Better]) > 0 {
            println!("less than kept: `cargo xtask instructions --update` keeps the gain");
        }
        Ok(())
    }
}

fn judge(row: &(Option<Figures>, Option<Figures>)) -> Judgement {
    let (kept, counted) = match row {
        (Some(kept), Some(counted)) => (kept, counted),
        (None, _) => return Judgement::Unknown,
        (_, None) => return Judgement::Missing,
    };
    if counted.allocations > kept.allocations + NOISE {
        return Judgement::Allocates;
    }
    if counted.system_calls > kept.system_calls + NOISE {
        return Judgement::Calls;
    }
    match growth(kept.instructions, counted.instructions) {
        growth if growth > TOLERANCE => Judgement::Grown,
        growth if growth < -TOLERANCE => Judgement::Better,
        _ => Judgement::Same,
    }
}

fn remark(judgement: Judgement) -> &'static str {
    match judgement {
        Judgement::Same => "",
        Judgement::Better => "less",
        Judgement::Grown => "GROWN",
        Judgement::Allocates => "MORE ALLOCATIONS",
        Judgement::Calls => "MORE SYSTEM CALLS",
        Judgement::Unknown => "NOT KEPT",
        Judgement::Missing => "NOT COUNTED",
    }
}

/// In per cent.
fn growth(kept: f64, counted: f64) -> f64 {
    if kept > 0.0 { (counted / kept - 1.0) * 100.0 } else { (counted - kept) * 100.0 }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn figures(case: &str, instructions: f64, allocations: f64) -> Figures {
        Figures { case: case.to_owned(), in_flight: 32, instructions, allocations, system_calls: 0.0 }
    }

    fn judged(kept: Figures, counted: Figures) -> Judgement {
        judge(&(Some(kept), Some(counted)))
    }

    #[test]
    fn growth_beyond_the_tolerance_fails() {
        assert_eq!(judged(figures("a", 300.0, 0.0), figures("a", 308.0, 0.0)), Judgement::Same);
        assert_eq!(judged(figures("a", 300.0, 0.0), figures("a", 310.0, 0.0)), Judgement::Grown);
        assert_eq!(judged(figures("a", 300.0, 0.0), figures("a", 280.0, 0.0)), Judgement::Better);
        let gate = Gate::new(vec![figures("a", 300.0, 0.0)], vec![figures("a", 310.0, 0.0)]);
        let error = gate.verdict().expect_err("it grew");
        assert_eq!(error.to_string(), "an I/O got more expensive in 1 cases (limit: 3 % more instructions)");
        assert!(gate.table().contains("+3.3 %"));
    }

    #[test]
    fn an_allocation_more_fails() {
        assert_eq!(judged(figures("a", 300.0, 0.0), figures("a", 300.0, 1.0)), Judgement::Allocates);
        assert_eq!(judged(figures("a", 300.0, 0.0), figures("a", 300.0, 0.001)), Judgement::Same);
        assert_eq!(judged(figures("a", 300.0, 2.0), figures("a", 300.0, 0.0)), Judgement::Same);
    }

    #[test]
    fn a_system_call_more_fails() {
        let calls = |system_calls| Figures { system_calls, ..figures("a", 300.0, 0.0) };
        assert_eq!(judged(calls(0.0), calls(1.0)), Judgement::Calls);
        assert_eq!(judged(calls(0.0), calls(0.001)), Judgement::Same);
        assert_eq!(judged(calls(1.0), calls(0.0)), Judgement::Same);
    }

    #[test]
    fn cases_must_be_the_same() {
        let kept = vec![figures("a", 1.0, 0.0), figures("b", 1.0, 0.0)];
        let gate = Gate::new(kept.clone(), vec![figures("b", 1.0, 0.0)]);
        assert!(gate.verdict().is_err());
        assert!(gate.table().contains("NOT COUNTED"));
        let mut counted = kept.clone();
        counted.push(Figures { in_flight: 1, ..figures("b", 1.0, 0.0) });
        let gate = Gate::new(kept.clone(), counted);
        assert!(gate.verdict().is_err());
        assert!(gate.table().contains("NOT KEPT"));
        assert!(Gate::new(kept.clone(), kept).verdict().is_ok());
    }

    #[test]
    fn what_is_kept_is_read_again() -> Result<()> {
        let all = vec![figures("a", 123.4, 0.0), figures("b", 5.0, 2.04)];
        assert_eq!(read(&written(&all))?, all);
        assert_eq!(written(&all).lines().count(), 4);
        let with_more =
            r#"[{"case": "x", "in_flight": 1, "instructions": 450, "allocations": 0, "system_calls": 0, "ns": 50}]"#;
        assert_eq!(read(with_more)?.len(), 1);
        assert!(read("{}").is_err());
        Ok(())
    }
}
