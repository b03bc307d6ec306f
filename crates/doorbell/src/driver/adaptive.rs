//! Adaptive completion: one thread polls for as long as completions keep coming soon, and sleeps until the interrupt
//! when they do not.

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_device::{DeviceError, Interrupt};

use super::service::Stop;
use crate::queue::QueuePair;
use crate::runtime::Runtime;
use crate::sync::{AtomicU32, Ordering};

/// A completion that takes longer is not polled for: sleeping until it comes costs little beside that.
const LONGEST: Duration = Duration::from_micros(500);
/// What is begun with, where polling seems to pay.
const SHORTEST: Duration = Duration::from_micros(20);
/// How long a sleep lasts at most, so that the end of the driver is seen.
const NAP: Duration = Duration::from_millis(250);
/// Looks between two looks at the clock.
const LOOKS: u32 = 32;
/// How long callers that poll by themselves are left alone.
const BREAK: Duration = Duration::from_micros(50);

/// How long polling goes on in vain: as long as the device has needed of late, and some more.
///
/// As Linux's KVM does it before it lets a processor halt: what came only just too late lengthens it, what came long after
/// shortens it.
#[derive(Debug, Default)]
struct Patience(Duration);

impl Patience {
    /// The next completion came so long after the last.
    fn learn(&mut self, waited: Duration) {
        if waited > LONGEST {
            // It did not pay, or there was nothing to do.
            self.0 = if self.0 > SHORTEST { self.0.checked_div(2).unwrap_or_default() } else { Duration::ZERO };
        } else if waited.saturating_mul(2) > self.0 {
            self.0 = self.0.saturating_mul(2).clamp(SHORTEST, LONGEST);
        }
    }
}

/// What the thread looks at.
pub(crate) struct Adaptive {
    queues: Mutex<Vec<(Arc<QueuePair>, Interrupt)>>,
    /// Counts how often there were more of them, for a thread that does not come to sleep.
    additions: AtomicU32,
    /// Raised then, for one that sleeps.
    changed: Interrupt,
}

impl Adaptive {
    pub(crate) fn new() -> Result<Arc<Self>, DeviceError> {
        Ok(Arc::new(Self { queues: Mutex::default(), additions: AtomicU32::new(0), changed: Interrupt::new()? }))
    }

    /// One more queue, with its interrupt.
    pub(crate) fn add(&self, queue: Arc<QueuePair>, interrupt: Interrupt) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).push((queue, interrupt));
        self.tell();
    }

    fn tell(&self) {
        self.additions.fetch_add(1, Ordering::Release);
        self.changed.raise();
    }

    /// Starts the thread, which lives until `stop` says so.
    pub(crate) fn start(self: &Arc<Self>, runtime: Arc<dyn Runtime>, stop: Arc<Stop>) -> io::Result<()> {
        let adaptive = self.clone();
        let run = move || {
            while !stop.is_stopped() {
                if let Err(error) = adaptive.look_after(&*runtime, &stop) {
                    tracing::error!(%error, "interrupts can no longer be waited for");
                    std::thread::sleep(NAP);
                }
            }
        };
        std::thread::Builder::new().name("doorbell-poll".into()).spawn(run).map(drop)
    }

    /// Looks after the queues that there are now, until there are others.
    fn look_after(&self, runtime: &dyn Runtime, stop: &Stop) -> Result<(), DeviceError> {
        // Before the list, so that what is added meanwhile ends the look.
        let additions = self.additions.load(Ordering::Acquire);
        self.changed.take();
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let drain = || queues.iter().map(|(queue, _)| queue.drain()).sum();
        self.look(&queues, drain, additions, runtime, stop)
    }

    fn look(
        &self,
        queues: &[(Arc<QueuePair>, Interrupt)],
        mut drain: impl FnMut() -> usize,
        additions: u32,
        runtime: &dyn Runtime,
        stop: &Stop,
    ) -> Result<(), DeviceError> {
        let interrupts = queues.iter().map(|(_, interrupt)| interrupt).chain([&self.changed]);
        let any = Interrupt::any_of(interrupts.cloned().collect::<Vec<_>>())?;
        let mut patience = Patience::default();
        let mut last_found = runtime.now();
        let polled = || queues.iter().fold(0, |sum: u32, (queue, _)| sum.wrapping_add(queue.polled_by_callers()));
        let mut seen = polled();
        while !stop.is_stopped() && self.additions.load(Ordering::Acquire) == additions {
            let now_polled = polled();
            if now_polled != seen {
                // Two that look at the same queue are in each other's way, and who waits for the completion is to find it.
                seen = now_polled;
                std::thread::sleep(BREAK);
                last_found = runtime.now();
                continue;
            }
            if (0..LOOKS).any(|_| {
                std::hint::spin_loop();
                drain() != 0
            }) {
                let now = runtime.now();
                patience.learn(now.saturating_sub(last_found));
                last_found = now;
                continue;
            }
            if runtime.now().saturating_sub(last_found) < patience.0 {
                continue;
            }
            let arm = |interrupt: &Interrupt| {
                interrupt.take();
                interrupt.handled();
            };
            if !may_sleep(queues, arm) || !any.wait(NAP) || polled() != seen {
                continue;
            }
            if queues.iter().map(|(queue, _)| queue.interrupted()).sum::<usize>() != 0 {
                let now = runtime.now();
                patience.learn(now.saturating_sub(last_found));
                last_found = now;
            }
        }
        Ok(())
    }
}

/// Whether there is nothing to be found: what is posted after the interrupts were armed raises one, which ends a sleep, and what
/// was before is found now.
pub(crate) fn may_sleep<Q: Deref<Target = QueuePair>, I>(queues: &[(Q, I)], arm: impl Fn(&I)) -> bool {
    queues.iter().for_each(|(_, interrupt)| arm(interrupt));
    queues.iter().map(|(queue, _)| queue.drain()).sum::<usize>() == 0
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::ThreadRuntime;

    fn after(waits: &[u64]) -> Duration {
        let mut patience = Patience::default();
        waits.iter().for_each(|wait| patience.learn(Duration::from_micros(*wait)));
        patience.0
    }

    #[test]
    fn patience_grows_to_what_the_device_needs_and_no_further() {
        for latency in [1, 10, 80, 200] {
            let patience = after(&[latency; 20]);
            assert!(patience > Duration::from_micros(latency), "{latency} us: {patience:?}");
            assert!(patience <= SHORTEST.max(Duration::from_micros(latency * 4)), "{latency} us: {patience:?}");
        }
    }

    #[test]
    fn a_queue_that_is_added_is_noticed_though_others_give_no_rest() {
        let adaptive = Adaptive::new().unwrap();
        let mut looks = 0;
        let busy = || {
            looks += 1;
            if looks == 1000 {
                adaptive.tell();
            }
            assert!(looks < 10_000, "it is not noticed");
            1
        };
        adaptive.look(&[], busy, 0, &*ThreadRuntime::global(), &Stop::default()).unwrap();
    }

    #[test]
    fn what_takes_long_is_not_polled_for() {
        assert_eq!(after(&[10_000; 3]), Duration::ZERO);
        let mut waits = vec![80; 20];
        waits.extend([10_000; 10]);
        assert_eq!(after(&waits), Duration::ZERO);
        waits.truncate(21);
        assert!(after(&waits) >= Duration::from_micros(80), "one pause is forgiven: {:?}", after(&waits));
    }
}
