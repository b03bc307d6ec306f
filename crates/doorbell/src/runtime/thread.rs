use std::io;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_executor::Executor;
use async_io::{Async, Timer};
use doorbell_device::Interrupt;

use super::{BoxFuture, InterruptWatch, Runtime};

/// One background thread for all drivers of the process that were given no other runtime.
#[derive(Debug)]
pub struct ThreadRuntime {
    executor: Arc<Executor<'static>>,
    started: Instant,
}

static GLOBAL: LazyLock<Arc<ThreadRuntime>> = LazyLock::new(|| Arc::new(ThreadRuntime::start()));

impl ThreadRuntime {
    /// The process's own, started with its first use.
    #[must_use]
    pub fn global() -> Arc<Self> {
        GLOBAL.clone()
    }

    fn start() -> Self {
        let executor = Arc::new(Executor::new());
        let runs = executor.clone();
        let run = move || async_io::block_on(runs.run(std::future::pending::<()>()));
        if let Err(error) = std::thread::Builder::new().name("doorbell".into()).spawn(run) {
            // Without threads nothing in the background happens; every wait then ends by its time limit or not at
            // all, so this is said as loudly as a library may.
            tracing::error!(%error, "the background thread could not be started");
        }
        Self { executor, started: Instant::now() }
    }
}

impl Runtime for ThreadRuntime {
    fn spawn(&self, name: &'static str, task: BoxFuture<()>) {
        tracing::trace!(name, "background task");
        self.executor.spawn(task).detach();
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let timer = self.started.checked_add(deadline).map_or_else(Timer::never, Timer::at);
        Box::pin(async move {
            timer.await;
        })
    }

    fn watch(&self, interrupt: Interrupt) -> io::Result<Box<dyn InterruptWatch>> {
        // The descriptor is non-blocking already.
        Ok(Box::new(ThreadWatch { readable: Async::new_nonblocking(interrupt)? }))
    }
}

struct ThreadWatch {
    readable: Async<Interrupt>,
}

impl InterruptWatch for ThreadWatch {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.readable.get_ref().take() > 0 {
                return Poll::Ready(Ok(()));
            }
            std::task::ready!(self.readable.poll_readable(context))?;
        }
    }
}
