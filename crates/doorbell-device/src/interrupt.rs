use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};

use crate::DeviceError;

/// One interrupt vector, as an eventfd: what VFIO, vfio-user and an in-process controller can all signal.
///
/// Cheap to clone. Wait for it by polling its descriptor for reading (it never blocks), then [`take`](Self::take).
#[derive(Clone)]
pub struct Interrupt {
    inner: Arc<Inner>,
}

struct Inner {
    /// An eventfd, or, with `sources`, an epoll that waits for all of theirs.
    fd: OwnedFd,
    sources: Box<[Interrupt]>,
    /// What is done when an interrupt was handled; see [`Interrupt::handled`].
    on_handled: Option<OnHandled>,
    /// Whether `watchers` has any: they are for tests, and cost the others one load.
    watched: AtomicBool,
    /// Each with the number of whoever added it.
    watchers: RwLock<Vec<(usize, Watcher)>>,
}

/// Sees what happens to a vector; when it is raised, `false` loses the interrupt.
type Watcher = Box<dyn Fn(Signal) -> bool + Send + Sync>;

type OnHandled = Box<dyn Fn() + Send + Sync>;

/// What happens to a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// [`Interrupt::raise`] was called. What the kernel or another process signals is not seen.
    Raised,
    /// [`Interrupt::take`] found that it was signalled so often.
    Taken(u64),
}

impl Interrupt {
    /// A new vector, not signalled.
    pub fn new() -> Result<Self, DeviceError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(DeviceError::io("eventfd"))?;
        Ok(Self::from_fd(fd))
    }

    /// A vector behind an eventfd that somebody else made. It must be non-blocking.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self::made(fd, Box::default(), None)
    }

    /// A new level-triggered vector: after it was signalled it stays silent until what is called by
    /// [`handled`](Self::handled) unmasks it.
    pub fn level_triggered(unmask: impl Fn() + Send + Sync + 'static) -> Result<Self, DeviceError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(DeviceError::io("eventfd"))?;
        Ok(Self::level_triggered_from(fd, unmask))
    }

    /// The same behind an eventfd that somebody else made.
    pub(crate) fn level_triggered_from(fd: OwnedFd, unmask: impl Fn() + Send + Sync + 'static) -> Self {
        Self::made(fd, Box::default(), Some(Box::new(unmask)))
    }

    /// One that is signalled for as long as any of `sources` is: to wait for all of them at once. Taking it says how many
    /// are, and leaves them signalled.
    pub fn any_of(sources: impl Into<Box<[Interrupt]>>) -> Result<Self, DeviceError> {
        let sources = sources.into();
        let fd = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(DeviceError::io("epoll_create"))?;
        for source in &sources {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&fd, source, data, epoll::EventFlags::IN).map_err(DeviceError::io("epoll_ctl"))?;
        }
        Ok(Self::made(fd, sources, None))
    }

    fn made(fd: OwnedFd, sources: Box<[Interrupt]>, on_handled: Option<OnHandled>) -> Self {
        let (watched, watchers) = (AtomicBool::new(false), RwLock::default());
        Self { inner: Arc::new(Inner { fd, sources, on_handled, watched, watchers }) }
    }

    /// Signals it, as the device does.
    pub fn raise(&self) {
        if self.tell(Signal::Raised) {
            if let Some(source) = self.inner.sources.first() {
                return source.raise();
            }
            // The only failure is a counter about to overflow: then it is signalled already.
            let _ = rustix::io::write(&self.inner.fd, &1u64.to_ne_bytes());
        }
    }

    /// How often it was signalled since the last call; 0 when it was not.
    pub fn take(&self) -> u64 {
        let count = match &*self.inner.sources {
            [] => self.read(),
            sources => sources.iter().filter(|source| source.is_raised()).count() as u64,
        };
        if count != 0 {
            self.tell(Signal::Taken(count));
        }
        count
    }

    /// Says that what the interrupt was about has been done. One that is level-triggered can be signalled again from
    /// then on; any other can anyway.
    #[inline]
    pub fn handled(&self) {
        if let Some(unmask) = &self.inner.on_handled {
            unmask();
        }
    }

    /// Whether it is signalled. It stays so until it is taken.
    pub fn is_raised(&self) -> bool {
        let mut wait = [PollFd::new(&self.inner.fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut wait, Some(&now)), Ok(1))
    }

    /// Waits until it is signalled, on the calling thread; `false` when the time is up first.
    pub fn wait(&self, limit: std::time::Duration) -> bool {
        let mut wait = [PollFd::new(&self.inner.fd, PollFlags::IN)];
        let limit = Timespec::try_from(limit).ok();
        matches!(poll(&mut wait, limit.as_ref()), Ok(1))
    }

    /// The eventfd to write to in order to signal it.
    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        self.inner.sources.first().map_or(self.inner.fd.as_fd(), Interrupt::event_fd)
    }

    fn read(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::io::read(&self.inner.fd, &mut bytes) {
            Ok(8) => u64::from_ne_bytes(bytes),
            _ => 0,
        }
    }

    /// Adds a watcher to this vector and all its clones, unless there is one of the same `owner`. When the vector is
    /// raised, a watcher that says `false` loses the interrupt.
    pub(crate) fn watch(&self, owner: usize, watcher: impl Fn(Signal) -> bool + Send + Sync + 'static) {
        let mut watchers = self.inner.watchers.write().unwrap_or_else(PoisonError::into_inner);
        if watchers.iter().all(|(other, _)| *other != owner) {
            watchers.push((owner, Box::new(watcher)));
            self.inner.watched.store(true, Ordering::Release);
        }
    }

    /// Whether no watcher objects.
    #[inline]
    fn tell(&self, signal: Signal) -> bool {
        !self.inner.watched.load(Ordering::Acquire) || self.ask_watchers(signal)
    }

    #[cold]
    fn ask_watchers(&self, signal: Signal) -> bool {
        let watchers = self.inner.watchers.read().unwrap_or_else(PoisonError::into_inner);
        // All of them are told: what one loses, the device did raise.
        watchers.iter().fold(true, |passed, (_, watcher)| watcher(signal) && passed)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.fd.as_fd()
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupt").field("fd", &self.inner.fd).finish()
    }
}
