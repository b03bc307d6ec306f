//! The tests that mutants are run against: built by cargo, then run without it.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::mutant::Command;
use crate::process;
use crate::workspace::target;

/// Mutants are many; what loom finds of them it finds early.
const PREEMPTIONS: u32 = 2;

/// Within so many I/Os the simulation finds a mutant.
const SIMULATED_IO: u32 = 1_000_000;

/// A build takes no longer than this.
const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// A package's tests, run in one way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Suite {
    pub(crate) package: String,
    pub(crate) command: Command,
}

/// What a build came to.
pub(crate) enum Build {
    Done(Vec<Executable>),
    /// With the first error.
    Failed(String),
}

/// Tests, ready to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    path: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
}

/// What tests came to, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    pub(crate) passed: Vec<String>,
    pub(crate) failed: Vec<String>,
    /// A test hung: those that are not named above did not finish.
    pub(crate) hung: bool,
    /// The tests' process died instead of reporting, and how.
    pub(crate) died: Option<String>,
    /// What the simulation says that it found.
    pub(crate) found: Option<String>,
}

impl Suite {
    /// Builds the tests in this tree.
    pub(crate) fn build(&self, tree: &Path) -> Result<Build> {
        let mut command = Process::new("cargo");
        command.args(["test", "--no-run", "--message-format", "json", "--package", &self.package]).current_dir(tree);
        // Nothing is debugged here, and all is built often.
        command.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "none").env_remove("RUSTFLAGS");
        let products = match self.command {
            Command::Test | Command::Simulation => "target",
            Command::Loom => {
                command.args(["--release", "--lib"]).env("CARGO_PROFILE_RELEASE_DEBUG", "none");
                // One optimised crate at a time is built again and again.
                command.env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true");
                crate::loom::configure(&mut command, PREEMPTIONS);
                "loom"
            }
        };
        command.arg("--target-dir").arg(target().join("mutants").join(products));
        let finished = process::observe(&mut command, BUILD_LIMIT)?;
        if finished.succeeded() {
            return Ok(Build::Done(executables(&finished.stdout)));
        }
        let error = first_error(&finished.stdout, &finished.stderr);
        Ok(Build::Failed(error.unwrap_or_else(|| format!("`{}` {}", process::shown(&command), finished.verdict()))))
    }

    /// Runs the tests that match one of the filters. `limit` is for all of them. With a mutant, the simulation goes as far
    /// as a mutant may take to be found.
    pub(crate) fn run(
        &self,
        executables: &[Executable],
        filters: &[String],
        limit: Duration,
        mutated: bool,
    ) -> Result<Results> {
        let mut results = Results::default();
        for executable in executables {
            let mut command = Process::new(&executable.path);
            command.args(filters).current_dir(&executable.folder);
            command.env("RUST_BACKTRACE", "0").env("PROPTEST_MAX_SHRINK_ITERS", "0");
            match self.command {
                Command::Test => {}
                Command::Simulation if !mutated => {}
                Command::Loom => drop(command.env("LOOM_MAX_PREEMPTIONS", PREEMPTIONS.to_string())),
                Command::Simulation => drop(command.env("DOORBELL_SIMULATED_IO", SIMULATED_IO.to_string())),
            }
            let finished = process::observe(&mut command, limit)?;
            results.read(&finished.stdout);
            results.hung |= finished.status.is_none();
            // 101 is the test harness's own, and was reported by name.
            if finished.status.is_some_and(|status| !matches!(status.code(), Some(0 | 101))) {
                results.died = Some(finished.verdict());
            }
        }
        Ok(results)
    }
}

impl Results {
    fn read(&mut self, text: &str) {
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("found: ") {
                self.found = Some(found.to_owned());
            }
            // A test's own output can stand before its result, and behind its name.
            let Some(rest) = line.strip_prefix("test ") else { continue };
            let Some((name, result)) = rest.split_once(" ... ") else { continue };
            let name = name.trim_end_matches(" - should panic").to_owned();
            match result {
                "ok" => self.passed.push(name),
                "FAILED" => self.failed.push(name),
                _ => {}
            }
        }
    }
}

/// What the messages of cargo's JSON format are read for.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    manifest_path: Option<PathBuf>,
    profile: Option<Profile>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    file_name: String,
    line_start: u32,
}

fn messages(text: &str) -> impl Iterator<Item = Message> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok())
}

fn executables(text: &str) -> Vec<Executable> {
    let executable = |message: Message| {
        let test = message.reason == "compiler-artifact" && message.profile.is_some_and(|profile| profile.test);
        let folder = message.manifest_path?.parent()?.to_owned();
        Some(Executable { path: message.executable.filter(|_| test)?, folder })
    };
    messages(text).filter_map(executable).collect()
}

fn first_error(messages_text: &str, stderr: &str) -> Option<String> {
    let error = messages(messages_text).filter_map(|message| message.message).find(|error| error.level == "error");
    let shown = |error: Diagnostic| {
        let at = error.spans.first().map(|span| format!(" at {}:{}", span.file_name, span.line_start));
        format!("{}{}", error.message, at.unwrap_or_default())
    };
    error.map(shown).or_else(|| cargos_error(stderr))
}

/// Cargo's own errors say last what it comes from.
fn cargos_error(stderr: &str) -> Option<String> {
    let error = stderr.lines().find_map(|line| line.strip_prefix("error: "))?;
    let cause = stderr.lines().rfind(|line| line.starts_with("  ")).map(|line| format!(" ({})", line.trim()));
    Some(format!("{error}{}", cause.unwrap_or_default()))
}

/// So that a message says what was looked for.
pub(crate) fn built(build: Build, suite: &Suite) -> Result<Vec<Executable>> {
    match build {
        Build::Done(executables) => Ok(executables),
        Build::Failed(error) => Err(anyhow::anyhow!(error)),
    }
    .with_context(|| format!("the tests of `{}` do not build without a mutant", suite.package))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn results_are_known_by_name() {
        let mut results = Results::default();
        results.read(
            "running 4 tests\ntest data::d1_a ... ok\ntest d2_b - should panic ... FAILED\ntest c ... ignored\n\
             test result: FAILED. 1 passed\ntest of nothing\n",
        );
        assert_eq!((results.passed, results.failed), (vec!["data::d1_a".to_owned()], vec!["d2_b".to_owned()]));
    }

    #[test]
    fn only_test_executables_are_run() {
        let text = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","profile":{"test":false},"executable":"/t/bin"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","profile":{"test":true},"executable":"/t/a-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","profile":{"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executables(text), [Executable { path: "/t/a-1".into(), folder: "/a".into() }]);
    }

    #[test]
    fn the_first_error_says_where() {
        let text = concat!(
            r#"{"reason":"compiler-message","message":{"level":"warning","message":"unused","spans":[]}}"#,
            "\n",
            r#"{"reason":"compiler-message","message":{"level":"error","message":"mismatched types","#,
            r#""spans":[{"file_name":"src/a.rs","line_start":3}]}}"#,
        );
        assert_eq!(first_error(text, ""), Some("mismatched types at src/a.rs:3".to_owned()));
        assert_eq!(first_error("", "warning: x\nerror: no such package\n"), Some("no such package".to_owned()));
        let caused = "error: no manifest\n\nCaused by:\n  cannot read\n\nCaused by:\n  No such file\n";
        assert_eq!(first_error("", caused), Some("no manifest (No such file)".to_owned()));
        assert_eq!(first_error("", ""), None);
    }
}
