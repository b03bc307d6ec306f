//! What a bench found, for people and as JSON.

use std::time::Duration;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::leg::Handovers;
use super::outcome::{EXAMPLES, Outcome};
use crate::output;

/// All there is to say of a bench.
pub(super) struct Report {
    pub(super) rw: &'static str,
    pub(super) address: String,
    pub(super) nsid: u32,
    pub(super) bs: u64,
    pub(super) iodepth: u32,
    pub(super) numjobs: u32,
    pub(super) seed: u64,
    pub(super) completion: &'static str,
    pub(super) bounce: bool,
    pub(super) elapsed: Duration,
    pub(super) cpu: Duration,
    pub(super) interrupted: bool,
    /// Whether anything was written to be checked.
    pub(super) verified: bool,
    pub(super) outcome: Outcome,
    /// What the handovers were like, where there were to be any.
    pub(super) handovers: Option<Handovers>,
}

impl Report {
    fn iops(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.outcome.ios() as f64 / seconds } else { 0.0 }
    }

    fn bytes_per_s(&self) -> f64 {
        self.iops() * self.bs as f64
    }

    fn cpu_ns_per_io(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.outcome.ios().max(1) as f64
    }

    /// An error if anything went wrong.
    pub(super) fn verdict(&self) -> Result<()> {
        let Outcome { errors, first_error, lost, miscompares, examples, .. } = &self.outcome;
        if let (1.., Some(first)) = (miscompares, examples.first()) {
            bail!("{miscompares} blocks do not hold what was written; {first}");
        }
        if *errors != 0 {
            bail!("{errors} I/Os failed; the first: {}", first_error.as_deref().unwrap_or("unknown"));
        }
        if *lost != 0 {
            bail!("{lost} I/Os did not end in the time that they were given");
        }
        if let Some(Handovers { lost, repeated, failed, first_failure, .. }) = &self.handovers {
            if lost + repeated != 0 {
                bail!("{lost} I/Os were lost in handovers, and {repeated} came twice");
            }
            if *failed != 0 {
                bail!("{failed} handovers failed; the first: {}", first_failure.as_deref().unwrap_or("unknown"));
            }
        }
        Ok(())
    }

    pub(super) fn json(&self) -> Value {
        let (o, latency) = (&self.outcome, &self.outcome.latency);
        let verify = self.verified.then(|| {
            json!({
                "checked_blocks": o.checked_blocks,
                "miscompares": o.miscompares,
                "examples": o.examples,
            })
        });
        json!({
            "address": self.address,
            "nsid": self.nsid,
            "rw": self.rw,
            "bs": self.bs,
            "iodepth": self.iodepth,
            "numjobs": self.numjobs,
            "completion": self.completion,
            "bounce": self.bounce,
            "seed": self.seed,
            "runtime_s": self.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "ios": o.ios(),
            "reads": o.reads,
            "writes": o.writes,
            "errors": o.errors,
            "first_error": o.first_error,
            "unfinished": o.lost,
            "iops": self.iops(),
            "bytes_per_s": self.bytes_per_s(),
            "latency_ns": {
                "min": if latency.is_empty() { 0 } else { latency.min() },
                "mean": latency.mean(),
                "stdev": latency.stdev(),
                "p50": latency.value_at_quantile(0.5),
                "p90": latency.value_at_quantile(0.9),
                "p99": latency.value_at_quantile(0.99),
                "p999": latency.value_at_quantile(0.999),
                "p9999": latency.value_at_quantile(0.9999),
                "max": latency.max(),
            },
            "cpu_ns_per_io": self.cpu_ns_per_io(),
            "verify": verify,
            "handovers": self.handovers.as_ref().map(handovers_json),
        })
    }

    pub(super) fn text(&self) -> String {
        let (o, latency) = (&self.outcome, &self.outcome.latency);
        let jobs = if self.numjobs == 1 { "1 job".into() } else { format!("{} jobs", self.numjobs) };
        let mut text = format!(
            "{} of {}, {} in flight, {jobs}, completions by {}{}, {:.2} s{}\n  on {}, namespace {}\n\n",
            self.rw,
            output::bytes(self.bs),
            self.iodepth,
            self.completion,
            if self.bounce { ", bounced" } else { "" },
            self.elapsed.as_secs_f64(),
            if self.interrupted { " (interrupted)" } else { "" },
            self.address,
            self.nsid,
        );
        let number = |number: u64| output::thousands(number.into());
        text += &format!(
            "  IOPS       {}   ({}/s)\n",
            number(self.iops() as u64),
            output::bytes(self.bytes_per_s() as u64)
        );
        text +=
            &format!("  I/Os       {}   ({} read, {} written)\n", number(o.ios()), number(o.reads), number(o.writes));
        text += &format!("  errors     {}\n", number(o.errors));
        if o.lost != 0 {
            text += &format!("  unfinished {}\n", number(o.lost));
        }
        text += &format!("  CPU time   {} per I/O, of the whole process\n", time(self.cpu_ns_per_io() as u64));
        if self.verified {
            let (checked, wrong) = (number(o.checked_blocks), number(o.miscompares));
            text += &format!("  verified   {checked} blocks, {wrong} miscompares\n");
            for miscompare in &o.examples {
                text += &format!("    {miscompare}\n");
            }
            if o.miscompares > EXAMPLES as u64 {
                text += "    ...\n";
            }
        }
        if let Some(handovers) = &self.handovers {
            text += &handovers_text(handovers);
        }
        if !latency.is_empty() {
            text += &format!("\n{}\n{}", percentiles(latency), chart(latency));
        }
        text
    }
}

