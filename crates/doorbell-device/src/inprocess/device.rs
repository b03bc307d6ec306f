use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Activity, DmaSpace, Host, SoftController};
use crate::{Device, DeviceError, DmaMemory, Doorbell, HostMemory, Interrupt, MapRequest};

/// Where the doorbells begin (NVMe over PCIe Transport, Submission Queue 0 Tail Doorbell).
const DOORBELLS: usize = 0x1000;
/// How long an idle controller thread looks for doorbells before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// When the controller runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// On a thread of its own, which sleeps while there is nothing to do.
    Threaded,
    /// In the caller's own call, at each doorbell and register write. Deterministic.
    Inline,
    /// Only in [`InProcess::step`]. Deterministic, and completions come when told.
    Stepped,
}

/// A [`SoftController`] as a [`Device`].
pub struct InProcess<C: SoftController> {
    shared: Arc<Shared<C>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared<C> {
    address: String,
    run: Run,
    controller: Mutex<C>,
    space: Arc<DmaSpace>,
    doorbells: HostMemory,
    register_space: usize,
    interrupts: Vec<Interrupt>,
    /// Nanoseconds; only used when the caller tells the time.
    told_time: AtomicU64,
    started: Instant,
    stop: AtomicBool,
    asleep: AtomicBool,
    wake: Condvar,
}

impl<C: SoftController> InProcess<C> {
    /// A device around `controller`, with `interrupts` vectors, known by `address`.
    pub fn new(address: &str, controller: C, interrupts: u32, run: Run) -> Result<Arc<Self>, DeviceError> {
        let register_space = controller.register_space();
        let doorbells = HostMemory::allocate(register_space.saturating_sub(DOORBELLS))?;
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            run,
            controller: Mutex::new(controller),
            space: Arc::new(DmaSpace::new()),
            doorbells,
            register_space,
            interrupts: (0..interrupts).map(|_| Interrupt::new()).collect::<Result<_, _>>()?,
            told_time: AtomicU64::new(0),
            started: Instant::now(),
            stop: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            wake: Condvar::new(),
        });
        let thread = if run == Run::Threaded {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name("doorbell-emulated".into());
            Some(thread.spawn(move || shared.serve()).map_err(DeviceError::io("starting a thread"))?)
        } else {
            None
        };
        Ok(Arc::new(Self { shared, thread: Mutex::new(thread) }))
    }

    /// Runs the controller until it has nothing more to do at `now`, and tells what it waits for.
    pub fn step(&self, now: Duration) -> Activity {
        self.shared.told_time.fetch_max(now.as_nanos() as u64, Ordering::Relaxed);
        self.shared.settle()
    }

    /// Gives access to the controller itself, to add a namespace or read a counter, and lets it run after.
    pub fn with_controller<R>(&self, f: impl FnOnce(&mut C) -> R) -> R {
        let result = f(&mut self.shared.lock());
        self.shared.kick();
        result
    }

    /// The memory the device was given.
    pub fn dma_space(&self) -> &Arc<DmaSpace> {
        &self.shared.space
    }
}

