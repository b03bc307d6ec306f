//! What is drawn from a seed: the devices and drivers, and what happens to them, step by step. All of it is data, which
//! means the same whatever came before, so that a schedule from which steps were taken out still is one.

use std::fmt;

use doorbell::CompletionMode;

use crate::fault::Kind;
use crate::handover::Saves;
use crate::reserve::Wish;
use crate::rng::Rng;

/// Everything there is, before anything happens.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) hosts: u8,
    pub(crate) namespaces: u8,
    pub(crate) blocks: u64,
    pub(crate) block_size: u32,
    pub(crate) cpus: u32,
    pub(crate) depth: u32,
    pub(crate) queue_pairs: u16,
    pub(crate) vectors: u16,
    pub(crate) mdts: u8,
    pub(crate) sgl: bool,
    pub(crate) always_bounce: bool,
    pub(crate) bounce_pages: usize,
    pub(crate) completion: CompletionMode,
    pub(crate) volatile_cache: bool,
    pub(crate) resets: u32,
    pub(crate) replay: bool,
    pub(crate) retries: u32,
    pub(crate) io_timeout_ms: u64,
    pub(crate) latency_us: u64,
    pub(crate) ready_ms: u64,
    pub(crate) in_flight: usize,
    /// Hosts send reservation commands.
    pub(crate) reservations: bool,
    /// One step in so many is none of I/O.
    pub(crate) trouble: u64,
    /// Drivers are saved between any two polls.
    pub(crate) saves: Option<Saves>,
}

/// How a command's data lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// An ordinary slice.
    Slice,
    /// A buffer of the driver's.
    Buffer,
    /// Guest memory.
    Guest,
}

/// Which blocks, and who asks for them. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) host: u8,
    pub(crate) namespace: u8,
    pub(crate) cpu: u8,
    pub(crate) lba: u16,
    pub(crate) blocks: u8,
}

/// Something that is done or happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Read(At, Path),
    Write(At, Path, bool),
    Zeroes(At, bool, bool),
    Deallocate(At),
    /// Compares with what is there, or with something else.
    Compare(At, bool),
    /// A fused pair that compares with what is there, or with something else.
    CompareAndWrite(At, bool),
    Copy(At, u16),
    Verify(At),
    Flush(At),
    /// The future of an operation is dropped.
    Cancel(u8),
    /// Time passes.
    Sleep(u32),
    /// Everything that is under way ends.
    Quiesce,
    Fault(u8, Kind, u8),
    ResetAsked(u8),
    PowerCycle,
    SubsystemReset,
    Unregister(u8),
    Register(u8),
    DropNamespace(u8, u8),
    DropDriver(u8),
    Shutdown(u8),
    Resize(u8, u16),
    /// With a reset of the subsystem, or with an event alone.
    Replace(u8, bool),
    /// The same; or what was removed comes back.
    Remove(u8, bool),
    Inspect(u8),
    /// Held still for so many steps; then another driver goes on, or the same.
    Save(u8, u8, bool),
    /// A reservation command; the number decides what the wish leaves open.
    Reserve(At, Wish, u16),
}

/// An action, and how much of the rest of the world runs after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) turns: u8,
    /// The operation's future is dropped.
    pub(crate) dropped: Option<Dropped>,
}

/// When a future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// As soon as it has been polled so often.
    After(u8),
    /// After so many polls, as soon as it is woken.
    Woken(u8),
}

/// A setup and what happens then.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    /// Each with its number.
    pub(crate) steps: Vec<(usize, Step)>,
}

impl Scenario {
    /// Draws one.
    pub(crate) fn draw(seed: u64, steps: usize) -> Self {
        let mut rng = Rng::new(seed);
        let setup = Setup::draw(&mut rng);
        let steps = (0..steps).map(|number| (number, Step::draw(&mut rng, &setup))).collect();
        Self { seed, setup, steps }
    }
}

