//! The steps of a takeover, at which tests end a process.

/// Ends the process as it would be ended from outside, if a test asks for it at this step.
pub(super) fn step(name: &str) {
    if std::env::var_os("DOORBELL_TAKEOVER_KILLED_AT").is_some_and(|at| at == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
