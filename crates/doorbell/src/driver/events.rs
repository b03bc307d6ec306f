//! Asynchronous events: kept outstanding, their log pages read, and told to whoever listens.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use event_listener::Event;
use nvme_spec::event::{AsyncEvent, EventKind, EventType};
use nvme_spec::log::{ErrorEntry, HealthLog, LogId, ReservationNotification};
use nvme_spec::{AdminOpcode, NSID_ALL};
use zerocopy::FromBytes;

use super::core::Core;
use crate::error::RequestError;
use crate::queue::{Exchange, Refused, Token};

/// Asynchronous Event Requests that are kept outstanding, where the controller takes as many.
const OUTSTANDING: u16 = 4;
/// How often a log page that cannot be read is tried, ever more slowly: 100 s in all.
const LOG_ATTEMPTS: u32 = 10;
/// Events that a listener may be behind; older ones are dropped, and counted.
const BACKLOG: usize = 1024;

/// Something that happened to a controller.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ControllerEvent {
    /// The controller reports an error of its own or of the host's. The newest entry of its error log, if it could be
    /// read.
    Error(EventKind, Option<Box<ErrorEntry>>),
    /// Its health changed. The health log, if it could be read.
    Health(EventKind, Option<Box<HealthLog>>),
    /// Another notice, such as the start of a firmware activation. Its log page was read.
    Notice(EventKind),
    /// A namespace is there that was not, or not under this NSID.
    NamespaceAdded(u32),
    /// A namespace changed: its size, or what it reports.
    NamespaceChanged(u32),
    /// A namespace is gone.
    NamespaceRemoved(u32),
    /// Something happened to reservations.
    Reservation(Box<ReservationNotification>),
    /// A sanitize operation ended.
    Sanitize(EventKind),
    /// An event of the vendor's, or one that this version does not know.
    Other(AsyncEvent),
    /// The listener was too slow: so many events were dropped before the next.
    Missed(u64),
    /// It failed, was reset, and is as it was. What happened to namespaces meanwhile is told apart.
    Recovered,
    /// The controller takes no more commands; the last event.
    Gone,
}

/// Hears of a controller's events, from its making on: [`NvmeDriver::events`](crate::NvmeDriver::events).
pub struct EventListener {
    inner: Arc<Listener>,
}

#[derive(Default)]
struct Listener {
    backlog: Mutex<Backlog>,
    event: Event,
}

#[derive(Default)]
struct Backlog {
    events: VecDeque<ControllerEvent>,
    missed: u64,
    ended: bool,
}

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventListener {
    /// The next event; after [`ControllerEvent::Gone`], nothing more.
    pub async fn next(&mut self) -> Option<ControllerEvent> {
        loop {
            let listener = self.inner.event.listen();
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.inner.lock().ended {
                return None;
            }
            listener.await;
        }
    }

    /// The next event, if there is one by now.
    pub fn try_next(&mut self) -> Option<ControllerEvent> {
        let mut backlog = self.inner.lock();
        match std::mem::take(&mut backlog.missed) {
            0 => backlog.events.pop_front(),
            missed => Some(ControllerEvent::Missed(missed)),
        }
    }
}

/// Those who listen.
#[derive(Default)]
pub(crate) struct Events {
    listeners: Mutex<Vec<Weak<Listener>>>,
    /// Events so far, by type.
    counts: Mutex<[u64; 8]>,
    /// Dword 0 of events that are being dealt with.
    at_hand: Mutex<Vec<u32>>,
}

impl Events {
    pub(crate) fn listen(&self, ended: bool) -> EventListener {
        let inner = Arc::new(Listener::default());
        inner.lock().ended = ended;
        self.lock().push(Arc::downgrade(&inner));
        EventListener { inner }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Listener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: &ControllerEvent) {
        self.lock().retain(|listener| {
            let Some(listener) = listener.upgrade() else { return false };
            {
                let mut backlog = listener.lock();
                if backlog.events.len() == BACKLOG {
                    backlog.events.pop_front();
                    backlog.missed = backlog.missed.saturating_add(1);
                }
                backlog.events.push_back(event.clone());
                backlog.ended |= matches!(event, ControllerEvent::Gone);
            }
            listener.event.notify(usize::MAX);
            true
        });
    }

    fn at_hand(&self) -> MutexGuard<'_, Vec<u32>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events that came, and were not dealt with to the end.
    pub(crate) fn unhandled(&self) -> Vec<u32> {
        self.at_hand().clone()
    }