impl Setup {
    fn draw(rng: &mut Rng) -> Self {
        let block_size = rng.pick(&[512, 512, 4096, 4096, 8192]);
        let hosts = rng.pick(&[1, 1, 1, 2, 3]);
        Self {
            hosts,
            namespaces: rng.pick(&[1, 1, 2, 3]),
            blocks: rng.pick(&[16, 32, 64]),
            block_size,
            cpus: rng.pick(&[1, 2, 4]),
            depth: rng.pick(&[1, 2, 4, 8, 32]),
            queue_pairs: rng.pick(&[1, 2, 64]),
            vectors: rng.pick(&[0, 1, 2, 3, 65]),
            mdts: rng.pick(&[0, 1, 2, 5]).max(u8::from(block_size > 4096)),
            sgl: rng.one_in(2),
            always_bounce: rng.one_in(4),
            bounce_pages: rng.pick(&[1, 2, 4, 16]).max(block_size as usize / 4096),
            completion: rng.pick(&[
                CompletionMode::Interrupt,
                CompletionMode::Interrupt,
                CompletionMode::Adaptive,
                CompletionMode::CallerPolls,
                CompletionMode::Polling,
            ]),
            volatile_cache: rng.one_in(2),
            resets: rng.pick(&[0, 1, 3, 100, 100, 100]),
            replay: !rng.one_in(4),
            retries: rng.pick(&[0, 1, 5]),
            io_timeout_ms: rng.pick(&[50, 500, 5000]),
            latency_us: rng.pick(&[0, 0, 10, 100]),
            ready_ms: rng.pick(&[0, 0, 20]),
            in_flight: rng.pick(&[1, 4, 16, 48]),
            reservations: hosts > 1 && rng.one_in(2),
            trouble: rng.pick(&[8, 20, 50, 200]),
            saves: rng.one_in(3).then(|| Saves::draw(rng)),
        }
    }
}

impl At {
    fn draw(rng: &mut Rng) -> Self {
        let blocks = if rng.one_in(2) { 1 } else { rng.below(8) as u8 + 1 };
        Self {
            host: rng.next() as u8,
            namespace: rng.next() as u8,
            cpu: rng.next() as u8,
            lba: rng.next() as u16,
            blocks,
        }
    }
}

impl Step {
    fn draw(rng: &mut Rng, setup: &Setup) -> Self {
        let action = if rng.one_in(setup.trouble) { Action::trouble(rng) } else { Action::io(rng, setup) };
        let when = rng.below(4) as u8;
        let dropped = rng.pick(&[Dropped::After(when.max(1)), Dropped::Woken(when)]);
        let dropped = rng.one_in(12).then_some(dropped);
        Self { action, turns: rng.pick(&[0, 0, 0, 1, 1, 2]), dropped }
    }
}

impl Action {
    fn io(rng: &mut Rng, setup: &Setup) -> Self {
        let at = At::draw(rng);
        if setup.reservations && rng.one_in(14) {
            return Self::Reserve(at, rng.pick(Wish::ALL), rng.next() as u16);
        }
        let path = rng.pick(&[Path::Slice, Path::Guest, Path::Guest, Path::Buffer]);
        match rng.below(32) {
            0..13 => Self::Read(at, path),
            13..24 => Self::Write(at, path, rng.one_in(4)),
            24 => Self::Zeroes(at, rng.one_in(2), rng.one_in(4)),
            25 => Self::Deallocate(at),
            26 => Self::Compare(at, !rng.one_in(3)),
            27 => Self::CompareAndWrite(at, !rng.one_in(3)),
            28 => Self::Copy(at, rng.next() as u16),
            29 => Self::Verify(at),
            30 => Self::Flush(at),
            _ => Self::Cancel(rng.next() as u8),
        }
    }

