//! Polling by hand, for tests that decide what happens between two polls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use doorbell::{DriverOptions, GuestMemory, Namespace, NvmeDriver, PagedRange};
use doorbell_emulator::ControllerConfig;

use crate::bench::{Bench, guest};
use crate::spy::Spy;

/// Polls once; a wake-up is lost.
pub(crate) fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Counts wake-ups.
#[derive(Default)]
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn poll<T>(self: &Arc<Self>, future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(self.clone())))
    }
}

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Several futures, all waited for; each is polled only when it was woken, so that a lost wake-up is seen.
pub(crate) async fn join_all<F: Future + Unpin>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    struct Flag(std::sync::atomic::AtomicBool, std::sync::Mutex<Option<Waker>>);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
            if let Some(waker) = &*self.1.lock().expect("no panic") {
                waker.wake_by_ref();
            }
        }
    }
    let mut running: Vec<(F, Arc<Flag>, Option<F::Output>)> =
        futures.into_iter().map(|f| (f, Arc::new(Flag(true.into(), None.into())), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, flag, output) in running.iter_mut().filter(|(.., output)| output.is_none()) {
            *flag.1.lock().expect("no panic") = Some(context.waker().clone());
            if flag.0.swap(false, Ordering::SeqCst)
                && let Poll::Ready(value) = Pin::new(future).poll(&mut Context::from_waker(&Waker::from(flag.clone())))
            {
                *output = Some(value);
            }
            pending |= output.is_none();
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().map(|(.., output)| output.expect("all are done")).collect()
}

/// A driver with namespace 1 whose commands are seen, and a guest of 256 pages that its device reaches.
pub(crate) struct Watched {
    pub(crate) spy: Arc<Spy>,
    pub(crate) driver: NvmeDriver,
    pub(crate) namespace: Namespace,
    pub(crate) memory: GuestMemory,
}

impl Watched {
    pub(crate) fn new(bench: &Bench, config: ControllerConfig) -> Self {
        Self::with(bench, config, |options| options)
    }

    /// CPU 0 has its queue already, and what was sent so far is forgotten.
    pub(crate) fn with(
        bench: &Bench,
        config: ControllerConfig,
        change: impl FnOnce(DriverOptions) -> DriverOptions,
    ) -> Self {
        let spy = Spy::new(bench.device(config));
        let driver = bench.run(change(bench.world.options(spy.clone())).open()).expect("the controller comes up");
        let namespace = bench.run(driver.namespace(1)).expect("namespace 1");
        let memory = driver.register_memory(&guest(256)).expect("registered");
        bench.run(namespace.flush(0)).expect("the first queue");
        bench.world.settle();
        spy.clear();
        Self { spy, driver, namespace, memory }
    }

    /// Commands so far that went through bounce pages.
    pub(crate) fn bounced(&self) -> u64 {
        self.driver.inspect().queues.iter().map(|queue| queue.counters.bounced).sum()
    }

    /// Commands that have a slot, on all I/O queues.
    pub(crate) fn slots_taken(&self) -> usize {
        self.driver.inspect().queues.iter().map(|queue| queue.commands.len()).sum()
    }
}

/// Guest pages `first..first + pages`.
pub(crate) fn gpns(first: u64, pages: u64) -> Vec<u64> {
    (first..first + pages).collect()
}

/// All of the pages.
pub(crate) fn whole(gpns: &[u64]) -> PagedRange<'_> {
    PagedRange::new(0, gpns.len() * 4096, gpns).expect("a range")
}

/// Writes bytes into the pages of a range, as the guest would.
pub(crate) fn fill(memory: &GuestMemory, gpns: &[u64], offset: usize, data: &[u8]) {
    let mut at = 0;
    while at < data.len() {
        let place = offset + at;
        let part = (4096 - place % 4096).min(data.len() - at);
        let gpa = gpns[place / 4096] * 4096 + (place % 4096) as u64;
        memory.write_at(gpa, &data[at..at + part]).expect("guest memory");
        at += part;
    }
}

/// Reads bytes from the pages of a range, as the guest would.
pub(crate) fn contents(memory: &GuestMemory, gpns: &[u64], offset: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        let place = offset + at;
        let part = (4096 - place % 4096).min(len - at);
        let gpa = gpns[place / 4096] * 4096 + (place % 4096) as u64;
        memory.read_at(gpa, &mut bytes[at..at + part]).expect("guest memory");
        at += part;
    }
    bytes
}
