//! All jobs stopped between two looks at their I/O, so that what they know can go to another process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quanta::Instant;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::stop::Stop;

/// How long jobs may take to stop.
const LIMIT: Duration = Duration::from_secs(5);

/// What a job has under way.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// The I/O of each slot.
    pub(super) slots: Vec<Option<Busy>>,
    /// Where it was in sequence.
    pub(super) next: u64,
    /// When its last I/O ended; see [`monotonic`].
    pub(super) last: Option<u64>,
}

/// An I/O that is in flight.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Busy {
    pub(super) unit: u64,
    pub(super) write: bool,
    /// When it began; see [`monotonic`].
    pub(super) started: u64,
}

/// Asks jobs to stop, and lets them go on.
#[derive(Default)]
pub(super) struct Pause {
    requested: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Jobs that work; the snapshots of those that have stopped.
    working: usize,
    stopped: Vec<(u32, Snapshot)>,
    /// Jobs that have come to their end.
    ended: usize,
    /// How often those that had stopped were let go on.
    rounds: u64,
    /// Whether it is another process's turn.
    over: bool,
}

impl Pause {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many jobs begin.
    pub(super) fn begin(&self, jobs: usize) {
        *self.lock() = State { working: jobs, ..State::default() };
    }

    #[inline]
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Stops all jobs. If one has ended already, or is not to be had, what is returned is empty, and they go on.
    pub(super) fn stop_all(&self, stop: &Stop) -> Vec<Snapshot> {
        self.requested.store(true, Ordering::SeqCst);
        stop.wake_all();
        let deadline = Instant::now() + LIMIT;
        let mut state = self.lock();
        while state.working != 0 && Instant::now() < deadline {
            state =
                self.changed.wait_timeout(state, Duration::from_millis(1)).unwrap_or_else(PoisonError::into_inner).0;
            stop.wake_all();
        }
        if state.working != 0 || state.ended != 0 {
            drop(state);
            self.go_on(false);
            return Vec::new();
        }
        state.stopped.sort_by_key(|(cpu, _)| *cpu);
        state.stopped.iter().map(|(_, snapshot)| snapshot.clone()).collect()
    }

    /// Lets the jobs go on, or, if it is another process's turn, begin nothing more.
    pub(super) fn go_on(&self, over: bool) {
        let mut state = self.lock();
        state.over = over;
        state.rounds += 1;
        self.requested.store(false, Ordering::SeqCst);
        state.working += state.stopped.len();
        state.stopped.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// A job stops here. Whether it is over.
    pub(super) fn stop_here(&self, cpu: u32, snapshot: Snapshot) -> bool {
        let mut state = self.lock();
        if !self.is_requested() {
            return state.over;
        }
        state.working -= 1;
        state.stopped.push((cpu, snapshot));
        self.changed.notify_all();
        // Not as long as it is requested: by then that may be the next time.
        let round = state.rounds;
        while state.rounds == round {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.over
    }

    /// A job has ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.working -= 1;
        state.ended += 1;
        self.changed.notify_all();
    }
}

/// Nanoseconds of the clock that all processes share.
pub(super) fn monotonic(at: Instant) -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    let ahead = at.saturating_duration_since(Instant::now());
    let ago = at.elapsed();
    let of = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    now.saturating_add(of(ahead)).saturating_sub(of(ago))
}

/// The same the other way round.
pub(super) fn instant(monotonic_ns: u64) -> Instant {
    let now = Instant::now();
    let now_ns = monotonic(now);
    let ahead = now.checked_add(Duration::from_nanos(monotonic_ns.saturating_sub(now_ns))).unwrap_or(now);
    ahead.checked_sub(Duration::from_nanos(now_ns.saturating_sub(monotonic_ns))).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_stop_and_go_on() {
        let (pause, stop) = (Pause::default(), Stop::default());
        pause.begin(2);
        std::thread::scope(|scope| {
            for cpu in 0..2 {
                let (pause, stop) = (&pause, &stop);
                scope.spawn(move || {
                    while !stop.is_set() {
                        if pause.is_requested() {
                            let snapshot = Snapshot { next: cpu.into(), ..Snapshot::default() };
                            assert!(!pause.stop_here(cpu, snapshot));
                        }
                        std::thread::yield_now();
                    }
                    pause.end();
                });
            }
            let mut stops = Vec::new();
            for _ in 0..100 {
                stops.push(pause.stop_all(&stop).iter().map(|snapshot| snapshot.next).collect::<Vec<_>>());
                pause.go_on(false);
            }
            // First, so that nothing hangs if it went wrong.
            stop.set();
            assert_eq!(stops, vec![[0, 1]; 100]);
        });
        assert!(pause.stop_all(&stop).is_empty(), "they have ended");
    }

    #[test]
    fn times_cross_over() {
        let now = Instant::now();
        for at in [now, now + Duration::from_secs(5)] {
            let back = instant(monotonic(at));
            let off = back.saturating_duration_since(at).max(at.saturating_duration_since(back));
            assert!(off < Duration::from_secs(1), "{off:?}");
        }
    }
}
