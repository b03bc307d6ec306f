//! What QEMU is told while it runs: lines of JSON on its standard streams.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A monitor of QEMU's that is ready for commands.
pub(super) struct Qmp<W = ChildStdin> {
    to: W,
    from: Receiver<Value>,
    events: VecDeque<Value>,
}

impl Qmp {
    pub(super) fn new(to: ChildStdin, from: ChildStdout) -> Result<Self> {
        Self::over(to, from)
    }
}

impl<W: Write> Qmp<W> {
    fn over(to: W, from: impl Read + Send + 'static) -> Result<Self> {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(from).lines().map_while(Result::ok);
            for message in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Self { to, from: receiver, events: VecDeque::new() };
        qmp.until(Instant::now() + ANSWER, |message| message.get("QMP").is_some()).context("QEMU does not greet")?;
        qmp.command(&json!({ "execute": "qmp_capabilities" }))?;
        Ok(qmp)
    }

    /// Has a command done. What QEMU refuses is an error that says why.
    pub(super) fn command(&mut self, command: &Value) -> Result<Value> {
        writeln!(self.to, "{command}").context("QEMU does not listen any more")?;
        self.to.flush().context("QEMU does not listen any more")?;
        let answers = |message: &Value| message.get("return").is_some() || message.get("error").is_some();
        let answer = self.until(Instant::now() + ANSWER, answers)?;
        if let Some(error) = answer.get("error") {
            bail!("{}", error.get("desc").and_then(Value::as_str).unwrap_or("refused"));
        }
        Ok(answer.get("return").cloned().unwrap_or_default())
    }

    /// Waits for an event of this name about this device, or for any of this name if it is empty. Earlier ones that
    /// nobody waited for count.
    pub(super) fn event(&mut self, name: &str, device: &str, limit: Duration) -> Result<Value> {
        let wanted = |message: &Value| {
            let about = message.pointer("/data/device").and_then(Value::as_str).unwrap_or_default();
            message.get("event").and_then(Value::as_str) == Some(name) && (device.is_empty() || about == device)
        };
        if let Some(at) = self.events.iter().position(wanted) {
            return self.events.remove(at).ok_or_else(|| anyhow!("the event went away"));
        }
        self.until(Instant::now() + limit, wanted).with_context(|| format!("no event {name} {device}"))
    }

    /// The first message that is wanted. Other events are kept.
    fn until(&mut self, deadline: Instant, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.from.recv_timeout(left).map_err(|error| anyhow!("QEMU says nothing: {error}"))?;
            if wanted(&message) {
                return Ok(message);
            }
            if message.get("event").is_some() {
                self.events.push_back(message);
            }
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn answers_and_events_are_told_apart() -> Result<()> {
        let said = "{\"QMP\":{}}\n{\"return\":{}}\n{\"event\":\"RESET\",\"data\":{}}\n\
                    {\"event\":\"DEVICE_DELETED\",\"data\":{\"device\":\"n1\"}}\n{\"return\":{\"running\":true}}\n\
                    {\"error\":{\"class\":\"GenericError\",\"desc\":\"no such device\"}}\n";
        let mut told = Vec::new();
        let mut qmp = Qmp::over(&mut told, said.as_bytes())?;
        assert_eq!(qmp.command(&json!({ "execute": "query-status" }))?, json!({ "running": true }));
        assert_eq!(qmp.command(&json!({ "execute": "x" })).expect_err("refused").to_string(), "no such device");
        let limit = Duration::from_secs(5);
        assert!(qmp.event("DEVICE_DELETED", "n2", Duration::ZERO).is_err());
        assert!(qmp.event("DEVICE_DELETED", "n1", limit).is_ok());
        assert!(qmp.event("RESET", "", limit).is_ok());
        assert!(qmp.event("RESET", "", limit).is_err(), "an event is had once");
        drop(qmp);
        assert_eq!(String::from_utf8(told)?.lines().count(), 3);
        Ok(())
    }
}
