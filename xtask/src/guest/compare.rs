//! The kernel's driver and Doorbell, side by side on one drive: what their ratios come to.

use anyhow::{Context, Result, ensure};

/// At least so many pairs make a median.
const PAIRS: usize = 9;
/// What a note about a pair begins with.
const PAIR: &str = "pair ";

/// A table of what the notes of a run say, a line for each depth.
pub(super) fn table(notes: &[String]) -> Result<String> {
    let pairs = notes.iter().filter_map(|note| note.strip_prefix(PAIR)).map(pair).collect::<Result<Vec<_>>>()?;
    let mut depths: Vec<u32> = pairs.iter().map(|pair| pair.depth).collect();
    depths.sort_unstable();
    depths.dedup();
    ensure!(!depths.is_empty(), "nothing was measured");
    let mut table = String::from(
        "| in flight | pairs | kernel and fio, IOPS (median) | Doorbell and bench, IOPS (median) | ratio (median) | ratio (min..max) |\n\
         |-----------|-------|-------------------------------|-----------------------------------|----------------|------------------|\n",
    );
    for depth in depths {
        let of: Vec<&Pair> = pairs.iter().filter(|pair| pair.depth == depth).collect();
        ensure!(of.len() >= PAIRS, "{} pairs at depth {depth} are too few, {PAIRS} are needed", of.len());
        let sorted = |value: fn(&Pair) -> f64| {
            let mut values: Vec<f64> = of.iter().map(|pair| value(pair)).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ratios = sorted(|pair| pair.doorbell / pair.kernel);
        let (least, most) = (ratios.first().copied().unwrap_or_default(), ratios.last().copied().unwrap_or_default());
        table += &format!(
            "| {depth:>9} | {:>5} | {:>29.0} | {:>33.0} | {:>14.2} | {:>16} |\n",
            of.len(),
            median(&sorted(|pair| pair.kernel)),
            median(&sorted(|pair| pair.doorbell)),
            median(&ratios),
            format!("{least:.2}..{most:.2}"),
        );
    }
    Ok(table)
}

struct Pair {
    depth: u32,
    kernel: f64,
    doorbell: f64,
}

/// "DEPTH KERNEL DOORBELL"
fn pair(text: &str) -> Result<Pair> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [depth, kernel, doorbell] = words[..] else { anyhow::bail!("{text:?} is no pair of figures") };
    let number = |word: &str| {
        let number: Option<f64> = word.parse().ok().filter(|number| *number > 0.0);
        number.with_context(|| format!("{word:?} is no number of I/Os per second"))
    };
    Ok(Pair { depth: depth.parse().context("depth")?, kernel: number(kernel)?, doorbell: number(doorbell)? })
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    if sorted.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn ratios_are_of_pairs() -> Result<()> {
        let notes: Vec<String> = (1..=9).map(|i| format!("pair 32 {} {}", i * 100, i * 100 + 10 * i)).collect();
        let table = table(&notes)?;
        let row = table.lines().nth(2).expect("one depth");
        assert!(row.contains(" 500 ") && row.contains(" 550 ") && row.contains("1.10..1.10"), "{row}");
        Ok(())
    }

    #[test]
    fn too_little_is_refused() {
        assert!(table(&[]).is_err());
        assert!(table(&["pair 1 100 100".to_owned()]).is_err());
        assert!(table(&["pair 1 0 100".to_owned()]).is_err());
        assert!(table(&["pair 1 100".to_owned()]).is_err());
    }

    #[test]
    fn medians() {
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < 1e-9);
    }
}
