use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Wake;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::doze::Doze;
use super::sync::{AtomicBool, Mutex, MutexGuard, PoisonError};
use super::{Activity, DmaSpace, Host, Run, SoftController};
use crate::{DeviceError, HostMemory, Interrupt};

/// Where the doorbells begin (NVMe over PCIe Transport, Submission Queue 0 Tail Doorbell).
pub(super) const DOORBELLS: usize = 0x1000;
/// How long an idle controller thread looks for doorbells before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// How long it sleeps at most.
const SLEEP: Duration = Duration::from_secs(1);
/// How long a reset waits for what is under way, and how often it looks.
const REST: Duration = Duration::from_secs(60);
const REST_LOOK: Duration = Duration::from_micros(200);
/// How often the controller runs before others have a chance at its lock and at the memory's.
const RUNS: usize = 64;

/// The device as its doorbells and its thread know it.
pub(super) struct Shared<C> {
    pub(super) address: String,
    pub(super) run: Run,
    pub(super) space: Arc<DmaSpace>,
    pub(super) doorbells: HostMemory,
    pub(super) register_space: usize,
    pub(super) interrupts: Vec<Interrupt>,
    controller: Mutex<C>,
    /// How many callers want the controller; its thread makes way for them, which a mutex does not ask for.
    callers: AtomicU32,
    /// Nanoseconds; only used when the caller tells the time.
    told_time: AtomicU64,
    started: Instant,
    stopped: AtomicBool,
    doze: Doze,
    /// The controller's own thread.
    server: OnceLock<ThreadId>,
    /// The controller wants to run.
    alarmed: AtomicBool,
}

impl<C: SoftController> Shared<C> {
    pub(super) fn new(address: &str, controller: C, interrupts: u32, run: Run) -> Result<Self, DeviceError> {
        let register_space = controller.register_space();
        Ok(Self {
            address: address.to_owned(),
            run,
            space: Arc::new(DmaSpace::new()),
            doorbells: HostMemory::allocate(register_space.saturating_sub(DOORBELLS))?,
            register_space,
            interrupts: (0..interrupts).map(|_| Interrupt::new()).collect::<Result<_, _>>()?,
            controller: Mutex::new(controller),
            callers: AtomicU32::new(0),
            told_time: AtomicU64::new(0),
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            doze: Doze::new(),
            server: OnceLock::new(),
            alarmed: AtomicBool::new(false),
        })
    }

