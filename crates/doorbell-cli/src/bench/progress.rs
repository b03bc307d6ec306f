//! Progress while a phase runs: to standard error, and only if that is a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

/// How often it is brought up to date.
pub(super) const INTERVAL: Duration = Duration::from_millis(100);

/// The line of a phase.
pub(super) struct Progress {
    bar: ProgressBar,
    start: Instant,
    io_bytes: u64,
    timed: bool,
    last: (Instant, u64),
}

impl Progress {
    /// For a phase that takes `time`, or that does `ios` I/Os.
    pub(super) fn new(title: &'static str, time: Option<Duration>, ios: u64, io_bytes: u64) -> Self {
        let length = time.map_or(ios, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        // It is hidden where standard error is no terminal.
        let bar = ProgressBar::new(length).with_prefix(title);
        let template = match time {
            Some(_) => "{prefix:>9} [{bar:30}] {msg}",
            None => "{prefix:>9} [{bar:30}] {percent}% {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        Self { bar, start: now, io_bytes, timed: time.is_some(), last: (now, 0) }
    }

    pub(super) fn update(&mut self, done: u64) {
        if self.bar.is_hidden() {
            return;
        }
        let now = Instant::now();
        let (then, before) = std::mem::replace(&mut self.last, (now, done));
        let rate = done.saturating_sub(before) as f64 / now.duration_since(then).as_secs_f64().max(1e-9);
        let elapsed = now.duration_since(self.start);
        let bandwidth = output::bytes((rate * self.io_bytes as f64) as u64);
        let iops = output::thousands(rate as u128);
        self.bar.set_message(format!("{:.1} s, {iops} IOPS, {bandwidth}/s", elapsed.as_secs_f64()));
        self.bar.set_position(if self.timed { u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX) } else { done });
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
