//! CPU time by thread, from proc(5).

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time so far of all threads but the first.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    let first = std::process::id().to_string();
    let mut all = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?;
        if thread.file_name() == first.as_str() {
            continue;
        }
        // One that has ended meanwhile counts no more.
        let Ok(times) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let nanoseconds = times.split(' ').next().and_then(|first| first.parse().ok());
        all += Duration::from_nanos(nanoseconds.context("schedstat(5) is not understood")?);
    }
    Ok(all)
}
