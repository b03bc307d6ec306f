use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use doorbell::{DriverOptions, Runtime};
use doorbell_device::inprocess::{Activity, InProcess, Run, SoftController};
use doorbell_device::{Device, DeviceError};
use doorbell_emulator::{Controller, ControllerConfig, Subsystem, emulated};

use crate::SimRuntime;

/// How much virtual time may pass in one [`World::run`] before it is taken for a hang.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// What a world runs: a device of whatever controller.
trait Stepped: Send + Sync {
    fn step(&self, now: Duration) -> Activity;
}

impl<C: SoftController> Stepped for InProcess<C> {
    fn step(&self, now: Duration) -> Activity {
        InProcess::step(self, now)
    }
}

/// A thread's worth of driver, devices and time.
pub struct World {
    runtime: Arc<SimRuntime>,
    devices: Mutex<Vec<Arc<dyn Stepped>>>,
    /// A device did something since those who wait for interrupts were last woken.
    worked: AtomicBool,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A world without devices, at time 0.
    #[must_use]
    pub fn new() -> Self {
        Self { runtime: Arc::new(SimRuntime::default()), devices: Mutex::default(), worked: AtomicBool::new(false) }
    }

    /// A new controller of a subsystem, which this world runs.
    ///
    /// # Errors
    /// If the controller cannot be made as configured.
    pub fn device(
        &self,
        subsystem: &Subsystem,
        config: ControllerConfig,
    ) -> Result<Arc<InProcess<Controller>>, DeviceError> {
        let device = emulated(subsystem, config, Run::Stepped)?;
        self.add(&device);
        Ok(device)
    }

    /// Runs any other software controller along with everything else; it was made with [`Run::Stepped`].
    pub fn add<C: SoftController>(&self, device: &Arc<InProcess<C>>) {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner).push(device.clone());
    }

    /// The options to drive a device with, in this world's time: two CPUs, depth 32.
    pub fn options(&self, device: Arc<dyn Device>) -> DriverOptions {
        DriverOptions::new(device).runtime(self.runtime.clone()).cpus(2).depth(32)
    }

    /// The driver's surroundings.
    #[must_use]
    pub fn runtime(&self) -> &Arc<SimRuntime> {
        &self.runtime
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.runtime.now()
    }

    /// Waits in virtual time.
    pub async fn sleep(&self, delay: Duration) {
        self.runtime.sleep_until(self.now() + delay).await;
    }

    /// Lets the devices do what they can, and nothing else; whether they did anything. Interrupts are raised, and found
    /// by the next [`run`](Self::run) or [`settle`](Self::settle).
    pub fn step_devices(&self) -> bool {
        self.step().worked
    }

    /// Looks at all interrupts again, since something other than a device of this world has raised one.
    pub fn notice_interrupts(&self) {
        self.runtime.wake_watchers();
    }

    fn step(&self) -> Activity {
        let now = self.now();
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = Activity::default();
        for device in devices {
            let activity = device.step(now);
            all.worked |= activity.worked;
            all.wake_at = [all.wake_at, activity.wake_at].into_iter().flatten().min();
        }
        self.worked.fetch_or(all.worked, Ordering::SeqCst);
        all
    }

    /// Runs a future to its end, and everything else along with it.
    ///
    /// # Panics
    /// If nothing will ever happen any more and the future is not done, or if a day of virtual time passes.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let main = Arc::new(Main { woken: AtomicBool::new(true) });
        let waker = Waker::from(main.clone());
        let deadline = self.now() + PATIENCE;
        loop {
            if main.woken.swap(false, Ordering::SeqCst)
                && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return value;
            }
            let busy = self.turn();
            if !busy && !main.woken.load(Ordering::SeqCst) {
                assert!(self.pass_time(), "nothing will ever happen any more, and the future is not done");
            }
            assert!(self.now() < deadline, "a day of virtual time has passed, and the future is not done");
        }
    }

    /// Runs everything but a future of the caller's, until there is nothing left to do at this moment.
    pub fn settle(&self) {
        while self.turn() {}
    }

    /// Lets everybody do what is to be done now, once; whether there was anything. For a caller that runs its futures
    /// itself.
    pub fn turn(&self) -> bool {
        self.turn_and(|| ())
    }

    /// As [`turn`](Self::turn), and calls `after` each thing that is done: a look at a background task, or at all devices.
    pub fn turn_and(&self, mut after: impl FnMut()) -> bool {
        let tasks = self.runtime.run_tasks(&mut after);
        self.step();
        let worked = self.worked.swap(false, Ordering::SeqCst);
        if worked {
            self.runtime.wake_watchers();
        }
        after();
        tasks || worked
    }

    /// On to the next deadline of anybody; `false` if there is none.
    fn pass_time(&self) -> bool {
        let Some(next) = self.next_deadline() else { return false };
        self.runtime.advance(next);
        true
    }

    /// When somebody next has something to do, if nothing else happens; to be asked when there is nothing to do now.
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.runtime.next_deadline(), self.step().wake_at].into_iter().flatten().min()
    }

    /// Lets time pass, and wakes who slept until then.
    pub fn advance(&self, to: Duration) {
        self.runtime.advance(to);
    }

    /// Runs a device no longer.
    pub fn unplug(&self, device: &Arc<InProcess<Controller>>) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|other| !std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(device)));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.runtime.close();
    }
}

struct Main {
    woken: AtomicBool,
}

impl Wake for Main {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
    }
}
