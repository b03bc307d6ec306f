//! Finding completions in the background: by interrupt, or by a thread that polls.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use doorbell_device::{DeviceError, Interrupt};
use event_listener::Event;
use futures_lite::future::yield_now;

use crate::queue::QueuePair;
use crate::runtime::{InterruptWatch, Runtime, sleep};

/// How long a device that cannot interrupt is left alone at most before its queues are looked at again.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);

/// Tells background work to end, once and for all.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopped: AtomicBool,
    event: Event,
}

impl Stop {
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    async fn wait(&self) {
        loop {
            let listener = self.event.listen();
            if self.is_stopped() {
                return;
            }
            listener.await;
        }
    }
}

/// The queues that one task or thread looks at.
#[derive(Default)]
pub(crate) struct Served {
    queues: Mutex<Arc<Vec<Arc<QueuePair>>>>,
}

impl Served {
    pub(crate) fn new(queue: Arc<QueuePair>) -> Self {
        Self { queues: Mutex::new(Arc::new(vec![queue])) }
    }

    pub(crate) fn add(&self, queue: Arc<QueuePair>) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut queues).push(queue);
    }

    pub(crate) fn queues(&self) -> Arc<Vec<Arc<QueuePair>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for completions on all of them.
    pub(crate) fn drain(&self) -> usize {
        self.queues().iter().map(|queue| queue.drain()).sum()
    }
}

/// An interrupt that is waited for.
pub(crate) struct Watched {
    interrupt: Interrupt,
    watch: Box<dyn InterruptWatch>,
}

impl Watched {
    pub(crate) fn new(runtime: &dyn Runtime, interrupt: Interrupt) -> Result<Self, DeviceError> {
        let watch = runtime.watch(interrupt.clone());
        let watch = watch.map_err(|source| DeviceError::Io { what: "waiting for interrupts", source })?;
        Ok(Self { interrupt, watch })
    }
}

/// An interrupt that is there again as soon as it was handled: its task must not be all that runs.
#[derive(Default)]
struct Noise {
    /// Interrupts in a row that nobody had to wait for,
    at_once: u32,
    /// and that were about nothing.
    for_nothing: u32,
}

impl Noise {
    /// After how many in a row others have their turn.
    const TURN: u32 = 16;
    /// After how many for nothing the device is left alone for a while, as one that cannot interrupt.
    const ENOUGH: u32 = 1024;

    async fn abate(&mut self, runtime: &dyn Runtime, waited: bool, found: usize) {
        self.at_once = if waited { 0 } else { self.at_once.saturating_add(1) };
        self.for_nothing = if waited || found != 0 { 0 } else { self.for_nothing.saturating_add(1) };
        if self.for_nothing == Self::ENOUGH {
            tracing::warn!("the device interrupts for nothing, all the time: it is heard now and then");
        }
        if self.for_nothing >= Self::ENOUGH {
            sleep(runtime, SHORTEST_PAUSE).await;
        } else if self.at_once.checked_rem(Self::TURN) == Some(Self::TURN.saturating_sub(1)) {
            yield_now().await;
        }
    }
}

/// The life of the task that looks at queues: at each interrupt, or, without one to wait for, again and again.
pub(crate) async fn serve(served: Arc<Served>, watched: Option<Watched>, runtime: Arc<dyn Runtime>, stop: Arc<Stop>) {
    let stopped = stop.wait();
    let serve = async {
        if let Some(Watched { interrupt, mut watch }) = watched {
            // Whoever used the device before may have left its interrupt pin masked.
            interrupt.handled();
            let mut noise = Noise::default();
            loop {
                let mut waited = false;
                let raised = poll_fn(|context| {
                    let raised = watch.poll(context);
                    waited |= raised.is_pending();
                    raised
                })
                .await;
                if let Err(error) = raised {
                    tracing::error!(%error, "interrupts can no longer be waited for, polling instead");
                    break;
                }
                if stop.is_stopped() {
                    // Whoever has the device now waits for the same interrupt, which this has taken away.
                    return interrupt.raise();
                }
                let found: usize = served.queues().iter().map(|queue| queue.interrupted()).sum();
                noise.abate(&*runtime, waited, found).await;
                // Only now: a level-triggered one would still be raised before.
                interrupt.handled();
            }
        }
        let mut pause = SHORTEST_PAUSE;
        loop {
            sleep(&*runtime, pause).await;
            pause = if served.drain() != 0 { SHORTEST_PAUSE } else { pause.saturating_mul(2).min(LONGEST_PAUSE) };
        }
    };
    futures_lite::future::or(stopped, serve).await;
}

/// Starts the thread that polls. A `gentle` one sleeps while there is nothing to find.
pub(crate) fn start_poller(served: Arc<Served>, stop: Arc<Stop>, gentle: bool) -> std::io::Result<()> {
    let poll = move || {
        let mut idle = 0u32;
        while !stop.is_stopped() {
            let queues = served.queues();
            // The list is fetched anew now and then, not each time around.
            for _ in 0..256 {
                let found: usize = queues.iter().map(|queue| queue.drain()).sum();
                idle = if found != 0 { 0 } else { idle.saturating_add(1) };
                std::hint::spin_loop();
            }
            if queues.is_empty() || (gentle && idle > 1 << 14) {
                std::thread::sleep(Duration::from_micros(100));
            } else if idle > 1 << 12 {
                std::thread::yield_now();
            }
        }
    };
    std::thread::Builder::new().name("doorbell-poll".into()).spawn(poll).map(drop)
}