impl<C: SoftController> Drop for InProcess<C> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake_thread();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<C: SoftController> Shared<C> {
    fn lock(&self) -> MutexGuard<'_, C> {
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        match self.run {
            Run::Threaded => self.started.elapsed(),
            Run::Inline | Run::Stepped => Duration::from_nanos(self.told_time.load(Ordering::Relaxed)),
        }
    }

    fn with_host<R>(&self, f: impl FnOnce(&Host<'_>) -> R) -> R {
        let raise = |vector: u16| {
            if let Some(interrupt) = self.interrupts.get(usize::from(vector)) {
                interrupt.raise();
            }
        };
        f(&Host { dma: &self.space.view(), doorbells: &self.doorbells, interrupt: &raise })
    }

    fn run_once(&self, controller: &mut C) -> Activity {
        let now = self.now();
        self.with_host(|host| controller.run(host, now))
    }

    fn settle(&self) -> Activity {
        let mut controller = self.lock();
        let mut worked = false;
        loop {
            let activity = self.run_once(&mut controller);
            worked |= activity.worked;
            if !activity.worked {
                return Activity { worked, ..activity };
            }
        }
    }

    /// Something changed that the controller should look at.
    #[inline]
    fn kick(&self) {
        match self.run {
            Run::Threaded => {
                // The store that is to be seen comes before this load: a full barrier, paired with the one in `serve`.
                crate::mb();
                if self.asleep.load(Ordering::Relaxed) {
                    self.wake_thread();
                }
            }
            Run::Inline => {
                self.settle();
            }
            Run::Stepped => {}
        }
    }

    #[cold]
    fn wake_thread(&self) {
        let _controller = self.lock();
        self.wake.notify_all();
    }

    /// The life of the controller's own thread.
    fn serve(&self) {
        let mut idle_since = None;
        loop {
            let activity = self.run_once(&mut self.lock());
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if activity.worked {
                idle_since = None;
                continue;
            }
            let since = *idle_since.get_or_insert_with(Instant::now);
            if since.elapsed() < SPIN {
                std::hint::spin_loop();
                continue;
            }
            // Says that it sleeps, then looks once more: who rang before saw nothing to wake, and is seen here.
            let mut controller = self.lock();
            self.asleep.store(true, Ordering::Relaxed);
            crate::mb();
            let activity = self.run_once(&mut controller);
            if !activity.worked && !self.stop.load(Ordering::SeqCst) {
                let timeout = activity.wake_at.map_or(Duration::from_secs(1), |at| at.saturating_sub(self.now()));
                let (guard, _) = self.wake.wait_timeout(controller, timeout).unwrap_or_else(PoisonError::into_inner);
                drop(guard);
            }
            self.asleep.store(false, Ordering::Relaxed);
            idle_since = None;
        }
    }

    fn register(&self, offset: usize, len: usize) -> Result<(), DeviceError> {
        let size = self.register_space;
        if !offset.is_multiple_of(len) || offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(DeviceError::BadRegister { offset, len, size });
        }
        Ok(())
    }

    fn read(&self, offset: usize, len: usize) -> Result<u64, DeviceError> {
        self.register(offset, len)?;
        // Reading a doorbell is undefined by the specification; like most controllers, this one gives 0.
        Ok(if offset < DOORBELLS { self.lock().read_register(offset, len) } else { 0 })
    }

    fn write(&self, offset: usize, len: usize, value: u64) -> Result<(), DeviceError> {
        self.register(offset, len)?;
        if let Some(at) = offset.checked_sub(DOORBELLS) {
            if let Some(doorbell) = self.doorbells.dwords().get(at / 4) {
                doorbell.store(value as u32, Ordering::Release);
            }
        } else {
            let mut controller = self.lock();
            self.with_host(|host| controller.write_register(host, offset, len, value));
        }
        self.kick();
        Ok(())
    }
}

impl<C: SoftController> Device for InProcess<C> {
    fn address(&self) -> String {
        self.shared.address.clone()
    }

    fn read32(&self, offset: usize) -> Result<u32, DeviceError> {
        Ok(self.shared.read(offset, 4)? as u32)
    }

    fn read64(&self, offset: usize) -> Result<u64, DeviceError> {
        self.shared.read(offset, 8)
    }

    fn write32(&self, offset: usize, value: u32) -> Result<(), DeviceError> {
        self.shared.write(offset, 4, value.into())
    }

    fn write64(&self, offset: usize, value: u64) -> Result<(), DeviceError> {
        self.shared.write(offset, 8, value)
    }

    fn doorbell(&self, offset: usize) -> Result<Doorbell, DeviceError> {
        self.shared.register(offset, 4)?;
        let at = offset.checked_sub(DOORBELLS).ok_or(DeviceError::BadRegister {
            offset,
            len: 4,
            size: self.shared.register_space,
        })?;
        let doorbells = self.shared.doorbells.clone();
        if self.shared.run == Run::Stepped {
            return Doorbell::in_memory(doorbells, at).ok_or(DeviceError::Unsupported("that doorbell"));
        }
        let shared: Weak<Shared<C>> = Arc::downgrade(&self.shared);
        let dword = at / 4;
        Ok(Doorbell::from_fn(move |value| {
            if let Some(doorbell) = doorbells.dwords().get(dword) {
                doorbell.store(value, Ordering::Release);
            }
            // An upgrade is two locked instructions; a device that is gone needs no kick.
            if let Some(shared) = shared.upgrade() {
                shared.kick();
            }
        }))
    }

    fn map(&self, request: MapRequest) -> Result<DmaMemory, DeviceError> {
        self.shared.space.map(request)
    }

    fn interrupt_count(&self) -> u32 {
        self.shared.interrupts.len() as u32
    }

    fn interrupt(&self, vector: u32) -> Result<Interrupt, DeviceError> {
        let count = self.interrupt_count();
        self.shared.interrupts.get(vector as usize).cloned().ok_or(DeviceError::BadVector { vector, count })
    }

    fn reset(&self) -> Result<(), DeviceError> {
        self.shared.lock().function_reset();
        for doorbell in self.shared.doorbells.dwords() {
            doorbell.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}
