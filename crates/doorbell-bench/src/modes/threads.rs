//! CPU time by thread, from proc(5).

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// How the controller's thread is called, as far as the system keeps it.
const CONTROLLER: &str = "doorbell-emulat";

/// CPU time so far of all threads but the controller's.
pub(crate) fn cpu_time() -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for thread in fs::read_dir("/proc/self/task")? {
        let path = thread?.path();
        // One that has ended meanwhile counts no more.
        let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
        let Ok(times) = fs::read_to_string(path.join("schedstat")) else { continue };
        if name.trim() != CONTROLLER {
            let nanoseconds = times.split(' ').next().and_then(|first| first.parse().ok());
            all += Duration::from_nanos(nanoseconds.context("schedstat(5) is not understood")?);
        }
    }
    Ok(all)
}
