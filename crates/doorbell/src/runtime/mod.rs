//! What the driver needs of its surroundings besides the device: background tasks, time, and waiting for interrupts.
//!
//! No runtime is forced on anyone. [`ThreadRuntime`] is built in and used unless another is given; the driver's
//! futures themselves run on any executor. Time comes in here and nowhere else, so that a simulation can run the
//! driver in virtual time.

mod thread;

pub use thread::ThreadRuntime;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use doorbell_device::Interrupt;

/// A boxed future that may be sent to another thread.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Background tasks, time and interrupts.
pub trait Runtime: Send + Sync + 'static {
    /// Runs a task to its end in the background. `name` is for people.
    fn spawn(&self, name: &'static str, task: BoxFuture<()>);

    /// The time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Resolves when [`now`](Self::now) has reached `deadline`.
    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()>;

    /// Waits for an interrupt again and again.
    ///
    /// # Errors
    /// If the interrupt cannot be waited for.
    fn watch(&self, interrupt: Interrupt) -> io::Result<Box<dyn InterruptWatch>>;

    /// Whether the driver may start threads that poll, where it was asked to: not where time is virtual. A background
    /// task looks now and then instead.
    fn has_threads(&self) -> bool {
        true
    }
}

/// Waits for one interrupt, without an allocation per wait.
pub trait InterruptWatch: Send {
    /// Ready when the interrupt was signalled since the last time it was ready.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Waits for a future, but not for ever: `None` when the time is up first.
pub(crate) async fn timeout<T>(
    runtime: &dyn Runtime,
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let Some(limit) = limit else { return Some(future.await) };
    let sleep = runtime.sleep_until(runtime.now().saturating_add(limit));
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep.await;
        None
    })
    .await
}

/// Waits for `delay`.
pub(crate) async fn sleep(runtime: &dyn Runtime, delay: Duration) {
    runtime.sleep_until(runtime.now().saturating_add(delay)).await;
}
