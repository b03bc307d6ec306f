//! Lackey's trace, and what it says of cache lines.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Read};

/// Bytes of a cache line.
const LINE: u64 = 64;
/// Bytes about an address on it that belong to a stack.
const STACK: u64 = 1 << 20;

/// What each of two CPUs did with memory.
#[derive(Default)]
pub(crate) struct Touched {
    cpus: [BTreeMap<u64, Touch>; 2],
}

/// What a CPU did with a line.
#[derive(Debug, Clone, Copy, Default)]
struct Touch {
    written: bool,
    /// By which instruction: the first, or the first that wrote.
    by: u64,
}

/// A line that one CPU writes and the other touches.
#[derive(Debug)]
pub(crate) struct Shared {
    line: u64,
    by: [Touch; 2],
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {:#x}:", self.line)?;
        for (cpu, touch) in self.by.iter().enumerate() {
            let how = if touch.written { "written" } else { "read" };
            write!(f, " {how} by CPU {cpu} at {:#x}", touch.by)?;
        }
        Ok(())
    }
}

impl Touched {
    /// Reads a trace. A write to the first two words at `marks` says that a CPU's turn begins, one to the third that it
    /// has ended. What lies about `stack` is left out.
    pub(crate) fn read(mut trace: impl BufRead, marks: u64, stack: u64) -> std::io::Result<Self> {
        let mut touched = Self::default();
        let (mut turn, mut instruction, mut line) = (None, 0, Vec::new());
        loop {
            line.clear();
            if (&mut trace).take(1 << 16).read_until(b'\n', &mut line)? == 0 {
                return Ok(touched);
            }
            let Some((kind, address, bytes)) = access(&line) else { continue };
            match (kind, address.checked_sub(marks)) {
                (b'I', _) => instruction = address,
                (b'S' | b'M', Some(0)) => turn = Some(0),
                (b'S' | b'M', Some(8)) => turn = Some(1),
                (b'S' | b'M', Some(16)) => turn = None,
                _ if address.abs_diff(stack) < STACK => {}
                _ => {
                    if let Some(lines) = turn.and_then(|cpu: usize| touched.cpus.get_mut(cpu)) {
                        touch(lines, address, bytes, kind != b'L', instruction);
                    }
                }
            }
        }
    }

    /// How many lines each CPU touched.
    pub(crate) fn lines(&self) -> [usize; 2] {
        self.cpus.each_ref().map(BTreeMap::len)
    }

    pub(crate) fn shared(&self) -> Vec<Shared> {
        let [one, other] = &self.cpus;
        let both = one.iter().filter_map(|(line, touch)| Some((*line, [*touch, *other.get(line)?])));
        both.filter(|(_, by)| by.iter().any(|touch| touch.written)).map(|(line, by)| Shared { line, by }).collect()
    }
}

fn touch(lines: &mut BTreeMap<u64, Touch>, address: u64, bytes: u64, writes: bool, by: u64) {
    let last = address.saturating_add(bytes.saturating_sub(1)) / LINE;
    for line in address / LINE..=last {
        let touch = lines.entry(line * LINE).or_insert(Touch { written: false, by });
        if writes && !touch.written {
            *touch = Touch { written: true, by };
        }
    }
}

/// `I  04016b80,3`, ` S 1ffeffe7e8,8`, and ` L` and ` M` (load and store) like it.
fn access(line: &[u8]) -> Option<(u8, u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.trim_end();
    let (kind, place) = text.trim_start().split_once(' ')?;
    let [kind @ (b'I' | b'L' | b'S' | b'M')] = kind.as_bytes() else { return None };
    let (address, bytes) = place.trim_start().split_once(',')?;
    Some((*kind, u64::from_str_radix(address, 16).ok()?, bytes.parse().ok()?))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn shared(accesses: &[&str]) -> Vec<String> {
        let trace = format!("==1== Lackey\n{}\n", accesses.join("\n"));
        let touched = Touched::read(trace.as_bytes(), 0x1000, 0xffff_0000).expect("it is read");
        touched.shared().iter().map(ToString::to_string).collect()
    }

    const ONE: &str = " S 00001000,8";
    const OTHER: &str = " S 00001008,8";
    const NOBODY: &str = " S 00001010,8";

    #[test]
    fn a_line_that_is_written_and_touched_is_shared() {
        let found = shared(&[ONE, "I  0010a0,4", " L 2000,8", NOBODY, OTHER, "I  0010b0,4", " M 203f,1", NOBODY]);
        assert_eq!(found, ["line 0x2000: read by CPU 0 at 0x10a0 written by CPU 1 at 0x10b0"]);
        // Across the end of a line.
        assert_eq!(shared(&[ONE, " S 203c,8", OTHER, " L 2040,8"]).len(), 1);
    }

    #[test]
    fn nothing_else_is() {
        assert!(shared(&[ONE, " L 2000,8", OTHER, " L 2000,8"]).is_empty(), "read by both");
        assert!(shared(&[ONE, " S 2000,8", OTHER, " S 2040,8"]).is_empty(), "neighbours");
        assert!(shared(&[ONE, " S 2000,8", NOBODY, " S 2000,8", OTHER, " L 3000,8"]).is_empty(), "in nobody's turn");
    }
}
