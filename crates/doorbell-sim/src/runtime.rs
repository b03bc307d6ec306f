use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use doorbell::{BoxFuture, InterruptWatch, Runtime};
use doorbell_device::Interrupt;

/// The driver's surroundings in virtual time. Nothing happens but when a [`World`](crate::World) runs it.
#[derive(Default)]
pub struct SimRuntime {
    state: Mutex<State>,
    ready: Arc<Ready>,
    watchers: Watchers,
}

#[derive(Default)]
struct State {
    now: Duration,
    next_task: usize,
    tasks: BTreeMap<usize, BoxFuture<()>>,
    next_timer: u64,
    timers: BTreeMap<(Duration, u64), Waker>,
    /// Nobody will ever run anything any more.
    closed: bool,
}

/// Who waits for an interrupt: woken whenever a device did something.
type Watchers = Arc<Mutex<Vec<Waker>>>;

/// Tasks to be polled, in the order in which they were woken.
#[derive(Default)]
struct Ready(Mutex<VecDeque<usize>>);

struct TaskWaker {
    task: usize,
    ready: Arc<Ready>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = locked(&self.ready.0);
        if !ready.contains(&self.task) {
            ready.push_back(self.task);
        }
    }
}

impl SimRuntime {
    /// Polls each task that is ready once, and calls `after` each; whether there was one.
    pub(crate) fn run_tasks(&self, mut after: impl FnMut()) -> bool {
        let ready = std::mem::take(&mut *locked(&self.ready.0));
        let any = !ready.is_empty();
        for task in ready {
            let Some(mut future) = locked(&self.state).tasks.remove(&task) else { continue };
            let waker = Waker::from(Arc::new(TaskWaker { task, ready: self.ready.clone() }));
            if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                locked(&self.state).tasks.insert(task, future);
            }
            after();
        }
        any
    }

    /// Drops all tasks, and those to come: a task holds its driver, which holds this.
    pub(crate) fn close(&self) {
        let tasks = {
            let mut state = locked(&self.state);
            state.closed = true;
            state.timers.clear();
            std::mem::take(&mut state.tasks)
        };
        drop(tasks);
        locked(&self.watchers).clear();
    }

    /// How many background tasks there are.
    #[must_use]
    pub fn task_count(&self) -> usize {
        locked(&self.state).tasks.len()
    }

    /// Wakes who waits for interrupts.
    pub(crate) fn wake_watchers(&self) {
        let watchers = std::mem::take(&mut *locked(&self.watchers));
        watchers.into_iter().for_each(Waker::wake);
    }

    /// The next deadline that somebody sleeps for.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        locked(&self.state).timers.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Lets time pass, and wakes who slept until then.
    pub(crate) fn advance(&self, to: Duration) {
        let due = {
            let mut state = locked(&self.state);
            state.now = state.now.max(to);
            let later = state.timers.split_off(&(to + Duration::from_nanos(1), 0));
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
    }
}

impl Runtime for SimRuntime {
    fn spawn(&self, _name: &'static str, task: BoxFuture<()>) {
        let id = {
            let mut state = locked(&self.state);
            if state.closed {
                drop(state);
                return drop(task);
            }
            state.next_task += 1;
            let id = state.next_task;
            state.tasks.insert(id, task);
            id
        };
        locked(&self.ready.0).push_back(id);
    }

    fn now(&self) -> Duration {
        locked(&self.state).now
    }

    fn sleep_until(&self, deadline: Duration) -> BoxFuture<()> {
        let timer = Arc::new(Timer::default());
        let mut state = locked(&self.state);
        state.next_timer += 1;
        let key = (deadline.max(state.now), state.next_timer);
        state.timers.insert(key, Waker::from(timer.clone()));
        Box::pin(Sleep(timer))
    }

    fn watch(&self, interrupt: Interrupt) -> io::Result<Box<dyn InterruptWatch>> {
        Ok(Box::new(Watch { interrupt, watchers: self.watchers.clone() }))
    }

    fn has_threads(&self) -> bool {
        false
    }
}

struct Watch {
    interrupt: Interrupt,
    watchers: Watchers,
}

impl InterruptWatch for Watch {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interrupt.take() > 0 {
            return Poll::Ready(Ok(()));
        }
        locked(&self.watchers).push(context.waker().clone());
        Poll::Pending
    }
}

/// A timer is a waker that remembers that it was woken.
#[derive(Default)]
struct Timer {
    state: Mutex<TimerState>,
}

#[derive(Default)]
struct TimerState {
    fired: bool,
    waker: Option<Waker>,
}

struct Sleep(Arc<Timer>);

impl Wake for Timer {
    fn wake(self: Arc<Self>) {
        let waker = {
            let mut state = locked(&self.state);
            state.fired = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = locked(&self.0.state);
        if state.fired {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}
