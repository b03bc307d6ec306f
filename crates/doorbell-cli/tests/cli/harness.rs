//! Runs the command in a folder of its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A folder to run the command in.
pub(crate) struct Place {
    folder: TempDir,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// An empty folder.
pub(crate) fn place() -> Place {
    Place { folder: tempfile::tempdir().unwrap() }
}

/// Runs the command with arguments that no file is needed for.
pub(crate) fn doorbell(arguments: &str) -> Ran {
    place().doorbell(arguments)
}

/// Asks again and again until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of zeroes.
    pub(crate) fn with_disk(self, name: &str, bytes: u64) -> Self {
        let file = std::fs::File::create(self.path().join(name)).unwrap();
        file.set_len(bytes).unwrap();
        self
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    /// The command, to be run in this folder. Arguments are separated by spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        command.current_dir(self.path()).args(arguments.split(' ').filter(|argument| !argument.is_empty()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command.
    pub(crate) fn doorbell(&self, arguments: &str) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs the command with something to read.
    pub(crate) fn doorbell_reading(&self, arguments: &str, input: &[u8]) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // It may have refused its arguments before it read everything.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::of(child.wait_with_output().unwrap())
    }
}

impl Ran {
    pub(crate) fn of(output: std::process::Output) -> Self {
        Self { status: output.status.code(), stdout: output.stdout, stderr: String::from_utf8(output.stderr).unwrap() }
    }

    /// What was printed by a run that went well.
    #[track_caller]
    pub(crate) fn bytes(self) -> Vec<u8> {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{}", String::from_utf8_lossy(&self.stdout));
        self.stdout
    }

    /// The same, as text.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    /// The same, as JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The complaint of a run that was refused: one line, exit status 1, and nothing printed.
    #[track_caller]
    pub(crate) fn complaint(self) -> String {
        assert_eq!((self.status, self.stdout.len()), (Some(1), 0), "{}", self.stderr);
        let line = self.stderr.strip_prefix("doorbell: ").and_then(|line| line.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("{:?}", self.stderr));
        assert!(!line.contains('\n'), "{line}");
        line.into()
    }

    /// The complaint of a run whose arguments make no sense: exit status 2, and nothing printed.
    #[track_caller]
    pub(crate) fn usage(self) -> String {
        assert_eq!((self.status, self.stdout.len()), (Some(2), 0), "{}", self.stderr);
        self.stderr.lines().next().unwrap_or_default().into()
    }
}

/// Bytes that differ from block to block.
pub(crate) fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 512 * 7) as u8).collect()
}