    fn count(&self, of: EventType) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(usize::from(of.0)) {
            *count = count.saturating_add(1);
        }
    }

    /// Events so far, by type.
    pub(crate) fn counts(&self) -> [u64; 8] {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// How many event requests are kept outstanding.
    pub(crate) fn event_requests(&self) -> usize {
        self.identify.max_async_events().min(OUTSTANDING).into()
    }

    /// Keeps so many event requests more outstanding.
    pub(crate) fn request_events(self: &Arc<Self>, count: usize) {
        for _ in 0..count {
            self.options.runtime.spawn("async events", Box::pin(self.clone().watch_events()));
        }
    }

    /// The life of one outstanding Asynchronous Event Request.
    async fn watch_events(self: Arc<Self>) {
        while self.check_running().is_ok() {
            match self.next_event().await {
                Ok(event) => self.deal_with(event).await,
                Err(RequestError::Nvme(error)) => {
                    if error.status == nvme_spec::Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED {
                        tracing::warn!("the controller takes fewer event requests than it says");
                        return;
                    }
                    tracing::warn!(%error, "an event request failed, trying again");
                    self.pause(Duration::from_secs(1)).await;
                }
                // The request went with the controller's former life.
                Err(RequestError::Interrupted) => {}
                Err(_) => return,
            }
        }
    }

    async fn next_event(&self) -> Result<AsyncEvent, RequestError> {
        let mut exchange = Exchange::new(&self.admin.queue);
        let command = AdminOpcode::ASYNC_EVENT_REQUEST.command();
        let started = poll_fn(|context| {
            exchange.poll_start(context, self.admin.notes(), |_, _| Ok::<_, std::convert::Infallible>(command))
        });
        match started.await {
            Ok(()) => {}
            Err(Refused::Lost(lost)) => return Err(lost.into()),
            Err(Refused::Build(never)) => match never {},
        }
        self.event_of(exchange).await
    }

    /// The event that answers a request. From the moment in which the answer is claimed, it is at hand.
    async fn event_of(&self, mut exchange: Exchange<'_>) -> Result<AsyncEvent, RequestError> {
        let wait = poll_fn(|context| {
            let mut at_hand = self.events.at_hand();
            exchange.poll_result(context).map_ok(|completion| {
                at_hand.push(completion.dw0);
                AsyncEvent::from(completion.dw0)
            })
        });
        wait.await
    }

    /// Goes on with an event request of the process before.
    pub(crate) async fn watch_inherited_events(self: Arc<Self>, token: Token) {
        let exchange = Exchange::started(&self.admin.queue, token, None);
        if let Ok(event) = self.event_of(exchange).await {
            self.deal_with(event).await;
        }
        self.watch_events().await;
    }

    /// Deals with an event that is at hand.
    pub(crate) async fn deal_with(self: &Arc<Self>, event: AsyncEvent) {
        self.handle_event(event).await;
        let mut at_hand = self.events.at_hand();
        if let Some(index) = at_hand.iter().position(|dw0| *dw0 == u32::from(event)) {
            at_hand.swap_remove(index);
        }
    }

    /// An event of the process before is at hand.
    pub(crate) fn inherit_event(self: &Arc<Self>, dw0: u32) {
        self.events.at_hand().push(dw0);
        let core = self.clone();
        self.options
            .runtime
            .spawn("inherited event", Box::pin(async move { core.deal_with(AsyncEvent::from(dw0)).await }));
    }

    async fn handle_event(self: &Arc<Self>, event: AsyncEvent) {
        let kind = event.kind();
        tracing::info!(%kind, "event");
        self.events.count(event.event_type());
        match event.event_type() {
            EventType::ERROR => {
                let entry = self.read_log::<ErrorEntry, 64>(LogId::ERROR).await;
                self.events.tell(&ControllerEvent::Error(kind, entry));
            }
            EventType::SMART => {
                let health = self.read_log::<HealthLog, 512>(LogId::SMART).await;
                self.events.tell(&ControllerEvent::Health(kind, health));
            }
            EventType::NOTICE if kind == EventKind::NAMESPACE_ATTRIBUTE_CHANGED => self.namespaces_changed().await,
            EventType::NOTICE => {
                self.clear(event).await;
                self.events.tell(&ControllerEvent::Notice(kind));
            }
            EventType::IO_COMMAND_SET if kind == EventKind::RESERVATION_LOG_PAGE_AVAILABLE => {
                self.read_reservation_notices().await;
            }
            EventType::IO_COMMAND_SET => {
                self.clear(event).await;
                self.events.tell(&ControllerEvent::Sanitize(kind));
            }
            _ => {
                self.clear(event).await;
                self.events.tell(&ControllerEvent::Other(event));
            }
        }
    }

    /// Reads a log page, which clears its event: until then the controller sends no other of its type, so a passing
    /// failure is tried again for some time.
    async fn read_log<T: FromBytes, const LEN: usize>(&self, lid: LogId) -> Option<Box<T>> {
        let mut bytes = vec![0; LEN];
        let mut pause = Duration::from_millis(100);
        for _ in 0..LOG_ATTEMPTS {
            match self.admin.log_page(lid, NSID_ALL, false, 0, &mut bytes).await {
                Ok(()) => return T::read_from_bytes(&bytes).ok().map(Box::new),
                Err(error) => {
                    tracing::warn!(%lid, %error, "an event's log page could not be read");
                    if matches!(error, RequestError::Nvme(error) if error.do_not_retry) {
                        return None;
                    }
                }
            }
            self.pause(pause).await;
            if self.check_running().is_err() {
                return None;
            }
            pause = pause.saturating_mul(2);
        }
        None
    }

    /// Reads the first bytes of whatever log page an event names: that clears it.
    async fn clear(&self, event: AsyncEvent) {
        if event.log_page().0 != 0 {
            let _ = self.read_log::<[u8; 512], 512>(event.log_page()).await;
        }
    }

    /// Each reading gives one notice and removes it; the page says how many are left.
    async fn read_reservation_notices(&self) {
        // A device that always says that there is one more is stopped after as many as its counter can hold apart.
        for _ in 0..=u8::MAX {
            let notice = self.read_log::<ReservationNotification, 64>(LogId::RESERVATION_NOTIFICATION).await;
            let Some(notice) = notice else { return };
            if notice.kind.0 == 0 {
                return;
            }
            let more = notice.available != 0;
            self.events.tell(&ControllerEvent::Reservation(notice));
            if !more {
                return;
            }
        }
    }
}