    /// The controller, for a caller of the device: before its thread, should both want it.
    pub(super) fn lock(&self) -> MutexGuard<'_, C> {
        if self.run != Run::Threaded {
            return self.lock_in_turn();
        }
        self.callers.fetch_add(1, Ordering::Relaxed);
        let guard = self.lock_in_turn();
        self.callers.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    fn lock_in_turn(&self) -> MutexGuard<'_, C> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing runs from now on.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.doze.wake(&self.controller);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    pub(super) fn tell_time(&self, now: Duration) {
        self.told_time.fetch_max(now.as_nanos() as u64, Ordering::Relaxed);
    }

    fn now(&self) -> Duration {
        match self.run {
            Run::Threaded => self.started.elapsed(),
            Run::Inline | Run::Stepped => Duration::from_nanos(self.told_time.load(Ordering::Relaxed)),
        }
    }

    /// What the controller reaches of its host, for as long as `f` runs.
    pub(super) fn with_host<R>(&self, f: impl FnOnce(&Host<'_>) -> R) -> R {
        let raise = |vector: u16| {
            if let Some(interrupt) = self.interrupts.get(usize::from(vector)) {
                interrupt.raise();
            }
        };
        f(&Host { dma: &self.space.view(), doorbells: &self.doorbells, interrupt: &raise })
    }

    /// Runs the controller until it has nothing more to do, or `give_up` says so.
    fn run_until(&self, controller: &mut C, now: Duration, mut give_up: impl FnMut() -> bool) -> Activity {
        self.with_host(|host| {
            let mut worked = false;
            loop {
                let activity = controller.run(host, now);
                worked |= activity.worked;
                if !activity.worked || give_up() || (self.run == Run::Inline && controller.is_settled()) {
                    return Activity { worked, ..activity };
                }
            }
        })
    }

    /// Runs the controller until it has nothing more to do.
    pub(super) fn settle(&self) -> Activity {
        let mut controller = self.lock();
        let now = self.now();
        self.run_until(&mut controller, now, || false)
    }

    /// Something changed that the controller should look at.
    #[inline]
    pub(super) fn kick(&self) {
        match self.run {
            Run::Threaded => self.doze.kick(&self.controller),
            // An orphaned doorbell of a device that was dropped does nothing.
            Run::Inline if self.is_stopped() => {}
            Run::Inline => {
                self.settle();
            }
            Run::Stepped => {}
        }
    }

    /// The life of the controller's own thread.
    pub(super) fn serve(&self) {
        let mut idle_since = None;
        let _ = self.server.set(std::thread::current().id());
        while !self.is_stopped() {
            let now = self.now();
            let mut runs = 0;
            let activity = self.run_until(&mut self.lock_in_turn(), now, || {
                runs += 1;
                runs == RUNS || self.is_wanted()
            });
            self.make_way();
            if activity.worked {
                idle_since = None;
            } else if now.saturating_sub(*idle_since.get_or_insert(now)) < SPIN {
                std::hint::spin_loop();
            } else {
                self.doze.sleep(self.lock_in_turn(), |controller| self.last_look(controller));
                idle_since = None;
            }
        }
    }

    /// What the thread does between saying that it sleeps and sleeping: says how long, unless there was work after all.
    fn last_look(&self, controller: &mut C) -> Result<Duration, ()> {
        let now = self.now();
        self.alarmed.store(false, Ordering::SeqCst);
        let activity = self.run_until(controller, now, || true);
        let is_called = controller.fall_asleep() || self.alarmed.load(Ordering::SeqCst);
        if activity.worked || self.is_stopped() || is_called {
            return Err(());
        }
        Ok(activity.wake_at.map_or(SLEEP, |at| at.saturating_sub(now).min(SLEEP)))
    }

    fn make_way(&self) {
        while self.callers.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }

    /// Whether somebody waits for the controller or its memory.
    fn is_wanted(&self) -> bool {
        self.callers.load(Ordering::Relaxed) > 0 || self.space.is_to_change()
    }

    /// Whether an access is within the registers and aligned.
    pub(super) fn check(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        let size = self.register_space;
        if !offset.is_multiple_of(len) || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DeviceError::BadRegister { offset, len, size });
        }
        Ok(())
    }

    pub(super) fn read(&self, offset: usize, len: usize) -> Result<u64, DeviceError> {
        self.check(offset, len)?;
        // Reading a doorbell is undefined by the specification; like most controllers, this one gives 0.
        Ok(if offset < DOORBELLS { self.lock().read_register(offset, len) } else { 0 })
    }

    pub(super) fn write(&self, offset: usize, len: usize, value: u64) -> Result<(), DeviceError> {
        self.check(offset, len)?;
        if let Some(at) = offset.checked_sub(DOORBELLS) {
            self.ring(at / 4, value as u32);
            return Ok(());
        }
        {
            let mut controller = self.lock();
            self.with_host(|host| controller.write_register(host, offset, len, value));
        }
        self.kick();
        Ok(())
    }

    #[inline]
    pub(super) fn ring(&self, dword: usize, value: u32) {
        if let Some(doorbell) = self.doorbells.dwords().get(dword) {
            doorbell.store(value, Ordering::Release);
        }
        match self.run {
            Run::Inline if self.is_stopped() => {}
            Run::Inline => {
                let mut controller = self.lock();
                if controller.heeds(dword) {
                    self.run_until(&mut controller, self.now(), || false);
                }
            }
            Run::Threaded | Run::Stepped => self.kick(),
        }
    }

    /// Resets the function, and waits until the controller touches no memory any more.
    pub(super) fn reset(&self) -> Result<(), DeviceError> {
        let mut controller = self.lock();
        controller.function_reset();
        for doorbell in self.doorbells.dwords() {
            doorbell.store(0, Ordering::Release);
        }
        let begun = Instant::now();
        while !controller.is_at_rest() {
            if begun.elapsed() > REST {
                return Err(DeviceError::Gone(format!("what it had under way did not end within {REST:?}")));
            }
            drop(controller);
            match self.run {
                Run::Threaded => self.kick(),
                Run::Inline | Run::Stepped => drop(self.settle()),
            }
            std::thread::sleep(REST_LOOK);
            controller = self.lock();
        }
        Ok(())
    }
}

/// Wakes the thread of a controller.
pub(super) struct Alarm<C> {
    shared: Weak<Shared<C>>,
}

impl<C: SoftController> Alarm<C> {
    pub(super) fn set(shared: &Arc<Shared<C>>) {
        if shared.run == Run::Threaded {
            let alarm = Arc::new(Self { shared: Arc::downgrade(shared) });
            shared.lock().set_waker(alarm.into());
        }
    }
}

impl<C: SoftController> Wake for Alarm<C> {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Some(shared) = self.shared.upgrade() else { return };
        // The thread itself may be the one that wakes, with the controller locked: it looks before it sleeps.
        shared.alarmed.store(true, Ordering::SeqCst);
        if shared.server.get() != Some(&std::thread::current().id()) {
            shared.doze.kick(&shared.controller);
        }
    }
}