fn handovers_json(handovers: &Handovers) -> Value {
    let spread = |times: &[u64]| {
        let [p50, p99, max] = Handovers::spread(times);
        json!({ "p50": p50, "p99": p99, "max": max })
    };
    json!({
        "count": handovers.saves.len(),
        "failed": handovers.failed,
        "first_failure": handovers.first_failure,
        "inherited": handovers.inherited,
        "lost": handovers.lost,
        "repeated": handovers.repeated,
        "pause_ns": spread(&handovers.pauses),
        "save_ns": spread(&handovers.saves),
    })
}

fn handovers_text(handovers: &Handovers) -> String {
    let number = |number: u64| output::thousands(number.into());
    let spread = |times: &[u64]| {
        let [p50, p99, max] = Handovers::spread(times).map(time);
        format!("median {p50}, p99 {p99}, max {max}")
    };
    format!(
        "\n  handovers  {}, {} failed; {} I/Os in flight crossed over, {} lost, {} twice\n  pause      {}\n  saving     {}\n",
        number(handovers.saves.len() as u64),
        number(handovers.failed),
        number(handovers.inherited),
        number(handovers.lost),
        number(handovers.repeated),
        spread(&handovers.pauses),
        spread(&handovers.saves),
    )
}

fn percentiles(latency: &Histogram<u64>) -> String {
    let at = |quantile| time(latency.value_at_quantile(quantile));
    format!(
        "  latency    mean {}, min {}, max {}\n             p50 {}, p90 {}, p99 {}, p99.9 {}, p99.99 {}\n",
        time(latency.mean() as u64),
        time(latency.min()),
        time(latency.max()),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(0.9999),
    )
}

/// A bar for each power of two.
fn chart(latency: &Histogram<u64>) -> String {
    const WIDTH: f64 = 40.0;
    let (first, last) = (latency.min().max(1).ilog2(), latency.max().max(1).ilog2());
    let total = latency.len() as f64;
    let rows: Vec<(u64, u64, f64)> = (first..=last)
        .map(|power| {
            let (from, to) = (1u64 << power, 2u64 << power);
            (from, to, latency.count_between(from, to - 1) as f64 / total)
        })
        .collect();
    let largest = rows.iter().map(|row| row.2).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let mut text = String::new();
    for (from, to, share) in rows {
        let bar = "#".repeat((share / largest * WIDTH).ceil() as usize);
        text += &format!("  {:>8} .. {:<8} {:6.2}% {bar}\n", time(from), time(to), share * 100.0);
    }
    text
}

/// Nanoseconds as people say them.
fn time(nanoseconds: u64) -> String {
    let ns = nanoseconds as f64;
    match nanoseconds {
        0..1_000 => format!("{nanoseconds} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1500), "1.5 us");
        assert_eq!(time(2_500_000), "2.5 ms");
        assert_eq!(time(3_000_000_000), "3.00 s");
    }

    #[test]
    fn the_chart_has_a_bar_for_each_power_of_two() {
        let mut histogram = Histogram::new(3).unwrap();
        for value in [100, 130, 140, 600] {
            histogram.record(value).unwrap();
        }
        let chart = chart(&histogram);
        assert_eq!(chart.lines().count(), 4, "{chart}");
        assert!(chart.lines().nth(1).unwrap().contains("50.00% ########"), "{chart}");
        assert!(chart.lines().nth(2).unwrap().trim_end().ends_with("0.00%"), "{chart}");
    }
}
