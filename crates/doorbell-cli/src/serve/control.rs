//! The control socket: a JSON object a line, and a line in answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, anyhow};
use doorbell_emulator::FaultPlan;
use doorbell_serve::Listener;
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::state::State;
use crate::parse;

/// Bytes of a line: a fault plan of thousands of rules.
const MAX_LINE: u64 = 1 << 20;
/// Connections at a time.
const MAX_CONNECTIONS: usize = 16;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    /// A namespace comes.
    Add {
        /// As on the command line.
        namespace: String,
        /// The lowest free one if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nsid: Option<u32>,
    },
    /// A namespace goes.
    Remove { nsid: u32 },
    /// A namespace gets another size.
    Resize { nsid: u32, size: Size },
    /// How it is going.
    Statistics {},
    /// What goes wrong from now on.
    Faults {
        /// Where; everywhere if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        socket: Option<PathBuf>,
        plan: FaultPlan,
    },
    /// The server ends.
    Shutdown {},
    /// Another server goes on with everything; after the answer, this connection is for the two of them.
    TakeOver {},
}

/// Bytes, as a number or as on the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Size {
    Bytes(u64),
    Text(String),
}

impl Size {
    pub(super) fn bytes(&self) -> Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::Text(text) => parse::size(text).map_err(|error| anyhow!("size {text:?}: {error}")),
        }
    }
}

/// Listens on a thread of its own, for as long as the process lives; the socket goes with what is returned.
pub(super) fn listen(listener: Listener, state: &Arc<State>) -> Result<Arc<Listener>> {
    let listener = Arc::new(listener);
    let (accepting, state) = (Arc::downgrade(&listener), Arc::downgrade(state));
    let connections = Arc::new(AtomicUsize::new(0));
    let socket = listener.try_clone().context("the control socket")?;
    let accept = move || {
        while poll(&mut [PollFd::new(&socket, PollFlags::IN)], None).is_ok() {
            let (Some(listener), Some(state)) = (accepting.upgrade(), state.upgrade()) else { return };
            let Some(stream) = listener.accept() else { continue };
            if connections.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
                connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let served = connections.clone();
            let serve = move || {
                // Whoever has gone before the answer has no use for it.
                let _ = converse(stream, &state);
                served.fetch_sub(1, Ordering::Relaxed);
            };
            if std::thread::Builder::new().name("doorbell-control".into()).spawn(serve).is_err() {
                connections.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::Builder::new().name("doorbell-control".into()).spawn(accept).context("starting a thread")?;
    Ok(listener)
}

fn converse(stream: UnixStream, state: &State) -> std::io::Result<()> {
    let mut lines = BufReader::new(&stream);
    loop {
        let mut line = Vec::new();
        lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < MAX_LINE;
        if matches!(serde_json::from_slice(&line), Ok(Order::TakeOver {})) {
            drop(lines);
            state.hand_over(stream);
            return Ok(());
        }
        let answer = if whole { answer(&line, state) } else { Err(anyhow!("a line of more than {MAX_LINE} bytes")) };
        tell(&stream, answer)?;
        if !whole {
            return Ok(());
        }
    }
}

/// Answers an order.
pub(super) fn tell(mut stream: &UnixStream, answer: Result<Value>) -> std::io::Result<()> {
    let answer = match answer {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    stream.write_all(format!("{answer}\n").as_bytes())
}

fn answer(line: &[u8], state: &State) -> Result<Value> {
    let order: Order = serde_json::from_slice(line).context("not an order")?;
    tracing::info!(?order, "ordered");
    state.carry_out(order)
}

/// Has a server do something: its answer.
pub(crate) fn order(control: &Path, order: &Order) -> Result<Value> {
    converse_with(control, order).map(|(answer, _)| answer)
}

/// The same, and the connection for what comes after the answer.
pub(super) fn converse_with(control: &Path, order: &Order) -> Result<(Value, UnixStream)> {
    let path = || control.display().to_string();
    let mut stream = UnixStream::connect(control).with_context(path)?;
    stream.write_all(format!("{}\n", serde_json::to_string(order)?).as_bytes()).with_context(path)?;
    // Not a byte more than the line.
    let mut line = Vec::new();
    BufReader::with_capacity(1, &stream).read_until(b'\n', &mut line).with_context(path)?;
    let line = String::from_utf8_lossy(&line);
    let answer: Value =
        serde_json::from_str(&line).with_context(|| format!("{}: what answered is no server", path()))?;
    match (answer.get("ok"), answer.get("error").and_then(Value::as_str)) {
        (Some(value), _) => Ok((value.clone(), stream)),
        (None, Some(error)) => Err(anyhow!("{error}")),
        (None, None) => Err(anyhow!("{}: what answered is no server", path())),
    }
}