    fn trouble(rng: &mut Rng) -> Self {
        let host = rng.next() as u8;
        let namespace = rng.next() as u8;
        match rng.below(44) {
            0..22 => Self::Fault(host, rng.pick(Kind::ALL), rng.next() as u8),
            22..24 => Self::Quiesce,
            24..27 => Self::Sleep(rng.pick(&[20, 1000, 40_000, 600_000, 20_000_000])),
            27 => Self::ResetAsked(host),
            28 => Self::PowerCycle,
            29 => Self::SubsystemReset,
            30..32 => Self::Unregister(host),
            32 => Self::Register(host),
            33 => Self::DropNamespace(host, namespace),
            34 => Self::DropDriver(host),
            35 => Self::Shutdown(host),
            36 => Self::Resize(namespace, rng.next() as u16),
            37 => Self::Replace(namespace, rng.one_in(2)),
            38 => Self::Remove(namespace, rng.one_in(2)),
            39 => Self::Inspect(host),
            _ => Self::Save(host, rng.pick(&[0, 0, 1, 4, 16]), !rng.one_in(3)),
        }
    }

    /// The kinds that are counted when they are done; faults are when they strike.
    pub(crate) const NAMES: &[&str] = &[
        "read",
        "write",
        "write, FUA",
        "write zeroes",
        "deallocate",
        "compare",
        "compare and write",
        "copy",
        "verify",
        "flush",
        "future dropped at any time",
        "time passes",
        "everything ends",
        "reset asked for",
        "power lost",
        "subsystem reset",
        "guest memory unregistered",
        "guest memory registered",
        "namespace handle dropped",
        "driver dropped",
        "driver shut down",
        "namespace resized",
        "namespace replaced, with a reset",
        "namespace replaced, with an event",
        "namespace goes or comes, with a reset",
        "namespace goes or comes, with an event",
        "inspected",
        "driver saved",
        "reservation: register",
        "reservation: replace the key",
        "reservation: unregister",
        "reservation: acquire",
        "reservation: preempt",
        "reservation: preempt and abort",
        "reservation: release",
        "reservation: clear",
        "reservation: report",
        "a seed with hosts that reserve",
        "a seed without interrupts",
    ];

    /// Its kind, for counting.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Read(..) => "read",
            Self::Write(_, _, false) => "write",
            Self::Write(_, _, true) => "write, FUA",
            Self::Zeroes(..) => "write zeroes",
            Self::Deallocate(_) => "deallocate",
            Self::Compare(..) => "compare",
            Self::CompareAndWrite(..) => "compare and write",
            Self::Copy(..) => "copy",
            Self::Verify(_) => "verify",
            Self::Flush(_) => "flush",
            Self::Cancel(_) => "future dropped at any time",
            Self::Sleep(_) => "time passes",
            Self::Quiesce => "everything ends",
            Self::Fault(_, kind, _) => kind.name(),
            Self::ResetAsked(_) => "reset asked for",
            Self::PowerCycle => "power lost",
            Self::SubsystemReset => "subsystem reset",
            Self::Unregister(_) => "guest memory unregistered",
            Self::Register(_) => "guest memory registered",
            Self::DropNamespace(..) => "namespace handle dropped",
            Self::DropDriver(_) => "driver dropped",
            Self::Shutdown(_) => "driver shut down",
            Self::Resize(..) => "namespace resized",
            Self::Replace(_, true) => "namespace replaced, with a reset",
            Self::Replace(_, false) => "namespace replaced, with an event",
            Self::Remove(_, true) => "namespace goes or comes, with a reset",
            Self::Remove(_, false) => "namespace goes or comes, with an event",
            Self::Inspect(_) => "inspected",
            Self::Save(..) => "driver saved",
            Self::Reserve(_, wish, _) => wish.name(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.action)?;
        if self.turns > 0 {
            write!(f, ", then {} turns", self.turns)?;
        }
        if let Some(dropped) = self.dropped {
            write!(f, ", dropped: {dropped:?}")?;
        }
        Ok(())
    }
}
